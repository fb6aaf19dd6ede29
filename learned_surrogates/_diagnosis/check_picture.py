"""What the report shows of a gradient check, and `GradientCheck.plot`."""

from .check import BASE, DECODED, OWN, GradientCheck
from .plotting import BLUE, GREEN, ORANGE, Figure, interval

COLOURS = {OWN: ORANGE, DECODED: GREEN, BASE: BLUE}


def picture(check: GradientCheck) -> Figure:
    """The change of the metric by step length, and by its error before the step."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, direction in check.directions.items():
        left.errorbar(
            check.steps,
            direction.change,
            [2 * error for error in direction.standard_error],
            marker=".",
            capsize=2,
            color=COLOURS[name],
            label=name,
        )
    left.axhline(0, color="black", linewidth=1)
    left.set_xscale("log")
    kind = "expected error" if check.expected else "error"
    left.set(
        xlabel="step, share of a prediction's spread",
        ylabel=f"change of the {kind}",
        title=f"below 0 is better ({kind} before: {check.error:.3g}; bars: 2 standard errors)",
    )
    left.title.set_fontsize(10)
    left.legend()
    width = 0.8 / len(check.directions)
    for place, (name, direction) in enumerate(check.directions.items()):
        at = [i + width * (place - (len(check.directions) - 1) / 2) for i in range(len(check.bins))]
        right.bar(at, direction.by_bin, width, color=COLOURS[name], label=name)
    right.axhline(0, color="black", linewidth=1)
    right.set_xticks(
        range(len(check.bins)),
        [interval(low, high) + f"\n{count} samples" for low, high, count in check.bins],
    )
    right.set(
        xlabel=f"{kind} before the step",
        title=f"change by {kind}, at step {check.steps[check.step]:g}",
    )
    right.title.set_fontsize(10)
    return figure
