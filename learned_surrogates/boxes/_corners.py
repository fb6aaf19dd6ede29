"""The task of a detector that regresses four corners."""

from torch import Tensor

from ._box_task import BoxTask
from ._geometry import rotate, untangled
from ._target_frame import corners_in_frame, ordered_corners, thick


class Corners(BoxTask):
    """Boxes as four corners, `(batch, 8)`: x1, y1, ... x4, y4; called like `Rotated`.

    Four points stand for their convex hull, in whatever order they come. They need not make a
    rectangle, as is usual for scene text. The metric gets tensors, `(batch, 8)` each: as they come,
    but for predictions whose sides cross, which become the corners of their hull, in order.

    Args:
        noise: standard deviation of the Gaussian noise that makes the loss's `draws`, of each
            corner, in shares of the target's sides.

    Raises:
        TypeError: at a call, an argument is of the wrong kind.
        ValueError: at a call, shapes do not fit, or a target is not finite.

    Example:
        >>> import torch
        >>> from learned_surrogates import FitValues, LearnedSurrogateLoss
        >>> criterion = LearnedSurrogateLoss(
        ...     rotated_iou, task=Corners(), fit=FitValues(warm_up=20)
        ... )
        >>> pred = torch.tensor([[1.0, 1.0, 9.0, 2.0, 9.0, 5.0, 1.0, 4.0]], requires_grad=True)
        >>> criterion(pred, torch.tensor([[1.0, 1.0, 8.0, 1.0, 8.0, 5.0, 1.0, 5.0]])).backward()
        >>> pred.grad.shape
        torch.Size([1, 8])
    """

    numbers = 8
    frame_features = 8

    def in_frame(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return corners_in_frame(predictions, targets)

    def features(self, boxes: Tensor) -> Tensor:
        """The corners, in an order of their own."""
        return ordered_corners(boxes)[0].flatten(1)

    def blurred(self, boxes: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        _, frame = ordered_corners(targets)
        shifts = noise.unflatten(1, (4, 2)) * thick(frame[:, 2:4])[:, None]
        return boxes + rotate(shifts, frame[:, 4:]).flatten(1)

    def possible(self, boxes: Tensor) -> Tensor:
        return untangled(boxes)
