"""A problem's results: one small JSON file, that grows run by run.

A row is a batch size, a number of steps, a method and a learning rate; its figures are lists, in
the order of its seeds. Several processes may write to one file.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .training import Run

Row = dict[str, Any]
# What a row is told by.
KEY = ("batch", "steps", "method", "rate")
FIGURES = ("validation", "test", "milliseconds", "proxy_milliseconds")


class Results:
    """The file of one problem.

    Args:
        file: is made when the first run is added.
        about: what the file says first: the problem, the command, versions.
    """

    def __init__(self, file: Path, about: dict[str, Any]):
        self.file, self.about = file, about

    def read(self) -> list[Row]:
        return json.loads(self.file.read_text())["rows"] if self.file.exists() else []

    def find(self, **key: Any) -> Row | None:
        return find(self.read(), key)

    def add(self, seed: int, run: Run, commit: str, **key: Any) -> Row:
        """Writes a run down; one of the same seed that is there is replaced."""
        with self._rows() as rows:
            row = find(rows, key)
            if row is None:
                row = key | {"commit": commit, "seeds": []} | {name: [] for name in FIGURES}
                rows.append(row)
            row["commit"] = commit
            figures = {name: rounded(getattr(run, name)) for name in FIGURES}
            if seed in row["seeds"]:
                at = row["seeds"].index(seed)
            else:
                at = sum(earlier < seed for earlier in row["seeds"])
                for name in ("seeds", *FIGURES):
                    row[name].insert(at, None)
            row["seeds"][at] = seed
            for name, figure in figures.items():
                row[name][at] = figure
            if run.stats:
                row.setdefault("stats", {})[str(seed)] = run.stats
            return row

    def drop(self, **key: Any) -> None:
        """Forgets rows: the package has changed."""
        with self._rows() as rows:
            rows[:] = [row for row in rows if not matches(row, key)]

    def keep_stats_of(self, best: Row) -> None:
        """Forgets the package's figures at a method's other rates, which nobody reads."""
        with self._rows() as rows:
            for row in rows:
                same = matches(row, {name: best[name] for name in KEY[:-1]})
                if same and row["rate"] != best["rate"]:
                    row.pop("stats", None)

    @contextlib.contextmanager
    def _rows(self) -> Iterator[list[Row]]:
        """The rows to change, while no other process writes."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.file.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            rows = self.read()
            yield rows
            rows.sort(key=lambda row: [row[name] for name in KEY])
            part = self.file.with_suffix(".part")
            part.write_text(as_text(self.about | {"rows": rows}))
            part.replace(self.file)
        finally:
            os.close(folder)  # and the lock with it


def find(rows: list[Row], key: dict[str, Any]) -> Row | None:
    return next((row for row in rows if matches(row, key)), None)


def matches(row: Row, key: dict[str, Any]) -> bool:
    return all(row[name] == value for name, value in key.items())


def rounded(figure: Any) -> Any:
    return float(f"{figure:.5g}") if isinstance(figure, float) else figure


def as_text(content: dict[str, Any]) -> str:
    """JSON with a row a line, so that changes can be read."""
    lines = [f" {json.dumps(name)}: {json.dumps(value)}," for name, value in content.items()][:-1]
    rows = ",\n".join("  " + json.dumps(row) for row in content["rows"])
    return "\n".join(["{", *lines, ' "rows": [', rows, " ]", "}"]) + "\n"
