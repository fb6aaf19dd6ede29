"""Metrics of boxes by another road: shapely's general geometry, one polygon a box."""

import numpy as np
import shapely
from numpy.typing import NDArray
from torch import Tensor

from learned_surrogates.boxes._geometry import corners
from learned_surrogates.boxes._polygons import iou_of


def polygons(boxes: Tensor) -> NDArray[np.object_]:
    """Boxes `(batch, 4)`, `(batch, 5)` or `(batch, 8)` as convex polygons `(batch,)`."""
    if boxes.shape[1] == 8:
        points = boxes.detach().unflatten(1, (4, 2))
    else:
        centre, around = corners(boxes.detach())
        points = centre[:, None] + around
    # The hull of a box without an area is a line or a point; as a polygon, it would be invalid.
    return shapely.convex_hull(shapely.multipoints(points.double().cpu().numpy()))


def shapely_iou(predictions: Tensor, targets: Tensor) -> NDArray[np.float64]:
    """`rotated_iou` by shapely, in float64 on the CPU."""
    return iou_of(polygons(predictions), polygons(targets))


def shapely_giou(predictions: Tensor, targets: Tensor) -> NDArray[np.float64]:
    """`rotated_giou` by shapely, in float64 on the CPU."""
    a, b = polygons(predictions), polygons(targets)
    with np.errstate(invalid="ignore"):  # as in `iou_of`
        both = shapely.union(a, b)
    union, hull = shapely.area(both), shapely.area(shapely.convex_hull(both))
    return iou_of(a, b) - np.divide(hull - union, hull, out=np.ones_like(hull), where=union > 0)
