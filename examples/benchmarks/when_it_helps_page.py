"""The tables of docs/when-it-helps.md, from the study's results.

Between the page's markers everything is replaced; all else on it is written by hand.

Example:
    python examples/benchmarks/when_it_helps_page.py
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

from lib.runs import Row, at_best_rate, read, spread

RESULTS = Path(__file__).parent / "results" / "when_it_helps.json"
PAGE = ROOT / "docs" / "when-it-helps.md"
BEGIN, END = (f"<!-- when_it_helps_page.py: {at} -->" for at in ("begin", "end"))
# A table each: what it is of, by regime and head.
TABLES = {
    "Labels with errors, edit distance, one softmax per position": ("noisy", "characters"),
    "Labels with errors, edit distance, CTC": ("noisy", "ctc"),
    "Clean labels, edit distance, one softmax per position": ("clean", "characters"),
    "Clean labels, edit distance, CTC": ("clean", "ctc"),
    "Cautious (a wrong or additional character costs 5), clean labels, CTC": ("asymmetric", "ctc"),
    "A digit costs 10, clean labels, one softmax per position": ("digits", "characters"),
    "A digit costs 10, clean labels, CTC": ("digits", "ctc"),
    "A digit costs 10, labels with errors, one softmax per position": (
        "noisy-digits",
        "characters",
    ),
    "Whether the word is wrong, labels with errors, one softmax per position": (
        "words",
        "characters",
    ),
    "Whether the word is wrong, labels with errors, CTC": ("words", "ctc"),
}
# What the rows are called, in their order.
NAMES = {
    "proxy": "proxy",
    "surrogate": "**the loss**",
    "surrogate-50": "the loss, half of the proxy",
    "surrogate-25": "the loss, a quarter of the proxy",
    "surrogate-likeliest": "the loss, over the 4 likeliest readings",
    "surrogate-likeliest-25": "the loss, over the 4 likeliest readings, a quarter of the proxy",
    "surrogate-alone": "the loss alone",
    "ls-ed": "`text.ls_ed`, as published",
    "feds": "`text.feds`, as published",
    "mwer4-half": "minimum risk, 4 draws, half of the proxy",
    "nbest5-half": "minimum risk, 5 likeliest readings, half of the proxy",
    "group5-half": "group-relative, 5 draws, half of the proxy",
    "group64-half": "group-relative, 64 draws, half of the proxy",
    "soft10-half": "soft edit distance, half of the proxy",
    "weighted": "cross-entropy, digits x 10",
}


def cells(runs: Sequence[Row], proxy: Sequence[Row], split: str) -> str:
    """A method's error on one split; the change is of the seeds that both have."""
    cell = f" {spread([run[split] for run in runs], 4)} |"
    control = {run["seed"]: run[split] for run in proxy}
    shared = [run for run in runs if run["seed"] in control]
    if runs[0]["method"] == "proxy" or not shared:
        return cell + " |"
    change = sum(run[split] for run in shared) / sum(control[run["seed"]] for run in shared) - 1
    lower = sum(run[split] < control[run["seed"]] for run in shared)
    sign = "+" if change > 0 else "-"
    return cell + f" {sign}{abs(change):.1%} ({lower} of {len(shared)}) |".replace("%", " %")


def table(rows: Sequence[Row]) -> list[str]:
    """Markdown: a line a method and number of steps."""
    biased = any("with bias" in row for row in rows)
    columns = ["steps", "loss", "rate", "seeds"]
    for fonts in ("familiar fonts", "new fonts"):
        columns += [fonts, "against the proxy", *(["with a bias"] if biased else [])]
    lines = [
        "| " + " | ".join([*columns, "words right, new fonts"]) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    start = next((row for row in rows if row["method"] == "checkpoint"), None)
    if start:
        lines.append("| | checkpoint | | |" + of_splits([start], [], biased))
    for steps in sorted({row["steps"] for row in rows}):
        here = [row for row in rows if row["steps"] == steps]
        best = {
            method: at_best_rate(runs)
            for method in NAMES
            if (runs := [row for row in here if row["method"] == method])
        }
        for method, runs in best.items():
            line = f"| {steps} | {NAMES[method]} | {runs[0]['rate']:g} | {len(runs)} |"
            lines.append(line + of_splits(runs, best.get("proxy", []), biased))
    return lines


def of_splits(runs: Sequence[Row], proxy: Sequence[Row], biased: bool) -> str:
    """A line's figures, in familiar and new fonts."""
    line = ""
    for split in ("familiar", "test"):
        line += cells(runs, proxy, split)
        if biased:
            line += f" {spread([run['with bias'][split] for run in runs], 4)} |"
    return line + f" {100 * statistics.mean(run['accuracy'] for run in runs):.1f} % |"


def section(rows: Sequence[Row]) -> str:
    """What stands between the markers: the tables, folded."""
    parts = []
    for title, (regime, head) in TABLES.items():
        own = [row for row in rows if (row["regime"], row["head"]) == (regime, head)]
        if own:
            body = "\n".join(table(own))
            parts.append(f"<details><summary>{title}</summary>\n\n{body}\n\n</details>")
    return "\n\n".join(parts)


def filled(page: str, rows: Sequence[Row]) -> str:
    """The page with the tables of now."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{section(rows)}\n\n{END}{after}"


def main() -> None:
    """Write the page's tables."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    PAGE.write_text(filled(PAGE.read_text(), read(RESULTS)))


if __name__ == "__main__":
    main()
