"""Whether a value depends on what stands beside it: other samples of a batch, other outputs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .probe import Answer, same
from .values import take

# Different values in a batch which tell that none is normalised by the others.
ENOUGH_VALUES = 3
COUPLED = (
    "metric {!r} gives a sample another value where others are in its batch ({:g}, not {:g}), as "
    "if it were normalised by all of them. It is called with one sample at a time. Take what it is "
    "normalised by from the training set, once; or say batched=True, to have values as they are in "
    "their batch"
)
CROSSED = (
    "metric {!r} gives an output another value where the sample's other outputs change ({:g}, not "
    "{:g}), and what one output does to another's value is left out of the gradient: return one "
    "value a sample, their mean. If it is meant, say batched=True"
)


def coupling(
    function: Callable[..., Any], predictions: Any, targets: Any, values: Tensor
) -> tuple[float, float] | None:
    """A sample's value in its batch and alone, if they differ; None if none do.

    Args:
        function: a metric of batches.
        predictions: a batch of them.
        targets: as many.
        values: what it makes of them, `(batch,)`.
    """
    said, values = values, _means(values)
    # From the smallest to the largest: divided by the largest, that and zeros stay as they are, and
    # cut off at the second largest, all others do.
    order = values.argsort().tolist()
    for sample in sorted({order[(len(order) - 1) * part // 8] for part in range(9)}):
        first = _alone(function, predictions, targets, sample)
        together = float(values[sample])
        if first is None or same(together, first):
            continue
        again = _alone(function, predictions, targets, sample)
        if again is not None and same(first, again):
            # Chance may show the same step twice of a sample, and hardly of a batch.
            whole = Answer(function, predictions, targets).values(len(targets))
            if whole is None or whole.shape != said.shape:
                return None
            return (together, first) if whole.allclose(said.to(whole), equal_nan=True) else None
    return None


def _alone(
    function: Callable[..., Any], predictions: Any, targets: Any, sample: int
) -> float | None:
    """A sample's value in a batch of one, the mean of several; None if it has none."""
    answer = Answer(function, take(predictions, [sample]), take(targets, [sample])).values(1)
    return None if answer is None else float(_means(answer))


def crosstalk(
    function: Callable[..., Any], predictions: Any, targets: Any, values: Tensor
) -> tuple[float, float] | None:
    """An output's value where its neighbours are another sample's, and as it is, if they differ.

    Args:
        function: a metric of batches.
        predictions: a batch of them.
        targets: as many.
        values: what it makes of them, `(batch, outputs, ...)`; None is told of `(batch,)`.
    """
    outputs = values.shape[1:]
    if outputs.numel() < 2 or not isinstance(predictions, Tensor):
        return None
    kept = (torch.arange(outputs.numel(), device="cpu") % 2 == 0).view(outputs)
    own = kept.view(*outputs, *[1] * (predictions.ndim - values.ndim)).to(predictions.device)
    mixed = Answer(function, predictions.where(own, predictions.roll(1, 0)), targets)
    crossed = mixed.values(len(targets))
    if crossed is None or crossed.shape != values.shape:
        return None
    for one, other in zip(crossed[:, kept].flatten().tolist(), values[:, kept].flatten().tolist()):
        if not same(one, other):
            again = Answer(function, predictions, targets).values(len(targets))
            # Else it is a matter of chance.
            unchanged = again is not None and again.equal(values)
            return (one, other) if unchanged else None
    return None


def told(values: Tensor) -> bool:
    """Whether the values of a batch are different enough to tell how it is made of samples."""
    different: list[float] = []
    values = _means(values)
    for value in values[values.isfinite()].tolist():
        if not any(same(value, other) for other in different):
            different.append(value)
        if len(different) >= ENOUGH_VALUES:
            return True
    return False


def _means(values: Tensor) -> Tensor:
    """Values `(batch,)`, the mean over outputs taken if there are several."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values
