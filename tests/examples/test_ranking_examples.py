"""The scripts behind docs/ranking.md."""

import functools
from argparse import Namespace
from importlib.util import find_spec

import pytest
import torch

import fit_sorter
from benchmarks import list_gradients, ranking as study
from learned_surrogates import ranking


def test_vectors_are_of_four_kinds():
    scores = fit_sorter.vectors(4000, 20, torch.Generator().manual_seed(0))
    gaps = scores.sort(1).values.diff(dim=1)
    even = (gaps.amax(1) - gaps.amin(1)) < 1e-5
    assert 0.2 < even.float().mean() < 0.3
    assert (scores[even].abs() <= 1).all()
    beyond = (scores.abs() > 1).float().mean(1)
    assert 0.2 < (beyond > 0.2).float().mean() < 0.35  # normal; a mixture has a third of that
    assert (beyond > 0).float().mean() - (beyond > 0.2).float().mean() > 0.1


def test_the_handcrafted_sorter_is_about_as_far_off_as_in_table_1():
    assert fit_sorter.tested(ranking.sigmoid_ranks, 200) == pytest.approx(0.0279, rel=0.1)
    sharp = functools.partial(ranking.expected_ranks, noise=0.1)
    assert fit_sorter.tested(sharp, 200) < 0.01
    assert fit_sorter.tested(ranking.ranks, 200) == 0


def test_a_fit_lowers_the_error_and_can_be_saved():
    torch.manual_seed(0)
    sorter = ranking.LSTMSorter(hidden=8)
    before = fit_sorter.tested(sorter, 100)
    fit_sorter.fit(sorter, Namespace(steps=25, batch=32, rate=1e-2, seed=0))
    assert fit_sorter.tested(sorter, 100) < 0.8 * before


def test_draws_tell_a_gradient_that_the_closed_form_has():
    made = list_gradients.losses(0.3, None)
    assert set(made) == {"Spearman", "AP", "NDCG@10"}
    metric, kind, losses = made["AP"]
    found = list_gradients.compare(metric, kind, losses, 0.3, seed=0, draws=2000)
    assert found["average_precision_loss"] == max(found.values())
    assert found["average_precision_loss"] > 0.9
    assert found["SoDeep (7), expected ranks"] < 0.8


@pytest.mark.parametrize("name", study.LOSSES)
def test_the_study_s_losses_are_the_metric_s_kin(name):
    problem = study.PROBLEMS[name]
    targets = problem.data["train"][1][:8]
    for method in study.LOSSES[name]:
        if method in study.RIVALS and find_spec(method) is None:
            continue
        for make in study.candidates(problem, method).values():
            assert make(0)(targets, targets) < make(0)(-targets, targets)
            scores = torch.randn(targets.shape, generator=torch.Generator().manual_seed(0))
            scores.requires_grad_()
            make(0)(scores, targets).backward()
            assert scores.grad.isfinite().all()
            assert scores.grad.abs().sum() > 0
