"""The user's metric: its values checked and turned into errors, or into words of what is wrong."""

import functools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._support.checks import check_callable
from .._support.warnings import warn
from .called import Called, Causes
from .calling_form import Form
from .error import MetricError, ReturnedError
from .objects import refuse_what_accumulates
from .parameters import Reversed, first_two, is_reversed
from .skip import Skip
from .values import described, is_wild

METRIC_HELP = (
    "A metric takes (predictions, targets) and returns one finite number a sample, or takes one "
    "sample at a time and returns one number."
)
# Of a metric that has worked before.
SKIPPING = (
    " With on_metric_error='skip' such samples are left out and counted in stats['metric/skipped']."
)
PERCENT = " (best=100 for a percentage)"
ENDLESS = (
    "For what has no best value, such as a profit, give one that it does not reach: it only shifts "
    "the loss"
)
REVERSED = (
    "metric {0!r} takes ({1}, {2}): by these names the target comes first, and so it is called. To "
    "say so yourself: metric=lambda prediction, target: {0}(target, prediction)"
)
WILD = "got a prediction that is not finite"
# Of larger values, float32 has no room for what must be computed: squares, and sums of them.
LARGEST = 1e15
# How far an error may fall below zero by rounding, relative to the metric's value.
ROUNDING = 1e-5
#: An error, or several.
Value = TypeVar("Value", float, Tensor)


def said_by(function: Callable[..., Any], name: str) -> Any:
    """What a metric says of itself in an attribute, also within a `functools.partial`; or None."""
    while isinstance(function, functools.partial) and not hasattr(function, name):
        function = function.func
    return getattr(function, name, None)


