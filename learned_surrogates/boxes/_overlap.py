"""Areas that two convex shapes share, and that both together span, in closed form.

No step decides which side of a line a point is on: every formula is continuous in the corners, so
that boxes which touch, coincide or have no area cost nothing but a rounding error.
"""

import torch
from torch import Tensor

from ._geometry import cross


def overlap_with_rectangle(polygon: Tensor, size: Tensor) -> Tensor:
    """Area `(batch,)` of polygons within rectangles about the origin.

    Args:
        polygon: corners in order, `(batch, corners, 2)`, in the rectangle's own frame.
        size: width and height, `(batch, 2)`.
    """
    width, height = size.unbind(1)
    nothing = torch.zeros_like(width)
    return _overlap_with_trapezoid(polygon + size[:, None] / 2, width, height, nothing, nothing)


def overlap_with_quadrilateral(polygon: Tensor, other: Tensor) -> Tensor:
    """Area `(batch,)` of polygons `(batch, corners, 2)` within convex `other`, `(batch, 4, 2)`."""
    shared = polygon.new_zeros(len(polygon))
    for triangle in (other[:, [0, 1, 2]], other[:, [2, 3, 0]]):
        sides = triangle.roll(-1, 1) - triangle
        # From its longest side, a triangle rises to a point above that side.
        first = sides.detach().square().sum(-1).argmax(1)
        order = (first[:, None] + torch.arange(3, device=first.device)) % 3
        base, tip, _ = sides.gather(1, order[..., None].expand(-1, -1, 2)).unbind(1)
        origin = triangle.gather(1, first[:, None, None].expand(-1, 1, 2))
        squared = base.square().sum(1)
        some = squared > 0
        length = torch.where(some, squared, 1.0).sqrt()
        axis = (base / length[:, None])[:, None]
        length = length * some
        inside, top = polygon - origin, (base + tip)[:, None]
        shift, height = (axis * top).sum((1, 2)), cross(axis, top)[:, 0]
        above = cross(axis, inside) * torch.where(height < 0, -1.0, 1.0)[:, None]
        shared = shared + _overlap_with_trapezoid(
            torch.stack([(axis * inside).sum(2), above], 2),
            length,
            height.abs(),
            shift,
            shift - length,
        )
    return shared


def _overlap_with_trapezoid(
    polygon: Tensor, length: Tensor, height: Tensor, left: Tensor, right: Tensor
) -> Tensor:
    """Area of polygons within `0 <= y <= height, l(y) <= x <= r(y)`.

    The sides are `l(y) = left * y / height` and `r(y) = length + right * y / height`. By Green's
    theorem, the area is the integral, along the polygon's edges, of `G dy` with

        G(x, y) = (length of the part of the trapezoid's line y that is left of x)
                = relu(x - l(y)) - relu(x - r(y)) for 0 <= y <= height, else 0.

    So no edge of the trapezoid is ever followed. Each edge of the polygon is cut to
    0 <= y <= height, and there the mean of each relu is known.
    """
    x, y = polygon.unbind(-1)
    next_x, next_y = polygon.roll(-1, 1).unbind(-1)
    length, height, left, right = (part[:, None] for part in (length, height, left, right))
    rise = next_y - y
    rise = torch.where(rise == 0, torch.ones_like(rise), rise)
    low, high = (torch.minimum(v.clamp(min=0), height) for v in (y, next_y))
    run = next_x - x
    start, end = (x + run * (v - y) / rise for v in (low, high))
    whole = torch.where(height > 0, height, torch.ones_like(height))
    beyond_left = _mean_relu(start - left * low / whole, end - left * high / whole)
    start, end = start - length, end - length
    beyond_right = _mean_relu(start - right * low / whole, end - right * high / whole)
    return ((high - low) * (beyond_left - beyond_right)).sum(1).abs()


def _mean_relu(start: Tensor, end: Tensor) -> Tensor:
    """Mean of `max(0, u)` as u goes evenly from start to end."""
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    span = torch.where(low < 0, high - low, torch.ones_like(low))
    span = torch.where(span > 0, span, torch.ones_like(span))
    return torch.where(low < 0, high.clamp(min=0).square() / (2 * span), (start + end) / 2)


def spanned(points: Tensor) -> Tensor:
    """Area `(batch,)` of the convex hull of points `(batch, n, 2)`.

    The hull lies between two graphs over x, which bend at points alone. At the x of a point, the
    upper one is the highest of the lines between any point to the left and any to the right.
    """
    order = points[..., 0].detach().argsort(1)
    x, y = points.gather(1, order[..., None].expand(-1, -1, 2)).unbind(-1)
    count = x.shape[1]
    left, right = torch.triu_indices(count, count, device=x.device)
    span = x[:, right] - x[:, left]
    share = (x[:, :, None] - x[:, None, left]) / torch.where(span > 0, span, 1.0)[:, None]
    lines = y[:, None, left] + (y[:, right] - y[:, left])[:, None] * share.clamp(0, 1)
    index = torch.arange(count, device=x.device)[:, None]
    within = (left <= index) & (index <= right)
    top = lines.masked_fill(~within, -torch.inf).amax(-1)
    bottom = lines.masked_fill(~within, torch.inf).amin(-1)
    thickness = top - bottom
    return ((x[:, 1:] - x[:, :-1]) * (thickness[:, 1:] + thickness[:, :-1])).sum(1) / 2
