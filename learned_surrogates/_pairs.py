"""The pairs that the surrogate is fitted to, and what the metric says of them."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._island import island
from ._metric import Metric, MetricError
from ._recipe import Recipe
from ._replay import Replay, common_shape, pad_to
from ._task import Batch, Generator, Task
from ._transfer import send

# Predictions that the surrogate saw before it was fitted to them, which tell its error.
UNSEEN = 1024
# Value, error, noise: float64 if the surrogate is.
UNSEEN_BYTES = 24


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What the metric says of a batch: `(batch,)` each.

    Attributes:
        errors: of the predictions as they are decoded.
        expected: what the surrogate is fitted to: the mean over draws or, without draws, `errors`.
        noise: variance of `expected` around the true mean over draws, as the draws differ; 0
            without draws, and NaN with one, which does not tell.
        usable: which samples have both.
    """

    errors: Tensor
    expected: Tensor
    noise: Tensor
    usable: Tensor


class Pairs:
    """The model's predictions, remembered, and a random generator's: "local" and "global" data.

    Args:
        task: how predictions and targets are decoded and represented.
        metric: the true metric, as an error.
        generator: R of LS, for "global" data; None for "local".
        recipe: which data, how much of it, and how many draws.
    """

    def __init__(
        self, task: Task[Any], metric: Metric, generator: Generator | None, recipe: Recipe
    ):
        self.task = task
        self.metric = metric
        self.generator = generator
        self.recipe = recipe
        self.device = torch.device("cpu")
        self.random = torch.Generator().manual_seed(recipe.seed)
        self.replay = Replay(recipe.replay_capacity, recipe.replay_bytes)
        self.unseen = Replay(UNSEEN, UNSEEN_BYTES * UNSEEN)
        #: Of a sample of z and of a stored target, the largest so far; None before the first.
        self.shapes: tuple[torch.Size, torch.Size] | None = None
        self.skipped = 0
        self.metric_mean = float("nan")
        self.metric_seconds = 0.0

    def measure(self, batch: Batch) -> Measurement:
        """Evaluates the true metric on a batch, and on draws if the recipe has them."""
        start, before = time.perf_counter(), self.random.get_state()
        try:
            with island(self.device), torch.no_grad():
                errors, usable = self.metric(*self.task.decode(batch))
                draws = []
                for _ in range(self.recipe.draws):
                    drawn, drawn_usable = self.metric(*self.task.sample(batch, self.random))
                    draws.append(drawn)
                    usable = usable & drawn_usable
        except MetricError:
            self.random.set_state(before)
            raise
        self.metric_seconds = time.perf_counter() - start
        expected, noise = errors, torch.zeros_like(errors)
        if draws:
            expected = torch.stack(draws).mean(0)
            spread = (torch.stack(draws) - expected).square().sum(0)
            noise = spread / (len(draws) * (len(draws) - 1) or torch.nan)
        return Measurement(errors=errors, expected=expected, noise=noise, usable=usable)

    def observe(self, values: Tensor, z: Tensor, target: Tensor, measured: Measurement) -> None:
        """Remembers predictions and what they scored, before any fit to them.

        Samples without a finite value or a usable score are left out, and counted.

        Args:
            values: the surrogate's, `(batch,)`.
            z: `(batch, ...)`.
            target: stored targets, `(batch, ...)`.
            measured: what the metric said.
        """
        # All that a call reads back from the device, beside what the metric gets.
        kept = measured.usable & values.isfinite().cpu()
        self.skipped += int((~kept).sum())
        self.metric_mean = self.metric.value(measured.errors[measured.usable]).mean().item()
        with island(self.device):
            expected, noise = send(measured.expected, values), send(measured.noise, values)
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
        """Pairs of the random generator: z, stored targets, errors."""
        assert self.generator is not None
        seed = torch.randint(2**62, (), generator=self.random, device="cpu").item()
        pairs = self.generator(count, np.random.default_rng(int(seed)))
        errors, usable = self.metric(*pairs)
        self.skipped += int((~usable).sum())
        z, target = self.task.encode(*pairs, None if self.shapes is None else self.shapes[0])
        usable = usable.to(self.device)
        z, target, errors = (part.to(self.device)[usable] for part in (z, target, errors))
        return z, target, errors

    def draw(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Pairs for one step of the surrogate: z, stored targets, errors; None if there are none.

        As many local pairs as global ones: LS, Algorithm 1.
        """
        sources: list[tuple[Tensor, ...]] = []
        if self.recipe.data != "global" and self.replay.size:
            sources.append(self.replay.sample(self.recipe.batch_size, self.random))
        if self.recipe.data != "local":
            sources.append(self.generate(self.recipe.batch_size))
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

    def to(self, device: torch.device) -> None:
        self.device = device
        self.replay.to(device)
        self.unseen.to(device)


def _concatenate(parts: tuple[Tensor, ...]) -> Tensor:
    """Joins batches, padded with zeros to one shape."""
    shape = common_shape(parts)
    return torch.cat([pad_to(part, shape).to(parts[0]) for part in parts])


def _alike(a: tuple[torch.Size, ...], b: tuple[torch.Size, ...]) -> bool:
    """Whether z has as many classes or channels, and both as many dimensions."""
    return a[0][:1] == b[0][:1] and all(len(x) == len(y) for x, y in zip(a, b, strict=True))
