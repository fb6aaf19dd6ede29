"""One value has a bounded influence, and so has what was learned long ago or elsewhere."""

import copy
import math

import pytest
import torch
from conftest import assert_identical, l1, step
from executors import AtOnce, ByHand
from within import core_of, replay_of

from learned_surrogates import Batch, LearnedSurrogateLoss, MetricError, Skip, Workers
from learned_surrogates._diagnosis.measured_pictures import _limits
from learned_surrogates._measured.bounded import DifferenceScale, bounded_expansions
from learned_surrogates._measured.quality import Quality
from learned_surrogates._measured.smoothing import Smoothing


def batch(seed, size=16, outputs=4):
    random = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, size, outputs, generator=random)
    return prediction.requires_grad_(), target


# One wild value


def test_differences_are_believed_up_to_twenty_times_their_running_mean_size():
    size = DifferenceScale()
    assert size.most == math.inf
    assert_identical(size.bounded(torch.zeros(3)), torch.zeros(3))
    assert math.isnan(size.mean)
    first = torch.tensor([1.0, 0.0, -2.0, 3.0, 1e6])
    mean = 2.0  # the lower median of 1, 2, 3, 1e6
    assert_identical(size.bounded(first), torch.tensor([1.0, 0.0, -2.0, 3.0, 20 * mean]))
    mean += 0.02 * ((1 + 2 + 3 + 20 * mean) / 4 - mean)
    assert size.mean == pytest.approx(mean, rel=1e-6)
    believed = size.bounded(torch.tensor([-1e9, 0.5]))
    torch.testing.assert_close(believed, torch.tensor([-20 * mean, 0.5]))
    mean += 0.02 * ((20 * mean + 0.5) / 2 - mean)
    assert size.mean == pytest.approx(mean, rel=1e-6)


def test_a_surrogate_survives_one_value_of_a_million():
    """It was given up for good; here it learns the L1 distance, with and without that value."""
    r2 = {}
    for wild in (False, True):
        calls = []

        def metric(prediction, target, wild=wild, calls=calls):
            calls.append(None)
            values = l1(prediction, target)
            if wild and len(calls) == 121:
                values[3] = 1e6
            return values

        criterion = LearnedSurrogateLoss(metric, batched=True, surrogate="elements")
        for seed in range(140):
            step(criterion, batch(seed))
        r2[wild] = criterion.stats["surrogate/r2"]
        assert criterion.stats["surrogate/weight"] > 0.9
    assert r2[False] > 0.95
    assert r2[True] > 0.85
    assert replay_of(criterion).oldest_first()[4].abs().max() < 20


def test_one_wild_output_hardly_widens_the_noise():
    def widths(wild):
        smoothing = Smoothing(None)
        for seed in range(60):
            prediction, target = batch(seed, size=64)
            if wild and seed == 40:
                prediction.data[0, 0] = 1e6
            smoothing.follow(prediction.detach(), target)
        return smoothing.width(prediction.detach())

    torch.testing.assert_close(widths(True), widths(False), rtol=0.03, atol=0)


def test_the_noise_follows_outputs_that_grow_a_thousandfold():
    smoothing = Smoothing(None)
    for seed in range(400):
        prediction, _ = batch(seed, size=64)
        scale = 1.0 if seed < 20 else 1000.0
        smoothing.follow(scale * prediction.detach(), None)
    assert smoothing.mean_width == pytest.approx(0.35 * 1000, rel=0.05)


def test_one_wild_gradient_hardly_moves_the_figures():
    def figures(wild):
        quality, random = Quality(), torch.Generator().manual_seed(0)
        for reading in range(100):
            prediction = torch.randn(64, 3, generator=random)
            noise = torch.randn(64, 3, generator=random)
            base = 1.0 + torch.randn(64, 3, generator=random)
            factor = 1e6 if wild and reading == 60 else 1.0
            quality.read(
                Batch(prediction=prediction, target=prediction), factor * (1.0 + noise), base
            )
        return quality.signal_to_noise, quality.base_signal_to_noise, quality.cosine[0]

    plain, spoilt = figures(False), figures(True)
    assert spoilt[1] == plain[1]
    assert spoilt[2] == pytest.approx(plain[2], abs=0.15)
    assert spoilt[0] > plain[0] / 3


