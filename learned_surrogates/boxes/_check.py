"""What makes a box a box."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .._support.checks import read_tensor
from .._support.precision import at_least_float32
from ._geometry import FORMS

SIZES = {4: ("width x2 - x1", "height y2 - y1"), 5: ("width", "height")}
MEANT = {
    4: "is it centre or corner, and size, or an offset",
    5: "is it an offset that is still to be decoded to a box",
}


def check_boxes(name: str, boxes: Tensor) -> None:
    """Checks the values of boxes `(batch, n)`: finite, and no size negative.

    Raises:
        ValueError: of the first sample that is bad, by its number.
    """
    fault = ~boxes.isfinite().all(1)
    sizes = boxes[:, 2:4] - boxes[:, :2] if boxes.shape[1] == 4 else boxes[:, 2:4]
    if boxes.shape[1] in SIZES:
        fault = fault | (sizes < 0).any(1)
    if not fault.any():
        return
    sample = int(fault.nonzero()[0])
    box = f"{name} of sample {sample}, {FORMS[boxes.shape[1]]} = {boxes[sample].tolist()},"
    if not boxes[sample].isfinite().all():
        raise ValueError(f"{box} is not finite")
    side = SIZES[boxes.shape[1]][int(sizes[sample, 0] >= 0)]
    raise ValueError(f"{box} has a negative {side}: {MEANT[boxes.shape[1]]}?")


def as_boxes(name: str, boxes: Any, numbers: Sequence[int] = tuple(FORMS)) -> Tensor:
    """Boxes of any container as a floating-point tensor `(batch, n)`.

    Raises:
        TypeError: they are not numbers.
        ValueError: they are of no such shape.
    """
    boxes = read_tensor(name, boxes)
    if boxes.ndim != 2 or boxes.shape[1] not in numbers:
        wanted = " or ".join(f"(batch, {n}) for {FORMS[n]}" for n in numbers)
        raise ValueError(f"{name} must have shape {wanted}; its shape is {tuple(boxes.shape)}")
    return at_least_float32(boxes)
