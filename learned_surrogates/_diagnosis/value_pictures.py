"""What the report shows of a surrogate that is fitted to values."""

import math

import torch
from torch import Tensor

from .._fitted.core import ValueCore
from .._fitted.learner import FEWEST_PAIRS
from .._learning.filter import Filter
from .plotting import BLUE, GREEN, GREY, ORANGE, Figure, Section, any_known, interval, panels

MOST_BINS = 8
# Share of the errors below the last bin.
MOSTLY = 0.95

SCATTER_TEXT = (
    "Each point is one of the last predictions, from before the surrogate was fitted to it. On the "
    "line, the surrogate is right. Points far above the line at error 0 are good predictions that "
    "it would change; points far below it on the right are bad ones that it leaves alone."
)
FILTER_TEXT = " Between the dotted lines, the filter keeps a gradient."
BIN_TEXT = (
    "Mean of |surrogate - metric| by how large the metric is; below, how many of the predictions "
    "are there. Gradients are worth most where predictions are: look at the high bars first."
)
FIT_TEXT = (
    "The surrogate's error on predictions not yet fitted to, against that of a constant predictor: "
    "1 knows nothing. It may rise when the model gets better, as the metric then varies less."
)
PENALTY_TEXT = " Right: the gradient penalty (LS, figure 2)."
METRIC_TEXT = "Mean of each batch."
KEPT_TEXT = " Right: the share of samples that the filter keeps."


def sections(core: ValueCore) -> list[Section]:
    """Headings, texts and pictures."""
    learner, sections = core.learner, []
    history = learner.history.columns()
    if learner.pairs.unseen.size:
        values, errors, _ = learner.pairs.unseen.oldest_first()
        scatter = _scatter(values, errors, learner.recipe.filter, learner.mean_error)
        text = SCATTER_TEXT + FILTER_TEXT * (learner.recipe.filter is not None)
        sections.append(("Surrogate against metric", text, scatter))
        sections.append(("Where it is wrong", BIN_TEXT, _by_bin(values, errors)))
    if len(history["updates"]) > 1:
        text = FIT_TEXT + PENALTY_TEXT * any_known(history["surrogate/penalty"])
        sections.append(("The fit, over updates", text, _fit(history)))
        text = METRIC_TEXT + KEPT_TEXT * any_known(history["filter/keep_rate"])
        sections.append(("The metric", text, _metric(history)))
    return sections


def verdict(core: ValueCore) -> str:
    """What the figures say, in a sentence or two."""
    stats = core.stats()
    error, few = stats["surrogate/nrmse"], core.learner.pairs.unseen.size < FEWEST_PAIRS
    if stats["surrogate/warming_up"] or few or math.isnan(error):
        return "The surrogate is still warming up, or has seen too few predictions to judge it."
    return (
        f"The surrogate's error is {error:.2f} of a constant predictor's, on predictions that it "
        "was not yet fitted to."
    )


def _scatter(values: Tensor, errors: Tensor, filter: Filter | None, mean_error: float) -> Figure:
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(errors.cpu(), values.cpu(), s=10, alpha=0.35, color=ORANGE, linewidths=0)
    most = max(1e-9, float(errors.max()), float(values.max()))
    axes.plot([0, most], [0, most], color="black", linewidth=1)
    if filter is not None:
        width = filter.threshold * (mean_error if filter.relative else 1)
        for offset in (-width, width):
            axes.plot([0, most], [offset, most + offset], "k:", linewidth=1)
    axes.set(
        xlabel="error by the metric, as fitted to",
        ylabel="surrogate",
        xlim=(-0.03 * most, 1.03 * most),
        ylim=(min(-0.03 * most, float(values.min())), 1.03 * most),
    )
    return figure


def _by_bin(values: Tensor, errors: Tensor) -> Figure:
    values, errors = values.double().cpu(), errors.double().cpu()
    low, high, most = float(errors.min()), float(errors.quantile(MOSTLY)), float(errors.max())
    # Of one width, so that it shows how many there are; the rare large ones share the last.
    steps = torch.linspace(low, high, MOST_BINS, dtype=torch.float64, device="cpu")
    edges = torch.unique(torch.cat([steps, steps.new_tensor([most])]))
    places = torch.bucketize(errors, edges[1:-1].contiguous(), right=True)
    groups = [places == place for place in range(max(1, len(edges) - 1))]
    groups = [group for group in groups if group.any()]
    labels = [interval(float(errors[group].min()), float(errors[group].max())) for group in groups]
    wrong, count = (values - errors).abs(), len(groups)
    figure = Figure(figsize=(max(6.0, 1.1 * count), 4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.bar(range(count), [float(wrong[group].mean()) for group in groups], color=ORANGE)
    above.set(ylabel="|surrogate - metric|")
    below.bar(range(count), [int(group.sum()) for group in groups], color=GREY)
    # On two lines, or neighbours would run into one another.
    below.set_xticks(range(count), [label.replace(" to ", " to\n") for label in labels])
    below.set(ylabel="predictions", xlabel="error by the metric")
    return figure


def _fit(history: dict[str, list[float]]) -> Figure:
    penalties = history["surrogate/penalty"]
    figure, (left, *right) = panels(1 + any_known(penalties))
    left.plot(history["updates"], history["surrogate/nrmse"], color=ORANGE)
    left.axhline(1, color="black", linewidth=1, linestyle=":")
    known = [value for value in history["surrogate/nrmse"] if math.isfinite(value)]
    left.set(xlabel="surrogate updates", ylabel="relative error")
    left.set_ylim(0, min(2.0, max([1.1, *known])))
    for axes in right:
        axes.plot(history["updates"], penalties, color=BLUE)
        axes.set(xlabel="surrogate updates", ylabel="gradient penalty")
        axes.set_ylim(bottom=0)
    return figure


def _metric(history: dict[str, list[float]]) -> Figure:
    kept = history["filter/keep_rate"]
    figure, (left, *right) = panels(1 + any_known(kept))
    left.plot(history["calls"], history["metric/mean"], color=GREEN, linewidth=1)
    left.set(xlabel="calls", ylabel="metric")
    for axes in right:
        axes.plot(history["calls"], kept, color=BLUE, linewidth=1)
        axes.set(xlabel="calls", ylabel="share that is kept", ylim=(-0.03, 1.03))
    return figure
