"""Lists, sets and masks: what the metric gets, what comes back, and what is refused."""

import functools
import math

import numpy as np
import pytest
import torch
from conftest import assert_identical, step
from plain_sets import random_labels, random_lists, random_masks
from scipy.stats import spearmanr
from sklearn.metrics import (
    average_precision_score,
    cohen_kappa_score,
    f1_score,
    jaccard_score,
    roc_auc_score,
)
from within import core_of

from learned_surrogates import (
    Fit,
    FitValues,
    LearnedSurrogateLoss,
    classification,
    ranking,
    segmentation,
)
from learned_surrogates.segmentation._expected_iou import expected_iou

BETTER = {"higher_is_better": True, "best": 1.0}


def average_precision(scores, targets):
    assert scores.ndim == targets.ndim == 1
    return average_precision_score(targets, scores)


def spearman(scores, targets):
    return spearmanr(scores, targets).statistic


def value(metric, task, *arguments, **options):
    """The loss of predictions as they are."""
    criterion = LearnedSurrogateLoss(metric, task=task, **(BETTER | options))
    with torch.no_grad():
        return criterion(*arguments)


# Lists


def test_a_list_is_what_scikit_learn_takes():
    scores, marks, mask = random_lists()
    each = [average_precision_score(m[k], s[k]) for s, m, k in zip(scores.detach(), marks, mask)]
    found = value(average_precision, ranking.Lists(), scores, marks, mask)
    assert found.item() == pytest.approx(1 - np.mean(each))
    found = value(average_precision, ranking.Lists(), scores, marks, mask, reduction="none")
    np.testing.assert_allclose(found, 1 - np.array(each), rtol=1e-6)


def test_our_metrics_of_a_list_are_scikit_learn_s_and_scipy_s():
    scores, marks, _ = random_lists(dtype=torch.float64)
    for row, relevant in zip(scores.detach(), marks):
        expected = average_precision_score(relevant, row)
        assert ranking.average_precision(row, relevant).item() == pytest.approx(expected)
        grades = (3 * row + relevant).round()
        assert ranking.spearman(row, grades).item() == pytest.approx(spearman(row, grades))


@pytest.mark.parametrize(
    ("metric", "loss"),
    [
        (ranking.average_precision, ranking.average_precision_loss),
        (ranking.spearman, ranking.spearman_loss),
    ],
)
def test_a_metric_with_a_closed_form_is_followed_without_draws(metric, loss):
    scores, _, mask = random_lists()
    targets = torch.randn(scores.shape)
    criterion = LearnedSurrogateLoss(metric, task=ranking.Lists(noise=0.2))
    found = step(criterion, (scores, targets, mask))
    expected = loss(scores, targets, noise=0.2, mask=mask)
    torch.testing.assert_close(found[0], expected.detach())
    torch.testing.assert_close(found[1], torch.autograd.grad(expected, scores)[0])
    assert core_of(criterion).recipe.draws == 0
    assert "closed form" in repr(criterion)


@pytest.mark.parametrize("draws", [None, 4])
@pytest.mark.parametrize("metric", [ranking.average_precision, ranking.spearman])
def test_a_list_on_which_a_metric_is_not_defined_is_left_out(metric, draws):
    """In training, evaluated and checked, and of the mean that is told."""
    scores, marks, _ = random_lists()
    marks = marks.clone()
    marks[1] = 0
    criterion = LearnedSurrogateLoss(metric, task=ranking.Lists(), draws=draws, fit=Fit(every=1))
    loss, gradient = step(criterion, (scores, marks))
    assert loss.isfinite()
    assert not gradient[1].any()
    assert gradient[0].any()
    told = criterion.stats["metric/mean"]
    # The first call measures more, to know something.
    assert criterion.stats["metric/skipped"] == (1 if draws is None else 5)
    assert told == pytest.approx(1 - loss.item(), abs=1e-5)
    with torch.no_grad():
        evaluated = criterion.eval()(scores, marks)
    others = torch.arange(len(marks)) != 1
    values = [metric(*pair) for pair in zip(scores[others], marks[others])]
    assert evaluated.item() == pytest.approx(1 - torch.stack(values).mean().item(), abs=1e-5)
    assert criterion.check([(scores.detach(), marks)], draws=4).left_out == 1
    # Where it is defined nowhere, the last value that there was stands.
    loss, gradient = step(criterion.train(), (scores, torch.zeros_like(marks)))
    assert not gradient.any()
    assert criterion.stats["metric/mean"] == told


