"""What the report shows of a gradient that is measured."""

import math

from matplotlib.figure import Figure

from .._colours import GREEN, ORANGE
from .core import MeasuredCore

WORTH_TEXT = (
    "Left: the metric of the draws around predictions, mean of each batch. Right: how many draws a "
    "sample would be needed for a gradient as quiet, had the surrogate not learned what the metric "
    "mostly says: draws / (1 - R2), R2 the squared correlation of the surrogate's differences with "
    "measured ones that it had not seen."
)


def sections(core: MeasuredCore) -> list[tuple[str, str, Figure]]:
    """Headings, texts and pictures."""
    history = core.history.columns()
    if len(history["calls"]) < 2:
        return []
    return [("The metric, and what the draws are worth", WORTH_TEXT, _worth(history))]


def verdict(core: MeasuredCore) -> str:
    """What the figures say, in a sentence or two."""
    if not core.calls:
        return "The loss has not been called yet."
    share, r2, draws = core.base_share, core.slope.r2, core.recipe.draws
    beside = f" The base loss has {share:.0%} of the gradient." if share else ""
    if math.isnan(r2):
        return f"The gradient is measured by {draws} draws a sample, without a surrogate." + beside
    return (
        f"The gradient is measured by {draws} draws a sample. The surrogate ({core.slope.name}) "
        f"tells {max(r2, 0):.0%} of how the metric differs between draws, so that they do the work "
        f"of {core.worth:.1f}." + beside
    )


def _worth(history: dict[str, list[float]]) -> Figure:
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(history["calls"], history["metric"], color=GREEN, linewidth=1)
    left.set(xlabel="calls", ylabel="metric, mean over draws")
    right.plot(history["calls"], history["gradient/worth"], color=ORANGE)
    right.set(xlabel="calls", ylabel="draws that would do as much alone")
    right.set_ylim(bottom=0)
    return figure
