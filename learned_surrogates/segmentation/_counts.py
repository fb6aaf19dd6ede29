"""Pixels that are hits, false alarms and misses."""

from typing import Any

import torch
from torch import Tensor

from .._support.checks import check_number, read_tensor
from .._support.precision import at_least_float32

# Of a pixel: what is added to both sides of an IoU that would be 0 / 0.
LEAST = 1e-6


@torch.no_grad()
def counts(
    predictions: Any, targets: Any, *, classes: int | None = None, ignore_index: int | None = None
) -> Tensor:
    """True positives, false positives and false negatives of each image, in pixels.

    A logit that is not a number, and a pixel with such a score, is wrong, whatever is true there.

    Args:
        predictions: masks or logits `(images, ...)`: what is above 0 is foreground. Probabilities
            will not do, as all are above 0. With `classes`, class maps `(images, ...)` of integers,
            or scores `(images, classes, ...)`, whose largest counts.
        targets: masks `(images, ...)` of the predictions' shape, or class maps `(images, ...)`.
        classes: number of classes; None is for masks.
        ignore_index: the class in `targets` whose pixels are not counted; with `classes` only.

    Returns:
        `(images, 3)`, or `(images, classes, 3)`, integers.

    Raises:
        TypeError: no tensors, nor what can be one.
        ValueError: shapes that do not go together; a class that is none.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 1.0, -1.0, -3.0]])
        >>> counts(logits, torch.tensor([[1, 0, 1, 0]]))
        tensor([[1, 1, 1]])
        >>> maps = torch.tensor([[0, 1, 2, 2]])
        >>> counts(maps, torch.tensor([[0, 1, 1, 2]]), classes=3)
        tensor([[[1, 0, 0],
                 [1, 0, 1],
                 [1, 1, 0]]])
    """
    predictions = read_tensor("predictions", predictions)
    targets = read_tensor("targets", targets).to(predictions.device)
    if targets.ndim < 2:
        raise ValueError(
            f"targets must be (images, ...), one image as targets[None]; got {tuple(targets.shape)}"
        )
    if classes is not None:
        return _of_classes(predictions, targets, classes, ignore_index)
    if ignore_index is not None:
        raise ValueError("ignore_index is for class maps: give classes, too")
    if predictions.shape[:1] + predictions.shape[2:] == targets.shape:
        remedy = (
            "masks with and without a channel: then give targets[:, None]"
            if predictions.shape[1] == 1
            else f"scores of classes and class maps: then give classes={predictions.shape[1]}"
        )
        raise ValueError(
            f"predictions {tuple(predictions.shape)} and targets {tuple(targets.shape)} look like "
            + remedy
        )
    check_masks(predictions, targets)
    whole = not predictions.is_floating_point() and predictions.dtype != torch.bool
    if whole and len(predictions.unique()) > 2:
        raise ValueError(
            "predictions are integers with more than two values, as class maps are: then give "
            f"classes={int(max(predictions.amax(), targets.amax())) + 1}, or as many as there are"
        )
    if targets.isnan().any():
        raise ValueError("targets must be masks; some are no number")
    true = targets > 0
    said = torch.where(true, predictions > 0, ~(predictions <= 0)).flatten(1)
    true = true.flatten(1)
    return torch.stack([(said & true).sum(1), (said & ~true).sum(1), (~said & true).sum(1)], 1)


def soft_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """IoU of probabilities, by images: where IoU is meant, `1 - soft_iou(...).mean()` is a loss.

    Every pixel counts with its probability p (Rahman and Wang, ISVC 2016, "IoU-Appx" in NeuroIoU)::

        soft IoU = sum p y / sum (p + y - p y)

    Args:
        logits: `(images, ...)`.
        masks: `(images, ...)` of the same shape: what is above 0 is foreground.

    Returns:
        `(images,)`, 0 to 1.

    Raises:
        TypeError, ValueError: as `counts` does.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[5.0, 5.0, -5.0, -5.0]], requires_grad=True)
        >>> value = soft_iou(logits, torch.tensor([[1, 1, 1, 0]]))
        >>> value
        tensor([0.6630], grad_fn=<DivBackward0>)
        >>> (1 - value).mean().backward()
    """
    logits = read_tensor("logits", logits)
    masks = read_tensor("masks", masks).to(logits.device)
    check_masks(logits, masks)
    hits, false_alarms, misses = soft_counts(logits, masks).unbind(1)
    return (hits + LEAST) / (hits + false_alarms + misses + LEAST)


