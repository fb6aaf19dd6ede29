"""The user's metric: called safely, checked, and turned into an error."""

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

METRIC_HELP = (
    "A metric takes (predictions, targets) and returns one finite number a sample, or takes one "
    "sample at a time and returns one number. With on_metric_error='skip' such samples are left "
    "out and counted in stats['skipped']."
)
PERCENT = " (best=100 for a percentage)"
MEAN = (
    "metric {!r} returns one number for a list of texts, their mean, and another for a text alone, "
    "where it may take characters for texts. Return one number a sample, without the mean; or say "
    "batched=False if a prediction and a target alone are what it is meant for"
)
# How far an error may fall below zero by rounding, relative to the metric's value.
ROUNDING = 1e-5


class MetricError(RuntimeError):
    """The metric raised, or returned something that is not one finite number a sample.

    The message names the metric, the sample, and the shapes and dtypes that it was given; the
    metric's own exception, if there was one, is the `__cause__`. The loss is left as it was before
    the call and may be called again. Where the metric failed on a pair of the random generator, the
    call has been counted and its predictions remembered, and the surrogate is not updated; where
    several processes fit one surrogate, a call is always counted and, if it is one that updates,
    raises in all of them.
    """


class Metric:
    """The user's callable as `(predictions, targets) -> errors, usable`.

    Errors are `(batch,)`, one value a sample, or `(batch, outputs, ...)`, one for each number or
    group of numbers of a prediction that is a tensor of such a shape.

    Args:
        function: the metric, batched or for one sample.
        higher_is_better: None asks the function's attribute of this name.
        best: what a perfect prediction scores; None asks the function's attribute of this name,
            and takes 0 for a metric where lower is better.
        batched: whether the function takes whole batches; None finds out at the first call.
        on_error: "raise" or "skip".
    """

    def __init__(
        self,
        function: Callable[..., Any],
        higher_is_better: bool | None,
        best: Any,
        batched: bool | None,
        on_error: str,
    ):
        if not callable(function):
            raise TypeError(
                f"metric must be callable as metric(predictions, targets); got {function!r}"
            )
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_metric_error must be 'raise' or 'skip'; got {on_error!r}")
        for name, value in (("higher_is_better", higher_is_better), ("batched", batched)):
            if value not in (None, True, False):
                raise TypeError(f"{name} must be True, False or None; got {value!r}")
        if higher_is_better is None:
            higher_is_better = bool(getattr(function, "higher_is_better", False))
        if best is None:
            best = getattr(function, "best", None)
        if best is None and higher_is_better:
            raise ValueError(
                "a metric where higher is better needs best=, the value of a perfect prediction: "
                "the error that is learned is best - metric. For an IoU or an accuracy, best=1.0"
            )
        if best is not None and not isinstance(best, numbers.Real):
            raise TypeError(f"best must be a number, the metric's best value; got {best!r}")
        if best is not None and not math.isfinite(best):
            raise ValueError(f"best must be finite; got {best!r}")
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.higher_is_better = higher_is_better
        self.best = 0.0 if best is None else float(best)
        self.batched = batched
        self.on_error = on_error

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

        Raises:
            MetricError: a sample has none, unless told to skip.
            ValueError: it seems to be meant for a whole corpus.
        """
        count = len(targets)
        if not count:
            return torch.zeros(0, dtype=torch.float64, device="cpu"), torch.zeros(
                0, dtype=torch.bool, device="cpu"
            )
        undecided = self.batched is None
        if undecided:
            refusal = _refusal_of_batches(self.function, predictions, targets)
            if refusal is not None and _is_mean(self.function, predictions, targets):
                raise ValueError(MEAN.format(self.name))
            self.batched = refusal is None
        values, causes = self._evaluate(predictions, targets, count)
        if undecided and causes:
            # A failing metric does not tell which form it has: ask again at the next call.
            self.batched = None
            for cause in causes.values():
                cause.add_note(f"Called with a batch, it had raised {refusal!r}")
        errors = self.best - values if self.higher_is_better else values - self.best
        size = values.abs()
        slack = ROUNDING * (1 + size + abs(self.best))
        # What is not a number compares as false.
        fine = (size < math.inf) & (errors >= -slack)
        if self.on_error == "raise" and not fine.all():
            place = tuple((~fine).nonzero()[0].tolist())
            sample = place[0]
            position = sample if positions is None else positions[sample]
            which = f"sample {position} of {batch or count}"
            pair = predictions[sample], targets[sample]
            self._raise(which, float(values[place]), causes.get(sample), *pair)
        return errors.clamp(min=0), fine.flatten(1).all(1) if fine.ndim > 1 else fine

    def value(self, errors: Tensor) -> Tensor:
        """Errors, turned back into the metric's own values."""
        return self.best - errors if self.higher_is_better else self.best + errors

    def _evaluate(
        self, predictions: Any, targets: Any, count: int
    ) -> tuple[Tensor, dict[int, Exception]]:
        """Values (NaN where there is none), and what was raised by which sample."""
        sample_shape = shape_of_samples(predictions)
        if self.batched:
            try:
                return _as_values(self.function(predictions, targets), count, sample_shape), {}
            except Exception:  # noqa: BLE001 - one sample may have caused it: find out which
                pass
        found: list[Tensor | None] = [None] * count
        causes: dict[int, Exception] = {}
        for sample in range(count):
            window = slice(sample, sample + 1) if self.batched else sample
            try:
                value = self.function(predictions[window], targets[window])
                found[sample] = _as_values(value, 1 if self.batched else None, sample_shape)
            except Exception as error:  # noqa: BLE001 - whatever a user's metric raises
                causes[sample] = error
                if self.on_error == "raise":
                    break
        values = _stack(found, int(bool(self.batched)))
        if self.batched and not causes:
            # Every sample alone is fine, so the batch as a whole is not: its own error says more.
            try:
                _as_values(self.function(predictions, targets), count, sample_shape)
            except Exception as error:  # noqa: BLE001
                values.fill_(torch.nan)
                causes = dict.fromkeys(range(count), error)
        return values, causes

    def _raise(
        self, which: str, value: float, cause: Exception | None, prediction: Any, target: Any
    ) -> None:
        if cause is not None:
            what = f"raised {type(cause).__name__}: {cause}"
        elif not np.isfinite(value):
            what = f"returned {value}"
        else:
            what = (
                f"returned {value:g}, better than the best value {self.best:g}: pass best=, the "
                f"value of a perfect prediction{PERCENT * (self.best == 1 < value <= 100)}, or "
                f"higher_is_better={not self.higher_is_better} if it is the other way round"
            )
        raise MetricError(
            f"metric {self.name!r} {what} ({which}; prediction {_describe(prediction)}, "
            f"target {_describe(target)}). "
            f"{METRIC_HELP}"
        ) from cause


