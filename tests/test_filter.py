"""The filter of FEDS: no gradient from samples on which the surrogate is wrong."""

import pytest
import torch
from conftest import assert_identical, l1, make_arguments, make_loss, snapshot, step, train
from grouped_arguments import grouped
from torch import nn

from learned_surrogates import Filter, FitValues, LearnedSurrogateLoss, Tensors


class Known(nn.Module):
    """Right by a known amount: the L1 distance, and `off` more where the target's sum is odd."""

    off = 0.5

    def forward(self, z, y):
        return (z - y).abs().sum(-1) + self.off * (y.sum(-1) % 2)


def known_loss(metric=l1, **options) -> LearnedSurrogateLoss:
    task = Tensors(smoothing=0)
    options = {"task": task, "surrogate": Known(), "every": 1, **options}
    return LearnedSurrogateLoss(metric, **grouped(**options))


def arguments():
    prediction = torch.tensor([[0.5, 2.0], [1.5, 0.0], [2.5, 1.0]], requires_grad=True)
    return prediction, torch.tensor([[1.0, 0.0], [2.0, 2.0], [0.0, 3.0]])


@pytest.mark.parametrize(("threshold", "kept"), [(0.6, [1, 1, 1]), (0.4, [0, 1, 0])])
def test_samples_beyond_the_threshold_give_no_gradient(threshold, kept):
    filtered = known_loss(filter=threshold)
    plain = known_loss()
    loss, gradient = step(filtered, arguments())
    whole_loss, whole = step(plain, arguments())
    assert loss == whole_loss
    torch.testing.assert_close(gradient, whole * torch.tensor(kept)[:, None])
    assert filtered.stats["filter/keep_rate"] == pytest.approx(sum(kept) / 3)


def test_a_gradient_that_is_left_out_has_no_part_even_if_it_is_no_number():
    class Steep(Known):
        def forward(self, z, y):
            # Of a root at 0, even none at all has no gradient.
            return super().forward(z, y) + 0 * (z - y).abs().sum(-1).sqrt()

    prediction, target = arguments()
    prediction.data[0] = target[0]
    _, whole = step(known_loss(surrogate=Steep()), (prediction, target))
    assert whole.isfinite().all(1).tolist() == [False, True, True]
    _, gradient = step(known_loss(surrogate=Steep(), filter=0.4), (prediction, target))
    assert_identical(gradient, torch.stack([0 * whole[1], whole[1], 0 * whole[2]]))


@pytest.mark.parametrize("case", ["ctc", "characters"])
def test_the_filter_is_over_the_batch_dimension(case):
    """With a threshold in the middle of the errors, whole samples keep or lose their gradient."""
    plain, filtered = make_loss(case, reduction="sum"), make_loss(case, reduction="sum", filter=0.8)
    for criterion in (plain, filtered):
        train(criterion, case, range(20))
    taken = make_arguments(case, seed=99)
    _, whole = step(plain, taken)
    _, gradient = step(filtered, taken)
    batch_dim = 1 if case.startswith("ctc") else 0
    samples = list(zip(gradient.unbind(batch_dim), whole.unbind(batch_dim), strict=True))
    assert all(torch.equal(mine, its) or not mine.any() for mine, its in samples)
    kept = sum(torch.equal(mine, its) for mine, its in samples)
    assert filtered.stats["filter/keep_rate"] == pytest.approx(kept / len(samples))


def test_outside_of_training_nothing_is_filtered():
    criterion = known_loss(filter=0.4).eval()
    _, gradient = step(criterion, arguments())
    assert gradient.any(1).all()


def test_learning_is_the_same_with_and_without():
    plain, filtered = make_loss(), make_loss(filter=0.1)
    for criterion in (plain, filtered):
        train(criterion, "tensors", range(5))
    states = [snapshot(criterion) for criterion in (plain, filtered)]
    assert states[0].pop("history").shape == states[1].pop("history").shape
    assert_identical(*states)


def test_a_gradient_that_is_measured_has_nothing_to_filter_by():
    expected = r"fit=FitValues\(filter=0\.5\) is for .* fitted .* task=Tensors\(smoothing=0"
    with pytest.raises(ValueError, match=expected):
        LearnedSurrogateLoss(l1, fit=FitValues(filter=0.5))


@pytest.mark.parametrize(("value", "error"), [(-0.1, ValueError), ("all", TypeError)])
def test_a_wrong_filter_is_named(value, error):
    with pytest.raises(error, match="filter"):
        LearnedSurrogateLoss(l1, task=Tensors(smoothing=0), fit=FitValues(filter=value))


def test_a_relative_threshold_follows_the_surrogates_own_error():
    criterion = known_loss(filter=Filter(1.5, relative=True))
    _, first = step(criterion, arguments())  # no error is known yet: all are kept
    assert first.any(1).all()
    assert criterion.stats["surrogate/mae"] == pytest.approx(1 / 3)
    _, second = step(criterion, arguments())  # 1.5 / 3 is just what two samples are off by
    assert second.any(1).tolist() == [True, True, True]
    stricter = known_loss(filter=Filter(1.4, relative=True))
    step(stricter, arguments())
    _, third = step(stricter, arguments())
    assert third.any(1).tolist() == [False, True, False]


def test_the_ramp_points_to_where_surrogate_and_metric_agree():
    with pytest.warns(UserWarning, match="rewards agreement"):
        ramp = Filter(0.6, ramp=True)
    criterion = known_loss(filter=ramp)
    plain = known_loss()
    _, gradient = step(criterion, arguments())
    _, whole = step(plain, arguments())
    # The surrogate is never below the metric, and equal to it on the second sample.
    torch.testing.assert_close(gradient, whole * torch.tensor([1.0, 0.0, 1.0])[:, None])


def test_samples_on_which_the_metric_failed_are_left_out():
    def failing(prediction, target):
        errors = l1(prediction, target)
        errors[1] = float("nan")
        return errors

    criterion = known_loss(failing, filter=10.0, batched=True, on_metric_error="skip")
    _, gradient = step(criterion, arguments())
    assert gradient.any(1).tolist() == [True, False, True]
