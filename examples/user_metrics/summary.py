"""What the results files come to: each method at its best rate, beside the control."""

import json
import math
import statistics
from pathlib import Path

from . import PROBLEMS
from .results import Row

# By problem and method.
Comparison = dict[str, dict[str, Row]]


def best_rows(file: Path, batch: int, steps: int) -> dict[str, Row]:
    """For each method the row at its best rate: the one that all seeds ran with."""
    rows: dict[str, Row] = {}
    for row in json.loads(file.read_text())["rows"]:
        if (row["batch"], row["steps"]) != (batch, steps):
            continue
        kept = rows.get(row["method"])
        if kept is None or rank(row) < rank(kept):
            rows[row["method"]] = row
    return rows


# Seeds that a learning rate is chosen with.
CHOOSING = 2


def rank(row: Row) -> tuple[int, float]:
    """The most seeds first, then the lowest metric on validation, as the rate was chosen."""
    return -len(row["seeds"]), validation(row)


def validation(row: Row) -> float:
    return statistics.mean(row["validation"][:CHOOSING])


def read(folder: Path, batch: int, steps: int = 600) -> Comparison:
    """By problem and method; problems without the control are left out."""
    files = {name: folder / f"{name}.json" for name in PROBLEMS}
    found = {name: best_rows(file, batch, steps) for name, file in files.items() if file.exists()}
    return {name: rows for name, rows in found.items() if "proxy" in rows}


def mean(row: Row) -> float:
    return statistics.mean(row["test"])


def spread(row: Row) -> float:
    return statistics.stdev(row["test"]) if len(row["test"]) > 1 else 0.0


def ratios(row: Row, control: Row) -> list[float]:
    """To the control, seed by seed: both went on from the same checkpoint."""
    of_control = dict(zip(control["seeds"], control["test"]))
    return [test / of_control[s] for s, test in zip(row["seeds"], row["test"]) if s in of_control]


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.mean(map(math.log, values)))


def best_ratio(rows: dict[str, Row]) -> float:
    """What problems are sorted by: the package, or the score function where it has not run."""
    row = rows.get("package-2") or rows.get("score-2") or rows["proxy"]
    return mean(row) / mean(rows["proxy"])