def test_what_is_masked_is_not_seen_and_has_no_gradient():
    scores, marks, mask = random_lists()
    spoilt = scores.detach().masked_fill(~mask, math.nan).requires_grad_()
    losses = [LearnedSurrogateLoss(average_precision, task=ranking.Lists(), **BETTER) for _ in "ab"]
    for _ in range(3):
        plain = step(losses[0], (scores, marks, mask))
        assert_identical(step(losses[1], (spoilt, marks, mask)), plain)
        assert plain[1].isfinite().all()
        assert_identical(plain[1][~mask], torch.zeros(int((~mask).sum())))
        assert plain[1][mask].all()


def test_one_list_and_many_dimensions_come_back_as_they_were():
    scores, marks, _ = random_lists(count=6)
    task = ranking.Lists()
    one = LearnedSurrogateLoss(average_precision, task=task, reduction="none", **BETTER)
    found, gradient = step(one, (scores[0].detach().requires_grad_(), marks[0]))
    assert found.shape == ()
    assert gradient.shape == (12,)
    many = scores.detach().view(2, 3, 12).requires_grad_()
    found, gradient = step(one, (many, marks.view(2, 3, 12)))
    assert found.shape == (2, 3)
    assert gradient.shape == many.shape
    none = torch.zeros(0, 12, requires_grad=True)
    assert step(one, (none, torch.zeros(0, 12)))[0].shape == (0,)


def test_a_list_s_noise_is_in_its_own_scale():
    scores, marks, _ = random_lists()
    gradients = []
    for factor in (1.0, 1000.0):
        criterion = LearnedSurrogateLoss(average_precision, task=ranking.Lists(), **BETTER)
        moved = (factor * scores.detach() + 7).requires_grad_()
        gradients.append(factor * step(criterion, (moved, marks))[1])
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-5)


# Sets


@pytest.mark.parametrize(
    ("metric", "classes"),
    [
        (lambda said, true: cohen_kappa_score(true, said), 3),
        (lambda said, true: f1_score(true, said, average="macro"), 3),
        (lambda said, true: f1_score(true, said), None),
    ],
)
def test_a_set_is_what_scikit_learn_takes(metric, classes):
    logits, labels = random_labels(classes=classes or 2)
    if classes is None:
        logits = logits[:, 1].detach() - 0.2
    said = logits.argmax(1) if classes else logits > 0
    expected = 1 - metric(said.int(), labels)
    assert value(metric, classification.Sets(), logits, labels).item() == pytest.approx(expected)


def test_several_marks_are_a_set_and_so_are_scores():
    logits, marks = random_labels(30)[0].detach(), torch.rand(30, 3) < 0.4

    def macro(said, true):
        return f1_score(true, said, average="macro", zero_division=0)

    expected = 1 - macro(logits > 0.5, marks)
    found = value(macro, classification.Sets(threshold=0.5), logits, marks)
    assert found.item() == pytest.approx(expected)

    def area(said, true):
        return roc_auc_score(true, said)

    found = value(area, classification.Sets(gives="scores"), logits[:, 0], marks[:, 0])
    assert found.item() == pytest.approx(1 - area(logits[:, 0], marks[:, 0]))


