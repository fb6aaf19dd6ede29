"""Counts, IoU and NeuroIoU, beside scikit-learn and loops over pixels."""

import functools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import nn

from learned_surrogates import FitValues, LearnedSurrogateLoss, Tensors
from learned_surrogates.segmentation import Masks, NeuroIoU, counts, dataset_iou, iou, soft_iou
from learned_surrogates.segmentation._counts import neuro_counts, soft_counts

FORMS = ("neuro-3", "neuro-6", "hinge", "counts")


def images(number=7, seed=0, dtype=torch.float64):
    """Logits and masks; the first image has nothing in it, and nothing is predicted there."""
    random = torch.Generator().manual_seed(seed)
    masks = torch.rand(number, 1, 5, 4, generator=random) < 0.4
    logits = 2 * torch.randn(number, 1, 5, 4, generator=random, dtype=dtype) + masks
    masks[0], logits[0] = False, -1.0
    return logits, masks


def class_maps(number=5, classes=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes - 1, (number, 6, 3), generator=random)
    scores = torch.randn(number, classes, 6, 3, generator=random)
    scores += 2 * nn.functional.one_hot(targets, classes).movedim(-1, 1)
    return scores, targets


def numpy(*tensors):
    return [tensor.flatten().numpy() for tensor in tensors]


@pytest.mark.parametrize("kind", ["logits", "masks", "integers", "numpy", "lists"])
def test_iou_is_scikit_learn_s(kind):
    logits, masks = images()
    said = {
        "logits": logits,
        "masks": logits > 0,
        "integers": (logits > 0).int(),
        "numpy": logits.numpy(),
        "lists": logits.tolist(),
    }[kind]
    expected = [
        jaccard_score(*numpy(true, logit > 0), zero_division=1.0)
        for logit, true in zip(logits, masks)
    ]
    assert expected[0] == 1.0
    np.testing.assert_allclose(iou(said, masks), expected, rtol=1e-6)
    whole = jaccard_score(*numpy(masks, logits > 0))
    assert dataset_iou(counts(said, masks)).item() == pytest.approx(whole)


@pytest.mark.parametrize("form", ["scores", "maps"])
def test_iou_of_classes_is_scikit_learn_s(form):
    scores, targets = class_maps()
    maps = scores.argmax(1)
    said = scores if form == "scores" else maps
    each = [
        jaccard_score(*numpy(true, guess), average="macro")  # of the classes in either
        for guess, true in zip(maps, targets)
    ]
    np.testing.assert_allclose(iou(said, targets, classes=4), each, rtol=1e-6)
    whole = jaccard_score(*numpy(targets, maps), average="macro")
    assert dataset_iou(counts(said, targets, classes=4)).item() == pytest.approx(whole)


def test_counts_of_classes_are_those_of_loops_without_what_is_ignored():
    scores, targets = class_maps()
    targets[:, 0] = 255
    found = counts(scores, targets, classes=4, ignore_index=255)
    maps = scores.argmax(1)
    for image in range(len(maps)):
        for k in range(4):
            pairs = [(s, t) for s, t in zip(*numpy(maps[image], targets[image])) if t != 255]
            expected = [
                sum(s == k and t == k for s, t in pairs),
                sum(s == k and t != k for s, t in pairs),
                sum(s != k and t == k for s, t in pairs),
            ]
            assert found[image, k].tolist() == expected


def test_scores_may_be_one_hot_marks():
    scores, targets = class_maps()
    marks = torch.zeros_like(scores).scatter(1, scores.argmax(1, keepdim=True), 1).bool()
    assert torch.equal(counts(marks, targets, classes=4), counts(scores, targets, classes=4))


def test_a_net_needs_images_to_be_scaled_by():
    logits, masks = images()
    with pytest.raises(ValueError, match="must have an image"):
        NeuroIoU(logits[:0], masks[:0])


def test_what_is_not_a_number_is_wrong():
    logits, masks = images()
    wrong = torch.where(masks, -1.0, 1.0)
    wild = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    assert torch.equal(
        counts(logits.masked_fill(wild, torch.nan), masks),
        counts(torch.where(wild, wrong, logits), masks),
    )
    assert iou(torch.full((1, 9), torch.nan), torch.zeros(1, 9)) == 0
    scores, targets = class_maps()
    assert (iou(torch.full_like(scores, torch.nan), targets, classes=4) == 0).all()
    whole = counts(scores[..., 1:], targets[..., 1:], classes=4, ignore_index=2)
    scores[:, 1, :, 0] = torch.nan  # of one class in each
    found = counts(scores, targets, classes=4, ignore_index=2)
    assert torch.equal(found[..., 0], whole[..., 0])
    assert torch.equal(found[..., [0, 2]].sum((1, 2)), (targets != 2).sum((1, 2)))


def test_batches_put_together_are_the_data_set():
    scores, targets = class_maps()
    parts = [counts(scores[i : i + 2], targets[i : i + 2], classes=4) for i in range(0, 5, 2)]
    whole = dataset_iou(counts(scores, targets, classes=4))
    assert dataset_iou(torch.cat(parts)) == whole
    assert whole != iou(scores, targets, classes=4).mean()


