"""The expected metric: the surrogate is fitted to a mean over random draws."""

import pytest
import torch
from conftest import assert_identical, l1, make_arguments, make_loss, snapshot, step, train
from torch import Tensor
from within import core_of, replay_of

from learned_surrogates import FitValues, LearnedSurrogateLoss, MetricError, Tensors, text
from learned_surrogates._fitted.pairs import fitted_to


def certain(probability: float, batch: int) -> Tensor:
    """Logits of a CTC output that says "a" in one frame with this probability, else nothing."""
    log_probs = torch.tensor([1 - probability, probability]).log().expand(1, batch, 2)
    return log_probs.clone().requires_grad_()


def test_the_mean_over_draws_is_the_expected_metric():
    """Standard error of the mean over 4 draws of 2,000 samples: .005; tolerance: 4 of them."""
    criterion = LearnedSurrogateLoss(
        text.edit_distance,
        task=text.CTC("a"),
        surrogate="pair",
        fit=FitValues(data="local", warm_up=0),
        draws=4,
    )
    ones = torch.ones(2000, dtype=torch.long)
    criterion(certain(0.3, 2000), ones[:, None], ones, ones)
    _, _, errors = replay_of(criterion).oldest_first()
    assert errors.mean().item() == pytest.approx(0.7, abs=0.02)
    assert set(errors.tolist()) == {0.0, 0.25, 0.5, 0.75, 1.0}


@pytest.mark.parametrize("special", [0, 2])
def test_draws_of_characters_follow_the_probabilities(special):
    task = text.PerPosition("abc", end=special)
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    logits = probabilities.log()[None, :, None].expand(4000, 4, 1)
    batch = task.read(logits, torch.full((4000, 1), special))
    readings, _ = task.sample(batch, torch.Generator().manual_seed(0))
    for index, share in enumerate(probabilities.tolist()):
        character = task.alphabet.decode([index])
        assert readings.count(character) / 4000 == pytest.approx(share, abs=0.03)


def test_positions_that_do_not_count_are_never_drawn():
    task = text.CTC("ab")
    log_probs = torch.randn(6, 1, 3).log_softmax(-1)
    batch = task.read(log_probs, torch.zeros(1, 0, dtype=torch.long), [0], [0])
    assert task.sample(batch, torch.Generator().manual_seed(0))[0] == [""]


def test_noise_of_tensors_has_the_width_asked_for():
    """And a pair of draws has the same noise, added and taken away."""
    drawn = []

    def metric(prediction, target):
        drawn.append(prediction)
        return l1(prediction, target)

    criterion = LearnedSurrogateLoss(
        metric,
        task=Tensors(smoothing=0.5),
        draws=4,
        batched=True,
        surrogate="none",
        higher_is_better=False,
    )
    prediction = torch.full((4000, 2), 3.0, requires_grad=True)
    criterion(prediction, torch.zeros(4000, 2))
    assert len(drawn) == 4
    up, down, *_ = noise = [each - 3 for each in drawn]
    assert torch.stack(noise).std().item() == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(up, -down, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(noise[2].abs(), up.abs(), atol=0.1)


def test_the_metric_reported_is_that_of_the_prediction_itself():
    criterion = make_loss("ctc", draws=3, warm_up=0, every=1)
    plain = make_loss("ctc", warm_up=0, every=1)
    for loss in (criterion, plain):
        step(loss, make_arguments("ctc"))
    assert criterion.stats["metric/mean"] == plain.stats["metric/mean"]


def test_calls_of_the_metric_are_the_draws():
    calls = []

    def metric(predictions, targets):
        calls.append(len(targets))
        return text.edit_distance(predictions, targets)

    criterion = LearnedSurrogateLoss(metric, task=text.CTC("abcdef"), draws=3, batched=True)
    arguments = make_arguments("ctc")
    criterion(*arguments)
    # Once, on targets in the place of predictions too: is the metric best there?
    assert calls == [arguments[0].shape[1]] * 4
    criterion(*arguments)
    assert calls == [arguments[0].shape[1]] * 7


def test_a_metric_that_raises_on_a_draw_changes_nothing():
    failing = [False]

    def metric(predictions, targets):
        if failing[0] and len(calls) % 2:
            raise RuntimeError("no")
        calls.append(1)
        return text.edit_distance(predictions, targets)

    calls = []
    criterion = LearnedSurrogateLoss(metric, task=text.CTC("abcdef"), draws=2, batched=True)
    train(criterion, "ctc", range(2))
    before = snapshot(criterion)
    failing[0], calls[:] = True, []
    with pytest.raises(MetricError):
        step(criterion, make_arguments("ctc", seed=9))
    assert_identical(snapshot(criterion), before)


def test_tensors_without_noise_have_no_draws():
    with pytest.raises(ValueError, match="plain tensors have one unless smoothing=0"):
        LearnedSurrogateLoss(l1, task=Tensors(smoothing=0), draws=2)


@pytest.mark.parametrize("draws", [0, 1])
def test_readings_are_compared_with_each_other(draws):
    with pytest.raises(ValueError, match=f"draws={draws}: readings are compared"):
        make_loss("ctc-auto", draws=draws)
    with pytest.raises(ValueError, match="surrogate='embedding'"):
        make_loss("ctc-auto", draws=draws)


@pytest.mark.parametrize("draws", [0, 1, 3])
def test_draws_of_tensors_come_in_pairs(draws):
    with pytest.raises(ValueError, match=f"draws={draws}: draws around a tensor come in pairs"):
        LearnedSurrogateLoss(l1, draws=draws)


def test_the_spread_of_the_draws_tells_their_means_noise():
    """The variance of a mean of 4 draws of a coin of .3; standard error about 2 %."""
    criterion = LearnedSurrogateLoss(
        text.edit_distance,
        task=text.CTC("a"),
        surrogate="pair",
        fit=FitValues(data="local", warm_up=0),
        draws=4,
    )
    ones = torch.ones(4000, dtype=torch.long)
    batch = criterion.task.read(certain(0.3, 4000), ones[:, None], ones, ones)
    measured = core_of(criterion)._ask(batch).measured
    assert fitted_to(measured)[1].mean().item() == pytest.approx(0.3 * 0.7 / 4, rel=0.08)


def test_one_draw_does_not_tell_its_noise():
    with pytest.warns(UserWarning, match="draws=1 does not tell how much the metric varies"):
        criterion = make_loss("ctc-pair", draws=1, generator=None, data="local")
    measured = core_of(criterion)._ask(criterion.task.read(*make_arguments("ctc"))).measured
    assert fitted_to(measured)[1].isnan().all()
    step(criterion, make_arguments("ctc"))


def test_where_values_are_fitted_nothing_is_drawn_unless_asked_for():
    assert make_loss("ctc").task.surrogate != "auto"
    assert core_of(make_loss("ctc")).recipe.draws == 0
    assert core_of(make_loss("ctc-auto")).recipe.draws > 0