@pytest.mark.parametrize(
    ("rows", "size", "sizes"), [(10, 4, [5, 5]), (11, 4, [3, 4, 4]), (3, 8, [3])]
)
def test_a_call_is_divided_into_sets_as_equal_as_they_can_be(rows, size, sizes):
    seen = []

    def metric(said, true):
        seen.append(true)
        return float((said == true).float().mean())

    logits, labels = random_labels(rows)
    found = value(metric, classification.Sets(size=size), logits, labels, reduction="none")
    assert sorted(map(len, seen)) == sizes
    assert_identical(torch.cat(seen), labels)
    assert found.shape == (len(sizes),)
    criterion = LearnedSurrogateLoss(metric, task=classification.Sets(size=size), **BETTER)
    gradient = step(criterion, (logits, labels))[1]
    assert gradient.shape == logits.shape
    assert gradient.any(1).all()


def test_rows_of_one_set_do_not_reach_another():
    """But by the noise's width, which they share: along what it moves with."""
    logits, labels = random_labels(16, classes=2)
    logits = logits[:, 1].detach().requires_grad_()

    def metric(said, true):
        return f1_score(true, said, zero_division=0) * (true.tolist() == labels[:8].tolist())

    criterion = LearnedSurrogateLoss(
        metric, task=classification.Sets(size=8), surrogate="none", **BETTER
    )
    gradient = step(criterion, (logits, labels))[1]
    of_width = (logits - logits.mean()).detach()
    share = gradient[8:] / of_width[8:]
    torch.testing.assert_close(share, share[:1].expand(8))
    own = gradient[:8] - share[0] * of_width[:8]
    assert own.abs().max() > 0.01


# Masks


def jaccard(said, true):
    return jaccard_score(true.flatten(), said.flatten(), zero_division=1.0)


@pytest.mark.parametrize("layout", ["channel", "none", "class-like"])
def test_a_mask_is_an_image_s(layout):
    logits, masks = random_masks()
    expected = 1 - np.mean([jaccard(z > 0, y) for z, y in zip(logits.detach(), masks)])
    if layout == "none":
        logits, masks = logits[:, 0].detach(), masks[:, 0]
    if layout == "class-like":
        masks = masks[:, 0].float()
    seen = []

    def metric(said, true):
        seen.append((said.shape, said.dtype, true.dtype))
        return jaccard(said, true)

    found = value(metric, segmentation.Masks(), logits, masks)
    assert found.item() == pytest.approx(expected)
    assert set(seen) == {((6, 6), torch.bool, torch.bool)}


def test_images_together_are_one_set():
    logits, masks = random_masks()
    expected = 1 - jaccard(logits > 0, masks)
    for metric in (jaccard, segmentation.iou):
        found = value(metric, segmentation.Masks(together=True), logits, masks)
        assert found.item() == pytest.approx(expected)
        assert found.shape == ()


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32])
def test_targets_of_the_wider_unsigned_types(dtype):
    """As label maps of 16 bits have."""
    logits, maps = torch.randn(2, 3, 4, 4, requires_grad=True), torch.arange(32).view(2, 4, 4) % 3

    def share(said, true):
        return (said == true).float().mean()

    found = [value(share, segmentation.Masks(), logits, given) for given in (maps, maps.to(dtype))]
    assert_identical(*found)
    masks = (maps[:, None] > 0).to(dtype)
    assert_identical(
        segmentation.iou(logits[:, :1], masks), segmentation.iou(logits[:, :1], masks.long())
    )


def test_class_maps_are_integers_and_what_is_ignored_has_no_gradient():
    logits = torch.randn(3, 4, 5, 5, requires_grad=True)
    maps = torch.randint(0, 4, (3, 5, 5))
    maps[:, 0] = 255
    metric = functools.partial(segmentation.iou, classes=4, ignore_index=255)
    task = segmentation.Masks(ignore_index=255)
    found = value(metric, task, logits, maps, batched=True)
    assert found.item() == pytest.approx(1 - metric(logits.detach(), maps).mean().item())
    criterion = LearnedSurrogateLoss(metric, task=task, batched=True, **BETTER)
    for _ in range(3):
        gradient = step(criterion, (logits, maps))[1]
    assert not gradient[:, :, 0].any()
    assert gradient[:, :, 1:].all()


