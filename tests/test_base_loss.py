"""The base loss beside a surrogate that is fitted to values: when it is followed, and how."""

import pytest
import torch
from conftest import assert_identical, l1, make_arguments, make_loss, snapshot, step
from grouped_arguments import grouped
from torch import nn
from within import core_of

from learned_surrogates import (
    LearnedSurrogateLoss,
    Tensors,
    classification,
    ranking,
    segmentation,
    text,
)
from learned_surrogates._fitted.learner import PATIENCE


class Ruler(nn.Module):
    """The L1 distance, times a factor: right about `l1` with 1, useless far from it."""

    def __init__(self, factor: float = 1.0):
        super().__init__()
        self.factor = factor

    def forward(self, z, y):
        return self.factor * (z - y).abs().sum(-1)


def base_l2(prediction, target):
    return (prediction - target).square().mean()


def known_loss(factor=1.0, **options) -> LearnedSurrogateLoss:
    options = {"task": Tensors(smoothing=0), "base_loss": base_l2, "every": 1, **options}
    return LearnedSurrogateLoss(l1, **grouped(surrogate=Ruler(factor), **options))


def base_gradient(arguments):
    (gradient,) = torch.autograd.grad(base_l2(*arguments), arguments[0])
    return gradient


def along_the_distance(arguments):
    """The gradient of `l1`, which the ruler has."""
    prediction, target = arguments
    return (prediction - target).detach().sign() / len(target)


def test_a_surrogate_is_followed_after_the_warm_up():
    criterion, arguments = known_loss(), make_arguments(batch=32)
    torch.testing.assert_close(step(criterion, arguments)[1], along_the_distance(arguments))


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_base_loss_has_the_share_that_it_is_given(share):
    criterion, arguments = known_loss(base_weight=share), make_arguments(batch=32)
    expected = share * base_gradient(arguments) + (1 - share) * along_the_distance(arguments)
    torch.testing.assert_close(step(criterion, arguments)[1], expected)
    assert criterion.stats["base_loss/share"] == share
    assert f"base loss: has {share:.0%} of the gradient" in repr(criterion)


def test_the_repr_says_that_a_base_loss_leads_at_first_and_nothing_where_it_has_no_part():
    criterion = known_loss()
    assert "base loss: leads at first" in repr(criterion)
    step(criterion, make_arguments(batch=32))
    assert "base loss" not in repr(criterion)


def test_without_a_base_loss_the_surrogates_gradient_is_as_it_is():
    criterion, arguments = known_loss(base_loss=None), make_arguments(batch=32)
    torch.testing.assert_close(step(criterion, arguments)[1], along_the_distance(arguments))
    with pytest.raises(ValueError, match=r"base_weight=0\.5 is the share of a base loss"):
        known_loss(base_loss=None, base_weight=0.5)


def test_a_surrogate_that_tells_nothing_for_long_is_a_warning_with_causes():
    criterion = known_loss(factor=50.0)
    for seed in range(PATIENCE):
        step(criterion, make_arguments(seed=seed, batch=16))
    with pytest.warns(UserWarning, match=r"error has been .* Likely causes"):
        for seed in range(PATIENCE):
            step(criterion, make_arguments(seed=seed, batch=16))
    quiet = known_loss()
    for seed in range(PATIENCE + 5):
        step(quiet, make_arguments(seed=seed, batch=16))


def test_while_warming_up_the_gradient_is_the_base_losses():
    criterion = make_loss(warm_up=20, base_loss=base_l2)
    for seed in range(10):
        arguments = make_arguments(seed=seed)
        _, gradient = step(criterion, arguments)
        torch.testing.assert_close(gradient, base_gradient(arguments))


def test_a_base_loss_of_one_value_a_sample_is_the_same():
    whole = make_loss(warm_up=20, base_loss=nn.MSELoss())
    single = make_loss(
        warm_up=20, base_loss=lambda z, y: (z - y).square().mean(-1), reduction="none"
    )
    arguments = make_arguments()
    _, gradient = step(whole, arguments)
    losses = single(*arguments)
    (own,) = torch.autograd.grad(losses.mean(), arguments[0])
    torch.testing.assert_close(own, gradient)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_reduction_is_the_base_losses_too(reduction):
    criterion = make_loss(
        warm_up=20, base_loss=nn.MSELoss(reduction=reduction), reduction=reduction
    )
    arguments = make_arguments()
    _, gradient = step(criterion, arguments)
    (own,) = torch.autograd.grad(nn.MSELoss(reduction=reduction)(*arguments), arguments[0])
    torch.testing.assert_close(gradient, own)