def soft_counts(logits: Tensor, masks: Tensor) -> Tensor:
    """Expected counts of all pixels, `(images, 3)`: sums of p y, p (1 - y) and (1 - p) y."""
    p = at_least_float32(logits).sigmoid().flatten(1)
    y = (masks > 0).flatten(1).to(p)
    hits = (p * y).sum(1)
    return torch.stack([hits, p.sum(1) - hits, y.sum(1) - hits], 1)


def neuro_counts(logits: Tensor, masks: Tensor, *, hinge: bool = False) -> tuple[Tensor, Tensor]:
    """Counts of pixels by their probability, in the sets that thresholds make (NeuroIoU, Eq. 2).

    Sets are constants, so that only probabilities have a gradient, and correct background none.

    Args:
        hinge: counts the hinge loss `max(0, 1 - t s)` of logits s and signs t (section 3.3).

    Returns:
        `(images, 3)` each: sums over TP, FP and FN of the probability of the class that is
        predicted there, and the sizes of the three.
    """
    s, y = at_least_float32(logits).flatten(1), (masks > 0).flatten(1)
    said = s > 0
    sets = torch.stack([said & y, said & ~y, ~said & y], 1).to(s)
    sign = y.to(s) * 2 - 1
    each = (1 - sign * s).clamp(min=0) if hinge else s.abs().sigmoid()
    return (sets * each[:, None]).sum(2), sets.sum(2)


def _of_classes(
    predictions: Tensor, targets: Tensor, classes: int, ignore_index: int | None
) -> Tensor:
    check_number("classes", classes, 1)
    wild = torch.zeros_like(targets, dtype=torch.bool)
    if predictions.ndim == targets.ndim + 1 and predictions.shape[1] == classes:
        wild, predictions = predictions.isnan().any(1), (1 * predictions).argmax(1)
    if predictions.shape != targets.shape:
        raise ValueError(
            "predictions must be class maps of the targets' shape, or scores (images, "
            f"{classes}, ...); shapes are {tuple(predictions.shape)} and {tuple(targets.shape)}"
        )
    counted = torch.ones_like(wild)
    if ignore_index is not None:
        counted = targets.long() != ignore_index
    if not (~counted | wild | (predictions == predictions.long())).all():
        raise ValueError(
            "predictions of the targets' shape are class maps, and some are no whole numbers. Give "
            f"scores (images, {classes}, ...) or, for masks and their probabilities, no classes="
        )
    if not (~counted | (targets == targets.long())).all():
        raise ValueError("targets must be class maps, and some are no whole numbers")
    counted, true = counted.flatten(1), targets.long().flatten(1)
    said = torch.where(wild.flatten(1), (true + 1) % classes, predictions.long().flatten(1))
    for name, each in (("predictions", said), ("targets", true)):
        bad = counted & ((each < 0) | (each >= classes))
        if bad.any():
            raise ValueError(
                f"{name} must be classes 0 to {classes - 1}; some are {each[bad][0].item()}"
            )
    image = torch.arange(len(true), device=true.device)[:, None]
    cells = ((image * classes + true) * classes + said)[counted]
    confusion = cells.bincount(minlength=len(true) * classes**2)
    confusion = confusion.view(len(true), classes, classes)
    hits = confusion.diagonal(dim1=1, dim2=2)
    return torch.stack([hits, confusion.sum(1) - hits, confusion.sum(2) - hits], 2)


def check_masks(predictions: Tensor, targets: Tensor) -> None:
    """Raises a ValueError where they are no masks of one shape."""
    if predictions.shape != targets.shape or predictions.ndim < 2:
        raise ValueError(
            "masks must have one shape (images, ...); shapes are "
            f"{tuple(predictions.shape)} and {tuple(targets.shape)}"
        )
