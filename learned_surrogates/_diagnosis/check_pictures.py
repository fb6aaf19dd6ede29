"""What a gradient check looks like (needs matplotlib)."""

import math

from .check import GradientCheck
from .plotting import BLUE, ORANGE, Figure


def check_figure(check: GradientCheck) -> Figure:
    """Change of the metric by step length, and by bin."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = dict(zip(check.directions, (ORANGE, BLUE)))
    for name, direction in check.directions.items():
        left.errorbar(
            check.steps,
            direction.change,
            [2 * error for error in direction.standard_error],
            marker=".",
            capsize=2,
            color=colours[name],
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
        right.bar(at, direction.by_bin, width, color=colours[name], label=name)
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


def interval(low: float, high: float) -> str:
    """Its ends, or the one number that it is."""
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def check_text(check: GradientCheck) -> str:
    """What it says, in a few sentences."""
    text = (
        "Predictions were moved a little against each gradient, and the metric evaluated again. "
        + check.verdict
    )
    if math.isfinite(check.agreement):
        space = "the model's parameters" if check.of_parameters else "the predictions"
        cosines = ", ".join(
            f"{name} {direction.cosine:.3f}" for name, direction in check.directions.items()
        )
        text += (
            f" Cosine with the true gradient, with respect to {space}: {cosines}. (Two estimates "
            f"of the truth agree to {check.agreement:.3f}.)"
        )
    return text
