"""Boxes as centres, sizes and corners, whatever form they come in."""

import math

import torch
from torch import Tensor

#: What a box of so many numbers is.
FORMS = {
    4: "(x1, y1, x2, y2)",
    5: "(x, y, width, height, angle)",
    8: "(x1, y1, x2, y2, x3, y3, x4, y4)",
}


def corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and, about them, corners in order; differentiable.

    Args:
        boxes: `(batch, n)`; n is 4, 5 or 8, see `FORMS`. Four corners are any four points, and
            stand for their convex hull.

    Returns:
        `(batch, 2)` and `(batch, 4, 2)`. A hull of three corners has one of them twice.
    """
    if boxes.shape[1] == 8:
        points = boxes.unflatten(1, (4, 2))
        centre = points.mean(1)
        return centre, hull(points - centre[:, None])
    boxes = with_angle(boxes)
    half = boxes[:, None, 2:4] / 2 * boxes.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return boxes[:, :2], rotate(half, boxes[:, 4:])


def hull(points: Tensor) -> Tensor:
    """Any four points, as the corners of their convex hull in order, `(batch, 4, 2)`.

    In the order of their directions from a point within the hull, they make a polygon that does
    not cross itself. At most one of its corners is then reentrant; its neighbour takes its place.
    """
    middle = points.detach().mean(1, keepdim=True)
    direction = torch.atan2(*(points.detach() - middle).unbind(-1)[::-1])
    ordered = points.gather(1, direction.argsort(1)[..., None].expand(-1, -1, 2))
    before, after = ordered.roll(1, 1), ordered.roll(-1, 1)
    reentrant = cross(ordered - before, after - ordered) < 0
    return torch.where(reentrant[..., None], before, ordered)


def untangled(quadrilaterals: Tensor) -> Tensor:
    """Quadrilaterals `(batch, 8)`, as the corners of their hull where two of their sides meet.

    A polygon that crosses itself, or touches itself, is refused by libraries of geometry.
    """
    points = quadrilaterals.unflatten(1, (4, 2))
    a, b, c, d = points.unbind(1)
    tangled = _meet(a, b, c, d) | _meet(b, c, d, a)
    return hull(points).where(tangled[:, None, None], points).flatten(1)


def _meet(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Whether segments from a to b and from c to d, each `(batch, 2)`, have a point in common."""
    sides = cross(b - a, c - a).sign() * cross(b - a, d - a).sign()
    others = cross(d - c, a - c).sign() * cross(d - c, b - c).sign()
    return (sides <= 0) & (others <= 0)


def with_angle(boxes: Tensor) -> Tensor:
    """Boxes of 4 or 5 numbers as `(batch, 5)`: centre, size, angle."""
    if boxes.shape[1] == 5:
        return boxes
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2, high - low, torch.zeros_like(boxes[:, :1])], 1)


def canonical(boxes: Tensor) -> Tensor:
    """The one of the descriptions `(batch, 5)` of a rectangle that all of them have in common.

    A rectangle turned by 180 degrees is itself, and turned by 90 degrees with its sides swapped it
    is, too. The one taken has width >= height and an angle in [-pi/2, pi/2), as mmrotate's le90;
    that of a square, which four descriptions share, is in [-pi/4, pi/4).
    """
    centre, (width, height, angle) = boxes[:, :2], boxes[:, 2:].unbind(1)
    swap = height > width
    angle = torch.where(swap, angle + math.pi / 2, angle)
    period = math.pi * torch.where(width == height, 0.5, 1.0).to(angle)
    angle = angle - period * ((angle.detach() + period / 2) / period).floor()
    sizes = torch.where(swap, height, width), torch.where(swap, width, height)
    return torch.cat([centre, torch.stack([*sizes, angle], 1)], 1)


def rotate(vectors: Tensor, angle: Tensor) -> Tensor:
    """Vectors `(batch, ..., 2)` turned by angles `(batch, ...)`, from the x to the y axis."""
    cosine, sine = angle.cos(), angle.sin()
    x, y = vectors.unbind(-1)
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y], -1)


def cross(a: Tensor, b: Tensor) -> Tensor:
    """The third component of the cross product of vectors `(..., 2)`."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def area(polygons: Tensor) -> Tensor:
    """Areas `(batch,)` of polygons `(batch, corners, 2)` whose corners go round in order."""
    return cross(polygons, polygons.roll(-1, 1)).sum(1).abs() / 2
