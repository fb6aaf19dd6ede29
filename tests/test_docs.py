"""Every Python snippet of the README and the docs runs, page by page."""

import ast
import re
import sys
import types
from pathlib import Path

import pytest
from conftest import CASES, MEASURED, make_loss, train

import learned_surrogates
from learned_surrogates import text

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Snippets of a page that run in a test of their own.
APART = {"README.md": slice(1, 3), "distributed.md": slice(0, 1)}


def snippets_of(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def assert_it_prints_what_the_page_says(page, snippet, printed):
    """Its figures, a line each, are those of the sentence that begins with "It prints"."""
    _, after = page.read_text().split(snippet + "```\n", 1)
    if after.lstrip().startswith("It prints"):
        found = [float(x) for x in re.findall(r"^[\w ]+: (\d+\.\d+)$", printed, re.MULTILINE)]
        said = [float(x) for x in re.findall(r"\d+\.\d+", after)]
        assert found == pytest.approx(said[: len(found)], rel=0.03)


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
    snippets = snippets_of(page)
    del snippets[APART.get(page.name, slice(0))]
    for snippet in snippets:
        exec(compile(snippet, str(page), "exec"), vars(module))
        assert_it_prints_what_the_page_says(page, snippet, capsys.readouterr().out)


def test_the_tables_of_promises_name_tests_that_exist():
    """Each in the file that is named before it, in its row or at the head of its table."""
    for block in (ROOT / "docs" / "promises.md").read_text().split("\n\n"):
        head, *rows = block.splitlines() if block.startswith("|") else ["", block]
        of_table = re.search(r"`([\w/]+\.py)`", head)
        for row in rows:
            file = of_table[1] if of_table else None
            for other, name in re.findall(r"`(?:([\w/]+\.py)|(test_\w+))`", row):
                file = other or file
                assert file, f"{name}: of which file?"
                source = (ROOT / "tests" / file).read_text()
                assert not name or f"def {name}(" in source, f"{name} is not in {file}"


@pytest.mark.parametrize("case", CASES)
def test_the_page_of_stats_has_the_keys_that_there_are(case):
    page = (ROOT / "docs" / "stats.md").read_text().split("\n## ")[1:]
    always, measured, of_values = (set(re.findall(r"^\| `(\S+)`", part, re.M)) for part in page)
    expected = always | (measured if case in MEASURED else of_values)
    expected -= set() if case == "measured" else {"gradient/smoothing"}
    criterion = make_loss(case)
    assert set(criterion.stats) == expected
    train(criterion, case, range(2))
    assert set(criterion.stats) == expected


# Messages of PyTorch, Transformers and Lightning that the page explains, too.
OF_OTHERS = (
    "Size mismatch between saved",
    "Missing key(s)",
    "Trying to backward through the graph a second time",
    "The size of tensor a must match the size of tensor b",
    "You must specify exactly one of input_ids or inputs_embeds",
    "Attribute 'criterion' is an instance of nn.Module",
)


def test_the_messages_that_troubleshooting_explains_are_those_of_the_package():
    texts = [*OF_OTHERS]
    for path in Path(learned_surrogates.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    page = " ".join((ROOT / "docs" / "troubleshooting.md").read_text().split())
    pieces = [
        piece.strip(" ,.`")
        for bold in re.findall(r"\*\*([^*]*\"[^*]*)\*\*", page)
        for quoted in re.findall(r'"(.*?)"', bold)
        for piece in re.split(r"\.\.\.|\d+|_extra_state", quoted)
    ]
    assert len(pieces) > 25
    assert [piece for piece in pieces if not any(piece in text for text in texts)] == []


def test_pages_are_found():
    names = {page.name for page in PAGES}
    assert {"README.md", "quickstart.md", "text.md", "distributed.md", "faq.md"} <= names


def test_the_quickstart_learns(capsys, tmp_path, monkeypatch):
    """Post-tuning lowers the mean edit distance from about 2.4 (CTC alone, 2.3 with more steps)."""
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for snippet in snippets_of(PAGES[0])[APART["README.md"]]:
        exec(snippet, namespace)
        printed = capsys.readouterr().out
        assert_it_prints_what_the_page_says(PAGES[0], snippet, printed)
    assert "lowers the error." in printed
    task, model = namespace["surrogate"].task, namespace["model"]
    distances = []
    for _ in range(30):
        frames, *targets_and_lengths = namespace["batch"]()
        log_probs = model(frames).permute(2, 0, 1).log_softmax(dim=-1)
        read = task.decode(task.read(log_probs, *targets_and_lengths))
        distances.append(text.edit_distance(*read).mean())
    # The standard error of the mean of these 960 words is about 0.04.
    assert sum(distances) / len(distances) < 2.2
