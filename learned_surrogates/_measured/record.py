"""What one loss has been told so far: counts, figures, and who leads."""

import math
import statistics
from typing import Any

from torch import Tensor

from .._estimator import Estimator
from .._evaluation.measurement import Context, Measurement
from .._learning.history import History
from .._metric.metric import Metric
from .._support.warnings import warn
from .quality import Quality

# Signal over noise of a step below which a base loss has led as far as it does.
SPENT = 0.05
# Calls after which it is done without, where that cannot be read.
UNREAD = 100
# Calls in a row without any difference after which the user is warned.
PATIENCE = 100
# Weight of the newest call in the running share of differences that are not zero.
MOMENTUM = 0.05
# What is told of the gradient before it is measured cannot be worth more draws than so many.
MOST_TOLD = 0.999

REMEMBERED = (
    "calls",
    "updates",
    "metric/mean",
    "surrogate/r2",
    "surrogate/weight",
    "gradient/effective_draws",
    "gradient/signal_to_noise",
    "base_loss/cosine",
    "base_loss/cosine_error",
)
SILENT = (
    "for {calls} calls the metric of all draws around a prediction was the same, so that there is "
    "nothing to follow: the model may be too far from where the metric tells good from bad, or "
    "{advice}. {remedy}"
)
NOTHING = (
    "for {calls} calls the metric's values came after their call, and there is neither a surrogate "
    "nor a base loss to follow meanwhile: the gradient was zero. Give base_loss=, or let the call "
    "wait for its values: executor=Workers(..., lag=0)"
)
LEFT = (
    "for {calls} calls the metric of all draws around a prediction was the same, and before they "
    "differed: the model has left where the metric tells good from bad, or {advice}. Go back to an "
    "earlier checkpoint, and take a smaller learning rate"
)
NOT_FINITE = (
    "no prediction of a call is finite, so that there is nothing to follow: the loss is NaN, and "
    "so is its gradient. Where an output may not be chosen, mask it with -1e9 in place of minus "
    "infinity; else the model has diverged"
)
REMEDIES = {
    True: "Meanwhile the base loss trains the model",
    False: "Give base_loss= the loss that is usual for such outputs, which leads until the metric "
    "does, or train the model with it first",
}


