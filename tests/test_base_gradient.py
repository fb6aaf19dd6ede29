"""The base loss's gradient, whatever it returns, beside what is right for each of its samples."""

import warnings

import pytest
import torch
from conftest import assert_identical
from torch import nn
from torch.nn import functional

from learned_surrogates import Fit, FitValues, LearnedSurrogateLoss, Tensors, boxes, text

# Alone: the metric has no say.
ALONE = {"base_weight": 1.0}


def ctc_call():
    """Four frames; no path of theirs spells the second target, as equal letters need a blank."""
    log_probs = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    targets = torch.tensor([[1, 2, 0], [1, 1, 1], [2, 1, 2]])
    return log_probs.requires_grad_(), targets, torch.tensor([4] * 3), torch.tensor([2, 3, 3])


def gradient_of(loss, arguments):
    (gradient,) = torch.autograd.grad(loss(*arguments).sum(), arguments[0])
    return gradient


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_target_that_no_path_spells_is_left_out_with_a_word_and_once(reduction):
    base = nn.CTCLoss(reduction=reduction)
    assert gradient_of(base, ctc_call())[:, 1].isnan().all()
    criterion = LearnedSurrogateLoss(
        text.edit_distance,
        task=text.CTC("ab"),
        base_loss=base,
        reduction=reduction,
        fit=Fit(every=1),
        **ALONE,
    )
    expected = gradient_of(nn.CTCLoss(reduction=reduction, zero_infinity=True), ctc_call())
    with pytest.warns(UserWarning, match=r"no finite gradient.*zero_infinity=True"):
        torch.testing.assert_close(gradient_of(criterion, ctc_call()), expected)
    for _ in range(3):
        torch.testing.assert_close(gradient_of(criterion, ctc_call()), expected)


def root(prediction, target):
    """Its gradient is not finite where both are equal."""
    return (prediction - target).square().sum(-1).sqrt()


@pytest.mark.parametrize("smoothing", [None, 0])
@pytest.mark.parametrize("reduced", [False, True])
def test_a_sample_without_a_finite_gradient_is_left_out_of_plain_tensors(smoothing, reduced):
    base = (lambda p, t: root(p, t).mean()) if reduced else root
    criterion = LearnedSurrogateLoss(
        lambda p, t: (p - t).abs().sum(-1),
        task=Tensors(smoothing=smoothing),
        base_loss=base,
        fit=Fit(every=1),
        **ALONE,
    )
    prediction, target = torch.randn(4, 3), torch.randn(4, 3)
    target[2] = prediction[2]
    expected = functional.normalize(prediction - target) / 4
    with pytest.warns(UserWarning, match="no finite gradient"):
        actual = gradient_of(criterion, (prediction.requires_grad_(), target))
    torch.testing.assert_close(actual, expected)


def test_a_prediction_that_is_not_a_number_still_shows():
    options = {"on_metric_error": "skip", "fit": Fit(every=1), **ALONE}
    criterion = LearnedSurrogateLoss(root, base_loss=root, **options)
    prediction, target = torch.randn(4, 3), torch.randn(4, 3)
    prediction[1, 0] = torch.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradient = gradient_of(criterion, (prediction.requires_grad_(), target))
    assert gradient.isnan().any(1).tolist() == [False, True, False, False]


def test_a_class_that_cannot_be_takes_nothing_from_the_others():
    """CTC's gradient is no number there, of every sample."""
    mask, random = torch.tensor([False, False, True]), torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 3, generator=random).masked_fill(mask, -torch.inf)
    arguments = logits.log_softmax(-1).requires_grad_(), torch.tensor([[1, 0], [1, 1], [0, 0]])
    arguments += torch.tensor([4] * 3), torch.tensor([1, 2, 0])
    criterion = LearnedSurrogateLoss(
        text.edit_distance, task=text.CTC("ab"), base_loss=nn.CTCLoss(), fit=Fit(every=1), **ALONE
    )
    expected = gradient_of(nn.CTCLoss(), arguments)
    assert expected[:, :, 2].isnan().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actual = gradient_of(criterion, arguments)
    torch.testing.assert_close(actual, expected.masked_fill(mask, 0.0))


