"""At what pace running means move, what is counted, and what is resumed: by numbers worked out."""

import math

import pytest
import torch
from conftest import assert_identical, l1, make_arguments, step
from executors import ByHand
from within import core_of, slope_of

from learned_surrogates import Batch, LearnedSurrogateLoss, Workers
from learned_surrogates._evaluation.queue import Queue
from learned_surrogates._measured.control_variate import ControlVariate
from learned_surrogates._measured.quality import Quality
from learned_surrogates._measured.smoothing import Smoothing
from learned_surrogates._metric.metric import Metric


def test_the_regression_moves_by_a_fiftieth_a_call():
    control = ControlVariate(2, torch.device("cpu"))
    d, h = torch.tensor([1.0, -2.0, math.nan]), torch.tensor([[2.0, -2.0, 1.0], [0.5, 0.0, 1.0]])
    sums = torch.zeros(2, 8)
    for _ in range(3):
        control.take(d, h)
        # Means over the two differences that are numbers: d l, l l; as weights are 1 the same;
        # without waves, zeros; d d.
        of_slopes = torch.tensor([[6.0, 8.0], [0.5, 0.25]]) / 2
        none, of_d = torch.zeros(2, 3), torch.full((2, 1), 2.5)
        new = torch.cat([of_slopes, of_slopes, none, of_d], 1)
        sums = sums + (new - sums) / 50
        torch.testing.assert_close(control.sums, sums)
    torch.testing.assert_close(control.weights[0], torch.tensor([0.75, 1.0]))  # 6 / 8; 2, bounded
    # With the weight 1, the second takes 2 * 0.25 - 0.125.
    torch.testing.assert_close(control.r2, torch.tensor([36 / 40, 0.375 / 2.5]))


def test_confidence_falls_from_the_fiftieth_call_on_and_is_back_with_the_first_value():
    control = ControlVariate(1, torch.device("cpu"))
    control.take(torch.ones(4), torch.ones(1, 4))
    for age, expected in ((49, 1.0), (50, 1.0), (51, 0.98), (150, 0.98**100)):
        control.age = age
        torch.testing.assert_close(control.weights[0], torch.tensor([expected]))
    control.take(torch.ones(4), torch.ones(1, 4))
    torch.testing.assert_close(control.weights[0], torch.ones(1))


def test_spreads_are_plain_means_for_fifty_calls_and_running_ones_then():
    """Of every fourth call, of outputs whose mean jumps from 1 to 2."""
    smoothing = Smoothing(None)
    means = [1.0] * 20 + [2.0] * 80
    expected = means[0]
    for call, mean in enumerate(means):
        smoothing.follow(torch.tensor([[mean - 1.0], [mean + 1.0]]), None)
        rate = 1 / (call + 1) if call < 50 else 0.0 if (call + 1) % 4 else 0.08
        expected += rate * (mean - expected)
        assert float(smoothing.moments[0]) == pytest.approx(expected, rel=1e-5)
        assert smoothing.calls == call + 1
    # That of a mixture of 1 and 2, beside the outputs' own.
    variance = 1 + (expected - 1) * (2 - expected)
    assert smoothing.mean_width == pytest.approx(0.35 * variance**0.5, rel=1e-4)


def test_a_batch_without_any_finite_sample_tells_nothing_of_spreads():
    smoothing = Smoothing(None)
    smoothing.follow(torch.randn(8, 3), None)
    before = smoothing.moments.clone()
    smoothing.follow(torch.full((8, 3), math.nan), None)
    assert_identical(smoothing.moments, before)


def test_a_wild_difference_leaves_the_regression_as_it_was():
    control = ControlVariate(1, torch.device("cpu"))
    control.take(torch.ones(4), torch.ones(1, 4))
    before = control.sums.clone()
    control.take(torch.full((2,), 1e30), torch.ones(1, 2))
    assert_identical(control.sums, before)


def test_a_slope_that_leads_the_wrong_way_has_a_negative_r2():
    control = ControlVariate(1, torch.device("cpu"))
    control.take(torch.tensor([1.0, -1.0]), torch.tensor([[-1.0, 1.0]]))
    assert float(control.r2) == -1
    assert float(control.weights[0]) == 0


