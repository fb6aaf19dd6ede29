"""Intersection over union of boxes, as metrics ready to hand over."""

from typing import Any

import torch
from torch import Tensor

from .._support.checks import read_tensor
from ._check import as_boxes, check_boxes
from ._geometry import area, corners, rotate, with_angle
from ._overlap import overlap_with_quadrilateral, overlap_with_rectangle, spanned

# Centres further apart than this many times the larger extent of two boxes are moved as near: they
# have nothing in common there either, and rounding is less.
FAR = 4.0
# Nor can it be told how far apart they are beyond this: the square would overflow.
FARTHEST = 1e12


def rotated_iou(predictions: Any, targets: Any) -> Tensor:
    """Intersection over union of pairs of boxes, rotated or not.

    Computed in closed form on the boxes' device, exact up to rounding, and differentiable almost
    everywhere: where plain IoU is what you want to train on, `1 - rotated_iou(pred, target)` is a
    loss that needs no surrogate.

    Args:
        predictions: `(batch, 5)` as centre x, y, width, height, angle in radians (see `Rotated`);
            or `(batch, 4)` as x1, y1, x2, y2; or `(batch, 8)` as the x, y of four corners, which
            stand for their convex hull, in any order. A single pair without the batch will do, too.
        targets: `(batch, 5)`, `(batch, 4)` or `(batch, 8)`; need not be of the same form.

    Returns:
        `(batch,)`, 0 to 1; 0 where neither box has an area. `()` for a single pair.

    Raises:
        TypeError: no tensor, nor what can be one.
        ValueError: another shape; a box that is not finite or has a negative size.

    Example:
        >>> import math, torch
        >>> square = torch.tensor([[10.0, 10.0, 4.0, 4.0, 0.0]])
        >>> turned = torch.tensor([[10.0, 10.0, 4.0, 4.0, math.pi / 4]])
        >>> rotated_iou(square, turned)
        tensor([0.7071])
    """
    boxes, others, shape = _pairs(predictions, targets)
    iou, _, _, _ = _compare(boxes, others)
    return iou.reshape(shape)


def rotated_giou(predictions: Any, targets: Any) -> Tensor:
    """Generalised IoU: `IoU - (C - U) / C`, with U the union's area and C its convex hull's.

    Unlike IoU, it tells boxes that do not touch how far they are apart (Rezatofighi et al.:
    Generalized Intersection over Union, CVPR 2019). Arguments and errors are those of
    `rotated_iou`, and so is what is said there of its gradient.

    Returns:
        `(batch,)`, -1 to 1; -1 where neither box has an area. `()` for a single pair.

    Example:
        >>> import torch
        >>> square = torch.tensor([[0.0, 0.0, 2.0, 2.0, 0.0]])
        >>> rotated_giou(square, square + torch.tensor([4.0, 0.0, 0.0, 0.0, 0.0]))
        tensor([-0.3333])
    """
    boxes, others, shape = _pairs(predictions, targets)
    iou, union, prediction, target = _compare(boxes, others)
    hull = torch.maximum(spanned(torch.cat([prediction, target], 1)), union)
    some = union > 0
    share = torch.where(some, (hull - union) / torch.where(some, hull, 1.0), 1.0)
    return (iou - share).reshape(shape)


for _metric in (rotated_iou, rotated_giou):
    vars(_metric).update(higher_is_better=True, best=1.0)


def _pairs(predictions: Any, targets: Any) -> tuple[Tensor, Tensor, torch.Size]:
    """Checked boxes `(batch, n)` of one type, and the shape that a result has for them."""
    boxes, others = read_tensor("prediction", predictions), read_tensor("target", targets)
    shape = boxes.shape[:-1]
    if boxes.ndim == others.ndim == 1:
        boxes, others = boxes[None], others[None]
    boxes, others = as_boxes("prediction", boxes), as_boxes("target", others)
    if len(boxes) != len(others):
        raise ValueError(f"{len(boxes)} predictions for {len(others)} targets")
    check_boxes("prediction", boxes)
    check_boxes("target", others)
    dtype = torch.promote_types(boxes.dtype, others.dtype)
    return boxes.to(dtype), others.to(dtype), shape


def _compare(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """IoU and union `(batch,)`; and the corners of both, about the target's centre.

    Areas and corners are in units of the larger box, so that none vanishes or overflows.
    """
    centre, prediction = corners(boxes)
    other_centre, target = corners(others)
    scale = torch.maximum(*(c.detach().abs().amax((1, 2)) for c in (prediction, target)))
    scale = torch.where(scale > 0, scale, 1.0)[:, None]
    prediction, target = (c / scale[:, None] for c in (prediction, target))
    offset = ((centre - other_centre) / scale).clamp(-FARTHEST, FARTHEST)
    distance = offset.detach().norm(dim=1, keepdim=True)
    near = offset * (FAR / distance.clamp(min=FAR))
    placed = prediction + near[:, None]
    areas = [_area(b, c, scale) for b, c in ((boxes, prediction), (others, target))]
    if others.shape[1] == 8:
        shared = overlap_with_quadrilateral(placed, target)
    else:
        rectangle = with_angle(others)
        placed = rotate(placed, -rectangle[:, 4:])
        shared = overlap_with_rectangle(placed, rectangle[:, 2:4] / scale)
    shared = torch.minimum(shared, torch.minimum(*areas))
    union = areas[0] + areas[1] - shared
    iou = torch.where(union > 0, shared / torch.where(union > 0, union, 1.0), shared)
    return iou, union, prediction + offset[:, None], target


def _area(boxes: Tensor, polygon: Tensor, scale: Tensor) -> Tensor:
    """Areas `(batch,)`, from the sizes where they are given: exact for the thinnest of boxes."""
    if boxes.shape[1] == 8:
        return area(polygon)
    return (with_angle(boxes)[:, 2:4] / scale).prod(1)
