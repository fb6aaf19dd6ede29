"""One page with pictures, to look at before believing a surrogate."""

import base64
import html
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._fitted.core import ValueCore
from .._fitted.filter import Filter
from .._fitted.learner import FEWEST_PAIRS
from .._measured.core import MeasuredCore
from .check import GradientCheck
from .colours import BLUE, GREEN, GREY, ORANGE

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    # Not within the `raise`, whose line a traceback shows above its message.
    missing = "pictures need matplotlib: pip install learned-surrogates[report]"
    raise ImportError(missing) from error

from . import measured_pictures as measured

if TYPE_CHECKING:
    from .._loss import LearnedSurrogateLoss

MOST_BINS = 8
# Share of the errors below the last bin.
MOSTLY = 0.95

# Of an inch of a picture: less, and its words could not be read. Narrow screens scroll instead.
LEAST_PIXELS = 60
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } td { padding: .1rem .8rem .1rem 0; vertical-align: top }
td:last-child { text-align: right; font-variant-numeric: tabular-nums }
figure { margin: 1.5rem 0; overflow-x: auto } img { max-width: 100% }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto } .verdict { font-weight: bold }
"""


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


def write_report(
    criterion: "LearnedSurrogateLoss", path: Path, check: GradientCheck | None
) -> None:
    """See `LearnedSurrogateLoss.report`."""
    core = criterion._core
    if isinstance(core, MeasuredCore):
        sections, sentence = measured.sections(core), measured.verdict(core)
    else:
        sections, sentence = _of_values(core), verdict(core)
    if check is not None:
        sections.append(("Gradient check", _check_text(check), check_figure(check)))
        sentence += " " + check.verdict
    path.write_text(_page(criterion, sections, sentence), encoding="utf-8")


Section = tuple[str, str, Figure]


def _of_values(core: ValueCore) -> list[Section]:
    """Pictures of a surrogate that is fitted to values."""
    learner, sections = core.learner, []
    history = learner.history.columns()
    if learner.pairs.unseen.size:
        values, errors, _ = learner.pairs.unseen.oldest_first()
        scatter = _scatter(values, errors, learner.recipe.filter, learner.mean_error)
        text = SCATTER_TEXT + FILTER_TEXT * (learner.recipe.filter is not None)
        sections.append(("Surrogate against metric", text, scatter))
        sections.append(("Where it is wrong", BIN_TEXT, _by_bin(values, errors)))
    if len(history["updates"]) > 1:
        text = FIT_TEXT + PENALTY_TEXT * _any(history["penalty"])
        sections.append(("The fit, over updates", text, _fit(history)))
        text = METRIC_TEXT + KEPT_TEXT * _any(history["kept"])
        sections.append(("The metric", text, _metric(history)))
    return sections


def _any(values: list[float]) -> bool:
    return any(math.isfinite(value) for value in values)


def verdict(core: ValueCore) -> str:
    """What the figures say, in a sentence or two."""
    stats = core.stats()
    error, few = stats["relative_error"], core.learner.pairs.unseen.size < FEWEST_PAIRS
    if stats["warming_up"] or few or math.isnan(error):
        return "The surrogate is still warming up, or has seen too few predictions to judge it."
    return (
        f"The surrogate's error is {error:.2f} of a constant predictor's, on predictions that it "
        "was not yet fitted to."
    )


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
        [_interval(low, high) + f"\n{count} samples" for low, high, count in check.bins],
    )
    right.set(
        xlabel=f"{kind} before the step",
        title=f"change by {kind}, at step {check.steps[check.step]:g}",
    )
    right.title.set_fontsize(10)
    return figure


def _interval(low: float, high: float) -> str:
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


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
    labels = [_interval(float(errors[group].min()), float(errors[group].max())) for group in groups]
    wrong, count = (values - errors).abs(), len(groups)
    figure = Figure(figsize=(max(6.0, 1.1 * count), 4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.bar(range(count), [float(wrong[group].mean()) for group in groups], color=ORANGE)
    above.set(ylabel="|surrogate - metric|")
    below.bar(range(count), [int(group.sum()) for group in groups], color=GREY)
    below.set_xticks(range(count), labels)
    below.set(ylabel="predictions", xlabel="error by the metric")
    return figure


def _fit(history: dict[str, list[float]]) -> Figure:
    penalised = _any(history["penalty"])
    figure = Figure(figsize=(11, 3.5) if penalised else (7, 3.5), layout="constrained")
    panels = figure.subplots(1, 1 + penalised, squeeze=False)[0]
    left: Axes = panels[0]
    left.plot(history["updates"], history["relative_error"], color=ORANGE)
    left.axhline(1, color="black", linewidth=1, linestyle=":")
    known = [value for value in history["relative_error"] if math.isfinite(value)]
    left.set(xlabel="surrogate updates", ylabel="relative error")
    left.set_ylim(0, min(2.0, max([1.1, *known])))
    if penalised:
        panels[1].plot(history["updates"], history["penalty"], color=BLUE)
        panels[1].set(xlabel="surrogate updates", ylabel="gradient penalty")
        panels[1].set_ylim(bottom=0)
    return figure


def _metric(history: dict[str, list[float]]) -> Figure:
    filtered = _any(history["kept"])
    figure = Figure(figsize=(11, 3.5) if filtered else (7, 3.5), layout="constrained")
    panels = figure.subplots(1, 1 + filtered, squeeze=False)[0]
    panels[0].plot(history["calls"], history["metric"], color=GREEN, linewidth=1)
    panels[0].set(xlabel="calls", ylabel="metric")
    if filtered:
        panels[1].plot(history["calls"], history["kept"], color=BLUE, linewidth=1)
        panels[1].set(xlabel="calls", ylabel="share that is kept", ylim=(-0.03, 1.03))
    return figure


def _check_text(check: GradientCheck) -> str:
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


def _page(
    criterion: "LearnedSurrogateLoss",
    sections: list[Section],
    sentence: str,
) -> str:
    stats = criterion.stats
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{_figure_text(value)}</td></tr>"
        for key, value in stats.items()
    )
    pictures = "".join(
        f'<h2>{title}</h2><p>{html.escape(text)}</p><figure><img alt="{title}" '
        f'style="min-width: {LEAST_PIXELS * figure.get_figwidth():.0f}px" '
        f'src="data:image/png;base64,{_png(figure)}"></figure>'
        for title, text, figure in sections
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Learned surrogate</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style><h1>How the learned surrogate does</h1>"
        f'<p class="verdict">{html.escape(sentence)}</p>{pictures}'
        f"<h2>Figures</h2><table>{rows}</table>"
        f"<h2>The loss</h2><pre>{html.escape(repr(criterion))}</pre>"
    )


def _figure_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if math.isnan(value):
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _png(figure: Figure) -> str:
    """A figure as base64, for the page to hold."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.dpi": 110}):
        figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()
