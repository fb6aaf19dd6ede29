"""The picture of docs/any-metric.md."""

import statistics
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import PROBLEMS
from .summary import Comparison, best_ratio, ratios

# How the picture shows a method: legend, colour (Okabe and Ito), marker.
SHOWN = {
    "trick": ("what one would try first", "#E69F00", "D"),
    "score-2": ("score function, 2 calls", "#56B4E9", "s"),
    "package-2": ("this package, 2 calls", "#0072B2", "o"),
    "package-16": ("this package, 16 calls", "#009E73", "^"),
    "package-outputs": ("2 calls, one value an output", "#D55E00", "*"),
}
# From this share of the proxy's metric on, there was little to gain.
LITTLE = 0.85
# The picture ends here; beyond it a dot has its share written beside it.
FARTHEST = 1.2


def draw(study: Comparison, file: Path) -> None:
    """The picture: each problem a line, each method a dot, the proxy's level a rule.

    Problems with little to gain get an axis of their own, on which the little is seen.
    """
    order = sorted(study, key=lambda name: -best_ratio(study[name]))
    little = [name for name in order if best_ratio(study[name]) > LITTLE]
    panels = [part for part in (order[len(little) :], little) if part]
    with matplotlib.rc_context({"font.size": 9, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(9, 2 + 0.31 * len(order)), layout="constrained")
        heights = [len(part) + 0.5 for part in panels]
        every = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
        for axes, part in zip(every, panels):
            draw_panel(axes, study, part)
        if panels[0] is not little:
            every[0].set_xlim(left=0)
        every[-1].set_xlabel(
            "test metric after 600 steps, as a share of what the usual loss (the proxy) comes to\n"
            "left of the line: better than going on with the proxy; bars: standard deviation",
            loc="right",
        )
        legend = {line.get_label(): line for axes in every for line in axes.containers}
        order_of = [label for label, *_ in SHOWN.values() if label in legend]
        figure.legend(
            [legend[label] for label in order_of],
            order_of,
            loc="outside upper center",
            ncols=3,
            frameon=False,
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=130, metadata={"Software": None})


def draw_panel(axes: Axes, study: Comparison, names: list[str]) -> None:
    """Some problems, from below, on one axis."""
    axes.axvline(1, color="#444444", linewidth=1.2)
    for number, (method, (label, colour, marker)) in enumerate(SHOWN.items()):
        points = [
            (ratios(study[name][method], study[name]["proxy"]), line + 0.25 - 0.1 * number)
            for line, name in enumerate(names)
            if method in study[name]
        ]
        if not points:
            continue
        means = [statistics.mean(of_seeds) for of_seeds, _ in points]
        inside = [share <= FARTHEST for share in means]
        axes.errorbar(
            [min(share, FARTHEST) for share in means],
            [line for _, line in points],
            xerr=[
                statistics.stdev(of_seeds) if is_inside and len(of_seeds) > 1 else 0
                for (of_seeds, _), is_inside in zip(points, inside)
            ],
            fmt=marker,
            color=colour,
            markersize=8 if marker == "*" else 5,
            elinewidth=1,
            label=label,
        )
        for share, is_inside, (_, line) in zip(means, inside, points):
            if not is_inside:
                axes.text(FARTHEST, line, f"   {share:.2g}", color=colour, va="center", size=8)
    axes.set_yticks(range(len(names)), [PROBLEMS[name].sentence for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    for line in range(len(names)):
        axes.axhline(line, color="#dddddd", linewidth=0.6, zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