def test_an_axis_leaves_wild_values_out():
    values = [1 + 0.01 * (i % 10) for i in range(200)]
    assert _limits(values) is None
    low, high = _limits([*values, 1e6])
    assert (low, high) == pytest.approx((1 - 4 * 0.09, 1.09 + 4 * 0.09))
    assert _limits([5.0] * 50) is None
    assert _limits([math.nan] * 50) is None


# What is followed without being measured


def test_a_slope_tells_no_more_of_a_draw_than_was_measured():
    pull = torch.tensor([[6.0, 0.0], [0.6, 0.0], [math.nan, 1.0], [math.inf, 0.0]])
    waves = torch.tensor([[0.0, 8.0], [0.0, 0.8], [0.0, 0.0], [0.0, 0.0]])
    bounded = bounded_expansions(torch.stack([pull, waves])[None], most=5.0)
    whole, none = torch.tensor([[0.5], [1.0]]), torch.zeros(2, 2)
    for found, given in zip(bounded[0], (pull, waves), strict=True):
        torch.testing.assert_close(found, torch.cat([whole * given[:2], none]))


@pytest.mark.parametrize("regime", ["near", "far", "huge"])
def test_what_is_handed_back_unmeasured_is_bounded_in_any_regime(regime):
    """By c times 20 mean differences, in units of the noise."""
    by_hand = ByHand()
    criterion = LearnedSurrogateLoss(
        lambda prediction, target: (prediction - target).square().sum(-1),
        executor=by_hand,
        higher_is_better=False,
        reduction="sum",
        surrogate="pair",
        batched=True,
    )
    for seed in range(40):
        step(criterion, batch(seed))
        by_hand.run()
    core = core_of(criterion)
    scale = {"near": 1.0, "far": 1e4, "huge": 1e15}[regime]
    prediction, target = batch(77)
    core.estimator.smoothing.given = core.estimator.smoothing.mean_width
    _, gradient = step(criterion, ((scale * prediction.detach()).requires_grad_(), target))
    lengths = core.estimator.smoothing.given * gradient.norm(dim=1)
    most = float(core.estimator.slope.weight) * core.estimator.experience.size.most
    assert core.estimator.slope.weight > 0.5
    assert gradient.any()
    assert (lengths <= 1.0001 * most).all()


def test_a_measured_gradient_is_no_longer_for_a_surrogate_that_says_anything():
    """Ten thousand times too large where it has not been: measured alone is as long."""

    class Wild(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, z, y):
            far = (z.abs().amax(1) > 100).float()
            return self.scale * (z - y).abs().sum(1) * (1 + 1e8 * far)

    losses = [
        LearnedSurrogateLoss(l1, surrogate=s, batched=True, reduction="sum")
        for s in (Wild(), "none")
    ]
    for seed in range(60):
        for criterion in losses:
            step(criterion, batch(seed))
    assert losses[0].stats["surrogate/weight"] > 0.9
    lengths = []
    for criterion in losses:
        core_of(criterion).estimator.smoothing.given = core_of(
            criterion
        ).estimator.smoothing.mean_width
        prediction, target = batch(99)
        moved = (prediction.detach() + 1000).requires_grad_()
        lengths.append(step(criterion, (moved, target))[1].norm())
    assert lengths[0] < 30 * lengths[1]


def test_what_is_handed_back_unmeasured_has_the_weight_that_it_earned():
    by_hand = ByHand()
    criterion = LearnedSurrogateLoss(
        l1, batched=True, executor=by_hand, higher_is_better=False, surrogate="elements"
    )
    for seed in range(20):
        step(criterion, batch(seed))
        by_hand.run()
    gradients = []
    for weight in (1.0, 0.5):
        one = copy.deepcopy(criterion)
        core_of(one).estimator.slope.control.sums = torch.tensor(
            [[weight, 1.0, weight, 1.0, 0.0, 0.0, 0.0, 1.0]]
        )
        gradients.append(step(one, batch(40))[1])
    assert gradients[0].any()
    torch.testing.assert_close(gradients[1], 0.5 * gradients[0])


# Weights of zero leave out


def test_a_sample_that_is_left_out_has_no_part_in_the_gradient():
    criterion = LearnedSurrogateLoss(l1, batched=True, reduction="none")
    prediction, target = batch(0)
    prediction.data[2] = math.nan
    loss = criterion(prediction, target)
    kept = loss.isfinite()
    assert kept.sum() == 15
    loss[kept].sum().backward()
    assert prediction.grad[kept].any(1).all()
    assert_identical(prediction.grad[2], torch.zeros(4))


