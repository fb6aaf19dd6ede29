"""Fits the surrogate to values."""

import time
from typing import Any

import torch
from torch import Tensor

from .._evaluation.measurement import Evaluation
from .._learning.filter import Filter
from .._learning.gradient_step import apply_gradients
from .._learning.history import History
from .._learning.sync import Sync
from .._support.isolated import isolated
from .._support.transfer import send
from .._support.warnings import warn
from .goodness_of_fit import goodness_of_fit
from .net import Net
from .objective import objective
from .pairs import Pairs, fitted_to

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
    "metric/mean",
    "surrogate/mae",
    "surrogate/nrmse",
    "surrogate/penalty",
    "filter/keep_rate",
)

LOST_WARNING = (
    "for {updates} updates the surrogate's error has been {error:.2f} of that of a constant "
    "predictor, on predictions that it was not yet fitted to: its gradient is worth little. Likely "
    "causes: the metric depends on something that the task does not show the surrogate; too few or "
    "too rare updates (FitValues: warm_up=, every=); predictions that hardly differ in the "
    "metric. criterion.check(...) tells whether its gradient lowers the metric all the same"
)


class Learner:
    """Fits a surrogate to a metric.

    Args:
        pairs: what it is fitted to.
        net: the surrogate.
        sync: the processes that fit it together.
    """

    def __init__(self, pairs: Pairs, net: Net, sync: Sync):
        self.pairs = pairs
        self.net = net
        self.sync = sync
        self.recipe = pairs.recipe
        self.penalty = torch.full((), torch.nan, dtype=torch.float32, device="cpu")
        #: Share of samples that the filter keeps, of the last call.
        self.keep_rate = torch.full_like(self.penalty, torch.nan)
        self.history = History(REMEMBERED)
        self.mean_error = float("nan")
        self.lost_updates = 0
        self.calls = 0
        self.updates = 0
        self.warm_up_left = self.recipe.values.warm_up
        self.update_seconds = 0.0

    @property
    def warming_up(self) -> bool:
        """Whether the surrogate is not yet followed; one without parameters is, at once."""
        return self.warm_up_left > 0 and not (self.net.built and self.net.optimizer is None)

    def forget(self) -> None:
        """Back to before the first samples; a surrogate that was given keeps its weights."""
        self.net.detach()
        self.history = History(REMEMBERED)
        self.mean_error = self.pairs.metric_mean = float("nan")
        self.penalty = torch.full_like(self.net.scale, torch.nan)
        self.keep_rate = torch.full_like(self.net.scale, torch.nan)

    def kept(self, filter: Filter, values: Tensor, evaluation: Evaluation) -> Tensor:
        """What a filter multiplies each sample's gradient with, `(batch,)`.

        Samples on which the metric failed are left out too, as nothing tells what is right.

        Args:
            filter: the recipe's.
            values: the surrogate's, `(batch,)`.
            evaluation: what they stand for, as far as it is known.
        """
        expected, measured = torch.full_like(values, torch.nan), evaluation.measured
        if measured is not None:
            known = fitted_to(measured)[0].where(measured.usable, torch.nan)
            expected = send(known, values)
        factors = filter.factors(values - expected, self.mean_error)
        self.keep_rate = (factors != 0).float().mean()
        return factors

    def learn(self) -> bool:
        """Fits the surrogate if this call is one that does; whether it was."""
        if self.warming_up:
            self.update(-(-self.recipe.values.warm_up // WARM_UP_CALLS))
        elif self.calls % self.recipe.fit.every == 0:
            self.update(self.recipe.fit.steps)
        else:
            return False
        return True

    def update(self, steps: int) -> None:
        """Fits the surrogate by some gradient steps.

        Raises:
            MetricError: the metric failed in this call, here or in another process.
        """
        start = time.perf_counter()
        with isolated(self.net.device), torch.enable_grad():
            for _ in range(steps):
                self._step()
        self.sync.give_up()
        self.update_seconds = time.perf_counter() - start

    def _step(self) -> None:
        if self.net.optimizer is None:
            return
        pairs = self._draw()
        count = 0 if pairs is None else len(pairs[0])
        if not count and not self.sync.active:
            return
        if self.updates == 0 and not self.net.given:
            self._set_scale(pairs, count)
        parameters = self.net.optimizer.param_groups[0]["params"]
        own = self._gradients(pairs, parameters) if pairs and count else None
        gradients = self.sync.mean(own, count, parameters)
        if gradients is None:
            return
        apply_gradients(self.net.optimizer, gradients)
        self.updates += 1
        self.warm_up_left = max(0, self.warm_up_left - 1)

    def _draw(self) -> tuple[Tensor, Tensor, Tensor] | None:
        drawn = None
        with self.sync.defer_error():
            drawn = self.pairs.draw()
        return drawn

    def _set_scale(self, pairs: tuple[Tensor, Tensor, Tensor] | None, count: int) -> None:
        """Brings the surrogate's first values to the size of the metric's.

        Untrained weights are taken as they are, for values about 1.
        """
        squares = None
        if pairs is not None and count:
            squares = [pairs[2].to(self.net.dtype).square().mean()]
        means = self.sync.mean(squares, count, [self.net.scale])
        if means is not None and means[0] is not None:
            scale = means[0].sqrt()
            self.net.scale = torch.where(scale.isfinite() & (scale > 0), scale, 1.0)

    def _gradients(
        self, pairs: tuple[Tensor, Tensor, Tensor], parameters: list[Tensor]
    ) -> list[Tensor | None]:
        """Of the objective on these pairs; None for parameters that it does not depend on."""
        recipe, every = self.recipe, self.recipe.values.penalty_every
        penalised = self.updates % every == 0
        loss, penalty = objective(
            self.net.value,
            pairs[0].to(self.net.dtype),
            self.net.expand(pairs[1]),
            pairs[2].to(self.net.dtype),
            # A penalty that is computed seldom counts for the updates without it.
            penalty_weight=recipe.penalty_weight * recipe.values.penalty_every
            if penalised
            else 0.0,
            penalty_norm=recipe.values.penalty_norm,
        )
        if penalty is not None:
            self.penalty = penalty
        return list(torch.autograd.grad(loss, parameters, allow_unused=True))

    def conclude(self, stats: dict[str, Any]) -> None:
        """Draws the consequences of an update after which these are the figures."""
        self.mean_error = stats["surrogate/mae"]
        self._warn_if_lost(stats["surrogate/nrmse"])
        self.history.add(stats)

    def _warn_if_lost(self, relative_error: float) -> None:
        """Counts an update with a surrogate that tells nothing, and warns of many in a row."""
        told = self.warming_up or self.pairs.unseen.size < FEWEST_PAIRS
        lost = not told and relative_error > LOST
        self.lost_updates = self.lost_updates + 1 if lost else 0
        if self.lost_updates == PATIENCE:
            warn(LOST_WARNING.format(updates=PATIENCE, error=relative_error))

    def stats(self) -> dict[str, Any]:
        """The figures that `LearnedSurrogateLoss.stats` shows."""
        return {
            "calls": self.calls,
            "updates": self.updates,
            "surrogate/warming_up": self.warming_up,
            "replay/size": self.pairs.replay.size,
            "metric/mean": self.pairs.metric_mean,
            **goodness_of_fit(*(self.pairs.unseen.oldest_first() or self._on_generated())),
            "surrogate/penalty": float(self.penalty),
            "filter/keep_rate": float(self.keep_rate),
            "surrogate/seconds": self.update_seconds,
            "metric/skipped": self.pairs.skipped,
        }

    def _on_generated(self) -> tuple[Tensor, Tensor]:
        """Values and errors of fresh pairs, where there were no predictions yet."""
        pairs = self.pairs
        if self.updates == 0 or pairs.generated is None or not pairs.generated.patient:
            return torch.zeros(0, device="cpu"), torch.zeros(0, device="cpu")
        before = pairs.random.get_state(), pairs.skipped
        with isolated(self.net.device), torch.no_grad():
            z, target, errors = pairs.generate(4 * self.recipe.batch_size)
            values = self.net.value(z.to(self.net.dtype), self.net.expand(target))
        pairs.random.set_state(before[0])
        pairs.skipped = before[1]
        return values, errors

    def to(self, device: torch.device) -> None:
        if device == self.net.device:
            return
        with isolated(device):
            self.net.to(device)
            self.penalty = self.penalty.to(device)
            self.keep_rate = self.keep_rate.to(device)
            self.pairs.to(device)