class Record:
    """Counts and figures of a loss's calls, and whether its base loss leads.

    Args:
        estimator: makes what they are of.
        metric: what is measured.
        draws: of a call, a sample.

    Attributes:
        calls: from which something was learned.
        silent_calls: in a row, in which all draws were the same.
        skipped: samples on which the metric failed, or whose prediction was not finite.
        leading: whether the base loss leads, if there is one.
        has_base_loss: whether there was one at the last call.
        known: whether the last call's gradient was known without draws, and nobody but the figures
            tells whether the base loss has led as far as it does.
        signal: running share of differences between draws that are not zero; NaN before the first.
        metric_mean: the metric's, of the last call that was measured; NaN before it.
        surrogate_seconds: what drawing, with the surrogate's slopes, and learning took in the last
            call.
        told_not_finite: whether the user was told of a call without a finite prediction.
    """

    def __init__(self, estimator: Estimator[Any], metric: Metric, draws: int):
        self.estimator = estimator
        self.metric = metric
        self.draws = draws
        self.calls = self.silent_calls = self.skipped = 0
        self.leading, self.has_base_loss, self.known = True, False, False
        self.signal = self.metric_mean = float("nan")
        self.surrogate_seconds = 0.0
        self.told_not_finite = False
        self.quality = Quality()
        self.history = History(REMEMBERED)

    def observe(self, measured: Measurement, seen: Context) -> bool:
        """Takes what the metric said of a batch's draws; whether there is a usable sample."""
        usable = measured.usable
        self.skipped += measured.failed
        if not usable.any():
            return False
        values = measured.values[:, usable]
        errors = self.estimator.errors(measured, seen)
        self.metric_mean = self.metric.value(errors[usable].mean()).item()
        share = (self.estimator.differences(values) != 0).float().mean().item()
        known = self.signal == self.signal
        self.signal = self.signal + MOMENTUM * (share - self.signal) if known else share
        return True

    def take_known(self, values: Tensor, undefined: Tensor | None) -> None:
        """Takes errors `(batch,)` that are known without the metric; NaN are no errors."""
        # Read at once, and no kernel more: a call is made of few.
        known = values.tolist()
        if undefined is not None:
            known = [value for value, none in zip(known, undefined.tolist()) if not none]
        known = [value for value in known if math.isfinite(value)]
        self.skipped += len(values) - len(known)
        if known:
            self.metric_mean = self.metric.value(statistics.fmean(known))

    def hand_over(self) -> None:
        """Ends the base loss's lead, for good, where it leads no further or away from the metric.

        In an untrained model, the base loss tells every batch the same, and the metric hardly
        anything. At the end of its way the base loss's mean is zero, and what is left is noise.
        """
        if not (self.leading and self.has_base_loss and (self.signal > 0 or self.known)):
            return
        left = self.quality.base_signal_to_noise
        cosine, error = self.quality.cosine
        unread = left != left and self.calls >= UNREAD
        if unread or left < SPENT or cosine + 3 * error < 0:
            self.leading = False

    def warn_if_silent(self, measured: Measurement) -> None:
        """Counts calls in which all draws were the same, and warns of many in a row."""
        if not measured.usable.any():
            return
        if self.estimator.differences(measured.values[:, measured.usable]).any():
            self.silent_calls = 0
        else:
            remedy = REMEDIES[self.has_base_loss]
            message = LEFT if self.signal > 0 else SILENT
            self._count(message, advice=self.estimator.silent_advice, remedy=remedy)

    def warn_if_not_finite(self, finite: Tensor) -> None:
        """Warns, once, of a call in which no prediction `(batch,)` is."""
        if not (self.told_not_finite or finite.any()):
            self.told_not_finite = True
            warn(NOT_FINITE)

    def warn_of_nothing(self) -> None:
        """Counts calls in which there is nothing to follow, and warns of many in a row."""
        self._count(NOTHING)

    def _count(self, message: str, **parts: Any) -> None:
        self.silent_calls += 1
        if self.silent_calls == PATIENCE:
            warn(message.format(calls=PATIENCE, **parts))

    # What is told

    def describe(self) -> list[str]:
        """Lines of the loss's `repr`."""
        estimator, draws = self.estimator, self.draws
        lines = estimator.describe()
        if estimator.r2 == estimator.r2 and draws:
            lines.append(f"R2 {estimator.r2:.2f}: {draws} draws do the work of {self._worth:.1f}")
        return [*lines, f"calls: {self.calls:,}, updates: {estimator.updates:,}"]

    def stats(self, base_share: float) -> dict[str, Any]:
        """The figures that `LearnedSurrogateLoss.stats` shows, less those of the evaluations."""
        estimator = self.estimator
        cosine, error = self.quality.cosine
        return {
            "calls": self.calls,
            "updates": estimator.updates,
            "replay/size": 0 if estimator.replay is None else estimator.replay.size,
            "metric/mean": self.metric_mean,
            **estimator.stats(),
            "gradient/effective_draws": self._worth,
            "gradient/signal": self.signal,
            "gradient/signal_to_noise": self.quality.signal_to_noise,
            "surrogate/r2": estimator.r2,
            "surrogate/weight": estimator.weight,
            "base_loss/share": base_share,
            "base_loss/cosine": cosine,
            "base_loss/cosine_error": error,
            "surrogate/seconds": self.surrogate_seconds,
            "metric/skipped": self.skipped,
        }

    @property
    def _worth(self) -> float:
        """How many draws alone would be as quiet as those of a call with what is known."""
        if not self.draws:
            return float("inf")
        r2 = self.estimator.r2
        told = min(max(0.0, r2), MOST_TOLD) if r2 == r2 else 0.0
        return self.draws / (1 - told)
