"""The picture and tables of docs/any-metric.md and docs/slow-metrics.md, from the results.

Between the pages' markers everything is replaced; all else on them is written by hand.

Example:
    python examples/benchmarks/any_metric_page.py
"""

import argparse
import math
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

from user_metrics import PROBLEMS
from user_metrics.picture import draw
from user_metrics.results import Row
from user_metrics.summary import Comparison, best_rows, geometric_mean, mean, read, spread
from user_metrics.training import EARLY

RESULTS = Path(__file__).parent / "results" / "any_metric"
PAGES = [ROOT / "docs" / name for name in ("any-metric.md", "slow-metrics.md")]
PICTURE = ROOT / "docs" / "_static" / "any-metric.png"
STEPS = 600
MARKED = re.compile(
    r"(<!-- any_metric_page\.py: (\w+) -->\n).*?(\n<!-- any_metric_page\.py: end -->)", re.DOTALL
)
# The table's columns.
HEADS = {
    "proxy": "proxy continued",
    "trick": "the obvious trick",
    "group-2": "group-relative, 2",
    "group-16": "group-relative, 16",
    "score-2": "score function, 2",
    "score-16": "score function, 16",
    "score-2-outputs": "score function, 2, one value an output",
    "package-2": "**package, 2**",
    "package-16": "**package, 16**",
    "package-outputs": "**package, 2, one value an output**",
    "package-share": "package, 2, `correction=0.25`",
}
# What the page's first table holds the package against.
CONTROLS = {
    "proxy": "the proxy, for as many steps",
    "trick": "the best simple trick that we knew",
    "score-2": "the score function with as many calls: the same expected metric, nothing learned",
}
# Columns where the metric is dear: methods and their steps.
DEAR_HEADS = {
    ("proxy", STEPS): "proxy continued",
    ("package-2", STEPS): "every sample measured",
    ("package-2", STEPS // 4): "every sample, a quarter of the steps",
    ("package-quarter", STEPS): "**a quarter of each batch**",
    ("package-late", STEPS): "every sample, values come 8 calls later",
    ("package-late-proxy", STEPS): "the same, with the proxy as `base_loss`",
}
# Level is what differs by less than this share.
LEVEL = 0.003
# R2 from which on two calls do the work of three or more.
MUCH = 0.4


def compare(study: Comparison, method: str, control: str) -> tuple[str, str, str, str] | None:
    """Over the problems that have both: the change, lower in, above in, at worst."""
    shares = [
        mean(rows[method]) / mean(rows[control])
        for rows in study.values()
        if {method, control} <= set(rows)
    ]
    if not shares:
        return None
    lower = sum(share < 1 - LEVEL for share in shares)
    above = sum(share > 1 + LEVEL for share in shares)
    change, worst = (100 * (share - 1) for share in (geometric_mean(shares), max(shares)))
    return f"{round(change):+d} %", f"{lower} of {len(shares)}", f"{above}", f"{worst:+.1f} %"


def first(folder: Path) -> list[str]:
    """The table of what the package is worth beside its controls."""
    study = read(folder, 64, STEPS)
    rows = {control: compare(study, "package-2", control) for control in CONTROLS}
    return [
        "| error with the loss, against | geometric mean | lower in | higher in | at worst |",
        "|---|---|---|---|---|",
        *(f"| {CONTROLS[control]} | {' | '.join(row)} |" for control, row in rows.items() if row),
    ]


def figures(row: Row | None, lowest: float) -> str:
    """A cell: mean ± spread, bold where no method is lower."""
    if row is None:
        return ""
    value = f"{mean(row):.3g}"
    value = f"**{value}**" if mean(row) <= lowest * (1 + LEVEL) else value
    return f"{value} ± {spread(row):.1g}"


def table(study: Comparison, heads: dict[str, str]) -> list[str]:
    """Markdown: a row a problem."""
    methods = [method for method in heads if any(method in rows for rows in study.values())]
    lines = [
        "| metric, lower is better | " + " | ".join(heads[method] for method in methods) + " |",
        "|---" * (len(methods) + 1) + "|",
    ]
    for name, rows in study.items():
        lowest = min(mean(row) for method, row in rows.items() if method in methods)
        cells = [figures(rows.get(method), lowest) for method in methods]
        lines.append(f"| {PROBLEMS[name].sentence} | " + " | ".join(cells) + " |")
    return lines


def summary(study: Comparison) -> list[str]:
    """What the table comes to, in a list."""
    comparisons = {
        "package, 2 calls, against the proxy": ("package-2", "proxy"),
        "against the obvious trick": ("package-2", "trick"),
        "against the score function with as many calls": ("package-2", "score-2"),
        "16 calls against 2": ("package-16", "package-2"),
        "one value an output against one a sample, 2 calls each": ("package-outputs", "package-2"),
        "`correction=0.25` against all of it, 2 calls each": ("package-share", "package-2"),
        "score function, 2 calls, against the proxy": ("score-2", "proxy"),
        "group-relative, 2 calls, against the score function": ("group-2", "score-2"),
        "group-relative, 16 calls, against the score function": ("group-16", "score-16"),
    }
    lines = []
    for text, methods in comparisons.items():
        found = compare(study, *methods)
        if found:
            change, lower, above, worst = found
            lines.append(
                f"- {text}: {change} in the geometric mean, lower in {lower}, above in {above}, at "
                f"worst {worst}."
            )
    return [line for line in (*lines, told(study)) if line]


def told(study: Comparison) -> str:
    """How much of the draws' noise the surrogate took away after 200 calls; empty if none ran."""
    r2 = []
    for rows in study.values():
        stats = rows["package-2"].get("stats", {}) if "package-2" in rows else {}
        early = [each["early"]["surrogate/r2"] for each in stats.values() if "early" in each]
        if early:
            # Without a surrogate there is none.
            r2.append(statistics.mean(0.0 if math.isnan(figure) else figure for figure in early))
    if not r2:
        return ""
    much = sum(figure >= MUCH for figure in r2)
    return (
        f"- the surrogate's R2, the share of the draws' noise that it takes away, after {EARLY} "
        f"calls: {statistics.median(r2):.2f} in the median, at least {MUCH} in {much} of {len(r2)}."
    )


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
    package = commits("package-2", "package-16", "package-outputs", "package-share")
    return (
        f"Seeds: {most if fewest == most else f'{fewest} to {most}'}. "
        f"Package at {package or 'no commit yet'}."
    )


def batches_of_64(folder: Path) -> list[str]:
    """The picture, what it comes to, and the table."""
    study = read(folder, 64, STEPS)
    draw(study, PICTURE)
    alternative = "Test metric of each method as a share of the proxy's, for each problem"
    picture = f"![{alternative}](_static/{PICTURE.name})"
    return [picture, "", *summary(study), "", *table(study, HEADS), "", provenance(study)]


def batches_of_8(folder: Path) -> list[str]:
    """What it comes to; the figures of each problem are in the results."""
    study = read(folder, 8, STEPS)
    if not study:
        return ["Not run yet."]
    return [*summary(study), "", provenance(study)]


def dear(folder: Path) -> list[str]:
    """The table of where the metric is dear."""
    study = {}
    for name in PROBLEMS:
        file = folder / f"{name}.json"
        steps = {
            count: best_rows(file, 64, count) if file.exists() else {} for _, count in DEAR_HEADS
        }
        rows = {f"{m} {n}": steps[n][m] for m, n in DEAR_HEADS if m in steps[n]}
        if any("quarter" in key for key in rows):
            study[name] = rows
    if not study:
        return ["Not run yet."]
    heads = {f"{method} {count}": head for (method, count), head in DEAR_HEADS.items()}
    return table(study, heads)


SECTIONS = {
    "first": first,
    "batches_of_64": batches_of_64,
    "batches_of_8": batches_of_8,
    "dear": dear,
}


def filled(page: str, folder: Path) -> str:
    """The page with its sections of now.

    Raises:
        ValueError: it has none.
    """
    if not MARKED.search(page):
        raise ValueError("the page lacks <!-- any_metric_page.py: ... --> and its end")

    def section(found: re.Match[str]) -> str:
        return found[1] + "\n".join(SECTIONS[found[2]](folder)) + found[3]

    return MARKED.sub(section, page)


def main() -> None:
    """Write the picture and the pages' sections."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args().results
    for page in PAGES:
        page.write_text(filled(page.read_text(), folder))


if __name__ == "__main__":
    main()
