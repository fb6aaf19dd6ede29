"""The surrogate's forms: which of them there are, and what they keep."""

from types import SimpleNamespace

import pytest
import torch
from conftest import make_arguments, make_loss, step, train
from torch import nn
from within import core_of, slope_of

from learned_surrogates import LearnedSurrogateLoss, MetricError, Tensors
from learned_surrogates._measured.experience import rows_within, steps_within


@pytest.fixture
def criterion():
    """Of which all three forms are fitted side by side."""
    criterion = make_loss("measured", surrogate="auto")
    train(criterion, "measured", range(12))
    assert len(slope_of(criterion).forms) == 3
    return criterion


def test_slopes_of_forms_that_are_no_more_judge_none(criterion):
    slope = slope_of(criterion)
    before = slope.control.sums.clone()
    slope.take(torch.randn(8), torch.randn(8, 3), torch.randn(2, 1, 8))
    assert torch.equal(slope.control.sums, before)


def test_samples_of_another_size_have_no_form(criterion):
    slope = slope_of(criterion)
    assert slope.fits(torch.zeros(4, 3), torch.zeros(4, 3))
    assert not slope.fits(torch.zeros(4, 5), torch.zeros(4, 5))
    assert not slope.fits(torch.zeros(4, 3), None)


def test_expansions_of_parts_are_those_of_the_whole(criterion, monkeypatch):
    slope = slope_of(criterion)
    z, y, width = torch.rand(3, 7, 3)
    whole = slope.expansions(z, y, width)
    monkeypatch.setattr("learned_surrogates._measured.slope.MOST_NUMBERS", 8)
    torch.testing.assert_close(slope.expansions(z, y, width), whole)
    assert slope.expansions(z[:0], y[:0], width[:0]).shape == (3, 3, 0, 3)


