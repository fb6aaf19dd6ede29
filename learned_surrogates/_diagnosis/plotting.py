"""What pictures are made with, and their colours."""

import math
from collections.abc import Iterable

try:
    import matplotlib as matplotlib
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
except ImportError as error:
    # Not within the `raise`, whose line a traceback shows above its message.
    missing = "pictures need matplotlib: pip install matplotlib"
    raise ImportError(missing) from error

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"

#: Of a report: its heading, text and picture.
Section = tuple[str, str, Figure]


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A picture of one panel, or of two side by side."""
    figure = Figure(figsize=(11, 3.5) if count > 1 else (5.9, 3.5), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def any_known(values: Iterable[float]) -> bool:
    """Whether there is something to show."""
    return any(map(math.isfinite, values))


def interval(low: float, high: float) -> str:
    """Its ends, or the one number that it is."""
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
