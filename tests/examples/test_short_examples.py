"""The two examples that a newcomer reads first: they run, and stay short."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = ("text_recognition.py", "detection.py")
LINE = r"(.+): (\d+\.\d{2,3}) [%A-Za-z ]+"


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_fits_on_a_page(script):
    assert len((EXAMPLES / script).read_text().splitlines()) <= 60


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_prints_before_control_and_after_from_any_folder(script, tmp_path):
    command = [sys.executable, EXAMPLES / script, "--steps", "2", "--seed", "1"]
    found = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    lines = [re.fullmatch(LINE, line) for line in found.stdout.splitlines()]
    assert all(lines), found.stdout
    assert [line[1].partition(",")[0] for line in lines] == ["before", "control", "after"]