def pixels(logits, masks):
    """Each image's `(logit, is foreground)`."""
    return [list(zip(*numpy(*pair))) for pair in zip(logits, masks)]


def sigmoid(s):
    return 1 / (1 + math.exp(-s))


def test_soft_counts_and_soft_iou_are_those_of_loops():
    logits, masks = images()
    found, value = soft_counts(logits, masks), soft_iou(logits, masks)
    for image, each in enumerate(pixels(logits, masks)):
        hits = sum(sigmoid(s) for s, y in each if y)
        false_alarms = sum(sigmoid(s) for s, y in each if not y)
        misses = sum(1 - sigmoid(s) for s, y in each if y)
        np.testing.assert_allclose(found[image], [hits, false_alarms, misses], rtol=1e-12)
        expected = hits / (hits + false_alarms + misses)
        assert value[image].item() == pytest.approx(expected, abs=1e-6)


def test_soft_iou_nears_iou_and_has_the_right_gradient():
    logits, masks = images()
    torch.testing.assert_close(soft_iou(1e4 * logits, masks).float(), iou(logits, masks))
    assert torch.autograd.gradcheck(lambda z: soft_iou(z, masks), logits.requires_grad_())


def test_neuro_counts_are_equation_2_with_the_predicted_class():
    logits, masks = images()
    sums, sizes = neuro_counts(logits, masks)
    hinges, _ = neuro_counts(logits, masks, hinge=True)
    torch.testing.assert_close(sizes.long(), counts(logits, masks))
    for image, each in enumerate(pixels(logits, masks)):
        sets = (
            [(sigmoid(s), max(0, 1 - s)) for s, y in each if y and s > 0],
            [(sigmoid(s), max(0, 1 + s)) for s, y in each if not y and s > 0],
            [(1 - sigmoid(s), max(0, 1 - s)) for s, y in each if y and s <= 0],
        )
        np.testing.assert_allclose(sums[image], [sum(p for p, _ in part) for part in sets])
        np.testing.assert_allclose(hinges[image], [sum(h for _, h in part) for part in sets])


@pytest.mark.parametrize("form", FORMS)
def test_what_the_net_sees(form):
    logits, masks = images()
    seen = NeuroIoU(logits, masks, form=form).inputs(logits, masks)
    sums, sizes = neuro_counts(logits, masks, hinge=form == "hinge")
    if form == "counts":
        sums = soft_counts(logits, masks)
    torch.testing.assert_close(seen[:, :3], sums / 20)
    assert seen.shape == (7, 6 if form == "neuro-6" else 3)
    if form == "neuro-6":
        expected = torch.where(sizes > 0, sums / sizes, 0.0)
        torch.testing.assert_close(seen[:, 3:], expected)
        assert (seen[0, 3:] == 0).all()


