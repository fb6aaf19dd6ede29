"""What the report shows of a gradient that is measured."""

import math

from .._measured.core import MeasuredCore
from .plotting import BLUE, GREEN, ORANGE, Figure, Section, any_known, panels

KNOWN_TEXT = "The metric's mean over random draws, in closed form: mean of each batch."
WORTH_TEXT = (
    "Left: the metric of the draws around predictions, mean of each batch. Right: how many draws a "
    "sample would be needed for a gradient as quiet, had the surrogate not learned what the metric "
    "mostly says: draws / (1 - R2), R2 the share of the draws' noise that it takes out of the "
    "gradient, by draws that it had not seen."
)


SIGNAL_TEXT = (
    "In the last layer's weights and biases, where samples add up as they do in training: the "
    "length of a step's mean over what it varies by from batch to batch; an optimizer averages "
    "over many steps, so that a tenth is not bad."
)
COSINE_TEXT = (
    " Right: the cosine of the base loss's gradient with the measured one, and twice its standard "
    "error. Below 0, your usual loss now leads away from your metric; where it keeps a share, the "
    "two come to balance one another, and the cosine to -1, as the training ends."
)


def sections(core: MeasuredCore) -> list[Section]:
    """Headings, texts and pictures."""
    history = core.history.columns()
    if len(history["calls"]) < 2:
        return []
    draws = core.recipe.draws > 0
    title = "The metric" + ", and what the draws are worth" * draws
    shown = [(title, WORTH_TEXT if draws else KNOWN_TEXT, _metric(history, draws))]
    compared = any_known(history["base_loss/cosine"])
    if compared or any_known(history["gradient/signal_to_noise"]):
        text = SIGNAL_TEXT + COSINE_TEXT * compared
        shown.append(("Signal and noise", text, _signal(history)))
    return shown


def verdict(core: MeasuredCore) -> str:
    """What the figures say, in a sentence or two."""
    if not core.record.calls:
        return "The loss has not been called yet."
    verdict = core.estimator.verdict
    if core.recipe.draws and core.estimator.r2 == core.estimator.r2:
        verdict += f", so that they do the work of {core.stats()['gradient/effective_draws']:.1f}"
    verdict += "."
    if core.base_share:
        verdict += f" The base loss has {core.base_share:.0%} of the gradient."
    cosine, error = core.record.quality.cosine
    # One that has a share is opposed by the rest where their sum comes to rest: no news of it.
    if cosine + 3 * error < 0 and not core.base_share:
        verdict += f" Its gradient leads away from the metric now: cosine {cosine:.2f}."
    return verdict


def _metric(history: dict[str, list[float]], draws: bool) -> Figure:
    figure, (left, *right) = panels(1 + draws)
    left.plot(history["calls"], history["metric/mean"], color=GREEN, linewidth=1)
    left.set(xlabel="calls", ylabel="metric, mean over draws")
    limits = _limits(history["metric/mean"])
    if limits is not None:
        left.set_ylim(*limits)
    for axes in right:
        axes.plot(history["calls"], history["gradient/effective_draws"], color=ORANGE)
        axes.set(xlabel="calls", ylabel="draws that would do as much alone")
        axes.set_ylim(bottom=0)
    return figure


def _limits(values: list[float]) -> tuple[float, float] | None:
    """Of an axis, where a few wild values would leave nothing to see of the others."""
    known = sorted(filter(math.isfinite, values))
    if len(known) < 20:
        return None
    low, high = known[len(known) // 20], known[-1 - len(known) // 20]
    span = high - low
    near = low - 4 * span, high + 4 * span
    wild = span > 0 and not near[0] <= known[0] <= known[-1] <= near[1]
    return near if wild else None


def _signal(history: dict[str, list[float]]) -> Figure:
    cosines = history["base_loss/cosine"]
    figure, (left, *right) = panels(1 + any_known(cosines))
    left.plot(history["calls"], history["gradient/signal_to_noise"], color=ORANGE)
    left.set(xlabel="calls", ylabel="signal over noise of a step")
    left.set_ylim(bottom=0)
    for axes in right:
        errors = history["base_loss/cosine_error"]
        low, high = zip(*((c - 2 * e, c + 2 * e) for c, e in zip(cosines, errors, strict=True)))
        axes.fill_between(history["calls"], low, high, color=BLUE, alpha=0.2, linewidth=0)
        axes.plot(history["calls"], cosines, color=BLUE)
        axes.axhline(0, color="black", linewidth=1)
        axes.set(xlabel="calls", ylabel="cosine, base loss with measured", ylim=(-1.05, 1.05))
    return figure