class Normalised(nn.Module):
    """Needs two samples or more at a time."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, z, y):
        return self.net(torch.cat([z, y], 1)).squeeze(1)


def test_a_net_of_the_user_s_sees_whole_batches(monkeypatch):
    monkeypatch.setattr("learned_surrogates._measured.slope.MOST_NUMBERS", 8)
    random = torch.Generator().manual_seed(0)
    criterion = make_loss("measured", surrogate=Normalised())
    for _ in range(20):
        z, y = torch.randn(2, 33, 4, generator=random)
        step(criterion, (z.requires_grad_(), y))
    assert slope_of(criterion).forms


def misses(prediction, target):
    return ((prediction - target).abs() > 1).float()


def test_a_net_of_single_outputs_serves_lengths_that_change_from_call_to_call():
    """Every call has another number of outputs than the one before."""
    random = torch.Generator().manual_seed(0)
    criterion = make_loss(
        metric=misses, task=Tensors(), surrogate="pair", draws=2, batched=True, capacity=4096
    )
    for call in range(60):
        z = torch.randn(16, 10 + call % 2, generator=random)
        step(criterion, (z.requires_grad_(), z + 1.2 * torch.randn(z.shape, generator=random)))
    assert criterion.stats["surrogate/r2"] > 0.3
    # What is known of twice as many outputs is of a mean over twice as many.
    known = []
    z = z.detach()
    for prediction in (z, torch.cat([z, z], 1)):
        batch = criterion.task.read(prediction, prediction + 1)
        known.append(core_of(criterion).estimator.draw(batch, 2).known_gradient()[0])
    torch.testing.assert_close(known[1][:, : z.shape[1]], known[0] / 2)


def test_a_call_whose_targets_it_does_not_see_does_not_end_it():
    def of_any(prediction, target):
        return (prediction - torch.stack(list(target))).abs().sum(-1)

    criterion = make_loss("measured", metric=of_any, batched=True)
    train(criterion, "measured", range(4))
    updates = criterion.stats["updates"]
    prediction, target = make_arguments("measured", seed=5)
    step(criterion, (prediction, list(target)))
    train(criterion, "measured", range(6, 9))
    assert criterion.stats["updates"] > updates + 2
    assert slope_of(criterion).forms and not slope_of(criterion).unsuited


def test_targets_of_another_size_than_before_are_the_metric_s_to_refuse():
    random = torch.Generator().manual_seed(0)
    criterion = make_loss(metric=misses, task=Tensors(), surrogate="pair", draws=2)
    for _ in range(4):
        z, y = torch.randn(2, 16, 5, generator=random)
        step(criterion, (z.requires_grad_(), y))
    with pytest.raises(MetricError, match=r"raised RuntimeError.*must match"):
        criterion(torch.zeros(16, 8, requires_grad=True), torch.zeros(16, 5))


def test_the_form_that_stays_keeps_its_optimizers_moments(criterion):
    slope = slope_of(criterion)
    slope.best = 1
    parameters = list(slope.forms[1].parameters())
    fitted = [each for each in parameters if each in slope.optimizer.state]
    moments = [slope.optimizer.state[each]["exp_avg"].clone() for each in fitted]
    slope._keep_best()
    assert moments and all(a is b for a, b in zip(slope.forms[0].parameters(), parameters))
    for each, moment in zip(fitted, moments, strict=True):
        assert torch.equal(slope.optimizer.state[each]["exp_avg"], moment)


def test_what_starts_anew_is_made_as_soon_as_may_be(criterion):
    slope = slope_of(criterion)
    slope.start_anew()
    assert slope.wanted and not slope.forms
    slope._give_up()
    assert not slope.wanted


def test_rows_with_which_nothing_can_be_computed_are_not_remembered(criterion):
    estimator = core_of(criterion).estimator
    rows = [*torch.ones(4, 4, 3), torch.ones(4)]
    rows[0][1, 2], rows[4][2] = torch.nan, 1e30
    estimator.experience._remember(tuple(rows), estimator.random)
    remembered = estimator.replay.oldest_first()
    assert all(part.isfinite().all() and part.abs().max() < 1e30 for part in remembered)
    assert torch.equal(remembered[2][-2:], torch.ones(2, 3))


@pytest.mark.parametrize(
    ("r2", "best"), [([0.6, 0.61, 0.615], 0), ([0.6, 0.65, 0.66], 1), ([0.2, -0.1, 0.9], 2)]
)
def test_of_forms_that_are_worth_as_much_the_cheapest_is_followed(criterion, r2, best):
    slope = slope_of(criterion)
    slope.control = SimpleNamespace(r2=torch.tensor(r2))
    assert slope._worth_most() == best


def test_a_metric_that_has_other_outputs_than_in_the_state_is_learned_anew():
    random = torch.Generator().manual_seed(0)
    metrics = {
        "a sample": lambda prediction, target: misses(prediction, target).mean(1),
        "an output": misses,
    }
    for before, after in (("a sample", "an output"), ("an output", "a sample")):
        first = LearnedSurrogateLoss(metrics[before])
        second = LearnedSurrogateLoss(metrics[after])
        for criterion in (first, second):
            for _ in range(12):
                prediction, target = torch.randn(2, 64, 3, generator=random)
                _, gradient = step(criterion, (prediction.requires_grad_(), target))
                assert gradient.isfinite().all()
            if criterion is first:
                assert slope_of(first).forms
                with pytest.warns(UserWarning, match="metric was"):
                    second.load_state_dict(first.state_dict())


def test_what_was_told_is_of_the_samples_that_were_measured():
    """The metric has no value for every other sample; of a slope that is right, R2 is 1."""
    random = torch.Generator().manual_seed(0)

    def metric(prediction, target):
        values = (prediction * torch.tensor([1.0, -2.0, 0.5])).sum(1)
        return values.where(target[:, 0] > 0, torch.nan)

    class Right(nn.Module):
        def forward(self, z, y):
            return (z * torch.tensor([1.0, -2.0, 0.5])).sum(1) * (1 + y[:, 0].abs())

    criterion = LearnedSurrogateLoss(
        metric, higher_is_better=False, surrogate=Right(), on_metric_error="skip"
    )
    for _ in range(30):
        prediction, target = torch.randn(2, 64, 3, generator=random)
        target[::2] = -target[::2].abs()
        target[1::2] = target[1::2].sign().abs()
        step(criterion, (prediction.requires_grad_(), target))
    assert criterion.stats["surrogate/weight"] == pytest.approx(0.5, abs=0.01)
    assert criterion.stats["surrogate/r2"] > 0.99


@pytest.mark.parametrize(
    ("numbers", "rows", "steps"), [(1, 64, 100), (256, 64, 100), (8192, 16, 32), (2**30, 1, 1)]
)
def test_large_samples_are_looked_at_a_few_at_a_time(numbers, rows, steps):
    """Else a call with small masks took minutes, and gigabytes."""
    assert rows_within(64, numbers) == rows
    assert steps_within(rows, numbers) == steps
