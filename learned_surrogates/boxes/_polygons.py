"""Intersection over union of polygons that are no boxes, by shapely."""

from typing import Any

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._support.checks import check_tensor

FORMS = "(batch, 2 * corners), (batch, corners, 2) or a list of (corners, 2), 3 corners or more"


def polygon_iou(predictions: Any, targets: Any) -> Tensor:
    """Intersection over union of pairs of polygons, with any number of corners; by shapely.

    For quadrilaterals and outlines of curved text. Dents count as they are, where `rotated_iou`
    takes the convex hull of four corners. Of convex quadrilaterals both say the same; `rotated_iou`
    is faster there and has a gradient, which this has not. A polygon that crosses itself covers
    what its line goes round an odd number of times: of a bow tie, both wings. `Corners` hands
    predictions that cross themselves to the metric as their hull.

    Args:
        predictions: `(batch, 2 * corners)` as x1, y1, x2, y2, ..., or `(batch, corners, 2)`, or a
            list of `(corners, 2)` that need not be of one length; corners in order, either way
            round. A single polygon without the batch will do.
        targets: as many, in any of these forms; corners need not be as many.

    Returns:
        `(batch,)`, 0 to 1, float64 on the CPU; 0 where neither polygon has an area. `()` for a
        single pair.

    Raises:
        TypeError: no numbers.
        ValueError: another shape, fewer than three corners, or a corner that is not finite.

    Example:
        >>> import torch
        >>> square = torch.tensor([[0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0]])
        >>> dented = torch.tensor([[0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 2.0, 2.0, 0.0, 4.0]])
        >>> polygon_iou(square, dented)
        tensor([0.7500], dtype=torch.float64)
    """
    polygons, single = _polygons("prediction", predictions)
    others, _ = _polygons("target", targets)
    if len(polygons) != len(others):
        raise ValueError(f"{len(polygons)} predictions for {len(others)} targets")
    iou = torch.from_numpy(iou_of(polygons, others))
    return iou[0] if single else iou


vars(polygon_iou).update(higher_is_better=True, best=1.0)


def iou_of(polygons: NDArray[np.object_], others: NDArray[np.object_]) -> NDArray[np.float64]:
    """Of pairs of valid polygons `(batch,)`; 0 where neither has an area."""
    # GEOS leaves flags behind of which shapely 2.0 warns, though no value is wrong.
    with np.errstate(invalid="ignore"):
        shared = shapely.area(shapely.intersection(polygons, others))
    union = shapely.area(polygons) + shapely.area(others) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _polygons(name: str, polygons: Any) -> tuple[NDArray[np.object_], bool]:
    """Valid polygons `(batch,)`, and whether what came is a single one without a batch."""
    single = False
    if not isinstance(polygons, list | tuple):
        polygons = _numbers(name, polygons)
        single = polygons.ndim < 2 or polygons.shape[1:] == (2,)
    batch = [polygons] if single else polygons
    outlines = [_outline(name, sample, each) for sample, each in enumerate(batch)]
    made = np.array([shapely.Polygon(outline) for outline in outlines], dtype=object)
    invalid = ~shapely.is_valid(made)
    # What crosses itself falls into several polygons, and lines and points, which the buffer drops.
    made[invalid] = shapely.buffer(shapely.make_valid(made[invalid]), 0)
    return made, single


def _outline(name: str, sample: int, corners: Any) -> NDArray[np.float64]:
    """The corners `(corners, 2)` of one polygon."""
    array = _numbers(f"{name} of sample {sample}", corners)
    outline = array.reshape(-1, 2) if array.ndim == 1 and array.size % 2 == 0 else array
    if outline.ndim != 2 or outline.shape[1] != 2 or len(outline) < 3:
        raise ValueError(
            f"{name} must have shape {FORMS}; that of sample {sample} is {tuple(array.shape)}"
        )
    if not np.isfinite(outline).all():
        raise ValueError(f"{name} of sample {sample}, {outline.tolist()}, is not finite")
    return outline


def _numbers(name: str, numbers: Any) -> NDArray[np.float64]:
    if isinstance(numbers, Tensor):
        check_tensor(name, numbers)
        return numbers.detach().cpu().double().numpy()
    try:
        return np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be corners, as numbers; got {numbers!r}") from error
