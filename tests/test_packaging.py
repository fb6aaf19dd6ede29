"""What is written about versions and files in more than one place agrees."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_oldest_versions_that_are_tested_are_those_that_are_allowed():
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    bounds = [bound.split(">=") for group in (project["dependencies"], *extras) for bound in group]
    pins = (ROOT / "requirements-oldest.txt").read_text()
    for name, version in bounds:
        assert re.search(rf"^{name}=={re.escape(version)}(\.0)*$", pins, re.MULTILINE), name


def test_the_source_distribution_has_all_that_it_names():
    for name in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]:
        assert (ROOT / name).exists(), name
