import itertools
import math

import numpy as np
import pytest
import torch
from conftest import (
    ALPHABET,
    assert_identical,
    l1,
    learned,
    make_arguments,
    make_loss,
    snapshot,
    step,
)
from within import replay_of

from learned_surrogates import LearnedSurrogateLoss, MetricError, text
from learned_surrogates._metric.metric import Metric

PREDICTIONS = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0], [4.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
TARGETS = torch.zeros(4, 3)
ERRORS = [3.0, 3.0, 4.0, 1.0]


def make_metric(function, higher_is_better=None, best=None, batched=None, on_error="raise"):
    return Metric(function, higher_is_better, best, batched, on_error)


def per_sample(prediction, target):
    assert prediction.ndim == 1
    return float((prediction - target).abs().sum())


FORMS = {
    "batched tensor": l1,
    "batched integers": lambda p, t: (2 * l1(p, t)).long() / 2,
    "batched numpy": lambda p, t: np.abs(p.numpy() - t.numpy()).sum(-1),
    "batched float32 numpy": lambda p, t: l1(p, t).numpy().astype(np.float32),
    "batched list": lambda p, t: l1(p, t).tolist(),
    "batched list of tensors": lambda p, t: list(l1(p, t)),
    "batched tuple": lambda p, t: tuple(l1(p, t).tolist()),
    "batched, squeezed": lambda p, t: l1(p, t).squeeze(),
    "batched half": lambda p, t: l1(p, t).half(),
    "one sample float": per_sample,
    "one sample tensor": lambda p, t: torch.tensor(per_sample(p, t)),
    "one sample tensor of one": lambda p, t: torch.tensor([per_sample(p, t)]),
    "one sample numpy": lambda p, t: np.float32(per_sample(p, t)),
    "one sample mean": lambda p, t: (p - t).abs().mean() * 3,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_form_of_metric_gives_the_same_errors(form, count):
    metric = make_metric(FORMS[form])
    for _ in range(2):
        errors, usable = metric(PREDICTIONS[:count], TARGETS[:count])
        assert errors.dtype == torch.float64
        assert errors.tolist() == pytest.approx(ERRORS[:count])
        assert usable.tolist() == [True] * count
    assert metric.batched == form.startswith("batched")


@pytest.mark.parametrize("form", ["batched", "one sample"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_metrics_of_strings(form, count):
    one = {"kitten": 3, "same": 0, "": 2}
    targets = ["sitting", "same", "ab"]

    def of_one(prediction, target):
        return int(text.edit_distance([prediction], [target])[0])

    metric = make_metric(text.edit_distance if form == "batched" else of_one)
    errors, _ = metric(list(one)[:count], targets[:count])
    assert errors.tolist() == list(one.values())[:count]


@pytest.mark.parametrize("batched", [True, False])
def test_batched_given_by_the_user_is_not_tried_out(batched):
    shapes = []

    def metric(prediction, target):
        shapes.append(tuple(prediction.shape))
        return l1(prediction, target)

    make_metric(metric, batched=batched)(PREDICTIONS, TARGETS)
    assert shapes == ([(4, 3)] if batched else [(3,)] * 4)


def test_calling_form_is_found_out_once():
    calls = []

    def metric(prediction, target):
        calls.append(len(prediction))
        return l1(prediction, target)

    wrapped = make_metric(metric)
    wrapped(PREDICTIONS, TARGETS)
    calls.clear()
    wrapped(PREDICTIONS, TARGETS)
    assert calls == [4]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_metric_that_reduces_the_batch_away_is_not_taken_for_batched(size):
    """It returns (d,) for a batch of d samples with d features."""

    def over_features_of_a_sample(prediction, target):
        return (prediction - target).abs().sum(0)

    prediction = torch.arange(float(size * size)).reshape(size, size)
    errors, _ = make_metric(over_features_of_a_sample)(prediction, torch.zeros(size, size))
    assert errors.tolist() == prediction.sum(1).tolist()


def test_a_metric_over_one_feature_is_not_taken_for_batched():
    metric = make_metric(lambda p, t: (p - t).abs().sum(0))
    errors, _ = metric(PREDICTIONS[:, :1], TARGETS[:, :1])
    assert errors.tolist() == PREDICTIONS[:, 0].tolist()
    assert metric.batched is False


def test_higher_is_better_with_best_as_arguments():
    metric = make_metric(lambda p, t: 10 - l1(p, t), higher_is_better=True, best=10)
    errors, _ = metric(PREDICTIONS, TARGETS)
    assert errors.tolist() == ERRORS
    assert metric.value(errors).tolist() == [10 - e for e in ERRORS]


def test_higher_is_better_with_best_as_attributes():
    def accuracy(prediction, target):
        return 1 - l1(prediction, target) / 4

    accuracy.higher_is_better, accuracy.best = True, 1.0
    errors, _ = make_metric(accuracy)(PREDICTIONS, TARGETS)
    assert errors.tolist() == [e / 4 for e in ERRORS]


def test_arguments_outrank_attributes():
    def metric(prediction, target):
        return l1(prediction, target) + 1

    metric.higher_is_better, metric.best = True, 100.0
    errors, _ = make_metric(metric, higher_is_better=False, best=1)(PREDICTIONS, TARGETS)
    assert errors.tolist() == ERRORS


def test_higher_is_better_without_best_is_refused():
    with pytest.raises(ValueError, match="best="):
        LearnedSurrogateLoss(l1, higher_is_better=True)


def test_lower_is_better_with_another_best():
    errors, _ = make_metric(lambda p, t: l1(p, t) - 5, best=-5)(PREDICTIONS, TARGETS)
    assert errors.tolist() == ERRORS


def test_rounding_below_the_best_value_is_zero_error():
    errors, usable = make_metric(lambda p, t: l1(p, t) * 0 - 1e-7)(PREDICTIONS, TARGETS)
    assert errors.tolist() == [0] * 4
    assert usable.all()


def test_a_metric_that_is_not_callable_is_refused():
    with pytest.raises(TypeError, match="metric must be callable"):
        LearnedSurrogateLoss(3)


def bad_at_two(value):
    """A batched metric that goes wrong at the third sample, which starts with a 4."""

    def distance(prediction, target):
        errors = l1(prediction, target)
        if isinstance(value, Exception):
            if (prediction[:, 0] == 4).any():
                raise value
            return errors
        return torch.where(prediction[:, 0] == 4, value, errors)

    return distance


def bad_at_two_alone(value):
    """The same for one sample."""

    def distance(prediction, target):
        if prediction[0] == 4:
            if isinstance(value, Exception):
                raise value
            return value
        return per_sample(prediction, target)

    return distance


BAD_VALUES = [math.nan, math.inf, -math.inf, -1.0]


@pytest.mark.parametrize("make", [bad_at_two, bad_at_two_alone])
@pytest.mark.parametrize("value", BAD_VALUES)
def test_a_bad_value_is_named_with_its_sample(make, value):
    with pytest.raises(MetricError) as caught:
        make_metric(make(value))(PREDICTIONS, TARGETS)
    message = str(caught.value)
    for part in ("'distance'", "sample 2 of 4", "(3,) float32", f"returned {value:g}"):
        assert part in message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("make", [bad_at_two, bad_at_two_alone])
def test_a_raising_metric_is_named_with_its_sample_and_cause(make):
    error = KeyError("polygon")
    with pytest.raises(MetricError) as caught:
        make_metric(make(error))(PREDICTIONS, TARGETS)
    message = str(caught.value)
    for part in ("'distance'", "sample 2 of 4", "(3,) float32", "KeyError", "polygon"):
        assert part in message
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("value", ["far", None, [1.0, 2.0], torch.ones(2), {}])
def test_a_result_that_is_no_number_is_a_metric_error(value):
    with pytest.raises(MetricError, match=r"'distance'.*sample 2 of 4"):
        make_metric(bad_at_two_alone(value))(PREDICTIONS, TARGETS)


# One number is that of a batch of one, unless it is said that the metric takes batches.
@pytest.mark.parametrize(
    ("result", "batched"),
    [
        *itertools.product([torch.ones(3), torch.ones(4, 2), None, "far"], [True, None]),
        (torch.ones(()), True),
    ],
)
def test_a_batched_result_of_a_wrong_shape_is_a_metric_error(result, batched):
    calls = []

    def distance(prediction, target):
        calls.append(prediction)
        assert prediction.ndim == 2, "takes batches"
        return result

    with pytest.raises(MetricError, match="'distance'"):
        make_metric(distance, batched=batched)(PREDICTIONS, TARGETS)


def test_a_metric_fails_for_all_samples():
    def broken(prediction, target):
        raise ZeroDivisionError("no samples")

    with pytest.raises(MetricError, match=r"sample 0 of 4.*\(3,\) float32") as caught:
        make_metric(broken)(PREDICTIONS, TARGETS)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_metric_that_fails_only_for_the_whole_batch():
    def distance(prediction, target):
        if len(prediction) == 4:
            raise MemoryError("batch too large")
        return l1(prediction, target)

    with pytest.raises(MetricError, match="batch too large"):
        make_metric(distance)(PREDICTIONS, TARGETS)
    _, usable = make_metric(distance, on_error="skip")(PREDICTIONS, TARGETS)
    assert not usable.any()


@pytest.mark.parametrize("value", [*BAD_VALUES, KeyError("polygon")])
@pytest.mark.parametrize("make", [bad_at_two, bad_at_two_alone])
def test_skip_leaves_out_the_bad_sample_alone(make, value):
    metric = make_metric(make(value), on_error="skip")
    for _ in range(2):
        errors, usable = metric(PREDICTIONS, TARGETS)
        assert usable.tolist() == [True, True, False, True]
        assert errors[usable].tolist() == [3, 3, 1]


@pytest.mark.parametrize("count", [1, 4])
def test_a_draw_of_which_all_values_are_missing_has_as_many_outputs(count):
    """Of a metric with one value an output, which a batch of one need not have shown."""

    def each(prediction, target):
        if prediction[0, 0] > 0:
            raise ValueError("now and then")
        return (prediction - target).abs()

    criterion = LearnedSurrogateLoss(each, on_metric_error="skip", batched=True)
    for seed in range(20):
        prediction = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
        prediction[:, 0] = 0.01  # one draw of a pair is above 0, the other below
        loss, _ = step(criterion, (prediction.requires_grad_(), torch.zeros(count, 3)))
        assert loss.isfinite() == (count > 1)  # of one sample, there never is a value
    assert criterion.stats["metric/skipped"] > 0


@pytest.mark.parametrize("batched", [True, False])
def test_values_whose_shape_changes_from_draw_to_draw_are_skipped(batched):
    turns = itertools.count()

    def metric(prediction, target):
        error = (prediction - target).abs()
        # By the batch, or by its four samples.
        turn = next(turns) // (1 if batched else 4)
        return error.mean(-1) if 4 <= turn < 8 and turn % 2 else error

    criterion = LearnedSurrogateLoss(
        metric, batched=batched, higher_is_better=False, on_metric_error="skip"
    )
    losses = [step(criterion, (PREDICTIONS.clone().requires_grad_(), TARGETS))[0] for _ in range(6)]
    assert all(loss.isfinite() for loss in losses)
    assert criterion.stats["metric/skipped"] == 2 * len(TARGETS)


def test_a_metric_whose_values_change_their_shape_is_named():
    turns = itertools.count()

    def metric(prediction, target):
        error = (prediction - target).abs()
        return error if next(turns) % 2 else error.mean(1)

    criterion = LearnedSurrogateLoss(metric, batched=True, higher_is_better=False)
    with pytest.raises(MetricError, match=r"shape \(4,\) .* \(4, 3\) .*always one an output"):
        step(criterion, (PREDICTIONS.clone().requires_grad_(), TARGETS))


def test_a_keyboard_interrupt_is_not_swallowed():
    def interrupted(prediction, target):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_metric(interrupted, on_error="skip")(PREDICTIONS, TARGETS)


@pytest.mark.parametrize("make", [bad_at_two, bad_at_two_alone])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_bad_first_sample_does_not_fix_the_wrong_calling_form(make, on_error):
    metric = make_metric(make(KeyError("polygon")), on_error=on_error)
    bad_first = PREDICTIONS[[2, 0, 1, 3]]
    if on_error == "raise":
        with pytest.raises(MetricError, match="sample 0"):
            metric(bad_first, TARGETS)
    else:
        metric(bad_first, TARGETS)
    errors, usable = metric(PREDICTIONS[:2], TARGETS[:2])
    assert usable.all()
    assert errors.tolist() == [3, 3]
    assert metric.batched == (make is bad_at_two)


def test_a_first_batch_without_samples_does_not_fix_the_wrong_calling_form():
    metric = make_metric(per_sample)
    errors, usable = metric(PREDICTIONS[:0], TARGETS[:0])
    assert errors.shape == usable.shape == (0,)
    assert metric(PREDICTIONS, TARGETS)[0].tolist() == ERRORS


def test_a_first_result_of_none_does_not_fix_the_wrong_calling_form():
    ready = []

    def distance(prediction, target):
        return l1(prediction, target).reshape(len(prediction)) if ready else None

    metric = make_metric(distance)
    with pytest.raises(MetricError):
        metric(PREDICTIONS, TARGETS)
    ready.append(True)
    assert metric(PREDICTIONS, TARGETS)[0].tolist() == ERRORS


@pytest.mark.parametrize("kind", [np.asarray, list])
def test_a_generators_pairs_reach_a_batched_metric_in_their_own_kind(kind):
    def farthest(predictions, targets):
        return np.abs(np.asarray(predictions) - np.asarray(targets)).max(axis=1)

    metric = make_metric(farthest)
    errors, _ = metric(kind(PREDICTIONS.numpy()), kind(TARGETS.numpy()))
    assert errors.tolist() == [2, 3, 4, 0.5]


def test_the_metric_sees_no_gradient_and_leaves_the_users_tensors_alone():
    seen = []

    def destructive(prediction, target):
        seen.append((prediction.requires_grad, target.requires_grad, torch.is_grad_enabled()))
        errors = (prediction - target).abs().sum(-1)
        prediction.zero_()
        target.zero_()
        return errors

    prediction, target = make_arguments()
    target.requires_grad_()
    before = prediction.detach().clone(), target.detach().clone()
    criterion = make_loss(metric=destructive)
    criterion(prediction, target).backward()
    assert_identical((prediction.detach(), target.detach()), before)
    assert set(seen) == {(False, False, False)}
    assert criterion.stats["metric/mean"] == pytest.approx(l1(*before).mean().item())
    z, y, errors = replay_of(criterion).oldest_first()
    assert_identical((z, y), before)
    torch.testing.assert_close(errors, l1(*before))


def test_the_metric_is_exact_under_autocast():
    seen = []

    def distance(prediction, target):
        seen.append((prediction @ target.T).dtype)
        return l1(prediction, target)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        make_loss(metric=distance)(*make_arguments())
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_metric_sees_half_precision_predictions_as_float32(dtype):
    seen = []

    def distance(prediction, target):
        seen.append(prediction.dtype)
        return np.abs(prediction.numpy() - target.numpy()).sum(-1)

    prediction, target = make_arguments()
    make_loss(metric=distance)(prediction.detach().to(dtype).requires_grad_(), target)
    assert set(seen) == {torch.float32}


def test_skipped_pairs_are_counted_left_out_of_replay_and_training_goes_on():
    def distance(prediction, target):
        if prediction[0] > 0:
            raise ValueError("self-intersection")
        return (prediction - target).abs().sum()

    criterion = make_loss(metric=distance, on_metric_error="skip")
    expected, skipped = 0, 0
    for seed in range(4):
        arguments = make_arguments(seed=seed)
        loss, gradient = step(criterion, arguments)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        bad = int((arguments[0][:, 0] > 0).sum())
        skipped, expected = skipped + bad, expected + 4 - bad
    assert skipped
    assert criterion.stats["metric/skipped"] == skipped
    assert criterion.stats["replay/size"] == expected
    assert criterion.stats["updates"] == 4
    assert not (replay_of(criterion).oldest_first()[0][:, 0] > 0).any()


@pytest.mark.parametrize("case", ["tensors", "measured"])
@pytest.mark.parametrize("factor", [1e39, 1e17, 1e12])
def test_values_that_float32_cannot_compute_with_are_named(case, factor):
    """Their squares, and sums of them, would be infinite, and the gradient with them."""
    criterion = make_loss(case, metric=lambda z, y: factor * (z - y).abs().double().sum(-1))
    if factor > 1e15:
        with pytest.raises(MetricError, match=r"e\+\d\d, more than 1e\+15: divide it"):
            criterion(*make_arguments())
    else:
        loss, gradient = step(criterion, make_arguments())
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_a_metric_may_say_that_it_is_not_defined_everywhere():
    """Then NaN is no error; that it raises still is, and so is another value that is none."""

    def relative(prediction, target):
        return (prediction - target).abs().sum() / target[0].clamp(min=0)

    arguments = make_arguments()
    arguments[1][1] = arguments[0][1].detach()
    arguments[1][1, 0] = arguments[0].detach()[1, 0] = 0
    arguments[1][[0, 2, 3], 0] = 1
    with pytest.raises(MetricError, match="returned nan"):
        make_loss(metric=relative)(*arguments)
    relative.may_be_undefined = True
    criterion = make_loss(metric=relative)
    step(criterion, arguments)
    assert criterion.stats["metric/skipped"] == 1
    arguments[1][1, 0] = -1
    with pytest.raises(MetricError, match="returned inf"):
        criterion(*arguments)


def test_a_batch_that_is_skipped_whole_changes_nothing_but_counts():
    def distance(prediction, target):
        raise ValueError("self-intersection")

    criterion = make_loss(metric=distance, on_metric_error="skip")
    loss, gradient = step(criterion, make_arguments())
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert (criterion.stats["metric/skipped"], criterion.stats["replay/size"]) == (4, 0)
    assert criterion.stats["updates"] == 0


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("case", ["tensors", "ctc"])
def test_a_metric_error_leaves_the_loss_as_it_was(case, first):
    failing = [False]
    inner = l1 if case == "tensors" else text.edit_distance

    def distance(predictions, targets):
        if failing[0]:
            raise OSError("disk full")
        return inner(predictions, targets)

    criterion, undisturbed = make_loss(case, metric=distance), make_loss(case, metric=inner)
    if not first:
        for loss in (criterion, undisturbed):
            step(loss, make_arguments(case, seed=1))
    before, stats = snapshot(criterion), dict(criterion.stats)
    failing[0] = True
    with pytest.raises(MetricError, match="disk full"):
        criterion(*make_arguments(case, seed=5))
    assert_identical(snapshot(criterion), before)
    assert criterion.stats == pytest.approx(stats, nan_ok=True)
    failing[0] = False
    for seed in (2, 3):
        arguments = make_arguments(case, seed=seed)
        assert_identical(step(criterion, arguments), step(undisturbed, arguments))
    assert_identical(learned(criterion), learned(undisturbed))


def test_a_metric_error_shows_the_strings():
    def distance(predictions, targets):
        raise ValueError("no")

    criterion = make_loss("characters", metric=distance)
    logits = torch.zeros(1, len(ALPHABET) + 1, 3)
    logits[0, 2, :] = 1
    with pytest.raises(MetricError, match="prediction 'bbb', target 'af'"):
        criterion(logits.requires_grad_(), torch.tensor([[1, 6, 0]]))


def test_a_metric_of_one_sample_with_a_batch_of_one():
    criterion = make_loss(metric=per_sample)
    prediction, target = make_arguments(batch=1)
    criterion(prediction, target)
    assert criterion.stats["metric/mean"] == pytest.approx(l1(prediction, target).item())
    criterion(*make_arguments(batch=3))


def test_error_that_is_learned_is_best_minus_metric():
    criterion = make_loss(metric=lambda p, t: -l1(p, t), higher_is_better=True, best=0)
    prediction, target = make_arguments()
    criterion(prediction, target)
    torch.testing.assert_close(
        replay_of(criterion).oldest_first()[2], l1(prediction, target).detach()
    )
    assert criterion.stats["metric/mean"] == pytest.approx(-l1(prediction, target).mean().item())


def test_a_sample_with_one_value_an_output_needs_all_of_them():
    def each(prediction, target):
        return (prediction - target).abs().where(prediction < 9, torch.nan)

    prediction = torch.zeros(4, 3)
    prediction[2, 1] = 9.5
    metric = make_metric(each, on_error="skip")
    _, usable = metric(prediction, torch.zeros(4, 3))
    assert usable.tolist() == [True, True, False, True]


def test_a_sample_of_a_part_of_a_batch_is_named_by_its_place_in_the_batch():
    metric = make_metric(bad_at_two_alone(float("nan")))
    with pytest.raises(MetricError, match="sample 7 of 9"):
        metric(PREDICTIONS, TARGETS, positions=[1, 3, 7, 8], batch=9)
