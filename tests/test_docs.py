"""Every Python snippet of the README and the docs runs, page by page."""

import re
from pathlib import Path

import pytest

from learned_surrogates import text

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Pages whose first snippet runs in a test of its own: the quickstart, and one for torchrun.
APART = ("README.md", "distributed.md")


def snippets_of(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*number of training batches")
@pytest.mark.filterwarnings("ignore:torch.distributed is (disabled|unavailable)")
@pytest.mark.filterwarnings("ignore:.*pin.memory")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_run(page, capsys):
    if page.stem in ("lightning", "transformers", "accelerate"):
        pytest.importorskip(page.stem)
    namespace = {"__name__": "page"}
    for snippet in snippets_of(page)[page.name in APART :]:
        exec(compile(snippet, str(page), "exec"), namespace)


def test_the_table_of_promises_names_tests_that_exist():
    page = (ROOT / "docs" / "promises.md").read_text()
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"`(test_\w+)`", page):
        assert f"def {name}(" in sources, name
    for file in re.findall(r"`([\w/]+\.py)`", page):
        assert (ROOT / "tests" / file).is_file(), file


def test_pages_are_found():
    names = {page.name for page in PAGES}
    assert {"README.md", "quickstart.md", "text.md", "distributed.md", "faq.md"} <= names


def test_the_quickstart_learns():
    """Post-tuning lowers the mean edit distance from about 2.5 (CTC alone, 2.4 with more steps)."""
    snippet = re.search(r"```python\n(.*?)```", PAGES[0].read_text(), re.DOTALL)[1]
    namespace = {}
    exec(snippet, namespace)
    task, model = namespace["surrogate"].task, namespace["model"]
    distances = []
    for _ in range(30):
        frames, *targets_and_lengths = namespace["batch"]()
        log_probs = model(frames).permute(2, 0, 1).log_softmax(dim=-1)
        read = task.decode(task.read(log_probs, *targets_and_lengths))
        distances.append(text.edit_distance(*read).mean())
    # The standard error of the mean of these 960 words is about 0.04.
    assert sum(distances) / len(distances) < 2.3
