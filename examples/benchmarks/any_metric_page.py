"""The picture and the table of docs/any-metric.md, from the study's results.

Between the page's two markers everything is replaced; all else on it is written by hand.

Example:
    python examples/benchmarks/any_metric_page.py
"""

import argparse
import statistics
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

from user_metrics import PROBLEMS
from user_metrics.results import Row
from user_metrics.summary import (
    Comparison,
    best_ratio,
    geometric_mean,
    mean,
    pace,
    ratios,
    read,
    spread,
)

RESULTS = Path(__file__).parent / "results" / "any_metric"
PAGE = ROOT / "docs" / "any-metric.md"
PICTURE = ROOT / "docs" / "_static" / "any-metric.png"
MARKERS = ("<!-- any_metric_page.py: begin -->", "<!-- any_metric_page.py: end -->")
# How the picture shows a method: legend, colour (Okabe and Ito), marker; the table's heads.
SHOWN = {
    "trick": ("what one would try first", "#E69F00", "D"),
    "before": ("this package before", "#CC79A7", "v"),
    "score-2": ("score function, 2 calls", "#56B4E9", "s"),
    "package-2": ("this package, 2 calls", "#0072B2", "o"),
    "package-16": ("this package, 16 calls", "#009E73", "^"),
    "package-outputs": ("2 calls, one value an output", "#D55E00", "*"),
}
HEADS = {
    "proxy": "proxy continued",
    "trick": "the obvious trick",
    "before": "before",
    "group-2": "group-relative, 2",
    "group-16": "group-relative, 16",
    "score-2": "score function, 2",
    "score-16": "score function, 16",
    "package-2": "**package, 2**",
    "package-16": "**package, 16**",
    "package-outputs": "**package, 2, one value an output**",
}
# Level is what differs by less than this share.
LEVEL = 0.003


def compare(study: Comparison, method: str, control: str) -> str:
    """One sentence, over the problems that have both; empty where none has."""
    pairs = [
        (rows[method], rows[control]) for rows in study.values() if {method, control} <= set(rows)
    ]
    if not pairs:
        return ""
    shares = [mean(row) / mean(other) for row, other in pairs]
    lower = sum(share < 1 - LEVEL for share in shares)
    above = sum(share > 1 + LEVEL for share in shares)
    change = 100 * (geometric_mean(shares) - 1)
    return (
        f"{change:+.0f} % in the geometric mean, lower in {lower} of {len(pairs)}, "
        f"above in {above}, at worst {100 * (max(shares) - 1):+.1f} %"
    )


def figures(row: Row | None, lowest: float) -> str:
    """A cell: mean ± spread, bold where no method is lower."""
    if row is None:
        return ""
    value = f"{mean(row):.3g}"
    value = f"**{value}**" if mean(row) <= lowest * (1 + LEVEL) else value
    return f"{value} ± {spread(row):.1g}"


def table(study: Comparison) -> list[str]:
    """Markdown: a row a problem, and the pace of each method."""
    methods = [method for method in HEADS if any(method in rows for rows in study.values())]
    lines = [
        "| metric, lower is better | " + " | ".join(HEADS[method] for method in methods) + " |",
        "|---" * (len(methods) + 1) + "|",
    ]
    for name, rows in study.items():
        lowest = min(mean(row) for method, row in rows.items() if method in methods)
        cells = [figures(rows.get(method), lowest) for method in methods]
        lines.append(f"| {PROBLEMS[name].sentence} | " + " | ".join(cells) + " |")
    paces = []
    for method in methods:
        extra = [pace(rows[method]) for rows in study.values() if method in rows]
        paces.append(f"{statistics.median(extra):+.1f} ms" if method != "proxy" else "")
    lines.append("| *a step over the proxy's, median* | " + " | ".join(paces) + " |")
    return lines


