"""Other surrogates than the distance of two embeddings."""

import pytest
import torch
from conftest import CASES, l1, make_arguments, make_loss, train
from within import core_of

from learned_surrogates import EmbeddingDistance, Fit, LearnedSurrogateLoss, Tensors, text

FORMS = ("conditioned", "pair")
FORM_CASES = ("tensors", "ctc", "characters")


def loss_of(case, form, **options):
    draws = {} if case == "tensors" else {"draws": 0}
    return make_loss(
        f"{case}-{form}" if case != "tensors" else case, surrogate=form, **draws, **options
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", FORM_CASES)
def test_they_learn(case, form):
    """Their error on unseen samples falls below a third of what it was, or so."""
    criterion = loss_of(case, form, batch_size=32, capacity=512, learning_rate=3e-3)
    batches = [make_arguments(case, seed, batch=16) for seed in range(24)]
    criterion.warm_up(batches, updates=1)
    early = criterion.stats["surrogate/mae"]
    criterion.warm_up(batches, updates=200)
    core_of(criterion).pairs.unseen.clear()
    criterion.warm_up([make_arguments(case, 99, batch=64)], updates=1)
    assert criterion.stats["surrogate/mae"] < 0.75 * early


@pytest.mark.parametrize("case", FORM_CASES)
def test_the_conditioned_form_is_zero_where_prediction_and_target_agree(case):
    criterion = loss_of(case, "conditioned")
    train(criterion, case, range(5))
    net = core_of(criterion).net
    batch = criterion.task.read(*make_arguments(case, 7))
    y = net.expand(batch.target)
    assert net.value(y, y).max() < 1e-4


@pytest.mark.parametrize("task", [Tensors(smoothing=0), Tensors()])
def test_the_conditioned_form_needs_one_shape(task):
    criterion = LearnedSurrogateLoss(
        lambda z, y: z[:, 0] * 0, higher_is_better=False, task=task, surrogate="conditioned"
    )
    with pytest.raises(ValueError, match="'conditioned' needs predictions and targets of one"):
        criterion(torch.randn(4, 3, requires_grad=True), torch.randn(4, 2))


@pytest.mark.parametrize("task", [Tensors(smoothing=0), Tensors()])
def test_the_pair_form_takes_targets_with_other_features(task):
    criterion = LearnedSurrogateLoss(
        lambda z, y: (z.sum(1) - y[:, 0]).abs(),
        task=task,
        higher_is_better=False,
        surrogate="pair",
        fit=Fit(every=1),
    )
    assert criterion(torch.randn(4, 3, requires_grad=True), torch.randn(4, 1)).shape == ()


def test_an_unknown_form_names_those_there_are():
    with pytest.raises(ValueError, match="one of 'embedding', 'conditioned', 'pair'; got 'grid'"):
        LearnedSurrogateLoss(l1, task=Tensors(smoothing=0), surrogate="grid")
    with pytest.raises(ValueError, match=r"one of 'auto', 'none', 'pair', .*; got 'grid'"):
        LearnedSurrogateLoss(l1, surrogate="grid")


def test_text_has_draws_by_default_where_the_metric_is_not_known():
    for metric, draws in ((text.normalized_edit_distance, 4), (text.edit_distance, 0)):
        criterion = LearnedSurrogateLoss(metric, task=text.CTC("ab"))
        assert criterion.task.surrogate == "auto"
        assert core_of(criterion).recipe.draws == draws
    assert "ctc-auto" in CASES


def test_targets_may_be_their_own_embedding():
    """An empty Sequential hands on what it gets, and counts as false."""
    net, z, y = torch.nn.Linear(3, 4), torch.randn(2, 3), torch.randn(2, 4)
    distance = EmbeddingDistance(net, torch.nn.Sequential())
    torch.testing.assert_close(distance(z, y), (net(z) - y).norm(dim=1))
