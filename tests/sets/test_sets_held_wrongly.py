"""Lists, labels and masks in another form than the one that is taken."""

import functools
import warnings

import pytest
import torch
from sklearn.metrics import brier_score_loss, f1_score, ndcg_score, roc_auc_score

from learned_surrogates import LearnedSurrogateLoss, classification, ranking, segmentation

RANDOM = torch.Generator().manual_seed(0)
SCORE = {"higher_is_better": True, "best": 1.0}


def accuracy(said, true):
    return (said == true).float().mean()


def best_item(scores, targets):
    return targets[scores.argmax()].float()


def f1_above_zero(scores, targets):
    said, true = scores > 0, targets > 0
    return 2 * (said & true).sum() / (said.sum() + true.sum()).clamp(min=1)


MARKS = {
    "labels": (classification.Sets, (40,)),
    "several labels": (classification.Sets, (40, 3)),
    "masks": (segmentation.Masks, (4, 1, 8, 8)),
}


@pytest.mark.parametrize("name", MARKS)
def test_probabilities_in_the_place_of_logits_are_doubted(name):
    """Above a threshold of 0, all are a yes."""
    task, shape = MARKS[name]
    logits = torch.randn(shape, generator=RANDOM)
    true = logits + torch.randn(shape, generator=RANDOM) > 0
    with pytest.warns(UserWarning, match=r"between 0 and 1.*threshold=0\.5"):
        loss(accuracy, task())(logits.sigmoid().requires_grad_(), true)
    loss(accuracy, task())(logits.requires_grad_(), true)
    loss(accuracy, task(threshold=0.5))(logits.sigmoid(), true)


@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_one_hot_targets_of_exclusive_classes_are_doubted(kind):
    """What is independent is claimed above a threshold, where of classes the largest counts."""
    task = {"labels": classification.Sets, "masks": segmentation.Masks}[kind]()
    shape = {"labels": (40, 3), "masks": (2, 3, 8, 8)}[kind]
    logits = torch.randn(shape, generator=RANDOM).requires_grad_()
    classes = torch.randint(3, logits[:, 0].shape, generator=RANDOM)
    one_hot = torch.zeros_like(logits).scatter(1, classes[:, None], 1)
    with pytest.warns(UserWarning, match=r"exactly one of the 3 marks.*argmax\(1\)"):
        loss(accuracy, task)(logits, one_hot)
    loss(accuracy, task)(logits, classes)
    one_hot[0, :2] = 1
    loss(accuracy, task)(logits, one_hot)


def test_logits_in_a_column_are_refused_with_what_to_do():
    logits, true = torch.randn(8, 1, requires_grad=True), torch.arange(8) % 2
    with pytest.raises(ValueError, match=r"shapes are \(8, 1\) and \(8,\): give logits.squeeze"):
        loss(accuracy, classification.Sets())(logits, true)


def loss(metric, task):
    return LearnedSurrogateLoss(metric, task=task, **SCORE)


def test_a_softmax_of_exclusive_classes_says_the_same():
    logits = torch.randn(40, 3, generator=RANDOM).softmax(1).requires_grad_()
    loss(accuracy, classification.Sets())(logits, torch.arange(40) % 3)


@pytest.mark.filterwarnings("ignore:.*the target comes first:UserWarning")
def test_a_metric_of_scores_does_not_get_labels_without_a_word():
    for metric, name in ((roc_auc_score, "y_score"), (brier_score_loss, "y_proba")):
        with pytest.warns(UserWarning, match=rf"takes '{name}', and gets labels.*gives='scores'"):
            loss(metric, classification.Sets())
    loss(roc_auc_score, classification.Sets(gives="scores"))
    loss(f1_score, classification.Sets())


# Of lists without an item of gain 2, that is also said.
@pytest.mark.filterwarnings("ignore:.*is best=2 really its best value")
def test_padding_without_a_mask_is_doubted():
    scores = torch.randn(3, 6, generator=RANDOM).requires_grad_()
    targets = torch.tensor([[2, 0, 1, 1, -1, -1], [0, 1, 0, 2, 1, -1], [0, 1, 1, 0, 0, 2]])
    with pytest.warns(UserWarning, match=r"-1 at the end of lists.*mask="):
        lists()(scores, targets)
    lists()(scores, targets, targets >= 0)
    for meant in (targets.flip(1), targets.where(targets != 2, -2), targets * 0 - 1):
        lists()(scores, meant)


def test_a_mask_that_is_true_for_padding_is_doubted():
    scores = torch.randn(2, 5, generator=RANDOM).requires_grad_()
    targets = torch.tensor([[2, 0, 1, 0, 0], [0, 1, 0, 0, 0]])
    padding = torch.arange(5).expand(2, 5) > 2
    with pytest.warns(UserWarning, match=r"must be true where there is an item"):
        lists()(scores, targets, padding)
    for mask in (~padding, torch.ones_like(padding)):
        lists()(scores, targets, mask)
    lists()(scores, targets * 0, padding)