def test_a_check_goes_on_without_what_is_not_finite():
    criterion = LearnedSurrogateLoss(
        text.edit_distance, task=text.CTC("ab"), base_loss=nn.CTCLoss()
    )
    other = LearnedSurrogateLoss(
        text.edit_distance, task=text.CTC("ab"), base_loss=nn.CTCLoss(zero_infinity=True)
    )
    figures = [
        loss.check([ctc_call()], draws=4).directions["base loss"].change
        for loss in (criterion, other)
    ]
    assert_identical(*map(torch.tensor, figures))


def smooth_l1(pred, target, weight=None, avg_factor=None, reduction_override=None):
    """As mmdetection's: with "none", a value for each number of a box."""
    value = functional.smooth_l1_loss(pred, target, reduction="none")
    value = value if weight is None else value * weight.reshape(len(pred), -1)
    if reduction_override == "none":
        return value
    return value.mean() if avg_factor is None else value.sum() / avg_factor


class Boxes:
    """As detectron2's and mmdetection's: no tensor, but it has one."""

    def __init__(self, tensor):
        self.tensor = tensor


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("override", ["none", None])
def test_a_base_loss_of_a_detector(override, column, wrapped):
    random = torch.Generator().manual_seed(0)
    target = 1 + torch.rand(6, 5, generator=random)
    pred = (target + torch.randn(6, 5, generator=random)).requires_grad_()
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0, 0.5, 1.0])
    weight = weight[:, None] if column else weight
    criterion = LearnedSurrogateLoss(
        boxes.rotated_iou,
        task=boxes.Rotated(),
        base_loss=smooth_l1,
        fit=FitValues(data="local", warm_up=1),
        **ALONE,
    )
    options = {"avg_factor": None if override else 4.0, "reduction_override": override}
    given = (Boxes(pred), Boxes(target)) if wrapped else (pred, target)
    loss = criterion(*given, weight, **options)
    assert loss.shape == ((6,) if override else ())
    (actual,) = torch.autograd.grad(loss.sum(), pred)
    expected = smooth_l1(pred, target, weight, **options)
    expected = expected.mean(1) if override else expected
    torch.testing.assert_close(actual, gradient_of(lambda p: expected, (pred,)))


def test_an_unreduced_base_loss_of_pixels_is_averaged():
    criterion = LearnedSurrogateLoss(
        lambda p, t: (p.argmax(1) != t).float().mean((1, 2)),
        base_loss=nn.CrossEntropyLoss(reduction="none"),
        surrogate="none",
        **ALONE,
    )
    logits, target = torch.randn(4, 3, 5, 5, requires_grad=True), torch.randint(0, 3, (4, 5, 5))
    expected = gradient_of(nn.CrossEntropyLoss(), (logits, target))
    torch.testing.assert_close(gradient_of(criterion, (logits, target)), expected)


def test_a_class_for_a_detectors_registry():
    class Weighted(LearnedSurrogateLoss):
        def __init__(self, loss_weight=1.0, **options):
            super().__init__(
                boxes.rotated_iou, task=boxes.Rotated(), fit=FitValues(data="local"), **options
            )
            self.loss_weight = loss_weight

        def forward(self, *args, **kwargs):
            return self.loss_weight * super().forward(*args, **kwargs)

    target = 1 + torch.rand(6, 5)
    pred = (target + 0.3).requires_grad_()
    ones, threes = (
        gradient_of(Weighted(loss_weight, base_loss=smooth_l1, **ALONE), (pred, target))
        for loss_weight in (1.0, 3.0)
    )
    torch.testing.assert_close(threes, 3 * ones)
    assert ones.any()
