"""The rooms stand in the order in which docs/architecture.md has them."""

import ast
import re
from pathlib import Path

import learned_surrogates

PACKAGE = Path(learned_surrogates.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
DOMAINS = {
    "boxes",
    "classification",
    "integrations",
    "ranking",
    "retrieval",
    "segmentation",
    "text",
}


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floors():
    """Rooms by their row in the table, the highest 0."""
    rows = re.findall(r"^\| (`_.*?) \|", PAGE.read_text(), re.M)
    return {room: floor for floor, row in enumerate(rows) for room in re.findall(r"`(\w+)`", row)}


def imports(path):
    """The rooms that a file imports from; for the type checker alone does not count."""
    tree = ast.parse(path.read_text())
    types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in types:
            place = [*path.parent.relative_to(PACKAGE).parts, "end"][: -node.level]
            names = [*place, *(node.module or "").split(".")]
            first = next(filter(None, names), None)
            yield from [first] if first else [alias.name for alias in node.names]


def test_each_room_is_in_the_table():
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms - DOMAINS == set(floors())


def test_no_room_uses_one_above_it_and_no_domain_another():
    floor, wrong = floors(), []
    for path in PACKAGE.rglob("*.py"):
        room = room_of(path)
        for used in imports(path):
            above = room in floor and floor.get(used, -1) < floor[room]
            if room != "__init__" and used != room and (above or (used in DOMAINS)):
                wrong.append(f"{path.relative_to(PACKAGE)} uses {used}")
    assert not wrong
