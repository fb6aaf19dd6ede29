"""What is measured of a gradient by many draws, and what the study of the loss's report counts."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from benchmarks import from_scratch, gradient_quality
from user_metrics import PROBLEMS
from user_metrics.gradient_truth import Blocks, Draws, cosine, measure, signal_to_noise

SLOPE = torch.tensor([1.0, -2.0, 0.5])


def linear(prediction, target):
    """A metric whose smoothed gradient is SLOPE at every prediction."""
    return prediction @ SLOPE


def figures(share, metric=linear, proxy=None):
    """Of a linear model, and a loss whose surrogate tells such a share of the slope."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3), torch.randn(400, 4) + 0.3
    # The loss's noise is that of the plain draws, so that what is left can be told exactly.
    random, twin = (torch.Generator().manual_seed(1) for _ in range(2))
    width = 0.5

    def call(z, target):
        noise = torch.randn(z.shape, generator=twin)
        d = (metric(z + width * noise, target) - metric(z - width * noise, target)) / 2
        left = (d - share * metric(width * noise, target)) / width
        left = left[:, None] if d.ndim == 1 else left
        return (share * SLOPE + left * noise) / d[0].numel()

    draws = Draws(metric, call, width, random)
    proxy = proxy or (lambda prediction, target: (prediction @ SLOPE).mean())
    return measure(model, proxy, draws, (x, torch.zeros(400)), 2, 20_000)


def test_the_error_of_a_mean_is_its_standard_error():
    random, blocks = torch.Generator().manual_seed(0), Blocks("x")
    for block in range(200):
        blocks.add(block, x=torch.randn((), generator=random) + 3)
    figure = blocks.figure(lambda x: float(x.mean()), "x")
    assert figure.value == pytest.approx(3, abs=4 / 200**0.5)
    assert figure.error == pytest.approx(1 / 200**0.5, rel=0.2)


def test_noise_that_both_share_is_not_taken_for_agreement():
    """At right angles, under noise that is the same for both and ten times as long."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 8, generator=random, dtype=torch.float64)
    first, second = (10 * torch.eye(8, dtype=torch.float64)[i] for i in (0, 1))
    assert cosine(first + noise, second + noise) == pytest.approx(0, abs=0.05)
    assert cosine(first + noise, first - second - noise) == pytest.approx(0.5**0.5, abs=0.05)


def test_the_signal_over_the_noise_is_that_of_steps_of_64():
    random = torch.Generator().manual_seed(0)
    # A mean of length 1, and noise of length 0.5 in steps of ten times as many.
    steps = 0.25 * torch.randn(50, 100, 4, generator=random, dtype=torch.float64)
    steps[..., 0] += 1
    sums = steps.sum(1), steps.square().sum((1, 2)), torch.full((50,), 100.0)
    assert signal_to_noise(*sums) == pytest.approx(1 / (0.5 * 10**0.5), rel=0.05)


def test_a_surrogate_that_tells_all_leaves_no_noise_and_one_that_tells_nothing_all():
    spaces = [f"r2, {name}" for name in ("all", "last", "outputs")]
    assert [figures(1.0)[name].value for name in spaces] == pytest.approx([1] * 3, abs=1e-6)
    assert [figures(0.0)[name].value for name in spaces] == pytest.approx([0] * 3, abs=1e-6)
    half = figures(0.5)
    assert [half[name].value for name in spaces] == pytest.approx([0.75] * 3, abs=0.01)


def test_an_output_s_noise_is_credited_with_its_own_value():
    def by_output(prediction, target):
        return prediction * SLOPE

    assert figures(1.0, by_output)["r2, all"].value == pytest.approx(1, abs=1e-6)
    noise = [figures(0.0, metric)["signal_to_noise, all"].value for metric in (by_output, linear)]
    assert noise[0] > 1.2 * noise[1]


@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, -1.0)])
def test_the_proxy_s_cosine(sign, expected):
    found = figures(0.5, proxy=lambda prediction, target: sign * (prediction @ SLOPE).mean())
    assert found["cosine, all"].value == pytest.approx(expected, abs=0.01)


def row(said, error, true, **others):
    stats = {"surrogate/r2": 0.5, "gradient/signal_to_noise": 1.0}
    stats |= {"base_loss/cosine": said, "base_loss/cosine_error": error}
    truth = {key: [true, 0.01] for key in ("cosine, last", "cosine, all")}
    truth |= {key: [0.52, 0.02] for key in ("r2, all", "r2, outputs", "r2, reported")}
    truth |= {key: [1.0, 0.1] for key in ("signal_to_noise, all", "signal_to_noise, last")}
    found = {"problem": "ap", "a value a": "sample", "stats": stats, "truth": truth}
    return found | {"virtual": [-said, error]} | others


def test_what_is_said_is_counted_right_within_two_errors():
    rows = [row(0.5, 0.1, 0.6), row(0.5, 0.1, 0.8), row(math.nan, math.nan, -0.5)]
    counts = gradient_quality.counts([*rows, row(0.3, 0.1, 0.02)])
    assert [count.rsplit(": ")[1] for count in counts] == [
        "4 of 4.",
        "4 of 4.",
        "1 of 3.",
        "2 of 2 of 3.",
        "0 of 2 of 3.",
    ]
    assert "| hidden |" in gradient_quality.table(rows)


def test_the_loss_is_held_against_the_truth(tmp_path, monkeypatch):
    monkeypatch.setattr(gradient_quality, "checkpoint", lambda problem, *args: problem.model())
    monkeypatch.setattr(gradient_quality, "CALLS", 40)
    found = gradient_quality.compare(PROBLEMS["off_by_1"], "output", 0, 1000, tmp_path)
    assert found["stats"]["calls"] == 40
    assert 0 < found["truth"]["r2, all"][0] < 1


@pytest.mark.parametrize("loss", from_scratch.LOSSES)
def test_an_untrained_model_is_trained(loss, tmp_path):
    problem = dataclasses.replace(PROBLEMS["spearman"], steps=3)
    error, step = from_scratch.of_tensors(problem, loss, 0, tmp_path)
    assert 0.3 < error < 1.5
    assert step is None
    rows = [
        {"problem": "spearman", "loss": loss, "seed": 0, "test": error, "handed_over": step}
        for loss in from_scratch.LOSSES
    ]
    cells = f"| {error:.3f} |" + f" {error:.3f} |" * 3
    assert f"{cells} None | 1, 1, 1, 1 |" in from_scratch.table(rows)
