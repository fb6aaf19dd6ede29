"""Deliberate one-line faults, and whether the tests notice them.

    python tests/mutants/run.py              all of `edits`, some minutes an edit's tests take
    python tests/mutants/run.py --part 2/5   every fifth, from the second on
    python tests/mutants/run.py scan boxes   those whose file's path has one of these in it

Each edit is made in a copy of the package, in which the test files that should notice it run until
the first failure. An edit that none of them notices survives: a hole, unless `edits` says why it
is the same program. One whose line is not there any more is stale, and wants a look. Exits with 1
if there are holes or stale edits.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from edits import EDITS, Edit

ROOT = Path(__file__).parents[2]
# Seconds for the tests of one edit, beyond which it has been noticed: by a loop that never ends.
PATIENCE = 600
# What a fork exits with that has not run any tests.
BROKEN = 70
NOTICED, SURVIVED, STALE = "noticed", "SURVIVED", "STALE"


def outcome(edit: Edit, folder: Path) -> str:
    """What becomes of an edit in a copy of the repository."""
    path = folder / "learned_surrogates" / edit.file
    original = path.read_text() if path.exists() else ""
    if original.count(edit.old) != 1:
        return STALE
    path.write_text(original.replace(edit.old, edit.new))
    try:
        return NOTICED if fails(edit.tests, folder) else SURVIVED
    finally:
        path.write_text(original)


def fails(tests: tuple[str, ...], folder: Path) -> bool:
    """Whether a test fails, in a fork of this process: PyTorch is imported once for all."""
    child = os.fork()
    if not child:
        failed = BROKEN
        try:
            os.setpgid(0, 0)
            failed = run_tests(tests, folder)
        finally:
            os._exit(failed)  # not to what the parent does next
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.waitstatus_to_exitcode(status) == BROKEN:
                raise RuntimeError(f"the tests could not be run: {tests}")
            return status != 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def run_tests(tests: tuple[str, ...], folder: Path) -> int:
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    # Processes that tests start take the copy, too.
    os.environ["PYTHONPATH"] = str(folder)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    paths = [f"tests/{name}" for name in tests]
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--tb=no", *paths]))


def chosen(part: str | None, words: list[str]) -> list[Edit]:
    edits = [e for e in EDITS if not words or any(word in e.file for word in words)]
    if part is None:
        return edits
    first, of = map(int, part.split("/"))
    return edits[first - 1 :: of]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", help="such as 2/5: every fifth edit, from the second on")
    parser.add_argument("words", nargs="*", help="parts of files' paths")
    arguments = parser.parse_args()
    edits = chosen(arguments.part, arguments.words)
    found: dict[str, list[Edit]] = {NOTICED: [], SURVIVED: [], STALE: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ignored = shutil.ignore_patterns("__pycache__", ".venv", ".git", "runs", "_build")
        for part in ("learned_surrogates", "tests", "docs", "examples"):
            shutil.copytree(ROOT / part, folder / part, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", folder)
        if fails(("test_replay.py",), folder):
            raise RuntimeError("tests fail without any edit")
        for number, edit in enumerate(edits, 1):
            start = time.monotonic()
            result = outcome(edit, folder)
            found[result].append(edit)
            word = "the same" if result == SURVIVED and edit.same else result
            seconds = time.monotonic() - start
            print(f"{number}/{len(edits)} {word:9} {seconds:5.1f} s  {edit}", flush=True)
    holes = [edit for edit in found[SURVIVED] if not edit.same]
    same = len(found[SURVIVED]) - len(holes)
    noticed, stale = len(found[NOTICED]), len(found[STALE])
    files = len({edit.file for edit in edits})
    print(
        f"{len(edits)} edits of {files} files: {noticed} noticed, {len(holes)} not, {same} the same"
    )
    print(
        f"program, {stale} stale; noticed of those that differ: "
        f"{noticed / max(1, noticed + len(holes)):.0%}"
    )
    return 1 if holes or stale else 0


if __name__ == "__main__":
    # Before any fork, so that each finds it there; the package is imported by forks alone.
    import pytest
    import torch

    torch.set_num_threads(1)
    sys.exit(main())