def test_expected_iou_is_the_mean_over_draws():
    logits, masks = random_masks(side=5)
    masks[0] = False
    logits = logits.detach() - 2.0 * (torch.arange(6) == 0).view(-1, 1, 1, 1)
    width = torch.tensor(0.9)
    noise = torch.randn(6000, *logits.shape, generator=torch.Generator().manual_seed(0))
    drawn = torch.stack([segmentation.iou(logits + width * each, masks) for each in noise])
    error = (expected_iou(logits, masks, width) - drawn.mean(0)).abs()
    assert error.max() < 0.004
    criterion = LearnedSurrogateLoss(segmentation.iou, task=segmentation.Masks())
    assert core_of(criterion).recipe.draws == 0
    assert step(criterion, random_masks())[1].any()


# What is refused


SCORES, MARKS = torch.randn(4, 5, requires_grad=True), torch.ones(4, 5)


@pytest.mark.parametrize(
    ("task", "arguments", "error", "words"),
    [
        (ranking.Lists(), (SCORES, MARKS[:, :4]), ValueError, "targets must have the shape"),
        (ranking.Lists(), (SCORES.int(), MARKS), TypeError, "scores must be floating-point"),
        (ranking.Lists(), (SCORES, MARKS, MARKS), TypeError, "mask must be bool"),
        (ranking.Lists(), (SCORES, MARKS / 0), ValueError, "targets must be finite; one is inf"),
        (classification.Sets(), (SCORES, MARKS[:, :4]), ValueError, r"\(4, 5\) and \(4, 4\)"),
        (classification.Sets(), (SCORES, 2 * MARKS), ValueError, "must be 0 and 1; some are 2"),
        (classification.Sets(), (SCORES, MARKS[:, 0]), TypeError, "must be integers"),
        (
            classification.Sets(),
            (SCORES, torch.full((4,), 5)),
            ValueError,
            "from 0 to 4; some are 5",
        ),
        (
            classification.Sets(threshold=0.5),
            (SCORES, torch.arange(4)),
            ValueError,
            "threshold=0.5 is for marks",
        ),
        (classification.Sets(), (SCORES > 0, MARKS), TypeError, "before any argmax or threshold"),
        (segmentation.Masks(), (SCORES, MARKS), ValueError, "logits must be"),
        (segmentation.Masks(), (SCORES[:, None, :, None], [1]), TypeError, "must be a tensor"),
    ],
)
def test_what_is_no_set_is_refused(task, arguments, error, words):
    criterion = LearnedSurrogateLoss(jaccard, task=task, **BETTER)
    with pytest.raises(error, match=words):
        criterion(*arguments)


def test_what_a_task_of_sets_cannot_do_is_refused():
    for make in (ranking.Lists, classification.Sets, segmentation.Masks):
        with pytest.raises(ValueError, match="noise must be above 0"):
            make(noise=0)
        for draws in (0, 3):
            with pytest.raises(ValueError, match="come in pairs"):
                LearnedSurrogateLoss(jaccard, task=make(), draws=draws, **BETTER)
        with pytest.raises(TypeError, match="'auto' or 'none'"):
            LearnedSurrogateLoss(jaccard, task=make(), surrogate=torch.nn.Linear(1, 1), **BETTER)
        with pytest.raises(ValueError, match=r"FitValues.* is for.*Tensors\(smoothing=0\)"):
            LearnedSurrogateLoss(jaccard, task=make(), fit=FitValues(filter=0.1), **BETTER)
    with pytest.raises(ValueError, match="gives must be"):
        classification.Sets(gives="probabilities")
    with pytest.raises(ValueError, match="size must be at least 1"):
        classification.Sets(size=0)


def test_a_direction_that_was_forgotten_is_doubted():
    scores, marks, mask = random_lists()
    criterion = LearnedSurrogateLoss(average_precision, task=ranking.Lists())
    with pytest.warns(UserWarning, match="is better for these predictions"):
        criterion(scores, marks, mask)