def test_the_signal_is_a_running_share_of_differences():
    criterion = LearnedSurrogateLoss(
        lambda prediction, target: (prediction[:, 0] > 0).float() * target[:, 0],
        batched=True,
        surrogate="none",
        higher_is_better=False,
    )
    core, expected = core_of(criterion), None
    core.estimator.smoothing.given = 1.0
    for seed in range(4):
        prediction, target = make_arguments(seed=seed, batch=50)
        seen = []
        core.oracle.queue.metric.function = lambda p, t, seen=seen: (
            seen.append(p[:, 0] > 0) or (p[:, 0] > 0).float()
        )
        step(criterion, (prediction, target.abs()))
        share = float((seen[0] != seen[1]).float().mean())
        expected = share if expected is None else expected + 0.05 * (share - expected)
    assert core.record.signal == pytest.approx(expected)


def test_signal_over_noise_of_gradients_whose_mean_is_known():
    """A mean of length 1 and noise of standard deviation 2 in one direction of the weights."""
    quality, random = Quality(), torch.Generator().manual_seed(0)
    weight = torch.ones(1, 1, requires_grad=True)
    for _ in range(800):
        inputs = torch.ones(2, 1)
        gradient = 0.5 + 2**0.5 * torch.randn(2, 1, generator=random)
        batch = Batch(prediction=inputs @ weight, target=inputs)
        quality.read(batch, gradient, gradient)
    assert quality.signal_to_noise == pytest.approx(0.5, abs=0.2)
    assert quality.cosine[0] == pytest.approx(1.0, abs=0.05)


# What is counted, and whose it is


def test_one_call_that_is_not_measured_counts():
    by_hand = ByHand()
    criterion = LearnedSurrogateLoss(
        l1, batched=True, higher_is_better=False, executor=Workers(by_hand, max_pending=1)
    )
    step(criterion, make_arguments())
    assert core_of(criterion).oracle.queue.unmeasured == 0
    step(criterion, make_arguments(seed=1))
    assert core_of(criterion).oracle.queue.unmeasured == 4


def test_after_a_piece_is_lost_errors_belong_to_their_own_samples():
    by_hand = ByHand()
    metric = Metric(l1, None, None, True, "skip")
    queue = Queue(metric, Workers(by_hand, lag=0, chunk_size=2, timeout=0.05))
    prediction, target = make_arguments(batch=6)
    prediction = prediction.detach()
    pairs = [(prediction, target), (prediction + 1, target)]
    evaluation = queue.submit(pairs, 6, [0, 1, 2, 4, 5])
    by_hand.run(2, 0)
    queue.wait(evaluation)
    measured = evaluation.measured
    kept = [0, 1, 5]
    assert measured.arrived.nonzero()[:, 0].tolist() == kept
    assert measured.stands_for == 6 / 5
    expected = torch.stack([l1(p[kept], t[kept]).double() for p, t in pairs])
    torch.testing.assert_close(measured.values[:, kept], expected)
    assert measured.mean.isnan().tolist() == [False, False, True, True, True, False]
    assert queue.lost == 2


def test_float64_stays_float64_for_the_metric():
    seen = set()

    def metric(prediction, target):
        seen.add((prediction.dtype, target.dtype))
        return l1(prediction, target)

    prediction, target = make_arguments()
    criterion = LearnedSurrogateLoss(metric, batched=True)
    step(criterion, (prediction.detach().double().requires_grad_(), target.double()))
    assert seen == {(torch.float64, torch.float64)}


# What is followed, and resumed


def test_a_surrogate_that_is_not_finite_leaves_what_is_measured():
    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, z, y):
            return self.weight * (z - y).abs().sum(1) * math.nan

    losses = [
        LearnedSurrogateLoss(l1, batched=True, surrogate=surrogate)
        for surrogate in (Broken(), "none")
    ]
    for seed in range(80):
        arguments = make_arguments(seed=seed)
        found, expected = (step(criterion, arguments)[1] for criterion in losses)
        if slope_of(losses[0]).forms:
            break
        assert_identical(found, expected)
    core_of(losses[1]).random.set_state(core_of(losses[0]).random.get_state())
    found, expected = (step(criterion, make_arguments(seed=99))[1] for criterion in losses)
    assert slope_of(losses[0]).forms
    torch.testing.assert_close(found, expected)


def test_a_base_loss_that_has_handed_over_has_its_weight_after_a_load():
    def make():
        return LearnedSurrogateLoss(
            lambda prediction, target: l1(prediction, target),
            batched=True,
            base_loss=lambda prediction, target: 1000 * prediction.sum(),
            base_weight=0.25,
            reduction="sum",
        )

    criterion, restored = make(), make()
    step(criterion, make_arguments())
    core_of(criterion).record.leading = False
    restored.load_state_dict(criterion.state_dict())
    _, gradient = step(restored, make_arguments(seed=1))
    assert core_of(restored).base_share == 0.25
    assert gradient.mean() == pytest.approx(250, rel=0.1)
