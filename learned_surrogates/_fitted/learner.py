"""The surrogate and what fits it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._evaluation.queue import Evaluation, Seen
from .._learning.fit import apply_gradients, seeded
from .._learning.history import History
from .._learning.sync import Sync
from .._support.island import island
from .._support.transfer import send
from .._support.warnings import warn
from .._task import Batch
from .agreement import agreement
from .objective import objective
from .pairs import Pairs

# The first calls: the warm-up is spread over them, so that it sees more than one batch of
# predictions.
WARM_UP_CALLS = 10
# A surrogate that is this far off tells nothing, in shares of a constant predictor's error, and
# after so many updates in a row the user is warned; so many predictions tell it.
LOST, PATIENCE, FEWEST_PAIRS = 0.9, 100, 32

# What is remembered of the figures.
REMEMBERED = (
    "calls",
    "updates",
    "metric",
    "surrogate_error",
    "relative_error",
    "penalty",
    "kept",
)

IDLE = (
    "{calls} calls have asked for a gradient in evaluation mode, in which the loss does not learn, "
    "and its surrogate is still warming up: call criterion.train(). As a part of a model, it "
    "follows model.eval()"
)
LOST_WARNING = (
    "for {updates} updates the surrogate's error has been {error:.2f} of that of a constant "
    "predictor, on predictions that it was not yet fitted to: its gradient is worth little. Likely "
    "causes: the metric depends on something that the task does not show the surrogate; too few or "
    "too rare updates (warm_up_updates=, update_every=); predictions that hardly differ in the "
    "metric. criterion.check(...) tells whether its gradient lowers the metric all the same"
)


class Learner:
    """Fits a surrogate to a metric.

    Not an `nn.Module`, nor does it hold anything where the loss's `parameters()`, `buffers()` or
    `modules()` would find it: an optimizer given those would minimise the surrogate instead of
    fitting it, and wrappers for distributed training would synchronise or shard it.

    Args:
        pairs: what it is fitted to.
        surrogate: `S(z, y) -> (batch,)`; None takes the task's own, built from the first samples.
        sync: the processes that fit it together.
    """

    def __init__(self, pairs: Pairs, surrogate: nn.Module | None, sync: Sync):
        self.pairs = pairs
        self.sync = sync
        self.recipe = pairs.recipe
        self.given = surrogate is not None
        self.surrogate = surrogate
        self.optimizer: torch.optim.Optimizer | None = None
        self.device = torch.device("cpu")
        self.scale = torch.ones((), dtype=torch.float32, device="cpu")
        self.kept = torch.full((), torch.nan, dtype=torch.float32, device="cpu")
        self.penalty = torch.full((), torch.nan, dtype=torch.float32, device="cpu")
        self.history = History(REMEMBERED)
        self.mean_error = float("nan")
        self.lost_updates = 0
        self.calls = 0
        self.idle_calls = 0
        self.updates = 0
        self.warm_up_left = self.recipe.warm_up_updates
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
        return self.pairs.task.expand(target).to(self.device, self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The surrogate's floating-point type: float32, unless one of another type was given."""
        parameters = self.surrogate.parameters() if self.surrogate is not None else iter(())
        return next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)

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
        self.pairs.check(z, target)
        if self.pairs.shapes is None:
            finite = finite & _moderate(z) & _moderate(target)
            if not finite.any():
                return False
            surrogate = self.surrogate or self.make_surrogate(z[finite], target[finite])
            self.attach(surrogate, (z.shape[1:], target.shape[1:]))
        return True

    def make_surrogate(self, z: Tensor, target: Tensor) -> nn.Module:
        """The task's surrogate for such samples, in float32, with weights from the seed."""
        with island(self.device), seeded(self.recipe.seed):
            y = self.pairs.task.expand(target.cpu()).float()
            return self.pairs.task.build_surrogate(z.cpu().float(), y).float()

    def attach(self, surrogate: nn.Module, shapes: tuple[torch.Size, torch.Size]) -> None:
        """Takes a surrogate for samples of these shapes, with an optimizer of its own."""
        self.surrogate = surrogate.to(self.device)
        self.pairs.shapes = shapes
        parameters = [p for p in surrogate.parameters() if p.requires_grad]
        if parameters:
            self.optimizer = torch.optim.Adam(parameters, lr=self.recipe.learning_rate)
        else:
            self.warm_up_left = 0

    def detach(self) -> None:
        """Back to before the first samples; a surrogate that was given keeps its weights."""
        self.surrogate = self.surrogate if self.given else None
        self.pairs.shapes = self.optimizer = None
        self.history = History(REMEMBERED)
        self.mean_error = self.pairs.metric_mean = float("nan")
        with island(self.device):
            self.scale = torch.ones((), dtype=torch.float32, device=self.device)
            self.kept = torch.full_like(self.scale, torch.nan)
            self.penalty = torch.full_like(self.scale, torch.nan)

    @contextmanager
    def unchanged_by(self, looking: bool) -> Iterator[None]:
        """A context after which a surrogate that was only built to be looked at is gone again.

        The first samples that it learns from shall settle its shapes and its scale.
        """
        built, warm_up_left = self.pairs.shapes is not None, self.warm_up_left
        try:
            yield
        finally:
            if looking and not built:
                self._unbuild(warm_up_left)

    @contextmanager
    def unchanged_by_errors(self) -> Iterator[None]:
        """A context whose errors leave random stream and surrogate as they were."""
        random, warm_up_left = self.pairs.random.get_state(), self.warm_up_left
        built = self.pairs.shapes is not None
        try:
            yield
        except BaseException:
            # What several processes have agreed on stands.
            if not self.sync.active:
                self.pairs.random.set_state(random)
                if not built:
                    self._unbuild(warm_up_left)
            raise

    def _unbuild(self, warm_up_left: int) -> None:
        self.detach()
        self.warm_up_left = warm_up_left

    # What is followed

    def warn_if_idle(self) -> None:
        """Warns of gradients that are asked for again and again, with a surrogate never fitted."""
        if not self.warm_up_left:
            return
        self.idle_calls += 1
        if self.idle_calls == WARM_UP_CALLS:
            warn(IDLE.format(calls=WARM_UP_CALLS))

    def filter(
        self, gradient: Tensor, batch: Batch, values: Tensor, evaluation: Evaluation
    ) -> Tensor:
        """The gradient, less that of samples which the recipe's filter leaves out.

        Samples on which the metric failed are left out too, as nothing tells what is right.
        """
        if self.recipe.filter is None:
            return gradient
        expected = torch.full_like(values, torch.nan)
        if evaluation.measured is not None:
            expected = send(evaluation.measured.known(len(values)), values)
        factors = self.recipe.filter.factors(values - expected, self.mean_error)
        self.kept = (factors != 0).float().mean()
        return gradient * batch.per_sample(factors.to(gradient), gradient.ndim)

    @property
    def base_weight(self) -> float:
        """The base loss's share once the surrogate is followed."""
        return self.recipe.base_weight or 0.0

    def needs_base(self) -> bool:
        """Whether the base loss's gradient has a say in this call."""
        return self.warm_up_left > 0 or self.base_weight > 0

    def followed(self, surrogate: Tensor, base: Tensor | None) -> Tensor:
        """The gradient to hand back, of both losses' gradients; None is no base loss's."""
        if self.warm_up_left:
            return torch.zeros_like(surrogate) if base is None else base
        if base is None:
            return surrogate
        share = self.base_weight
        # 0 times what is not a number would be none either.
        return base if share == 1 else (1 - share) * surrogate + share * base

    # What it is fitted to

    def observe(self, evaluation: Evaluation | None, seen: Seen) -> None:
        """Takes a learning call, and the samples whose scores have arrived by now.

        Args:
            evaluation: the call's; None if it has no samples or the metric failed.
            seen: what the surrogate makes of its samples, from before any fit to them.
        """
        evaluations = self.pairs.evaluations
        if evaluation is None:
            evaluations.hold(Evaluation(), self.calls)
        else:
            evaluations.hold(evaluation, self.calls, seen)
        self.take_in()

    def take_in(self) -> None:
        """Remembers the samples whose scores have arrived."""
        for arrived in self.pairs.evaluations.arrived():
            if arrived.measured is not None and arrived.seen is not None:
                values, z, target = arrived.seen
                self.pairs.observe(values, z, target, arrived.measured)

    def learn(self) -> bool:
        """Fits the surrogate if this call is one that does; whether it was."""
        if self.warm_up_left:
            self.update(-(-self.recipe.warm_up_updates // WARM_UP_CALLS))
        elif self.calls % self.recipe.update_every == 0:
            self.update(self.recipe.update_steps)
        else:
            return False
        return True

    def update(self, steps: int) -> None:
        """Fits the surrogate by some gradient steps.

        Raises:
            MetricError: the metric failed in this call, here or in another process.
        """
        start = time.perf_counter()
        with island(self.device), torch.enable_grad():
            for _ in range(steps):
                self._step()
        self.sync.give_up()
        self.update_seconds = time.perf_counter() - start

    def _step(self) -> None:
        if self.optimizer is None:
            return
        pairs = self._draw()
        count = 0 if pairs is None else len(pairs[0])
        if not count and not self.sync.active:
            return
        if self.updates == 0 and not self.given:
            self._set_scale(pairs, count)
        parameters = self.optimizer.param_groups[0]["params"]
        own = self._gradients(pairs, parameters) if pairs and count else None
        gradients = self.sync.mean(own, count, parameters)
        if gradients is None:
            return
        apply_gradients(self.optimizer, gradients)
        self.updates += 1
        self.warm_up_left = max(0, self.warm_up_left - 1)

    def _draw(self) -> tuple[Tensor, Tensor, Tensor] | None:
        drawn = None
        with self.sync.told():
            drawn = self.pairs.draw()
        return drawn

    def _set_scale(self, pairs: tuple[Tensor, Tensor, Tensor] | None, count: int) -> None:
        """Brings the surrogate's first values to the size of the metric's.

        Untrained weights are taken as they are, for values about 1.
        """
        squares = None
        if pairs is not None and count:
            squares = [pairs[2].to(self.dtype).square().mean()]
        means = self.sync.mean(squares, count, [self.scale])
        if means is not None and means[0] is not None:
            scale = means[0].sqrt()
            self.scale = torch.where(scale.isfinite() & (scale > 0), scale, 1.0)

    def _gradients(
        self, pairs: tuple[Tensor, Tensor, Tensor], parameters: list[Tensor]
    ) -> list[Tensor | None]:
        """Of the objective on these pairs; None for parameters that it does not depend on."""
        recipe = self.recipe
        penalised = self.updates % recipe.penalty_every == 0
        loss, penalty = objective(
            self.value,
            pairs[0].to(self.dtype),
            self.expand(pairs[1]),
            pairs[2].to(self.dtype),
            # A penalty that is computed seldom counts for the updates without it.
            penalty_weight=recipe.penalty_weight * recipe.penalty_every if penalised else 0.0,
            penalty_norm=recipe.penalty_norm,
        )
        if penalty is not None:
            self.penalty = penalty
        return list(torch.autograd.grad(loss, parameters, allow_unused=True))

    def conclude(self) -> dict[str, Any]:
        """Draws the consequences of an update, and gives the figures after it."""
        stats = self.stats()
        self.mean_error = stats["surrogate_error"]
        self._warn_if_lost(stats["relative_error"])
        self.history.add(stats)
        return stats

    def _warn_if_lost(self, relative_error: float) -> None:
        """Counts an update with a surrogate that tells nothing, and warns of many in a row."""
        told = self.warm_up_left or self.pairs.unseen.size < FEWEST_PAIRS
        lost = not told and relative_error > LOST
        self.lost_updates = self.lost_updates + 1 if lost else 0
        if self.lost_updates == PATIENCE:
            warn(LOST_WARNING.format(updates=PATIENCE, error=relative_error))

    def stats(self) -> dict[str, Any]:
        """The figures that `LearnedSurrogateLoss.stats` shows."""
        return {
            "calls": self.calls,
            "updates": self.updates,
            "warming_up": self.warm_up_left > 0,
            "replay_size": self.pairs.replay.size,
            "kept": float(self.kept),
            "base_weight": self.base_weight,
            "metric": self.pairs.metric_mean,
            **agreement(*(self.pairs.unseen.oldest_first() or self._on_generated())),
            "penalty": float(self.penalty),
            "metric_seconds": self.pairs.metric_seconds,
            "update_seconds": self.update_seconds,
            "skipped": self.pairs.skipped,
            "waiting": self.pairs.evaluations.waiting,
            "lost": self.pairs.evaluations.lost,
            "unmeasured": self.pairs.evaluations.unmeasured,
        }

    def _on_generated(self) -> tuple[Tensor, Tensor]:
        """Values and errors of fresh pairs, where there were no predictions yet."""
        pairs = self.pairs
        if self.updates == 0 or pairs.generated is None or not pairs.generated.patient:
            return torch.zeros(0, device="cpu"), torch.zeros(0, device="cpu")
        before = pairs.random.get_state(), pairs.skipped
        with island(self.device), torch.no_grad():
            z, target, errors = pairs.generate(4 * self.recipe.batch_size)
            values = self.value(z.to(self.dtype), self.expand(target))
        pairs.random.set_state(before[0])
        pairs.skipped = before[1]
        return values, errors

    # Where it lives

    def to(self, device: torch.device) -> None:
        if device == self.device:
            return
        self.device = device
        with island(self.device):
            self.scale = self.scale.to(device)
            self.penalty = self.penalty.to(device)
            self.kept = self.kept.to(device)
            self.pairs.to(device)
            if self.surrogate is not None:
                self.surrogate.to(device)
            if self.optimizer is not None:
                # Loading moves Adam's state to where the parameters now are.
                self.optimizer.load_state_dict(self.optimizer.state_dict())


def _moderate(samples: Tensor) -> Tensor:
    """Which samples `(batch, ...)` are finite, and far from where their squares are not."""
    return samples[:, None].flatten(1).float().square().sum(1).isfinite()
