"""Plausible ways to hold the loss wrongly, which would train towards something else in silence."""

import functools
import math
import warnings

import pytest
import torch
from conftest import assert_identical, make_loss, snapshot, step
from executors import ByHand
from grouped_arguments import grouped
from rapidfuzz.distance import Levenshtein
from torch import nn
from within import core_of

from learned_surrogates import LearnedSurrogateLoss, MetricError, Tensors, Workers, boxes, text
from learned_surrogates.boxes import rotated_iou

QUICK = {"data": "local", "warm_up": 10}


def some_boxes():
    random = torch.Generator().manual_seed(0)
    target = torch.tensor([20.0, 20, 8, 4, 0]) + torch.rand(16, 5, generator=random)
    return (target + 0.3 * torch.randn(16, 5, generator=random)).requires_grad_(), target


def some_texts(count=8):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 7, 6, generator=random, requires_grad=True)
    return logits, torch.randint(1, 7, (count, 6), generator=random)


def of_boxes(metric, **options):
    options = {"task": boxes.Rotated(), "base_loss": nn.SmoothL1Loss(), **options}
    return LearnedSurrogateLoss(metric, **grouped(**options))


def of_texts(metric, **options):
    return LearnedSurrogateLoss(metric, task=text.PerPosition("abcdef"), **options)


def corpus_error(readings, targets):
    """As scores of a corpus are written."""
    return sum(map(Levenshtein.distance, readings, targets)) / max(1, len(targets))


@pytest.mark.parametrize("call", ["forward", "check"])
def test_a_wrapped_metric_has_lost_its_direction(call):
    def metric(prediction, target):
        return rotated_iou(prediction, target)

    criterion = of_boxes(metric)
    before = snapshot(criterion)
    with pytest.raises(ValueError, match=r"taken that lower is better.*higher_is_better=True"):
        criterion(*some_boxes()) if call == "forward" else criterion.check([some_boxes()])
    assert_identical(snapshot(criterion), before)
    of_boxes(metric, higher_is_better=True, best=1.0)(*some_boxes())
    of_boxes(rotated_iou)(*some_boxes())
    of_boxes(functools.partial(rotated_iou))(*some_boxes())
    of_boxes(lambda p, t: 1 - rotated_iou(p, t))(*some_boxes())


def test_a_direction_the_other_way_round():
    criterion = of_texts(text.edit_distance, higher_is_better=True, best=100.0)
    with pytest.raises(ValueError, match=r"taken that higher is better.*leave out"):
        criterion(*some_texts())


def test_a_similarity_needs_its_direction():
    with pytest.raises(ValueError, match="taken that lower is better"):
        of_texts(Levenshtein.normalized_similarity)(*some_texts())


def test_a_best_value_that_is_never_reached():
    with pytest.warns(UserWarning, match=r"is 1 where predictions equal.*best=100"):
        of_boxes(lambda p, t: rotated_iou(p, t), higher_is_better=True, best=100.0)(*some_boxes())


def test_percent():
    options = {"higher_is_better": True, "best": 1.0}
    with pytest.raises(MetricError, match="best=100 for a percentage"):
        of_boxes(lambda p, t: 100 * rotated_iou(p, t), **options)(*some_boxes())


@pytest.mark.parametrize("workers", [False, True])
def test_a_call_does_not_wait_for_the_direction(workers):
    criterion = of_boxes(
        lambda p, t: 1 - rotated_iou(p, t), executor=Workers(ByHand()) if workers else None
    )
    step(criterion, some_boxes())
    assert criterion.stats["calls"] == 1


def test_the_score_of_a_corpus_is_asked_for_one_text_at_a_time():
    criterion, arguments = of_texts(corpus_error), some_texts()
    readings, targets = criterion.task.decode(criterion.task.read(*arguments))
    assert criterion.eval()(*arguments).item() >= 0
    with torch.no_grad():
        assert criterion(*arguments).item() == pytest.approx(corpus_error(readings, targets))


@pytest.mark.parametrize("metric", [Levenshtein.distance, Levenshtein.normalized_distance])
def test_distances_of_any_sequences_are_of_texts(metric):
    criterion, arguments = of_texts(metric), some_texts()
    step(criterion, arguments)
    readings, targets = criterion.task.decode(criterion.task.read(*arguments))
    mean = sum(map(metric, readings, targets)) / 8
    with torch.no_grad():
        assert criterion(*arguments).item() == pytest.approx(mean)