def lists():
    return LearnedSurrogateLoss(best_item, task=ranking.Lists(), higher_is_better=True, best=2.0)


CALLS = {
    "tensors": (None, torch.randn(4, 3)),
    "lists": (ranking.Lists(), torch.randn(4, 3)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_target_that_carries_the_gradient_is_refused(name):
    task, targets = CALLS[name]
    criterion = LearnedSurrogateLoss(
        lambda p, t: (p.argsort(-1) != t.argsort(-1)).float().mean(-1),
        task=task,
        higher_is_better=False,
    )
    prediction = torch.randn(4, 3, requires_grad=True)
    with pytest.raises(ValueError, match=r"are they swapped\?.*comes first"):
        criterion(targets, prediction)
    with torch.no_grad():
        criterion(targets, prediction)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        criterion(prediction, targets)
        criterion(prediction, targets.clone().requires_grad_())
        criterion(targets, targets)


def test_masked_logits_of_sets_widen_nothing():
    logits = torch.randn(64, 5, generator=RANDOM)
    masked = logits.masked_fill(torch.rand(64, 5, generator=RANDOM) < 0.3, -1e9)
    task, targets = classification.Sets(), logits.argmax(1)
    spreads = [
        task.spread(batch.prediction, batch)
        for batch in (task.read(z, targets) for z in (logits, masked))
    ]
    assert spreads[1].deviation == pytest.approx(spreads[0].deviation.item(), rel=0.1)


def squared_error(scores, targets):
    return (scores - targets.float()).square().mean()


def log_loss_of(scores, targets):
    return torch.nn.functional.binary_cross_entropy_with_logits(scores, targets.float())


@pytest.mark.parametrize(
    "metric, task",
    [
        (squared_error, ranking.Lists()),
        (log_loss_of, classification.Sets(gives="scores")),
    ],
)
def test_of_lists_and_scores_the_order_is_followed_alone(metric, task):
    marks = torch.rand(6, 12, generator=RANDOM) < 0.4
    scores = torch.randn(6, 12, generator=RANDOM).requires_grad_()
    arguments = (scores, marks)
    if isinstance(task, classification.Sets):
        arguments = (scores[:, 0].detach().requires_grad_(), marks[:, 0].long())
    criterion = LearnedSurrogateLoss(metric, task=task, higher_is_better=False)
    with pytest.warns(UserWarning, match="half as far apart"):
        criterion(*arguments)
    criterion(*arguments)


@pytest.mark.parametrize("above", [-1.0, 0.7])
def test_a_threshold_of_scores_of_lists_is_doubted(above):
    """Also one that stays where it is when all scores are half as large: zero."""
    scores = (torch.randn(8, 30, generator=RANDOM) + above).requires_grad_()
    marks = torch.rand(8, 30, generator=RANDOM) < 0.4
    criterion = LearnedSurrogateLoss(f1_above_zero, task=ranking.Lists(), **SCORE)
    with pytest.warns(UserWarning, match="half as far apart"):
        criterion(scores, marks)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_iou_of_class_maps_asks_for_their_classes(classes, together):
    logits = torch.randn(3, classes, 6, 6, generator=RANDOM).requires_grad_()
    maps = torch.randint(0, classes, (3, 6, 6), generator=RANDOM)
    task = segmentation.Masks(together=together)
    criterion = LearnedSurrogateLoss(segmentation.iou, task=task)
    with pytest.raises(ValueError, match=rf"partial\(segmentation.iou, classes={classes}\)"):
        criterion(logits, maps)
    whole = functools.partial(segmentation.iou, classes=classes)
    criterion = LearnedSurrogateLoss(whole, task=task, batched=True, **SCORE)
    criterion(logits, maps).backward()
    assert logits.grad.abs().sum() > 0
    if classes > 2:
        with pytest.raises(ValueError, match="as class maps are: then give classes=4"):
            segmentation.iou(logits.argmax(1), maps)


UNKNOWN = {
    "classes": (classification.Sets(), (8, 3), torch.full((8,), -100), "leave rows"),
    "marks": (classification.Sets(), (8, 3), torch.full((8, 3), -1.0), "leave rows"),
    "class maps": (
        segmentation.Masks(),
        (2, 3, 4, 4),
        torch.full((2, 4, 4), 255),
        "ignore_index= the",
    ),
    "masks": (
        segmentation.Masks(ignore_index=255),
        (2, 1, 4, 4),
        torch.full((2, 1, 4, 4), 255),
        "is for class maps",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_labels_that_are_not_known_are_refused_with_a_way_out(name):
    task, shape, targets, remedy = UNKNOWN[name]
    criterion = LearnedSurrogateLoss(accuracy, task=task, **SCORE)
    with pytest.raises(ValueError, match=f"some are .*: .*{remedy}"):
        criterion(torch.zeros(shape, requires_grad=True), targets)


def test_what_decides_what_is_trained_is_shown():
    sets = classification.Sets(threshold=0.4, gives="scores", size=8)
    assert repr(sets) == ("classification.Sets(noise=0.3, threshold=0.4, size=8, gives='scores')")
    masks = segmentation.Masks(threshold=0.4, together=True, ignore_index=255)
    assert repr(masks) == (
        "segmentation.Masks(noise=0.3, threshold=0.4, together=True, ignore_index=255)"
    )


def test_a_first_batch_that_is_all_zero_does_not_tell_of_the_order():
    criterion = LearnedSurrogateLoss(squared_error, task=ranking.Lists(), higher_is_better=False)
    marks = torch.rand(6, 12, generator=RANDOM) < 0.4
    criterion(torch.zeros(6, 12, requires_grad=True), marks)
    with pytest.warns(UserWarning, match="half as far apart"):
        criterion(torch.randn(6, 12, generator=RANDOM).requires_grad_(), marks)


@pytest.mark.parametrize("metric", [best_item, ranking.average_precision, ranking.spearman])
@pytest.mark.parametrize("least", [torch.finfo(torch.float32).min, -1e9])
def test_scores_of_what_is_masked_by_a_sum_leave_a_gradient(metric, least):
    """As additive masks do; the rest trains as it does with a mask of its own, or nearly."""
    layer = torch.nn.Linear(3, 1)
    inputs = torch.randn(8, 20, 3, generator=RANDOM)
    targets = torch.rand(8, 20, generator=RANDOM)
    if metric is ranking.average_precision:
        targets = (targets < 0.4).float()
        targets[:, 0] = 1
    targets[:, 16:] = 0
    masked = torch.zeros(20).index_fill(0, torch.arange(16, 20), least)
    gradients = []
    for mask in (None, (masked == 0).expand(8, -1)):
        criterion = LearnedSurrogateLoss(metric, task=ranking.Lists(), **SCORE)
        scores = layer(inputs).squeeze(-1)
        loss = criterion(scores + masked if mask is None else scores, targets, mask)
        gradients.append(torch.autograd.grad(loss, layer.weight)[0])
    assert gradients[0].isfinite().all()
    if metric is not best_item:
        assert torch.cosine_similarity(*gradients, dim=1) > 0.99
        assert gradients[0].norm() > 0.5 * gradients[1].norm()


def test_a_list_without_items_is_named():
    criterion = LearnedSurrogateLoss(best_item, task=ranking.Lists(), **SCORE)
    with pytest.raises(ValueError, match=r"must have an item a list; their shape is \(2, 0\)"):
        criterion(torch.zeros(2, 0, requires_grad=True), torch.zeros(2, 0))


def test_a_metric_of_the_order_is_not_doubted():
    marks = torch.rand(40, generator=RANDOM) < 0.4
    scores = torch.randn(40, generator=RANDOM).requires_grad_()

    def area(scores, targets):
        return roc_auc_score(targets, scores)

    task = classification.Sets(gives="scores")
    LearnedSurrogateLoss(area, task=task, higher_is_better=True, best=1.0)(scores, marks.long())
    lists = scores[None].detach().requires_grad_()
    criterion = LearnedSurrogateLoss(
        lambda said, true: ndcg_score(true[None], said[None], k=5),
        task=ranking.Lists(),
        higher_is_better=True,
        best=1.0,
    )
    criterion(lists, marks[None].float())


def test_a_class_that_is_masked_has_no_gradient_and_spoils_none():
    def accuracy(said, meant):
        return float((said == meant).float().mean())

    criterion = LearnedSurrogateLoss(
        accuracy, task=classification.Sets(), higher_is_better=True, best=1.0
    )
    logits = torch.randn(64, 5)
    logits[:, 3] = -torch.inf
    logits.requires_grad_()
    loss = criterion(logits, torch.randint(0, 3, (64,)))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad.any()
    assert not logits.grad[:, 3].any()


def test_bytes_are_the_numbers_that_they_are():
    gains = torch.tensor([[1, 2, 0, 9, 255], [0, 1, 2, 3, 255]]).byte()
    task = ranking.Lists()
    assert task.warn_about(task.read(torch.zeros(2, 5), gains))
    maps = torch.full((2, 4, 4), 44, dtype=torch.uint8)
    assert segmentation.Masks().read(torch.randn(2, 300, 4, 4), maps).target.eq(44).all()
    with pytest.raises(ValueError, match="some are 156"):
        segmentation.Masks(ignore_index=-100).read(torch.randn(2, 50, 4, 4), maps + 112)
