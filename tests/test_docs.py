"""Every Python snippet of the README and the docs runs, page by page."""

import re
import sys
import types
from pathlib import Path

import pytest

from learned_surrogates import text

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# How many first snippets of a page run in a test of their own.
APART = {"README.md": 2, "distributed.md": 1}


def snippets_of(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*number of training batches")
@pytest.mark.filterwarnings("ignore:torch.distributed is (disabled|unavailable)")
@pytest.mark.filterwarnings("ignore:.*pin.memory")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_run(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where some write a report
    if page.stem in ("lightning", "transformers", "accelerate"):
        pytest.importorskip(page.stem)
    # A module that can be imported, as pickle asks for it: tasks are checked for that.
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for snippet in snippets_of(page)[APART.get(page.name, 0) :]:
        exec(compile(snippet, str(page), "exec"), vars(module))


def test_the_table_of_promises_names_tests_that_exist():
    page = (ROOT / "docs" / "promises.md").read_text()
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"`(test_\w+)`", page):
        assert f"def {name}(" in sources, name
    for file in re.findall(r"`([\w/]+\.py)`", page):
        assert (ROOT / "tests" / file).is_file(), file
    for file, names in re.findall(r"`([\w/]+\.py)`: ((?:`test_\w+`(?:, )?)+)", page):
        source = (ROOT / "tests" / file).read_text()
        for name in re.findall(r"\w+", names):
            assert f"def {name}(" in source, (file, name)


def test_pages_are_found():
    names = {page.name for page in PAGES}
    assert {"README.md", "quickstart.md", "text.md", "distributed.md", "faq.md"} <= names


def test_the_quickstart_learns(capsys, tmp_path, monkeypatch):
    """Post-tuning lowers the mean edit distance from about 2.4 (CTC alone, 2.3 with more steps)."""
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for snippet in snippets_of(PAGES[0])[: APART["README.md"]]:
        exec(snippet, namespace)
    assert "lowers the error." in capsys.readouterr().out
    task, model = namespace["surrogate"].task, namespace["model"]
    distances = []
    for _ in range(30):
        frames, *targets_and_lengths = namespace["batch"]()
        log_probs = model(frames).permute(2, 0, 1).log_softmax(dim=-1)
        read = task.decode(task.read(log_probs, *targets_and_lengths))
        distances.append(text.edit_distance(*read).mean())
    # The standard error of the mean of these 960 words is about 0.04.
    assert sum(distances) / len(distances) < 2.2
