"""The figures that the charts show, from the committed results and tables."""

import json
import re
import statistics
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parents[1]
RESULTS = DOCS.parent / "examples" / "benchmarks" / "results"
STUDY, TEXT = RESULTS / "any_metric", RESULTS / "when_it_helps.json"
BATCH, STEPS = 64, 600
# Problems by what is judged, as examples/user_metrics has them.
KINDS = {
    "labels and classes": (
        *("hamming", "ham100", "f1", "f1_100", "tumour", "top1", "top3"),
        *("costs", "costs100", "ordinal", "tags"),
    ),
    "numbers, angles, points": (
        *("off_by_1", "off100", "counts", "mape", "packs", "degrees", "sincos", "pck"),
    ),
    "lists, masks, decisions": (
        *("ndcg5", "ap", "ap200", "spearman", "sp100", "hungarian", "path"),
        *("iou", "boundary", "iou64", "boundary64"),
    ),
}


class Figure(NamedTuple):
    """A mean with its standard deviation over seeds."""

    mean: float
    spread: float


def _best(rows: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """A method's row at its best rate, as in the study: most seeds, then, of the first two, the
    lowest metric on validation.
    """
    key = (method, BATCH, STEPS)
    mine = [row for row in rows if (row["method"], row["batch"], row["steps"]) == key]
    return min(mine, key=lambda row: (-len(row["seeds"]), statistics.mean(row["validation"][:2])))


def own_metrics(method: str = "package-2") -> dict[str, list[Figure]]:
    """By kind of problem, the test metric over that of the proxy continued, seed by seed."""
    found: dict[str, list[Figure]] = {}
    for kind, names in KINDS.items():
        for name in names:
            rows = json.loads((STUDY / f"{name}.json").read_text())["rows"]
            mine, control = _best(rows, method), _best(rows, "proxy")
            of_control = dict(zip(control["seeds"], control["test"]))
            shares = [test / of_control[seed] for seed, test in zip(mine["seeds"], mine["test"])]
            figure = Figure(statistics.mean(shares), statistics.stdev(shares))
            found.setdefault(kind, []).append(figure)
    return found


def table(page: str, head: str) -> list[list[str]]:
    """The cells, without marks, of the lines below the table's head that begins so."""
    lines = iter((DOCS / page).read_text().splitlines())
    for line in lines:
        if line.startswith(head):
            break
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([re.sub(r"[*`]", "", cell).strip() for cell in line.split("|")[1:-1]])
    return rows


def figure_of(cell: str) -> Figure:
    """A cell's "62.3 \u00b1 0.6", or a figure alone."""
    mean, _, spread = cell.partition("\u00b1")
    return Figure(float(mean), float(spread or 0))


def recognisers() -> dict[str, dict[str, tuple[Figure, Figure]]]:
    """By head: fonts -> edit distance with the proxy, and with the loss, labels with errors."""
    rows = json.loads(TEXT.read_text())

    def figure(head: str, method: str, split: str) -> Figure:
        key = ("noisy", head, STEPS, method)
        found = [
            row[split]
            for row in rows
            if (row["regime"], row["head"], row["steps"], row["method"]) == key
        ]
        return Figure(statistics.mean(found), statistics.stdev(found))

    return {
        name: {
            fonts: (figure(head, "proxy", split), figure(head, "surrogate", split))
            for fonts, split in (("familiar fonts", "familiar"), ("new fonts", "test"))
        }
        for name, head in (("one softmax per position", "characters"), ("CTC", "ctc"))
    }
