"""The report, and what it looks like on other screens than the one it was made on."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from conftest import make_arguments, make_loss, train
from torch import nn

import learned_surrogates

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[1]


def page_of(criterion, folder):
    return criterion.report(folder / "report.html").read_text()


@pytest.mark.parametrize("case", ["measured", "tensors"])
def test_a_page_has_the_width_of_its_screen(case, tmp_path):
    criterion = make_loss(case)
    train(criterion, case, range(4))
    page = page_of(criterion, tmp_path)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    # What is wider than a phone's 390 pixels scrolls within its own place.
    assert "figure { margin: 1.5rem 0; overflow-x: auto }" in page
    widths = [int(width) for width in re.findall(r'style="min-width: (\d+)px"', page)]
    assert len(widths) == page.count("<img") > 0
    assert all(300 <= width <= 700 for width in widths)


def text_of(page):
    return " ".join(re.findall(r"<p>(.*?)</p>", page))


WORDS = {
    "base loss": ("cosine of the base loss", {"base_loss": lambda p, t: (p - t).square().mean()}),
    "penalty": ("gradient penalty", {"penalty_weight": 0.1}),
    "filter": ("the filter keeps", {"filter": 0.5}),
}


@pytest.mark.parametrize("part", WORDS)
def test_captions_speak_of_what_is_shown(part, tmp_path):
    words, options = WORDS[part]
    case = "measured" if part == "base loss" else "tensors"
    plain, other = make_loss(case), make_loss(case, **options)
    for loss in (plain, other):
        model = nn.Linear(3, 3)
        for seed in range(12):
            inputs, target = make_arguments(case, seed, batch=8)
            loss(model(inputs.detach()), target).backward()
    shown, not_shown = (text_of(page_of(loss, tmp_path)) for loss in (other, plain))
    assert words in shown
    assert words not in not_shown
    assert "if there is one" not in shown + not_shown


def test_signal_and_noise_are_shown_once_there_are_figures(tmp_path):
    criterion, pages = make_loss("measured"), []
    for calls in (range(8), range(8, 60)):
        train(criterion, "measured", calls)
        pages.append(page_of(criterion, tmp_path))
    assert ["Signal and noise" in page for page in pages] == [False, True]


def test_bins_show_how_many_predictions_are_where():
    from learned_surrogates._diagnosis.value_pictures import _by_bin

    errors = torch.cat([torch.rand(900) / 4, 1 + torch.rand(90), torch.full((10,), 50.0)])
    above, below = _by_bin(errors + 0.5, errors).axes
    counts = [bar.get_height() for bar in below.patches]
    assert sum(counts) == 1000
    assert max(counts) > 10 * min(counts)
    assert [bar.get_height() for bar in above.patches] == pytest.approx([0.5] * len(counts))
    for errors in (torch.ones(5), torch.tensor([0.0, 1.0, 1.0, 2.0])):
        _, below = _by_bin(errors, errors).axes
        assert sum(bar.get_height() for bar in below.patches) == len(errors)


def test_without_matplotlib_it_says_once_what_to_install(tmp_path):
    script = """
import sys
sys.modules["matplotlib"] = None
import torch
from learned_surrogates import LearnedSurrogateLoss
LearnedSurrogateLoss(lambda p, t: (p - t).abs().sum(-1)).report("report.html")
"""
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(learned_surrogates.__file__).parents[1])},
    )
    assert found.returncode == 1
    assert found.stderr.count("pip install matplotlib") == 1


def test_the_source_distribution_has_what_its_tests_and_makefile_need():
    with open(ROOT / "pyproject.toml", "rb") as file:
        included = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    needed = ["learned_surrogates", "tests", "docs", "examples", ".ci", "Makefile"]
    assert set(needed) | {"requirements-dev.txt", "README.md"} <= set(included)
