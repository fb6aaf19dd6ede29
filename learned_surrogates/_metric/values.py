"""What goes into a metric, and what comes out of it."""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .error import NoNumbers, ReturnedError

# Of rows that are pairs and not outputs.
DIAGONAL = (
    ": one value for each prediction with each target? Those of a prediction with its own target "
    "are its diagonal; and predictions (batch, 1) with targets (batch,) are broadcast"
)

NO_NUMBERS = "returned {}, where real numbers are expected"
# As of torch.max along a dimension, or SciPy's statistic and p-value.
SEVERAL = "returned {}, a tuple of several things, where one of them is expected"
# Of values for each place, where classes are in the second dimension.
CLASSES_LAST = (
    ": a value for each place of predictions whose classes are in dimension 1? Hand the loss "
    "predictions with classes last, prediction.movedim(1, -1)"
)


def ask(function: Callable[..., Any], predictions: Any, targets: Any) -> Any:
    """What the metric says, of copies: one that works in place changes nobody else's."""
    return function(_copied(predictions), _copied(targets))


def shape_of_samples(predictions: Any) -> tuple[int, ...]:
    """The shape of a sample of predictions that are a tensor; of others `()`."""
    return tuple(predictions.shape[1:]) if isinstance(predictions, Tensor) else ()


def as_values(result: Any, count: int | None, sample_shape: tuple[int, ...] = ()) -> Tensor:
    """A metric's result as float64 of shape `(count,)`, or `()` if count is None.

    Behind that, where the metric says more, the leading part of a sample's shape: one value an
    output.

    Raises:
        ReturnedError: they are no numbers, or not so many.
    """
    # Outputs of a sample come in a tensor, an array or a list.
    if isinstance(result, tuple) and (type(result) is not tuple or len(result) != (count or 1)):
        raise NoNumbers(SEVERAL.format(described(result)))
    values = as_numbers(result)
    if count is None and values.numel() == 1:
        values = values.reshape(())
    elif count is not None and values.shape == (count, 1):
        values = values[:, 0]
    expected = () if count is None else (count,)
    outputs = tuple(values.shape[len(expected) :])
    fits = outputs == sample_shape[: len(outputs)]
    if tuple(values.shape[: len(expected)]) != expected or not fits:
        if count == 1 and tuple(values.shape) == sample_shape[: values.ndim]:
            return values[None]  # squeeze() takes a batch of one with it
        if count is None and tuple(values.shape) == (1, *sample_shape[: values.ndim - 1]):
            return values[0]  # a batch of one comes with it
        wanted = "one number" if count is None else f"shape ({count},)"
        if sample_shape:
            wanted += f" or {(*expected, *sample_shape)}, one number an output, or part of that"
        hint = ""
        if count is not None and tuple(values.shape) == (count, count):
            hint = DIAGONAL
        elif outputs and outputs == sample_shape[1:]:
            hint = CLASSES_LAST
        raise ReturnedError(
            f"returned shape {tuple(values.shape)}, where {wanted} is expected{hint}"
        )
    return values


def as_numbers(result: Any) -> Tensor:
    """A metric's result as float64 on the CPU, of whatever shape.

    Raises:
        ReturnedError: they are no numbers, or make no one array.
    """
    try:
        if isinstance(result, (list, tuple)) and result and isinstance(result[0], Tensor):
            result = torch.stack(list(result))
        if isinstance(result, Tensor) and not result.is_complex():
            return result.detach().to_dense().to("cpu", torch.float64)
        if isinstance(result, np.ma.MaskedArray):  # what is masked is no number
            result = np.ma.filled(result.astype(np.float64), np.nan)
        array = np.asarray(result)
        if array.dtype.kind in "biuf":
            return torch.from_numpy(array.astype(np.float64))
    except (TypeError, ValueError, RuntimeError) as error:  # elements of several kinds or shapes
        raise NoNumbers(NO_NUMBERS.format(described(result))) from error
    raise NoNumbers(NO_NUMBERS.format(described(result)))


def described(value: Any) -> str:
    """What a metric got or gave, in a few words."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_wild(prediction: Any) -> bool:
    """Whether a prediction has numbers that are not finite, of which no metric can say anything."""
    tensor = isinstance(prediction, Tensor) and prediction.is_floating_point()
    return tensor and not prediction.isfinite().all()


def of_other_shapes(found: Sequence[Tensor | None]) -> dict[int, ReturnedError]:
    """What is wrong with those of the samples' values whose shape is not that of most."""
    shapes = {i: tuple(values.shape) for i, values in enumerate(found) if values is not None}
    usual = Counter(shapes.values()).most_common(1)[0][0] if shapes else ()
    return {
        sample: ReturnedError(
            f"returned shape {shape}, where it returned {usual} for other samples: it must return "
            "as many numbers for each"
        )
        for sample, shape in shapes.items()
        if shape != usual
    }


def stacked(found: list[Tensor | None], of_batches: bool) -> Tensor:
    """Values of samples one by one as one tensor; NaN where there are none.

    Args:
        found: of each sample, `(1, ...)` if they are those of batches of one, else `(...)`.
        of_batches: which of these they are.
    """
    known = [values for values in found if values is not None]
    shape = known[0].shape if known else [1] * of_batches
    missing = torch.full(shape, torch.nan, dtype=torch.float64, device="cpu")
    parts = [missing if values is None else values for values in found]
    return torch.cat(parts) if of_batches else torch.stack(parts)


def same_outputs(errors: Sequence[Tensor]) -> list[Tensor]:
    """Errors `(..., *outputs)` with outputs for those that have none.

    Where the metric failed for all samples, it has not shown how many there are.
    """
    most = max(errors, key=lambda each: each.ndim)
    behind = [most.shape[each.ndim :] for each in errors]
    return [
        each.view(*each.shape, *[1] * len(outputs)).expand(*each.shape, *outputs)
        for each, outputs in zip(errors, behind)
    ]


def take(objects: Any, samples: Sequence[int]) -> Any:
    """Some samples of what a metric takes."""
    if isinstance(objects, (Tensor, np.ndarray)):
        return objects[list(samples)]
    return [objects[sample] for sample in samples]


def _copied(objects: Any) -> Any:
    """The same objects, and all that they hold, once more."""
    if isinstance(objects, Tensor):
        return objects.clone()
    if isinstance(objects, list) and all(isinstance(each, str) for each in objects):
        return list(objects)
    return copy.deepcopy(objects)
