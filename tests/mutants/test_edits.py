"""The deliberate faults are of the code that there is; `run.py` tries whether tests notice them."""

import ast
from pathlib import Path

from edits import EDITS

import learned_surrogates

PACKAGE = Path(learned_surrogates.__file__).parent
TESTS = Path(__file__).parents[1]


def test_each_text_is_there_exactly_once_and_what_replaces_it_can_be_read():
    stale = []
    for edit in EDITS:
        path = PACKAGE / edit.file
        source = path.read_text() if path.exists() else ""
        if source.count(edit.old) != 1:
            stale.append(str(edit))
        else:
            ast.parse(source.replace(edit.old, edit.new), filename=str(edit))
    assert not stale


def test_no_edit_is_there_twice():
    assert len({(edit.file, edit.old, edit.new) for edit in EDITS}) == len(EDITS)


def test_the_tests_of_each_are_there():
    assert [name for edit in EDITS for name in edit.tests if not (TESTS / name).is_file()] == []


def test_the_page_says_how_many_there_are():
    page = (TESTS.parent / "docs" / "promises.md").read_text()
    files = len({edit.file for edit in EDITS})
    assert f"{len(EDITS)} one-line edits of {files} files" in " ".join(page.split())
