"""Every Python snippet of the README and the docs runs, page by page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_run(page, capsys):
    snippets = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    namespace = {}
    for snippet in snippets:
        exec(compile(snippet, str(page), "exec"), namespace)


def test_pages_are_found():
    assert {"README.md", "quickstart.md", "text.md"} <= {page.name for page in PAGES}


def test_quickstart_of_the_readme_learns(capsys):
    page = ROOT / "README.md"
    snippet = re.search(r"```python\n(.*?)```", page.read_text(), re.DOTALL)[1]
    assert len(snippet.splitlines()) <= 25
    namespace = {}
    exec(snippet, namespace)
    stats = namespace["criterion"].stats
    assert stats["updates"] >= 500
    assert stats["relative_error"] < 1
