"""Boxes as their targets see them: what an IoU depends on, and nothing else."""

import math

import torch
from torch import Tensor

from ._geometry import canonical, hull, rotate

# A target thinner than this share of its longer side, or smaller than the second number, counts as
# so thick where something is divided by its size.
THINNEST = 1e-3
SMALLEST = 1e-6
# Below this share of the target's side, the logarithm of a predicted side goes on as a line, which
# a side that is zero or negative still can follow up.
SHORTEST = 0.1


def matched(predictions: Tensor, targets: Tensor) -> Tensor:
    """Predicted boxes `(batch, 5)`, described such that their angle is the target's within pi/4.

    Args:
        predictions: `(batch, 5)`, any description of the rectangles.
        targets: `(batch, 5)`, `canonical`.
    """
    turn = predictions[:, 4] - targets[:, 4]
    quarters = (turn.detach() / (math.pi / 2) + 0.5).floor()
    swap = (quarters % 2 == 1)[:, None]
    sides = torch.where(swap, predictions[:, [3, 2]], predictions[:, 2:4])
    angle = predictions[:, 4] - quarters * (math.pi / 2)
    return torch.cat([predictions[:, :2], sides, angle[:, None]], 1)


def box_in_frame(predictions: Tensor, targets: Tensor) -> Tensor:
    """Predicted boxes in their target's frame, `(batch, 6)`; zeros where they are the target.

    Of a target that is thinner than a thousandth, the thickened one (`thick`) stands for it.

    In the frame in which the target is the unit square, IoU depends on the other box alone. Its
    centre (u, v), the logarithms of its sides over the target's, and the shear

        sin(turn) * width / height,  sin(turn) * height / width   (of the target)

    tell all of it; the turn alone would not, for it costs a long box more than a square. Of each,
    the inverse hyperbolic sine is taken, which leaves small numbers as they are and bounds those
    of predictions that are far off.

    Args:
        predictions: `(batch, 5)`; differentiable.
        targets: `(batch, 5)`.
    """
    targets = canonical(targets)
    predictions = matched(predictions, targets)
    size, angle = thick(targets[:, 2:4]), targets[:, 4]
    centre = rotate(predictions[:, :2] - targets[:, :2], -angle) / size
    sides = log_or_line(predictions[:, 2:4] / size)
    aspect = size[:, :1] / size[:, 1:]
    shear = (predictions[:, 4] - angle).sin()[:, None] * torch.cat([aspect, 1 / aspect], 1)
    return torch.cat([centre, sides, shear], 1).asinh()


def corners_in_frame(predictions: Tensor, targets: Tensor) -> Tensor:
    """How far each predicted corner is from the target's, in the target's frame, `(batch, 8)`.

    The frame's axes are those of the target's sides, its units their lengths.

    Args:
        predictions: `(batch, 8)`, corners in any order; differentiable.
        targets: `(batch, 8)`.
    """
    points, frame = ordered_corners(targets)
    others = hull(predictions.unflatten(1, (4, 2)))
    turns = torch.stack([others.roll(shift, 1) for shift in range(4)], 1)
    off = (
        rotate(turns - points[:, None], -frame[:, 4, None, None])
        / thick(frame[:, 2:4])[:, None, None]
    )
    nearest = off.detach().square().sum((2, 3)).argmin(1)
    return off[torch.arange(len(off), device=off.device), nearest].flatten(1).asinh()


def ordered_corners(quadrilaterals: Tensor) -> tuple[Tensor, Tensor]:
    """The corners `(batch, 4, 2)` of quadrilaterals `(batch, 8)`, in an order of their own.

    It goes round the hull from where the longer pair of sides starts, and so is the same in
    whatever order the corners come. Also the rectangle with their centre, mean sides and
    direction, `(batch, 5)`, canonical.
    """
    points = hull(quadrilaterals.unflatten(1, (4, 2)))
    sides = points.roll(-1, 1) - points
    means = ((sides - sides.roll(2, 1)) / 2).detach()
    width, height = means[:, 0].norm(dim=1), means[:, 1].norm(dim=1)
    # The sides of a square that comes as corners differ by a rounding error.
    square = (width - height).abs() <= 1e-4 * torch.maximum(width, height)
    first = ((height > width) & ~square).long()
    along = means[torch.arange(len(means), device=means.device), first]
    angle = torch.atan2(along[:, 1], along[:, 0])
    quarters = torch.where(square, 1, 2)
    period = math.pi / 2 * quarters.to(angle)
    periods = ((angle + period / 2) / period).floor()
    start = first - (periods * quarters).long()
    order = (start[:, None] + torch.arange(4, device=start.device)) % 4
    box = torch.stack(
        [
            *points.mean(1).unbind(1),
            torch.where(first == 1, height, width),
            torch.where(first == 1, width, height),
            angle - periods * period,
        ],
        1,
    )
    return points.gather(1, order[..., None].expand(-1, -1, 2)), box


def thick(size: Tensor) -> Tensor:
    """Widths and heights `(batch, 2)` that can be divided by."""
    return torch.maximum(size, THINNEST * size.amax(1, keepdim=True)).clamp(min=SMALLEST)


def log_or_line(ratio: Tensor) -> Tensor:
    """Natural logarithm; below `SHORTEST`, its tangent there."""
    line = math.log(SHORTEST) + ratio / SHORTEST - 1
    return torch.where(ratio > SHORTEST, ratio.clamp(min=SHORTEST).log(), line)
