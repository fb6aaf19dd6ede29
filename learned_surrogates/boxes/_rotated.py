"""The task of a detector of rotated boxes."""

import math

import torch
from torch import Tensor

from .._support.checks import check_positive
from .._support.warnings import warn
from ._box_task import BoxBatch, BoxTask
from ._geometry import canonical, rotate
from ._target_frame import box_in_frame, matched, thick

DEGREES = (
    "target has angles up to {most:g}, more than a whole turn of 2 pi: are they in degrees? "
    "boxes.Rotated() takes radians"
)


class Rotated(BoxTask):
    """Rotated boxes `(batch, 5)`: centre x, y, width, height, angle.

    `criterion(pred, target)`, like `nn.SmoothL1Loss`; and as detectors call their losses,
    `criterion(pred, target, weight=None, avg_factor=None, reduction_override=None)`. A weight of
    zero leaves a box out altogether; weights `(batch, 5)` are averaged. Without any box the loss is
    zero, and can be backwarded.

    The angle is in radians. It turns the box from the x axis towards the y axis: clockwise in
    images, whose y points down. The width lies along (cos angle, sin angle). mmrotate's "oc",
    "le90" and "le135" are all of this kind, and differ in which side they call the width: they are
    read as they come, mixed if you like, for descriptions of one and the same rectangle are equal
    here, to the surrogate and to the metric. (detectron2 counts degrees the other way round: give
    it `-angle * pi / 180`.) Targets of more than a whole turn are doubted, in the first hundred
    calls that learn: degrees below 6.3, of boxes that lie nearly level, cannot be told.

    The metric gets tensors, `(batch, 5)` each. A network may predict a negative size: the metric
    gets zero for it, a box without an area, and the surrogate a number from which the gradient
    leads back. A prediction that is not finite goes to the metric as it is.

    Args:
        noise: standard deviation of the Gaussian noise that makes the loss's `draws`: of centre
            and size in shares of the target's width and height, of the angle in radians.
        image_size: width and height by which centres and sizes are divided where "embedding" sees
            them; None leaves them as they are. The metric gets boxes in their own units.
        canonical: whether "embedding" sees all descriptions of one rectangle as the same box; False
            shows it their own numbers, as in the paper.

    Raises:
        TypeError, ValueError: here, `image_size` is not two positive numbers.
        TypeError: at a call, an argument is of the wrong kind.
        ValueError: at a call, shapes do not fit; a target is not finite or has a negative size.

    Example:
        >>> import torch
        >>> from learned_surrogates import FitValues, LearnedSurrogateLoss
        >>> criterion = LearnedSurrogateLoss(
        ...     rotated_iou, task=Rotated(), fit=FitValues(warm_up=20)
        ... )
        >>> pred = torch.tensor([[52.0, 40.0, 30.0, 11.0, 0.3]], requires_grad=True)
        >>> criterion(pred, torch.tensor([[50.0, 41.0, 32.0, 10.0, 0.25]])).backward()
        >>> pred.grad.shape
        torch.Size([1, 5])
    """

    numbers = 5
    frame_features = 6

    def __init__(
        self,
        *,
        noise: float = 0.0,
        image_size: tuple[float, float] | None = None,
        canonical: bool = True,
    ):
        super().__init__(noise=noise)
        if image_size is not None:
            if len(image_size) != 2:
                raise ValueError(f"image_size must be a width and a height; got {image_size!r}")
            for number in image_size:
                check_positive("image_size", number)
        self.image_size = image_size
        self.canonical = canonical

    def warn_about(self, batch: BoxBatch) -> bool:
        most = batch.target[:, 4].abs().max().item() if len(batch.target) else 0.0
        degrees = 2 * math.pi + 1e-3 < most <= 360
        if degrees:
            warn(DEGREES.format(most=most))
        # Small angles are of boxes that lie nearly level, in degrees as in radians.
        return degrees

    def in_frame(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return box_in_frame(predictions, targets)

    def features(self, boxes: Tensor) -> Tensor:
        """Centre, width, height, cosine, sine: LS, section 4.3."""
        boxes = canonical(boxes) if self.canonical else boxes
        place = boxes[:, :4]
        if self.image_size is not None:
            place = place / place.new_tensor([*self.image_size, *self.image_size])
        return torch.cat([place, boxes[:, 4:].cos(), boxes[:, 4:].sin()], 1)

    def blurred(self, boxes: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        targets = canonical(targets)
        size, angle = thick(targets[:, 2:4]), targets[:, 4]
        shift = rotate(noise[:, :2] * size, angle)
        change = torch.cat([shift, noise[:, 2:4] * size, noise[:, 4:]], 1)
        return matched(boxes, targets) + change

    def possible(self, boxes: Tensor) -> Tensor:
        # Not clamp: a NaN must stay one.
        sizes = torch.where(boxes[:, 2:4] < 0, 0.0, boxes[:, 2:4])
        return torch.cat([boxes[:, :2], sizes, boxes[:, 4:]], 1)