class Metric(Called):
    """The user's callable as `(predictions, targets) -> errors, usable`.

    Errors are `(batch,)`, one value a sample, or `(batch, outputs, ...)`, one for each number or
    group of numbers of a prediction that is a tensor of such a shape.

    Args:
        function: the metric, batched or for one sample; the prediction comes first, unless its
            parameters' names say otherwise.
        higher_is_better: None asks the function's attribute of this name.
        best: what a perfect prediction scores; None asks the function's attribute of this name,
            and takes 0 for a metric where lower is better.
        batched: whether the function takes whole batches; None finds out at the first call.
        on_error: "raise", "skip" or `Skip`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        higher_is_better: bool | None,
        best: Any,
        batched: bool | None,
        on_error: str | Skip,
    ):
        check_callable("metric", function, "as metric(predictions, targets)")
        refuse_what_accumulates(function)
        if not isinstance(on_error, Skip) and on_error not in ("raise", "skip"):
            raise ValueError(
                f"on_metric_error must be 'raise', 'skip' or Skip(...); got {on_error!r}"
            )
        for name, value in (("higher_is_better", higher_is_better), ("batched", batched)):
            if value not in (None, True, False):
                raise TypeError(f"{name} must be True, False or None; got {value!r}")
        #: Whether someone said which direction is better.
        self.told_direction = True
        if higher_is_better is None:
            said = said_by(function, "higher_is_better")
            self.told_direction, higher_is_better = said is not None, bool(said)
        if best is None:
            best = said_by(function, "best")
        if best is None and higher_is_better:
            raise ValueError(
                "a metric where higher is better needs best=, the value of a perfect prediction: "
                "the error that is learned is best - metric. For an IoU or an accuracy, best=1.0. "
                + ENDLESS
            )
        if best is not None and not isinstance(best, numbers.Real):
            raise TypeError(f"best must be a number, the metric's best value; got {best!r}")
        if best is not None and not math.isfinite(best):
            raise ValueError(f"best must be finite; got {best!r}")
        name = said_by(function, "__name__") or type(function).__name__
        #: Whether it returns NaN for a sample to be left out, on which it is not defined.
        self.may_be_undefined = bool(said_by(function, "may_be_undefined"))
        #: Whether its form was said, and not by the function itself.
        self.told_form = batched is not None and said_by(function, "batched") is None
        if is_reversed(function):
            warn(REVERSED.format(name, *first_two(function)))
            function = Reversed(function)
        form = None if batched is None else Form("batch" if batched else "sample")
        super().__init__(function, name, form, "raise" if on_error == "raise" else "skip")
        self.higher_is_better = higher_is_better
        self.best = 0.0 if best is None else float(best)
        skip = on_error if isinstance(on_error, Skip) else Skip()
        #: Also where the metric raises: on predictions that are not finite it is not called.
        self.give_up_after = skip.give_up_after
        #: What happened last to a sample that was skipped.
        self.trouble: str | None = None

    @torch.no_grad()
    def __call__(
        self,
        predictions: Any,
        targets: Any,
        positions: Sequence[int] | None = None,
        batch: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The errors, float64 on the CPU and never negative, and which samples `(batch,)` have one.

        Args:
            predictions: as the metric takes them.
            targets: as many.
            positions: which samples of a batch they are, for errors to name; None is all.
            batch: how many samples that has.

        Samples whose prediction is not finite need have none: that is not the metric's fault.

        Raises:
            MetricError: a sample has none, unless told to skip.
            CallingFormError: it is not clear how it is to be called.
        """
        count = len(targets)
        if not count:
            nothing = torch.zeros(0, dtype=torch.float64, device="cpu")
            return nothing, nothing.bool()
        values, causes = self.answers(predictions, targets)
        errors = self.best - values if self.higher_is_better else values - self.best
        slack = ROUNDING * (1 + values.abs() + abs(self.best))
        fine = (values.abs() <= LARGEST) & (errors >= -slack)
        if not fine.all() and (blamed := self._blamed(fine, predictions, values, causes)):
            sample = blamed[0]
            position = sample if positions is None else positions[sample]
            which = f"sample {position} of {batch or count}"
            if len(causes) == count > 1 and len(set(map(id, causes.values()))) == 1:
                which = f"of all {count} samples"
            pair = predictions[sample], targets[sample]
            self._raise(which, float(values[blamed]), causes.get(sample), *pair)
        return errors.clamp(min=0), fine.flatten(1).all(1) if fine.ndim > 1 else fine

    def value(self, errors: Value) -> Value:
        """Errors, turned back into the metric's own values."""
        return self.best - errors if self.higher_is_better else self.best + errors

    def _blamed(
        self, fine: Tensor, predictions: Any, values: Tensor, causes: Causes
    ) -> tuple[int, ...] | None:
        """The place of the first value that is missing, though the metric should have one.

        Notes, in `trouble`, why the very first one is missing.
        """
        first, *_ = places = [tuple(place) for place in (~fine).nonzero().tolist()]
        value, cause = float(values[first]), causes.get(first[0])
        wild = is_wild(predictions[first[0]])
        self.trouble = WILD if wild else self._what(value, cause)
        owed = (place for place in places if self._owes(place, predictions, values, causes))
        return None if self.on_error == "skip" else next(owed, None)

    def _owes(
        self, place: tuple[int, ...], predictions: Any, values: Tensor, causes: Causes
    ) -> bool:
        """Whether there should be a value in this place."""
        undefined = self.may_be_undefined and place[0] not in causes and values[place].isnan()
        return not (undefined or is_wild(predictions[place[0]]))

    def _raise(
        self, which: str, value: float, cause: Exception | None, prediction: Any, target: Any
    ) -> None:
        what = self._what(value, cause)
        called = "" if self.form is None else SKIPPING
        if self.told_form and cause is not None:
            takes = "a batch" if self.batched else "one sample at a time"
            called += f" It was called with {takes}, batched={self.batched}."
        raise MetricError(
            f"metric {self.name!r} {what} ({which}; prediction {described(prediction)}, target "
            f"{described(target)}). {METRIC_HELP}{called}"
        ) from cause

    def _what(self, value: float, cause: Exception | None) -> str:
        """Why a sample has no error."""
        if isinstance(cause, ReturnedError):
            return str(cause)
        if cause is not None:
            return f"raised {type(cause).__name__}: {cause}"
        if not math.isfinite(value):
            return f"returned {value}"
        if abs(value) > LARGEST:
            return f"returned {value:g}, more than {LARGEST:.0e}: divide it by a constant"
        return (
            f"returned {value:g}, better than the best value {self.best:g}: pass best=, the "
            f"value of a perfect prediction{PERCENT * (self.best == 1 < value <= 100)}, or "
            f"higher_is_better={not self.higher_is_better} if it is the other way round. {ENDLESS}"
        )