def fitted(form):
    """NeuroIoU, its loss's inputs, and what it was fitted to, as in Algorithm 1."""
    logits, masks = images(600, dtype=torch.float32)
    error = 1 - iou(logits, masks)
    surrogate = NeuroIoU(logits, masks, form=form)
    optimizer = torch.optim.Adam(surrogate.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        (surrogate(logits, masks) - error).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        misfit = (surrogate(logits, masks) - error).std() / error.std()
    return surrogate, logits, masks, misfit


@pytest.mark.parametrize("form", ["neuro-3", "hinge", "counts"])
def test_it_learns_the_loss_and_pushes_pixels_the_right_way(form):
    """Up the logits of the foreground, down those of false alarms; correct background by counts."""
    surrogate, logits, masks, misfit = fitted(form)
    # A sum of hinges tells little of how many pixels there are.
    assert misfit < (0.8 if form == "hinge" else 0.4)
    logits.requires_grad_()
    surrogate(logits, masks).sum().backward()
    said, true = logits > 0, masks
    sets = {"TP": said & true, "FP": said & ~true, "FN": ~said & true, "TN": ~said & ~true}
    push = {name: logits.grad[some].mean() for name, some in sets.items()}
    assert push["FP"] > 0 > push["FN"]
    # More hinge among true positives is more of them, or less sure ones: the wrong way, documented.
    assert (push["TP"] < 0) == (form != "hinge")
    assert (push["TN"] > 0) if form == "counts" else (push["TN"] == 0)


def test_an_image_that_is_all_background_has_no_gradient_but_by_counts():
    logits, masks = images(dtype=torch.float32)
    for form in FORMS:
        z = logits[:1].clone().requires_grad_()
        NeuroIoU(logits, masks, form=form)(z, masks[:1]).sum().backward()
        assert (z.grad.abs().max() > 0) == (form == "counts")


def test_the_net_is_the_published_one_and_has_a_stream_of_its_own():
    logits, masks = images()
    state = torch.get_rng_state()
    one, same, other = (NeuroIoU(logits, masks, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    parameters = sum(p.numel() for p in one.parameters())
    assert parameters == 4 * 100 + 3 * (100 * 100 + 100) + 101
    weights = [module.net[1].weight for module in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    z = one.net[0](one.inputs(logits, masks).float())
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", ["neuro-3", "counts"])
def test_inside_the_loss_it_is_fitted_and_followed_and_resumes(form):
    logits, masks = images(32, dtype=torch.float32)

    def make():
        return LearnedSurrogateLoss(
            iou,
            task=Tensors(smoothing=0),
            surrogate=NeuroIoU(logits, masks, form=form),
            base_loss=nn.BCEWithLogitsLoss(),
            fit=FitValues(warm_up=200, every=1),
        )

    criterion = make()
    for step in range(12):
        z = (logits + 0.01 * step).requires_grad_()
        loss = criterion(z, masks.float())
        loss.backward()
    assert loss.item() == pytest.approx(1 - iou(z, masks).mean().item(), abs=0.1)
    assert z.grad[masks].mean() < 0 < z.grad[~masks].mean()
    resumed = make()
    resumed.load_state_dict(criterion.state_dict())
    assert resumed(z.detach(), masks.float()) == criterion.eval()(z.detach(), masks.float())


def test_iou_is_a_metric_to_hand_over_as_it_is():
    logits, masks = images(dtype=torch.float32)
    loss = LearnedSurrogateLoss(iou)(logits.requires_grad_(), masks.float())
    loss.backward()
    assert 0 < loss < 1
    assert logits.grad.abs().max() > 0
    scores, targets = class_maps()
    metric = functools.partial(iou, classes=4)
    criterion = LearnedSurrogateLoss(metric, higher_is_better=True, best=1.0)
    criterion(scores.requires_grad_(), targets).backward()
    assert scores.grad.abs().max() > 0


MASKS = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: iou("a", MASKS), TypeError, "predictions must be a tensor; got str"),
        (lambda: iou(MASKS, torch.ones(2, 4)), ValueError, "one shape"),
        (lambda: soft_iou(torch.ones(3), torch.ones(3)), ValueError, "one shape"),
        (lambda: iou(torch.ones(3), torch.ones(3)), ValueError, r"one image as targets\[None\]"),
        (lambda: iou(MASKS, torch.ones(2), classes=3), ValueError, r"\(images, ...\)"),
        (lambda: Masks().read(torch.ones(2, 1, 0, 4), torch.ones(2, 1, 0, 4)), ValueError, "pixel"),
        (lambda: counts(MASKS, MASKS, ignore_index=0), ValueError, "give classes, too"),
        (lambda: counts(MASKS, MASKS.long(), classes=1), ValueError, "classes 0 to 0; some are 1"),
        (lambda: counts(torch.ones(2, 4, 3), MASKS.long(), classes=5), ValueError, "class maps"),
        (lambda: dataset_iou(torch.ones(3)), ValueError, r"\(images, 3\)"),
        (
            lambda: NeuroIoU(MASKS, MASKS, form="neuro-9"),
            ValueError,
            "form must be one of 'neuro-3'",
        ),
        (lambda: NeuroIoU(MASKS, MASKS, layers=0), ValueError, "layers must be at least 1"),
        (lambda: NeuroIoU(MASKS, torch.ones(2)), ValueError, "one shape"),
    ],
)
def test_errors_name_the_argument(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_probabilities_are_no_class_maps():
    said, true = torch.tensor([[0.9, 0.8, 0.2, 0.1]]), torch.tensor([[1, 1, 0, 0]])
    with pytest.raises(ValueError, match=r"no whole numbers.*\(images, 2, ...\).*no classes="):
        iou(said, true, classes=2)
    assert iou(said.round(), true, classes=2) == 1


def test_a_partial_says_what_its_metric_says():
    images = functools.partial(iou, classes=5, ignore_index=255)
    scores = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = torch.arange(128).view(2, 8, 8) % 5
    maps[0, :2] = 255
    single = LearnedSurrogateLoss(images, task=Masks(ignore_index=255))
    together = LearnedSurrogateLoss(images, task=Masks(ignore_index=255, together=True))
    whole = dataset_iou(counts(scores, maps, classes=5, ignore_index=255))
    with torch.no_grad():
        assert single(scores, maps).item() == pytest.approx(1 - images(scores, maps).mean().item())
        assert together(scores, maps).item() == pytest.approx(1 - whole.item())


def test_maps_may_be_bool():
    said, true = torch.tensor([[True, False, True]]), torch.tensor([[True, True, True]])
    torch.testing.assert_close(
        counts(said, true, classes=2), counts(said.long(), true.long(), classes=2)
    )


@pytest.mark.parametrize(
    ("said", "true", "options", "message"),
    [
        (torch.zeros(1, 3), torch.tensor([[0.9, 1.9, 1]]), {"classes": 2}, "targets must be class"),
        (torch.zeros(1, 2), torch.tensor([[math.nan, 1]]), {}, "some are no number"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4), {}, r"give targets\[:, None\]"),
        (
            torch.zeros(1, 2).long(),
            torch.full((1, 2), 255, dtype=torch.uint8),
            {"classes": 2, "ignore_index": -1},
            "some are 255",
        ),
    ],
)
def test_targets_that_are_none_are_named(said, true, options, message):
    with pytest.raises(ValueError, match=message):
        counts(said, true, **options)
