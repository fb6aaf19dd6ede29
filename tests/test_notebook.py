"""The notebook runs, and shows what it prints."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "own-metric.ipynb"


def figures(printed):
    """What is printed as a name and a figure a line."""
    found = re.findall(r"^(\w[\w ,]*): (\d\.\d+)$", printed, re.MULTILINE)
    return {name: float(figure) for name, figure in found}


def test_the_notebook_runs_and_shows_what_it_prints():
    matplotlib = pytest.importorskip("matplotlib")
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    shown = "".join("".join(output.get("text", "")) for output in outputs)
    # The plot is not shown on a screen, where it would wait to be closed.
    backend, printed = matplotlib.rc_context({"backend": "agg"}), io.StringIO()
    with backend, contextlib.redirect_stdout(printed):
        namespace = {"__name__": "notebook"}
        for source in sources:
            exec(source, namespace)
        namespace["plt"].close("all")
    now, then = figures(printed.getvalue()), figures(shown)
    assert now == pytest.approx(then, abs=0.02)
    assert now["the metric"] < min(now[name] for name in now if name != "the metric") - 0.03
    assert any("image/png" in output.get("data", {}) for output in outputs)