def test_a_loss_in_evaluation_mode_says_that_it_does_not_learn():
    criterion = make_loss(warm_up=10).eval()
    prediction, target = torch.zeros(4, 3, requires_grad=True), torch.ones(4, 3)
    with torch.no_grad():
        for _ in range(20):
            criterion(prediction, target)
    for _ in range(9):
        criterion(prediction, target)
    with pytest.warns(UserWarning, match=r"call criterion.train\(\)"):
        criterion(prediction, target)
    criterion.train()
    while criterion.stats["surrogate/warming_up"]:
        criterion(prediction, target)
    criterion.eval()(prediction, target)
    assert core_of(criterion).idle_calls == 10


def test_the_first_calls_in_evaluation_settle_nothing():
    criterion, never = make_loss(seed=1), make_loss(seed=1)
    criterion.eval()(torch.randn(2, 7), torch.randn(2, 7))
    with torch.no_grad():
        criterion.train()(100 * torch.randn(1, 3), torch.randn(1, 3))
    assert_identical(snapshot(criterion), snapshot(never))
    arguments = torch.randn(8, 3, requires_grad=True), torch.randn(8, 3)
    assert_identical(step(criterion, arguments), step(never, arguments))


def test_a_flattened_batch_of_texts_is_no_text():
    criterion = LearnedSurrogateLoss(
        text.edit_distance, task=text.PerPosition("abcdef", classes_last=True)
    )
    logits, target = some_texts()
    target[:, 4:] = 0
    flat = logits.transpose(1, 2).reshape(-1, 7), target.reshape(-1)
    with pytest.raises(ValueError, match="flattened batch"):
        criterion(*flat)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        criterion(logits.transpose(1, 2)[0], target[0])


def test_angles_in_degrees_are_doubted_once():
    pred, target = some_boxes()
    degrees = target * torch.tensor([1, 1, 1, 1, 90.0])
    criterion = of_boxes(rotated_iou)
    with pytest.warns(UserWarning, match=r"angles up to \d+\.?\d*, more than a whole turn"):
        criterion(pred, degrees)
    criterion(pred, degrees)
    with pytest.warns(UserWarning, match="angles up to"):
        of_boxes(rotated_iou).check([(pred, degrees)])
    with pytest.warns(UserWarning, match="angles up to"):  # also where values come later
        of_boxes(rotated_iou, data="local", executor=Workers(ByHand(), lag=2))(pred, degrees)
    # A whole turn is none.
    of_boxes(rotated_iou)(pred, target.index_fill(1, torch.tensor([4]), 2 * math.pi))


def test_angles_in_degrees_are_doubted_as_soon_as_a_batch_has_them():
    criterion, (pred, target) = of_boxes(rotated_iou, **QUICK), some_boxes()
    level = target * torch.tensor([1, 1, 1, 1, 0.0])
    for _ in range(3):
        criterion(pred, level)
    turned = level + torch.tensor([0, 0, 0, 0, 45.0])
    with pytest.warns(UserWarning, match="angles up to 45, more than a whole turn"):
        criterion(pred, turned)
    criterion(pred, turned)


def test_a_lost_direction_is_found_as_soon_as_a_batch_tells_it():
    criterion = of_boxes(lambda p, t: rotated_iou(p, t), **QUICK)
    pred, target = some_boxes()
    for _ in range(2):
        criterion(target.clone().requires_grad_(), target)
    with pytest.raises(ValueError, match="taken that lower is better"):
        criterion(pred, target)


def test_a_softmax_is_doubted_as_soon_as_a_batch_tells_it():
    criterion, (logits, target) = of_texts(text.edit_distance), some_texts()
    certain = torch.nn.functional.one_hot(target, logits.shape[1]).transpose(1, 2).float()
    criterion(certain.requires_grad_(), target)
    with pytest.warns(UserWarning, match="seems to hold probabilities"):
        criterion(logits.softmax(1), target)


RANDOM = torch.Generator().manual_seed(0)
CLASSES = torch.randint(0, 5, (16,), generator=RANDOM)
GROUPS = torch.randint(0, 3, (4, 6, 6), generator=RANDOM)
MASKS = torch.rand(4, 6, 6, generator=RANDOM) > 0.5
POINTS = torch.randn(16, 6, generator=RANDOM)


def class_accuracy(prediction, target):
    return (prediction.argmax(-1) == target).float()