@pytest.mark.parametrize("case", ["ctc", "characters"])
@pytest.mark.parametrize("form", ["positional", "named"])
def test_it_is_called_as_the_loss_is(case, form):
    names = {
        "ctc": ("log_probs", "targets", "input_lengths", "target_lengths"),
        "characters": ("input", "target"),
    }
    proxy = {"ctc": nn.CTCLoss(zero_infinity=True), "characters": nn.CrossEntropyLoss()}[case]
    criterion = make_loss(case, warm_up=20, base_loss=proxy)
    arguments = make_arguments(case)
    if form == "positional":
        loss, own = criterion(*arguments), proxy(*arguments)
    else:
        named = dict(zip(names[case], arguments, strict=True))
        loss, own = criterion(**named), proxy(**named)
    (gradient,) = torch.autograd.grad(loss, arguments[0])
    (expected,) = torch.autograd.grad(own, arguments[0])
    torch.testing.assert_close(gradient, expected)


def test_a_half_precision_prediction_gets_a_half_precision_gradient():
    criterion = make_loss(warm_up=20, base_loss=base_l2)
    prediction, target = make_arguments()
    half = prediction.detach().to(torch.bfloat16).requires_grad_()
    _, gradient = step(criterion, (half, target))
    assert gradient.dtype == torch.bfloat16
    expected = base_gradient((half.detach().float().requires_grad_(), target))
    torch.testing.assert_close(gradient, expected.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_computes_in_float32_where_the_prediction_is_half_as_precise(dtype):
    seen = []

    def base_loss(prediction, target):
        seen.append(prediction.dtype)
        return prediction.sum()

    prediction, target = make_arguments()
    prediction = prediction.detach().to(dtype).requires_grad_()
    step(make_loss(base_loss=base_loss, warm_up=9), (prediction, target))
    assert seen == [torch.float64 if dtype == torch.float64 else torch.float32]


@pytest.mark.parametrize("case", ["ctc", "characters", "tensors"])
def test_an_empty_batch_is_nothing_to_the_base_loss(case):
    """`nn.CTCLoss` refuses one."""
    proxy = {"ctc": nn.CTCLoss(), "characters": nn.CrossEntropyLoss()}.get(case, nn.MSELoss())
    criterion = make_loss(case, warm_up=20, base_loss=proxy, reduction="sum")
    arguments = make_arguments(case)
    empty = [part[:0] for part in arguments[1:]]
    batch_dim = 1 if case == "ctc" else 0
    prediction = arguments[0].detach().narrow(batch_dim, 0, 0).requires_grad_()
    loss, gradient = step(criterion, (prediction, *empty))
    assert loss == 0
    assert gradient.shape == prediction.shape


def weighted_l1(pred, target, weight=None, reduction_override="none"):
    loss = (pred - target).abs().sum(1) * weight
    return {"none": loss, "mean": loss.mean(), "sum": loss.sum()}[reduction_override]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("override", ["none", "mean", "sum"])
def test_weights_of_samples_count_once(reduction, override):
    criterion = make_loss("boxes", base_loss=weighted_l1, warm_up=20, reduction=reduction)
    prediction, target = make_arguments("boxes")
    named = {"weight": torch.tensor([1.0, 2.0, 0.0, 0.5]), "reduction_override": override}
    _, gradient = step(lambda *given: criterion(*given, **named), (prediction, target))
    own = weighted_l1(prediction, target, **named).sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(own, prediction)[0])


def first_is_wrong(prediction, target):
    return float(target.flatten()[prediction.float().argmax()] == 0)


@pytest.mark.parametrize(
    ("task", "shape"),
    [
        (classification.Sets(), (12,)),
        (classification.Sets(), (12, 3)),
        (classification.Sets(size=4), (12,)),
        (ranking.Lists(), (6,)),
        (ranking.Lists(), (4, 6)),
        (ranking.Lists(), (2, 4, 6)),
        (segmentation.Masks(), (3, 4, 4)),
        (segmentation.Masks(together=True), (3, 4, 4)),
    ],
)
def test_an_unreduced_base_loss_of_sets_is_averaged_over_each(task, shape):
    """However the members of a set are laid out, a set is the sample."""
    scores, target = torch.randn(shape), (torch.rand(shape) > 0.5).float()
    found = []
    for reduction in ("mean", "none"):
        base_loss = nn.BCEWithLogitsLoss(reduction=reduction)
        criterion = LearnedSurrogateLoss(first_is_wrong, task=task, base_loss=base_loss)
        found.append(step(criterion, (scores.clone().requires_grad_(), target))[1])
    torch.testing.assert_close(found[1], found[0])
    assert found[0].norm() > 0.01


