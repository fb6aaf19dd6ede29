"""Intersection over union, as metrics."""

from typing import Any

import torch
from torch import Tensor

from ._counts import counts


def iou(
    predictions: Any, targets: Any, *, classes: int | None = None, ignore_index: int | None = None
) -> Tensor:
    """Intersection over union of each image, ready to hand over as a metric; higher is better.

    It says so itself, also within a `functools.partial`, as `classes` needs.

    Args:
        predictions, targets, classes, ignore_index: as `counts` takes them.

    Returns:
        `(images,)`, 0 to 1. With `classes`, the mean over those that an image has in prediction or
        target. 1 where there is nothing, neither predicted nor true.

    Raises:
        TypeError, ValueError: as `counts` does.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 1.0, -1.0, -3.0], [-1.0, -1.0, -1.0, -1.0]])
        >>> iou(logits, torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0]]))
        tensor([0.3333, 1.0000])
    """
    found = counts(predictions, targets, classes=classes, ignore_index=ignore_index)
    return _mean_iou(found) if classes is not None else _iou(found)


vars(iou).update(higher_is_better=True, best=1.0, batched=True)


def dataset_iou(counted: Tensor) -> Tensor:
    """Intersection over union of a whole data set, as benchmarks report it: counts, then divides.

    It is not the mean of `iou` over images: there, each image counts as much as any other; here,
    each pixel does, and with classes each class.

    Args:
        counted: `(images, 3)` or `(images, classes, 3)`, from `counts`; of several batches, put
            together by `torch.cat`.

    Returns:
        `()`; with classes, the mean over those that occur, in predictions or targets.

    Raises:
        ValueError: another shape.

    Example:
        >>> import torch
        >>> dataset_iou(torch.tensor([[1, 0, 0], [9, 5, 5]]))
        tensor(0.5000)
    """
    if not isinstance(counted, Tensor) or counted.ndim not in (2, 3) or counted.shape[-1] != 3:
        got = tuple(counted.shape) if isinstance(counted, Tensor) else type(counted).__name__
        raise ValueError(
            f"counted must be (images, 3) or (images, classes, 3), of counts; got {got}"
        )
    total = counted.sum(0)
    return _mean_iou(total) if counted.ndim == 3 else _iou(total)


def _iou(counted: Tensor) -> Tensor:
    """`(..., 3)` to `(...)`; 1 where all are 0."""
    either = counted.sum(-1)
    return torch.where(either > 0, counted[..., 0] / either.clamp(min=1), 1.0)


def _mean_iou(counted: Tensor) -> Tensor:
    """`(..., classes, 3)` to `(...)`: the mean over classes with any count; 1 where none has."""
    present = counted.sum(-1) > 0
    total = (_iou(counted) * present).sum(-1)
    classes = present.sum(-1)
    return torch.where(classes > 0, total / classes.clamp(min=1), 1.0)