def draw(study: Comparison, file: Path) -> None:
    """The picture: each problem a line, each method a dot, the proxy's level a rule."""
    order = sorted(study, key=lambda name: -best_ratio(study[name]))
    with matplotlib.rc_context({"font.size": 9, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(9, 1.6 + 0.29 * len(order)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(1, color="#444444", linewidth=1.2)
        for method, (label, colour, marker) in SHOWN.items():
            offset = 0.26 * (0.5 - list(SHOWN).index(method) / (len(SHOWN) - 1))
            points = [
                (ratios(study[name][method], study[name]["proxy"]), line + offset)
                for line, name in enumerate(order)
                if method in study[name]
            ]
            if points:
                axes.errorbar(
                    [statistics.mean(of_seeds) for of_seeds, _ in points],
                    [line for _, line in points],
                    xerr=[statistics.stdev(r) if len(r) > 1 else 0 for r, _ in points],
                    fmt=marker,
                    color=colour,
                    markersize=8 if marker == "*" else 5,
                    elinewidth=1,
                    label=label,
                )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        low, high = axes.get_xlim()
        ticks = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1, 1.2, 1.5, 2)
        axes.set_xticks([tick for tick in ticks if low <= tick <= high])
        axes.set_yticks(range(len(order)), [PROBLEMS[name].sentence for name in order])
        axes.set_ylim(-0.7, len(order) - 0.3)
        axes.hlines(range(len(order)), *axes.get_xlim(), color="#dddddd", linewidth=0.6, zorder=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(
            "test metric after 600 steps, as a share of what the usual loss (the proxy) comes to\n"
            "left of the line: better than going on with the proxy; bars: standard deviation",
            loc="right",
        )
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=130, metadata={"Software": None})


def summary(study: Comparison) -> list[str]:
    """What the table comes to, in a list."""
    comparisons = {
        "package, 2 calls, against the proxy": ("package-2", "proxy"),
        "against the obvious trick": ("package-2", "trick"),
        "against the score function with as many calls": ("package-2", "score-2"),
        "against the package as it was": ("package-2", "before"),
        "16 calls against 2": ("package-16", "package-2"),
        "one value an output against one a sample, 2 calls each": ("package-outputs", "package-2"),
        "score function, 2 calls, against the proxy": ("score-2", "proxy"),
    }
    found = {text: compare(study, *methods) for text, methods in comparisons.items()}
    return [f"- {text}: {sentence}." for text, sentence in found.items() if sentence]


def provenance(study: Comparison) -> str:
    """The commits and seeds that the figures are from."""

    def commits(*methods: str) -> str:
        found = {
            rows[method]["commit"]
            for rows in study.values()
            for method in methods
            if method in rows
        }
        return ", ".join(sorted(found))

    seeds = {len(row["seeds"]) for rows in study.values() for row in rows.values()}
    fewest, most = min(seeds), max(seeds)
    package = commits("package-2", "package-16", "package-outputs")
    return (
        f"Seeds: {most if fewest == most else f'{fewest} to {most}'}. "
        f"Package at {package or 'no commit yet'}; before: {commits('before') or 'not run'}."
    )


def section(folder: Path) -> str:
    """What stands between the markers."""
    parts = []
    for batch in (64, 8):
        study = read(folder, batch)
        if not study:
            continue
        if batch == 64:
            draw(study, PICTURE)
            alternative = "Test metric of each method as a share of the proxy's, for each problem"
            parts += [f"![{alternative}](_static/{PICTURE.name})", ""]
        parts += [f"**Batches of {batch}**, mean ± standard deviation over the seeds", ""]
        parts += [*summary(study), "", *table(study), "", provenance(study), ""]
    return "\n".join(parts) or "The study has not run yet.\n"


def main() -> None:
    """Write the picture and the page's section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    text = PAGE.read_text()
    before, _, rest = text.partition(MARKERS[0])
    _, _, after = rest.partition(MARKERS[1])
    between = section(options.results)
    PAGE.write_text(f"{before}{MARKERS[0]}\n{between}{MARKERS[1]}{after}")


if __name__ == "__main__":
    main()
