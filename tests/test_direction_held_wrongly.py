"""Metrics whose direction nobody said, and other settings that would do nothing in silence."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from within import core_of

from learned_surrogates import LearnedSurrogateLoss, Tensors, boxes, segmentation, text


def accuracy(logits, classes):
    return (logits.argmax(-1) == classes).float()


def probability(logits, classes):
    return logits.softmax(-1).gather(1, classes[:, None])[:, 0]


def call(metric, targets=None, **options):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 5, generator=random).requires_grad_()
    classes = torch.randint(0, 5, (64,), generator=random)
    criterion = LearnedSurrogateLoss(metric, **options)
    for _ in range(2):  # the second must not warn once more
        criterion(logits, classes if targets is None else targets(classes)).backward()
    return criterion


@pytest.mark.parametrize("metric", [accuracy, probability])
@pytest.mark.parametrize("options", [{}, {"metric_budget": 0.5}])
def test_a_forgotten_direction_is_doubted(metric, options):
    with pytest.warns(UserWarning, match="is better for these predictions") as caught:
        call(metric, **options)
    assert len(caught) == 1


@pytest.mark.parametrize("dim", [1, 2])
def test_where_classes_may_lie_along_either_dimension_the_better_one_counts(dim):
    def wrong(scores, classes):
        return (scores.argmax(dim) != classes).float().mean(1)

    random = torch.Generator().manual_seed(0)
    classes = torch.rand(32, 6, generator=random).argsort(1)
    right = nn.functional.one_hot(classes, 6).float().movedim(-1, dim)
    # Mostly right, and so better than the targets along the other dimension.
    scores = (right + 0.3 * torch.randn(right.shape, generator=random)).requires_grad_()
    LearnedSurrogateLoss(wrong)(scores, classes)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"targets": lambda classes: [{int(c)} for c in classes]}, "these targets do not tell"),
        ({"targets": lambda classes: classes[:, None].expand(-1, 2)}, "these targets do not tell"),
        ({"executor": ThreadPoolExecutor}, "its values come after the call"),
    ],
)
def test_where_it_cannot_be_found_out_it_is_asked_for(options, why):
    def similarity(logits, classes):
        return torch.tensor([float(len(logits)) for _ in classes])

    with pytest.warns(UserWarning, match=f"nobody said whether.*{why}") as caught:
        call(similarity, batched=True, **options)
    assert len(caught) == 1
    call(similarity, batched=True, higher_is_better=False, **options)


def test_values_for_each_place_of_classes_in_the_second_dimension_are_named():
    def wrong(logits, classes):
        return (logits.argmax(1) != classes).float()

    logits, classes = torch.randn(8, 3, 4, 4, requires_grad=True), torch.randint(0, 3, (8, 4, 4))
    with pytest.raises(Exception, match="classes are in dimension 1"):
        LearnedSurrogateLoss(wrong, batched=True)(logits, classes)


def test_a_batch_in_place_of_a_list_of_batches_is_named():
    criterion = LearnedSurrogateLoss(lambda z, y: (z - y).abs().sum(-1))
    pair = torch.randn(2, 5), torch.randn(2, 5)
    for use in (criterion.check, criterion.warm_up):
        with pytest.raises(TypeError, match=r"\[\(prediction, target\), \.\.\.\].*type Tensor"):
            use(pair)


def test_complex_values_are_refused():
    with pytest.raises(Exception, match=r"complex64, where real numbers are expected"):
        call(lambda logits, classes: logits.sum(-1) + 0j, batched=True)


def test_an_edit_distance_without_anything_known_is_drawn():
    criterion = LearnedSurrogateLoss(text.edit_distance, task=text.CTC("abc"), surrogate="none")
    assert "draws: 4 readings a sample" in repr(criterion)
    assert "nothing, measured only" in repr(criterion)


@pytest.mark.parametrize(
    "options",
    [
        {"task": Tensors(smoothing=0)},
        {"task": boxes.Rotated(), "metric": boxes.rotated_iou},
        {"task": text.CTC("abc"), "metric": text.edit_distance},
    ],
)
def test_a_correction_of_nothing_is_refused(options):
    with pytest.raises(ValueError, match=r"correction=0\.5 weighs what draws correct by"):
        LearnedSurrogateLoss(**{"metric": nn.L1Loss(), "correction": 0.5, **options})


@pytest.mark.parametrize("draws", [2, 3])
def test_a_check_takes_no_fewer_draws_than_asked_for(draws):
    asked = []

    def metric(prediction, target):
        asked.append(len(target))
        return (prediction - target).abs().sum(-1)

    criterion = LearnedSurrogateLoss(metric, higher_is_better=False, batched=True)
    batch = torch.randn(4, 2), torch.randn(4, 2)
    core_of(criterion).gradient(criterion.task.read(*batch), draws)
    assert len(asked) == 2 * ((draws + 1) // 2)


@pytest.mark.parametrize("labels", [torch.Tensor.float, torch.Tensor.long, torch.Tensor.bool])
def test_one_label_a_sample_is_no_row_of_classes(labels):
    """However the batch's labels add up."""

    def wrong(logits, target):
        return ((logits > 0) != (target > 0.5)).float()

    for positives in (0, 1, 20, 64):
        target = labels(torch.arange(64) < positives)
        LearnedSurrogateLoss(wrong)(torch.randn(64).requires_grad_(), target).backward()


def test_masks_whose_metric_takes_logits_are_doubted():
    """Class maps are handed over; also where the direction is said."""

    def hits(logits, classes):
        return (logits.argmax(0) == classes).float().mean()

    options = {"higher_is_better": True, "best": 1.0}
    criterion = LearnedSurrogateLoss(hits, task=segmentation.Masks(), **options)
    with pytest.warns(UserWarning, match="where predictions equal their targets"):
        criterion(torch.randn(8, 5, 7, 7).requires_grad_(), torch.randint(0, 5, (8, 7, 7)))