def test_a_target_from_inference_mode_may_be_saved_for_the_base_loss():
    with torch.inference_mode():
        target = torch.randn(4, 3)
    prediction = torch.randn(4, 3, requires_grad=True)
    _, gradient = step(make_loss("measured", base_loss=nn.MSELoss()), (prediction, target))
    torch.testing.assert_close(gradient, (prediction - target).detach() * 2 / 12)


@pytest.mark.parametrize(
    ("base_loss", "error", "words"),
    [
        (lambda z, y: 3.0, TypeError, "depends on the prediction"),
        (lambda z, y: z.detach().mean(), TypeError, "depends on the prediction"),
        (lambda z, y: (z - y).abs().sum(-1)[:2], ValueError, "one value a sample"),
    ],
)
def test_a_wrong_base_loss_is_named_and_changes_nothing(base_loss, error, words):
    criterion = make_loss(base_loss=base_loss, warm_up=20)
    before = snapshot(criterion)
    with pytest.raises(error, match=words):
        criterion(*make_arguments())
    after = snapshot(criterion)
    assert_identical(after["counters"], before["counters"])
    assert criterion.stats["replay/size"] == 0


@pytest.mark.parametrize("kind", ["read right", "masks"])
def test_one_that_raises_changes_nothing_where_the_gradient_is_measured(kind):
    """Neither does it end its own lead, nor is a correction read that no call has used."""
    if kind == "masks":
        options = {"metric": first_is_wrong, "task": segmentation.Masks()}
        logits, target = torch.randn(6, 1, 8, 8), torch.rand(6, 1, 8, 8) > 0.5
    else:
        options = {"metric": text.edit_distance, "task": text.PerPosition("abcdef")}
        target = torch.randint(1, 7, (4, 5))
        logits = 20 * nn.functional.one_hot(target, 7).float().movedim(-1, 1)

    def raises(*arguments):
        raise OSError("the base loss's own")

    criterion = LearnedSurrogateLoss(base_loss=raises, **options)
    before = snapshot(criterion)
    with pytest.raises(OSError, match="own"):
        criterion(logits.requires_grad_(), target)
    assert_identical(snapshot(criterion), before)


def test_one_number_where_one_a_sample_is_needed_is_refused():
    criterion = make_loss(base_loss=base_l2, warm_up=20, reduction="none")
    with pytest.raises(ValueError, match="reduction='none' too"):
        criterion(*make_arguments())


def test_a_base_loss_with_weights_moves_and_saves_with_the_loss():
    weights = torch.rand(7)
    criterion = make_loss("characters", base_loss=nn.CrossEntropyLoss(weight=weights), warm_up=0)
    step(criterion, make_arguments("characters"))
    state = criterion.state_dict()
    assert_identical(state["base_loss.weight"], weights)
    other = make_loss("characters", base_loss=nn.CrossEntropyLoss(weight=torch.ones(7)))
    other.load_state_dict(state)
    assert_identical(other.base_loss.weight, weights)


def test_a_base_loss_with_parameters_of_its_own_is_doubted_unless_they_are_frozen():
    class Scaled(nn.MSELoss):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    with pytest.warns(UserWarning, match="base_loss, Scaled, has parameters.*Freeze them"):
        LearnedSurrogateLoss(l1, base_loss=Scaled())
    LearnedSurrogateLoss(l1, base_loss=Scaled().requires_grad_(False))


def test_nothing_is_followed_outside_of_training_but_the_value():
    criterion = make_loss(warm_up=20, base_loss=base_l2)
    with torch.no_grad():
        assert not criterion(*make_arguments()).requires_grad
    assert criterion.stats["calls"] == 0


def test_as_many_pairs_tell_the_error_of_a_surrogate_in_double_precision():
    for dtype in (torch.float32, torch.float64):
        criterion = known_loss()
        core_of(criterion).net.module.factor = torch.nn.Parameter(torch.ones((), dtype=dtype))
        criterion(*make_arguments(batch=1024))
        assert core_of(criterion).pairs.unseen.size == 1024
