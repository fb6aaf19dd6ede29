"""A study's runs: one JSON file, a run a line, that grows run by run."""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read(results: Path) -> list[Row]:
    """The runs that a results file has."""
    rows: list[Row] = json.loads(results.read_text()) if results.exists() else []
    return rows


def append(results: Path, row: Row) -> None:
    """Writes one more run down."""
    write(results, [*read(results), row])


def write(results: Path, rows: Sequence[Row]) -> None:
    """Writes all runs down, in place of what was there."""
    results.parent.mkdir(parents=True, exist_ok=True)
    # A run that is interrupted here leaves what there was.
    new = results.with_name(f"{results.name}.new")
    new.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    new.replace(results)


def keep_committed(
    parser: argparse.ArgumentParser, options: argparse.Namespace, *settings: str
) -> None:
    """Refuses to write what was run with other settings to the committed results.

    Args:
        parser: has the settings, and `--results`, with their defaults.
        options: as they were given.
        settings: names of those that the rows do not tell.
    """
    changed = [name for name in settings if getattr(options, name) != parser.get_default(name)]
    if changed and options.results == parser.get_default("results"):
        names = ", ".join(f"--{name}" for name in changed)
        parser.error(f"with other {names} than the committed results, give --results a file")


def at_best_rate(
    rows: Sequence[Row], error: Callable[[Row], float] = itemgetter("validation")
) -> list[Row]:
    """Of one method's runs, those at the rate that was the first seed's best on validation.

    Args:
        rows: the runs.
        error: of a run on validation, lower is better.
    """
    rate = min((row for row in rows if row["seed"] == 0), key=error)["rate"]
    return sorted((row for row in rows if row["rate"] == rate), key=lambda row: row["seed"])


def spread(values: Sequence[float], digits: int) -> str:
    """Mean, and standard deviation if there are several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} \u00b1 {statistics.stdev(values):.{digits}f}"
