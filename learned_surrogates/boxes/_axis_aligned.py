"""The task of a detector of upright boxes."""

from typing import Literal

import torch
from torch import Tensor

from .._support.checks import check_choice
from ._box_task import BoxTask
from ._geometry import with_angle
from ._target_frame import box_in_frame, thick


class AxisAligned(BoxTask):
    """Upright boxes `(batch, 4)`; called like `Rotated`.

    The metric gets tensors `(batch, 4)` each, always as x1, y1, x2, y2. A predicted box with
    x2 < x1 or y2 < y1 has no area: the metric gets it shrunk to its middle.

    Args:
        form: "xyxy", two corners, as in torchvision and mmdetection; or "cxcywh", centre and size,
            as in DETR. Of predictions and targets alike. COCO's corner and size must be converted:
            one that is wider than far from the left looks like two corners.
        noise: standard deviation of the Gaussian noise that makes the loss's `draws`, in shares of
            the target's width and height, for each of the corners.

    Raises:
        TypeError: at a call, an argument is of the wrong kind.
        ValueError: here for an unknown form; at a call, shapes do not fit, or a target is not
            finite or has a negative size.

    Example:
        >>> import torch
        >>> from learned_surrogates import FitValues, LearnedSurrogateLoss
        >>> criterion = LearnedSurrogateLoss(
        ...     rotated_giou, task=AxisAligned(), fit=FitValues(warm_up=20)
        ... )
        >>> pred = torch.tensor([[10.0, 20.0, 30.0, 60.0]], requires_grad=True)
        >>> criterion(pred, torch.tensor([[12.0, 22.0, 33.0, 58.0]])).backward()
        >>> pred.grad.shape
        torch.Size([1, 4])
    """

    numbers = 4
    frame_features = 4

    def __init__(self, form: Literal["xyxy", "cxcywh"] = "xyxy", *, noise: float = 0.0):
        super().__init__(noise=noise)
        check_choice("form", form, ("xyxy", "cxcywh"))
        self.form = form

    def __repr__(self) -> str:
        noise = f", noise={self.noise}" if self.noise else ""
        return f"AxisAligned({self.form!r}{noise})"

    def converted(self, boxes: Tensor) -> Tensor:
        if self.form == "xyxy":
            return boxes
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        return torch.cat([centre - half, centre + half], 1)

    def in_frame(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return box_in_frame(with_angle(predictions), with_angle(targets))[:, :4]

    def features(self, boxes: Tensor) -> Tensor:
        """Centre, width, height."""
        return with_angle(boxes)[:, :4]

    def blurred(self, boxes: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        return boxes + noise * thick(targets[:, 2:] - targets[:, :2]).repeat(1, 2)

    def possible(self, boxes: Tensor) -> Tensor:
        low, high = boxes[:, :2], boxes[:, 2:]
        crossed, middle = high < low, (low + high) / 2
        return torch.cat([low.where(~crossed, middle), high.where(~crossed, middle)], 1)