def _refusal_of_batches(
    function: Callable[..., Any], predictions: Any, targets: Any
) -> Exception | None:
    """Why the function gives no value a sample for a batch of one and of two; None if it does."""
    for samples in ((0,), (0, -1)):
        try:
            result = function(take(predictions, samples), take(targets, samples))
            _as_values(result, len(samples), shape_of_samples(predictions))
        except Exception as error:  # noqa: BLE001 - then it may take one sample at a time
            return error
    return None


def _is_mean(function: Callable[..., Any], predictions: Any, targets: Any) -> bool:
    """Whether a function of two texts is one of two lists of them, and their mean.

    Called with texts, it would answer too, as they are sequences, but not what is asked.
    """
    if len(targets) < 2 or not (isinstance(predictions, list) and isinstance(predictions[0], str)):
        return False
    first, last = ([predictions[i]] for i in (0, -1)), ([targets[i]] for i in (0, -1))
    try:
        lists = [function(*pair) for pair in zip(first, last, strict=True)]
        both = function([predictions[0], predictions[-1]], [targets[0], targets[-1]])
        alone = function(predictions[0], targets[0])
        one, other, of_both, of_text = (float(value) for value in (*lists, both, alone))
    except Exception:  # noqa: BLE001 - then it is not both
        return False
    # Of lists, a distance of sequences says whether their elements are the same, 0 or 1.
    graded = not {one, other} <= {0.0, 1.0}
    return graded and math.isclose(of_both, (one + other) / 2) and not math.isclose(one, of_text)


def shape_of_samples(predictions: Any) -> tuple[int, ...]:
    """The shape of a sample of predictions that are a tensor; of others `()`."""
    return tuple(predictions.shape[1:]) if isinstance(predictions, Tensor) else ()


def _as_values(result: Any, count: int | None, sample_shape: tuple[int, ...] = ()) -> Tensor:
    """A metric's result as float64 of shape `(count,)`, or `()` if count is None.

    Behind that, where the metric says more, the leading part of a sample's shape: one value an
    output.
    """
    if isinstance(result, (list, tuple)) and result and isinstance(result[0], Tensor):
        result = torch.stack(list(result))
    if isinstance(result, Tensor):
        values = result.detach().to("cpu", torch.float64)
    else:
        array = np.asarray(result)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"expected numbers, got {result!r}")
        values = torch.from_numpy(array.astype(np.float64))
    expected = () if count is None else (count,)
    if (
        values.numel() == (1 if count is None else count)
        and values.shape[: len(expected)] == expected
    ):
        return values.reshape(expected)
    outputs = tuple(values.shape[len(expected) :])
    fits = outputs == sample_shape[: len(outputs)]
    if tuple(values.shape[: len(expected)]) != expected or not fits:
        wanted = "one number" if count is None else f"shape ({count},)"
        if sample_shape:
            wanted += f" or {(*expected, *sample_shape)}, one number an output, or part of that"
        raise ValueError(f"expected {wanted}; got shape {tuple(values.shape)}")
    return values


def _stack(found: list[Tensor | None], samples_each: int) -> Tensor:
    """Values of samples one by one as one tensor; NaN where there are none."""
    known = [values for values in found if values is not None]
    like = known[0] if known else torch.zeros([1] * samples_each, dtype=torch.float64, device="cpu")
    missing = torch.full_like(like, torch.nan)
    parts = [missing if values is None else values for values in found]
    return torch.cat(parts) if samples_each else torch.stack(parts)


def take(objects: Any, samples: Sequence[int]) -> Any:
    """Some samples of what a metric takes."""
    if isinstance(objects, (Tensor, np.ndarray)):
        return objects[list(samples)]
    return [objects[sample] for sample in samples]


def _describe(sample: Any) -> str:
    if isinstance(sample, Tensor):
        return f"{tuple(sample.shape)} {str(sample.dtype).removeprefix('torch.')}"
    text = repr(sample)
    return text if len(text) <= 80 else f"{text[:77]}..."