@pytest.mark.filterwarnings("ignore:base_loss has no finite gradient")
def test_a_base_loss_with_no_weight_left_has_no_part_in_the_gradient():
    by_hand, called = ByHand(), []

    def base_loss(prediction, target):
        called.append(None)
        return (prediction * math.nan).sum()

    criterion = LearnedSurrogateLoss(
        l1,
        batched=True,
        executor=by_hand,
        higher_is_better=False,
        base_loss=base_loss,
        surrogate="elements",
    )
    for seed in range(30):
        criterion(*batch(seed))
        by_hand.run()
    core = core_of(criterion)
    core.estimator.slope.control.sums[:, 0] = core.estimator.slope.control.sums[:, 1] = 1.0
    assert core.estimator.slope.confirmed == 1
    core.record.leading = False
    called.clear()
    _, gradient = step(criterion, batch(40))
    assert not called
    assert gradient.isfinite().all()
    assert gradient.any()


# No evidence is not old evidence


def dying(after):
    calls = []

    def metric(prediction, target):
        calls.append(None)
        if len(calls) > after:
            raise KeyError("polygon")
        return l1(prediction, target)

    return metric


@pytest.mark.parametrize("lag", [None, 2])
def test_a_metric_that_dies_is_warned_of_once_counts_for_less_and_has_an_end(lag):
    criterion = LearnedSurrogateLoss(
        dying(after=61),
        batched=True,
        on_metric_error=Skip(give_up_after=150),
        surrogate="elements",
        base_loss=lambda prediction, target: 7.0 * prediction.sum(),
        higher_is_better=False,
        executor=None if lag is None else Workers(AtOnce(), lag=lag, chunk_size=16),
        reduction="sum",
    )
    late = lag or 0
    for seed in range(30):
        step(criterion, batch(seed))
    core = core_of(criterion)
    core.record.leading = False
    weights = [float(core.estimator.slope.weight)]
    for call in range(99 + late):
        step(criterion, batch(call, size=4))
    with pytest.warns(UserWarning, match=r"no value for any sample of 100 calls.*KeyError.*=150"):
        step(criterion, batch(0))
    weights.append(float(core.estimator.slope.weight))
    for call in range(50):
        _, gradient = step(criterion, batch(call, size=4))
    weights.append(float(core.estimator.slope.weight))
    assert weights[0] > 0.9
    assert weights[1:] == pytest.approx([0.98**50, 0.98**100], rel=0.1)
    # What is not followed any more is the base loss's.
    assert gradient.mean() == pytest.approx(7.0 * (1 - weights[2]), abs=0.3)
    before = core.record.calls
    with pytest.raises(MetricError, match=r"150 calls in a row.*KeyError: 'polygon'"):
        criterion(*batch(0))
    assert core.record.calls == before
    step(criterion, batch(0))  # it is tried again


def test_a_metric_that_comes_back_starts_the_count_anew():
    calls = []

    def metric(prediction, target):
        calls.append(None)
        return l1(prediction, target) * (1.0 if len(calls) in (7, 8) else math.nan)

    criterion = LearnedSurrogateLoss(
        metric,
        batched=True,
        higher_is_better=False,  # said, it is not looked at once more
        on_metric_error=Skip(give_up_after=4),
    )
    for seed in range(8):  # the fourth has values
        step(criterion, batch(seed, size=2))
    with pytest.raises(MetricError, match="4 calls in a row"):
        criterion(*batch(9))


def test_a_model_that_has_diverged_is_told_of():
    criterion = LearnedSurrogateLoss(l1, batched=True, on_metric_error=Skip(give_up_after=3))
    prediction, target = batch(0)
    prediction.data.fill_(math.nan)
    with pytest.warns(UserWarning, match="no prediction of a call is finite"):
        assert step(criterion, (prediction, target))[0].isnan()
    for _ in range(2):
        assert step(criterion, (prediction, target))[0].isnan()
    with pytest.raises(MetricError, match="got a prediction that is not finite"):
        criterion(prediction, target)


def test_the_mean_size_is_part_of_the_state():
    criterion, restored = (LearnedSurrogateLoss(l1, batched=True) for _ in range(2))
    for seed in range(5):
        step(criterion, batch(seed))
    restored.load_state_dict(criterion.state_dict())
    assert (
        core_of(restored).estimator.experience.size.mean
        == core_of(criterion).estimator.experience.size.mean
    )
    assert core_of(criterion).estimator.experience.size.mean > 0
