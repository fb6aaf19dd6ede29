"""The pairs that the surrogate is fitted to."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .._contract import hooks
from .._evaluation.measurement import Evaluation, Measurement
from .._evaluation.queue import Queue
from .._learning.replay_buffer import ReplayBuffer, common_shape, pad_to
from .._recipe import Recipe
from .._support.isolated import isolated
from .._support.processes import Stream
from .._support.transfer import send
from .._task import Task
from .generated import Generated

# Predictions that the surrogate saw before it was fitted to them, which tell its error.
UNSEEN = 1024
# Value, error, noise: float64 if the surrogate is.
UNSEEN_BYTES = 24


class Pairs:
    """The model's predictions, remembered, and a random generator's: "local" and "global" data.

    Args:
        task: how predictions and targets are decoded and represented.
        queue: of the metric's evaluations, for the generator's pairs.
        recipe: which data, how much of it, and the generator, R of LS.
    """

    def __init__(self, task: Task[Any], queue: Queue, recipe: Recipe):
        self.task = task
        self.queue = queue
        self.metric = queue.metric
        self.recipe = recipe
        self.device = torch.device("cpu")
        self.random = Stream()
        self.random.manual_seed(recipe.seed)
        self.replay = ReplayBuffer(recipe.replay.capacity, recipe.replay.bytes)
        self.unseen = ReplayBuffer(UNSEEN, UNSEEN_BYTES * UNSEEN)
        #: Of a sample of z and of a stored target, the largest so far; None before the first.
        self.shapes: tuple[torch.Size, torch.Size] | None = None
        self.generated = None
        if recipe.generator is not None:
            self.generated = Generated(recipe.generator, queue, self.random)
        self.skipped = 0
        self.metric_mean = float("nan")

    def observe(self, measured: Measurement, values: Tensor, z: Tensor, target: Tensor) -> None:
        """Remembers predictions and what they scored, before any fit to them.

        Samples without a finite value or a usable score are left out, and counted.

        Args:
            measured: what the metric said.
            values: the surrogate's, `(batch,)`.
            z: `(batch, ...)`.
            target: stored targets, `(batch, ...)`.
        """
        # All that a call reads back from the device, beside what the metric gets.
        kept = measured.usable & values.isfinite().cpu()
        self.skipped += int((measured.arrived & ~kept).sum())
        self.metric_mean = self.metric.value(as_decoded(measured)[measured.usable]).mean().item()
        with isolated(self.device):
            expected, noise = (send(each, values) for each in fitted_to(measured))
            if not kept.all():
                chosen = send(kept.nonzero()[:, 0], values.device)
                values, z, target = values[chosen], z[chosen], target[chosen]
                expected, noise = expected[chosen], noise[chosen]
            self.unseen.add(values, expected, noise)
            if self.recipe.data != "global":
                self.replay.add(z, target, expected)
                if self.replay.fields:
                    z, target, _ = self.replay.fields
                    self.shapes = (z.shape[1:], target.shape[1:])

    def generate(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Fresh pairs of the random generator: z, stored targets, errors."""
        assert self.generated is not None
        return self._encode(*self.generated.fresh(count))

    def _encode(
        self, pairs: tuple[Any, Any], evaluation: Evaluation
    ) -> tuple[Tensor, Tensor, Tensor]:
        z, target = hooks.encode(self.task, *pairs, self.shapes)
        measured = evaluation.measured
        if measured is None:
            none = z[:0].to(self.device)
            return none, target[:0].to(self.device), none.new_zeros(0)
        self.skipped += measured.failed
        usable = measured.usable.to(self.device)
        parts = z, target, as_decoded(measured)
        z, target, errors = (part.to(self.device)[usable] for part in parts)
        return z, target, errors

    def draw(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Pairs for one step of the surrogate: z, stored targets, errors; None if there are none.

        As many local pairs as global ones: LS, Algorithm 1.
        """
        sources: list[tuple[Tensor, ...]] = []
        if self.recipe.data != "global" and self.replay.size:
            sources.append(self.replay.sample(self.recipe.batch_size, self.random))
        if self.recipe.data != "local":
            assert self.generated is not None
            generated = self.generated.next(self.recipe.batch_size)
            if generated is not None:
                sources.append(self._encode(*generated))
        if not sources:
            return None
        z, target, errors = map(_concatenate, zip(*sources, strict=True))
        return z, target, errors

    def check(self, z: Tensor, target: Tensor) -> None:
        """Holds samples against the shapes seen so far.

        Raises:
            ValueError: they differ, and the task is not ragged.
        """
        shapes = (z.shape[1:], target.shape[1:])
        if self.shapes in (None, shapes) or (self.task.ragged and _alike(shapes, self.shapes)):
            return
        raise ValueError(
            "samples must keep the shape of the first call: prediction "
            f"{tuple(self.shapes[0])} and target {tuple(self.shapes[1])} without the batch; "
            f"now they are {tuple(shapes[0])} and {tuple(shapes[1])}"
        )

    def patience(self) -> AbstractContextManager[None]:
        """A context in which the generator's pairs are waited for."""
        return nullcontext() if self.generated is None else self.generated.waited_for()

    def forget(self) -> None:
        """Forgets the generator's pairs that are on their way."""
        if self.generated is not None:
            self.generated.clear()

    def to(self, device: torch.device) -> None:
        self.device = device
        self.replay.to(device)
        self.unseen.to(device)


def as_decoded(measured: Measurement) -> Tensor:
    """Errors `(batch,)` of predictions as they are decoded, which are asked about first."""
    return measured.by_sample[0]


def fitted_to(measured: Measurement) -> tuple[Tensor, Tensor]:
    """What values are fitted to, `(batch,)`: the mean over draws or, without, that as decoded.

    And its variance around the true mean over draws, as these differ: 0 without draws, and NaN with
    one, which does not tell.
    """
    decoded, draws = as_decoded(measured), measured.by_sample[1:]
    if not len(draws):
        return decoded, torch.zeros_like(decoded)
    if len(draws) == 1:
        return draws[0], torch.full_like(decoded, torch.nan)
    return draws.mean(0), draws.var(0) / len(draws)


def _concatenate(parts: tuple[Tensor, ...]) -> Tensor:
    """Joins batches, padded with zeros to one shape."""
    shape = common_shape(parts)
    return torch.cat([pad_to(part, shape).to(parts[0]) for part in parts])


def _alike(a: tuple[torch.Size, ...], b: tuple[torch.Size, ...]) -> bool:
    """Whether z has as many classes or channels, and both as many dimensions."""
    return a[0][:1] == b[0][:1] and all(len(x) == len(y) for x, y in zip(a, b, strict=True))