def pixel_accuracy(prediction, target):
    return (prediction.argmax(1) == target).float().mean((-1, -2))


def mask_iou(prediction, target):
    prediction, target = prediction > 0, target > 0
    return (prediction & target).sum((1, 2)) / (prediction | target).sum((1, 2))


def share_within(prediction, target):
    return ((prediction - target).abs() < 0.5).float().mean(-1)


SIMILARITIES = [
    (class_accuracy, lambda: torch.randn(16, 5), CLASSES),
    (pixel_accuracy, lambda: torch.randn(4, 3, 6, 6), GROUPS),
    (mask_iou, lambda: torch.randn(4, 6, 6), MASKS),
    (mask_iou, lambda: torch.rand(4, 6, 6) - 0.5, MASKS.float()),
    (share_within, lambda: torch.randn(16, 6), POINTS),
]


@pytest.mark.parametrize(("smoothing", "surrogate"), [(None, "none"), (0, "embedding")])
@pytest.mark.parametrize(("metric", "make", "target"), SIMILARITIES)
def test_a_similarity_of_plain_tensors_whose_direction_was_forgotten(
    metric, make, target, smoothing, surrogate
):
    options = {"task": Tensors(smoothing=smoothing), "surrogate": surrogate, "warm_up": 2}
    options = grouped(**options)
    with pytest.warns(UserWarning, match=r"taken that lower is better.*higher_is_better=True"):
        LearnedSurrogateLoss(metric, **options)(make().requires_grad_(), target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for told in ({"higher_is_better": True, "best": 1.0}, {"higher_is_better": False}):
            LearnedSurrogateLoss(metric, **options, **told)(make().requires_grad_(), target)
        error = LearnedSurrogateLoss(lambda p, t: 1 - metric(p, t), **options)
        error(make().requires_grad_(), target)


SOFT = torch.randn(16, 5, generator=RANDOM).softmax(-1)
ERRORS = [
    # Better than targets as predictions, but for their logits.
    (lambda p, t: -(t * p.log_softmax(-1)).sum(-1), SOFT.log(), SOFT),
    (lambda p, t: (p.sigmoid() - t).abs().sum(-1), SOFT.logit(), SOFT),
    (lambda p, t: (p.softmax(-1) - t).abs().sum(-1), SOFT.log(), SOFT),
    (lambda p, t: (p.sigmoid() - t).abs().mean((1, 2)), 4 * MASKS.float() - 2, MASKS.float()),
    (lambda p, t: (p - t.float()).abs().mean((1, 2)), 0.8 * MASKS.float() + 0.1, MASKS),
    (
        lambda p, t: torch.nn.functional.cross_entropy(p, t, reduction="none"),
        9 * torch.nn.functional.one_hot(CLASSES, 5).float(),
        CLASSES,
    ),
    (
        lambda p, t: 1 - p.gather(1, t[:, None])[:, 0],
        0.9 * torch.nn.functional.one_hot(CLASSES, 5).float(),
        CLASSES,
    ),
    (lambda p, t: (p - t).square().sum(-1), POINTS.clone(), POINTS),
]


@pytest.mark.parametrize(("metric", "prediction", "target"), ERRORS)
def test_an_error_of_a_good_model_of_plain_tensors_is_not_doubted(metric, prediction, target):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        criterion = LearnedSurrogateLoss(metric, best=-10.0)
        criterion(prediction.clone().requires_grad_(), target)


def test_a_list_of_words_of_another_case_is_noticed():
    with pytest.warns(UserWarning, match="of 3 words, RandomEdits leaves out 2"):
        text.RandomEdits("abc", ["ABC", "BA", "cab"])
    text.RandomEdits("abc", (word for word in ["a" * 20, "cab"]))


@pytest.mark.parametrize("case", ["tensors", "text"])
def test_stats_are_true_of_the_first_call(case):
    if case == "text":
        criterion, arguments = of_texts(text.edit_distance), some_texts(64)
    else:
        criterion = LearnedSurrogateLoss(lambda p, t: (p - t).abs().sum(-1))
        arguments = torch.zeros(64, 3, requires_grad=True), torch.ones(64, 3)
    loss = criterion(*arguments)
    assert criterion.stats["calls"] == 1
    assert not math.isnan(criterion.stats["metric/mean"])
    if case == "tensors":
        assert criterion.stats["metric/mean"] == pytest.approx(loss.item())
