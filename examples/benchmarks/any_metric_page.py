"""The picture and the table of docs/any-metric.md, from the study's results.

Between the page's markers everything is replaced; all else on it is written by hand.

Example:
    python examples/benchmarks/any_metric_page.py
"""

import argparse
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

from user_metrics import PROBLEMS
from user_metrics.picture import draw
from user_metrics.results import Row
from user_metrics.summary import Comparison, geometric_mean, mean, pace, read, spread

RESULTS = Path(__file__).parent / "results" / "any_metric"
PAGE = ROOT / "docs" / "any-metric.md"
PICTURE = ROOT / "docs" / "_static" / "any-metric.png"
BATCH = 64
BEGIN, END = (f"<!-- any_metric_page.py: {at} -->" for at in ("begin", "end"))
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


def summary(study: Comparison) -> list[str]:
    """What the table comes to, in a list."""
    comparisons = {
        "package, 2 calls, against the proxy": ("package-2", "proxy"),
        "against the obvious trick": ("package-2", "trick"),
        "against the score function with as many calls": ("package-2", "score-2"),
        "16 calls against 2": ("package-16", "package-2"),
        "one value an output against one a sample, 2 calls each": ("package-outputs", "package-2"),
        "score function, 2 calls, against the proxy": ("score-2", "proxy"),
        "group-relative, 2 calls, against the score function": ("group-2", "score-2"),
        "group-relative, 16 calls, against the score function": ("group-16", "score-16"),
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
        f"Package at {package or 'no commit yet'}."
    )


def section(folder: Path) -> str:
    """What stands between the markers."""
    study = read(folder, BATCH)
    draw(study, PICTURE)
    alternative = "Test metric of each method as a share of the proxy's, for each problem"
    picture = f"![{alternative}](_static/{PICTURE.name})"
    return "\n".join([picture, "", *summary(study), "", *table(study), "", provenance(study)])


def filled(page: str, folder: Path) -> str:
    """The page with the section of now."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{section(folder)}\n{END}{after}"


def main() -> None:
    """Write the picture and the page's sections."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    PAGE.write_text(filled(PAGE.read_text(), parser.parse_args().results))


if __name__ == "__main__":
    main()
