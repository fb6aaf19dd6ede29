"""Targets as the predictions that would meet them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._support.precision import at_least_float32

# Of a probability from 0 and 1: its logarithms are finite, and larger than those of most models.
LEAST = 1e-6


def perfect_predictions(prediction: Tensor, targets: Any) -> list[Tensor]:
    """Tensors like the prediction, one of which is as good as can be for most metrics.

    The targets themselves; where they may be probabilities, what a sigmoid makes them of or, if
    they sum to 1, a softmax; and the like for class indices, where the prediction has a dimension
    of classes.

    Args:
        prediction: `(batch, ...)`.
        targets: as the metric gets them; there are none for what is no tensor of numbers.
    """
    if not isinstance(targets, Tensor) or not len(targets):
        return []
    if targets.numel() != prediction.numel():
        return _of_classes(prediction, targets)
    like = at_least_float32(prediction)
    targets = targets.reshape(prediction.shape).to(like)
    if not ((targets >= 0) & (targets <= 1)).all():
        return [targets]
    # Of ones and zeros both make the same order, but a logarithm is never positive.
    certain = ((targets == 0) | (targets == 1)).all()
    dims = (1, -1) if targets.ndim > 1 else ()
    shared = any(((targets.sum(dim) - 1).abs() < 1e-3).all() for dim in dims)
    logits = targets.clamp(min=LEAST).log() if shared and not certain else targets.logit(LEAST)
    return [targets, logits]


def _of_classes(prediction: Tensor, targets: Tensor) -> list[Tensor]:
    """One-hot classes and their logits, of class indices `(batch, ...)`."""
    if targets.is_floating_point() or prediction.ndim < 2:
        return []
    if targets.shape == (len(targets), 1):
        targets = targets[:, 0]
    found = []
    # Where classes may lie along either, the metric's values tell which.
    for dim in sorted({1, prediction.ndim - 1}):
        if _without(prediction.shape, dim) != targets.shape:
            continue
        classes = prediction.shape[dim]
        # Whatever stands for a target that does not count is as good as any class.
        one_hot = F.one_hot(targets.long().clamp(0, classes - 1), classes).movedim(-1, dim)
        one_hot = one_hot.to(torch.promote_types(prediction.dtype, torch.float32))
        found += [one_hot, one_hot.logit(LEAST)]
    return found


def _without(shape: torch.Size, dim: int) -> tuple[int, ...]:
    kept = list(shape)
    del kept[dim]
    return tuple(kept)
