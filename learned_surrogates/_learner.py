"""The surrogate and all that fits it: replay buffer, optimizer, random stream, counters."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ._metric import Metric, MetricError
from ._objective import objective
from ._recipe import Recipe
from ._replay import Replay, common_shape, pad_to
from ._stats import agreement
from ._task import Batch, Generator, Task

# Pairs that the surrogate saw before it was fitted to them, from which its error is reported.
UNSEEN = 1024


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What the metric says of a batch: `(batch,)` each.

    Attributes:
        errors: of the predictions as they are decoded.
        expected: what the surrogate is fitted to: the mean over draws or, without draws, `errors`.
        usable: which samples have both.
    """

    errors: Tensor
    expected: Tensor
    usable: Tensor


class Learner:
    """Fits a surrogate to a metric.

    Not an `nn.Module`, nor does it hold anything where the loss's `parameters()`, `buffers()` or
    `modules()` would find it: an optimizer given those would minimise the surrogate instead of
    fitting it, and wrappers for distributed training would synchronise or shard it.

    Args:
        task: how predictions and targets are represented.
        metric: the true metric, as an error.
        generator: R of LS, for "global" data; None for "local".
        surrogate: `S(z, y) -> (batch,)`; None takes the task's own, built from the first samples.
        recipe: how it is fitted.
    """

    def __init__(
        self,
        task: Task[Any],
        metric: Metric,
        generator: Generator | None,
        surrogate: nn.Module | None,
        recipe: Recipe,
    ):
        self.task = task
        self.metric = metric
        self.generator = generator
        self.recipe = recipe
        self.given = surrogate is not None
        self.surrogate = surrogate
        self.optimizer: torch.optim.Optimizer | None = None
        self.shapes: tuple[torch.Size, torch.Size] | None = None
        self.scale = torch.ones((), dtype=torch.float32, device="cpu")
        self.device = torch.device("cpu")
        self.random = torch.Generator().manual_seed(recipe.seed)
        self.replay = Replay(recipe.replay_capacity, recipe.replay_bytes)
        self.unseen = Replay(UNSEEN, 16 * UNSEEN)
        self.calls = 0
        self.updates = 0
        self.warm_up_left = recipe.warm_up_updates
        self.skipped = 0
        self.kept = torch.full((), torch.nan, dtype=torch.float32, device="cpu")
        self.penalty = torch.full((), torch.nan, dtype=torch.float32, device="cpu")
        self.metric_mean = float("nan")
        self.metric_seconds = 0.0
        self.update_seconds = 0.0

    # What the surrogate says

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """The surrogate, in the metric's units: `(batch,)` for z and expanded targets y."""
        assert self.surrogate is not None
        value: Tensor = self.surrogate(z, y)
        if value.shape != z.shape[:1]:
            raise ValueError(
                f"the surrogate must return one value a sample, shape {tuple(z.shape[:1])}; it "
                f"returned {tuple(value.shape)}"
            )
        return self.scale * value

    def expand(self, target: Tensor) -> Tensor:
        return self.task.expand(target).to(self.device, self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The surrogate's floating-point type: float32, unless one of another type was given."""
        parameters = self.surrogate.parameters() if self.surrogate is not None else iter(())
        return next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)

    @contextmanager
    def island(self) -> Iterator[None]:
        """Where the surrogate and the metric compute, whatever the user's context is.

        In their own precision; with tensors that may be kept; and out of reach of hooks on saved
        tensors, by which activation checkpointing would count ours among the user's.
        """
        with (
            torch.autocast(self.device.type, enabled=False),
            torch.inference_mode(False),
            saved_tensors_hooks(Tensor.detach, lambda tensor: tensor),
        ):
            yield

    def prepare(self, z: Tensor, target: Tensor, finite: Tensor) -> bool:
        """Builds the surrogate for the first samples; checks the shapes of all others.

        Args:
            z: `(batch, ...)`, detached.
            target: stored targets, `(batch, ...)`.
            finite: which samples of z may set the surrogate's scale, `(batch,)`.

        Returns:
            Whether there is a surrogate; there is none before the first finite sample.

        Raises:
            ValueError: a sample's shape differs from the first one's.
        """
        shapes = (z.shape[1:], target.shape[1:])
        if self.shapes is None:
            if not finite.any():
                return False
            self.attach(self.surrogate or self.make_surrogate(z[finite], target[finite]), shapes)
        elif shapes != self.shapes and not (self.task.ragged and _alike(shapes, self.shapes)):
            raise ValueError(
                "samples must keep the shape of the first call: prediction "
                f"{tuple(self.shapes[0])} and target {tuple(self.shapes[1])} without the batch; "
                f"now they are {tuple(shapes[0])} and {tuple(shapes[1])}"
            )
        return True

    def make_surrogate(self, z: Tensor, target: Tensor) -> nn.Module:
        """The task's surrogate for such samples, in float32, with weights from the seed."""
        default = torch.get_default_dtype()
        # The user's random stream is left alone: only the CPU generator is used, and restored.
        with self.island(), torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(self.recipe.seed)
            torch.set_default_dtype(torch.float32)
            try:
                y = self.task.expand(target.cpu()).float()
                return self.task.build_surrogate(z.cpu().float(), y).float()
            finally:
                torch.set_default_dtype(default)

    def attach(self, surrogate: nn.Module, shapes: tuple[torch.Size, torch.Size]) -> None:
        """Takes a surrogate for samples of these shapes, with an optimizer of its own."""
        self.surrogate = surrogate.to(self.device)
        self.shapes = shapes
        parameters = [p for p in surrogate.parameters() if p.requires_grad]
        if parameters:
            self.optimizer = torch.optim.Adam(parameters, lr=self.recipe.learning_rate)
        else:
            self.warm_up_left = 0

    def detach(self) -> None:
        """Back to before the first samples; a surrogate that was given keeps its weights."""
        self.surrogate = self.surrogate if self.given else None
        self.shapes = self.optimizer = None
        self.scale = torch.ones((), dtype=torch.float32, device=self.device)

    # What it is fitted to

    def measure(self, batch: Batch) -> Measurement:
        """Evaluates the true metric on a batch, and on draws if the recipe has them."""
        start, before = time.perf_counter(), self.random.get_state()
        try:
            with self.island(), torch.no_grad():
                errors, usable = self.metric(*self.task.decode(batch))
                expected = errors
                if self.recipe.draws:
                    expected = torch.zeros_like(errors)
                for _ in range(self.recipe.draws):
                    drawn, drawn_usable = self.metric(*self.task.sample(batch, self.random))
                    expected = expected + drawn / self.recipe.draws
                    usable = usable & drawn_usable
        except MetricError:
            self.random.set_state(before)
            raise
        self.metric_seconds = time.perf_counter() - start
        return Measurement(errors=errors, expected=expected, usable=usable)

    def observe(self, values: Tensor, z: Tensor, target: Tensor, measured: Measurement) -> None:
        """Remembers predictions and what they scored, before any fit to them.

        Samples without a finite value or a usable score are left out, and counted.

        Args:
            values: the surrogate's, `(batch,)`.
            z: `(batch, ...)`.
            target: stored targets, `(batch, ...)`.
            measured: what the metric said.
        """
        kept = measured.usable.to(values.device) & values.isfinite()
        self.skipped += int((~kept).sum())
        self.metric_mean = self.metric.value(measured.errors[measured.usable]).mean().item()
        with self.island():
            expected = measured.expected.to(values)[kept]
            self.unseen.add(values[kept], expected)
            if self.recipe.data != "global":
                self.replay.add(z[kept], target[kept], expected)
                if self.replay.fields:
                    z, target, _ = self.replay.fields
                    self.shapes = (z.shape[1:], target.shape[1:])

    def filter(
        self, gradient: Tensor, batch_dim: int | None, values: Tensor, measured: Measurement
    ) -> Tensor:
        """The gradient, zero for samples that the surrogate gets wrong or the metric failed on.

        FEDS (Patel, Matas, ICDAR 2021), Eq. 4.7, taken as what it says of the gradient. Taken
        literally, min(|surrogate - metric|, threshold) rewards agreement, not a lower metric.
        """
        if self.recipe.filter is None:
            return gradient
        wrong = (values - measured.expected.to(values)).abs()
        keep = (wrong <= self.recipe.filter) & measured.usable.to(values.device)
        self.kept = keep.float().mean()
        shape = [1] * gradient.ndim
        if batch_dim is not None:
            shape[batch_dim] = -1
        return gradient * keep.view(shape)

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
        return z.to(self.dtype), target, errors

    def update(self, steps: int | None = None) -> None:
        """Fits the surrogate by some gradient steps, the recipe's number by default."""
        start = time.perf_counter()
        with self.island(), torch.enable_grad():
            for _ in range(self.recipe.update_steps if steps is None else steps):
                self._step()
        self.update_seconds = time.perf_counter() - start

    def _step(self) -> None:
        if self.optimizer is None:
            return
        recipe = self.recipe
        sources: list[tuple[Tensor, ...]] = []
        if recipe.data != "global" and self.replay.size:
            sources.append(self.replay.sample(recipe.batch_size, self.random))
        if recipe.data != "local":
            sources.append(self.generate(recipe.batch_size))
        if not sources:
            return
        z, target, errors = map(_concatenate, zip(*sources, strict=True))
        errors = errors.to(z)
        if self.updates == 0 and not self.given:
            self.scale = _root_mean_square(errors)
        penalised = self.updates % recipe.penalty_every == 0
        loss, penalty = objective(
            self.value,
            z,
            self.expand(target),
            errors,
            # A penalty that is computed seldom counts for the updates without it.
            penalty_weight=recipe.penalty_weight * recipe.penalty_every if penalised else 0.0,
            penalty_norm=recipe.penalty_norm,
        )
        parameters = self.optimizer.param_groups[0]["params"]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1
        self.warm_up_left = max(0, self.warm_up_left - 1)
        if penalty is not None:
            self.penalty = penalty

    def stats(self) -> dict[str, Any]:
        """The figures that `LearnedSurrogateLoss.stats` shows."""
        return {
            "calls": self.calls,
            "updates": self.updates,
            "warming_up": self.warm_up_left > 0,
            "replay_size": self.replay.size,
            "kept": float(self.kept),
            "metric": self.metric_mean,
            **agreement(*(self.unseen.oldest_first() or self._unseen_generated())),
            "penalty": float(self.penalty),
            "metric_seconds": self.metric_seconds,
            "update_seconds": self.update_seconds,
            "skipped": self.skipped,
        }

    def _unseen_generated(self) -> tuple[Tensor, Tensor]:
        """Values and errors of fresh pairs, where there were no predictions yet."""
        if self.updates == 0 or self.generator is None:
            return torch.zeros(0, device="cpu"), torch.zeros(0, device="cpu")
        before = self.random.get_state(), self.skipped
        with self.island(), torch.no_grad():
            z, target, errors = self.generate(4 * self.recipe.batch_size)
            values = self.value(z, self.expand(target))
        self.random.set_state(before[0])
        self.skipped = before[1]
        return values, errors

    # Where it lives

    def to(self, device: torch.device) -> None:
        if device == self.device:
            return
        self.device = device
        with self.island():
            self.scale = self.scale.to(device)
            self.penalty = self.penalty.to(device)
            self.replay.to(device)
            self.unseen.to(device)
            if self.surrogate is not None:
                self.surrogate.to(device)
            if self.optimizer is not None:
                # Loading moves Adam's state to where the parameters now are.
                self.optimizer.load_state_dict(self.optimizer.state_dict())


def _concatenate(parts: tuple[Tensor, ...]) -> Tensor:
    """Joins batches, padded with zeros to one shape."""
    shape = common_shape(parts)
    return torch.cat([pad_to(part, shape).to(parts[0]) for part in parts])


def _alike(a: tuple[torch.Size, ...], b: tuple[torch.Size, ...]) -> bool:
    """Whether z has as many classes or channels, and both as many dimensions."""
    return a[0][:1] == b[0][:1] and all(len(x) == len(y) for x, y in zip(a, b, strict=True))


def _root_mean_square(errors: Tensor) -> Tensor:
    scale = errors.square().mean().sqrt()
    return torch.where(scale > 0, scale, torch.ones_like(scale))