@pytest.mark.parametrize("draws", [None, 2])
def test_a_base_loss_that_is_spent_hands_over(draws):
    """Also where nothing is drawn, as the mean of IoU is known."""
    torch.manual_seed(0)
    model = torch.nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.fill_(-1.0)
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    criterion = LearnedSurrogateLoss(
        segmentation.iou,
        task=segmentation.Masks(),
        base_loss=torch.nn.BCEWithLogitsLoss(),
        draws=draws,
    )
    shares = []
    for _ in range(250):
        masks = (torch.rand(8, 1, 6, 6) < 0.4).float()
        loss = criterion(model(masks + 0.7 * torch.randn(masks.shape)), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shares.append(criterion.stats["base_loss/share"])
    assert shares[0] == 1
    assert shares[-1] == 0


def test_that_nothing_is_said_of_an_empty_mask_is_known():
    """Of Dice, which is 1 there if nothing is, and 0 else."""

    def dice(said, true):
        total = said.sum() + true.sum()
        return 2 * (said & true).sum() / total if total else torch.ones(())

    criterion = LearnedSurrogateLoss(
        dice, task=segmentation.Masks(), higher_is_better=True, best=1.0
    )
    random = torch.Generator().manual_seed(0)
    for _ in range(30):
        masks = torch.zeros(32, 8, 8, dtype=torch.bool)
        masks[::2, 2:6, 2:6] = True
        logits = torch.randn(32, 8, 8, generator=random) + 4 * masks - 2.5
        criterion(logits.requires_grad_(), masks).backward()
    assert criterion.stats["surrogate/r2"] > 0.6  # of hits and claims alone, 0.01


def gradient_of_accuracy(dtype, unit):
    """By two draws of one set of 64, in the metric's unit."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 4, generator=random).half().to(dtype).requires_grad_()
    labels = torch.randint(4, (64,), generator=random)
    criterion = LearnedSurrogateLoss(
        lambda said, true: unit * (said != true).float().mean(), task=classification.Sets()
    )
    (criterion(logits, labels) / unit).backward()
    return logits.grad.float()


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e8])
def test_half_precision_has_room_for_metrics_of_any_unit(unit):
    expected = gradient_of_accuracy(torch.float32, unit)
    found = gradient_of_accuracy(torch.float16, unit)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-3 * expected.abs().max().item())


def accuracy_of_sets():
    return LearnedSurrogateLoss(
        lambda said, true: (said != true).float().mean(), task=classification.Sets(size=8)
    )


def test_an_interrupted_call_has_not_weighed_its_draws(monkeypatch):
    criterion, random = accuracy_of_sets(), torch.Generator().manual_seed(0)
    labels = torch.randint(3, (64,), generator=random)

    def call():
        criterion(torch.randn(64, 3, generator=random, requires_grad=True), labels)

    for _ in range(15):
        call()

    def interrupted(*_):
        raise KeyboardInterrupt

    before = criterion.state_dict()
    monkeypatch.setattr(core_of(criterion).record.quality, "read", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        call()
    assert_identical(criterion.state_dict(), before)


def test_the_share_of_a_correction_knows_nothing_of_its_own_draws(monkeypatch):
    """As a share that is large where draws are by chance, they would be biased."""
    criterion, random = accuracy_of_sets(), torch.Generator().manual_seed(0)
    core, events = core_of(criterion), []
    share, weigh = type(core.estimator).correction, type(core.estimator).weigh

    def told(*args):
        events.append("share")
        return share(*args)

    def weighed(*args):
        events.append("weigh")
        return weigh(*args)

    monkeypatch.setattr(type(core.estimator), "correction", told)
    monkeypatch.setattr(type(core.estimator), "weigh", weighed)
    logits = torch.randn(64, 3, generator=random, requires_grad=True)
    criterion(logits, torch.randint(3, (64,), generator=random)).backward()
    assert events[:2] == ["share", "weigh"]
