import contextlib
import copy

import pytest
import torch
from conftest import (
    CASES,
    assert_identical,
    make_arguments,
    make_loss,
    snapshot,
    step,
    train,
)
from torch import nn
from within import core_of, surrogates

from learned_surrogates import LearnedSurrogateLoss


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def surrogate_dtypes(criterion):
    weights = [tensor for net in surrogates(criterion) for tensor in net.state_dict().values()]
    saved = snapshot(criterion)
    moments = [tensor for key, tensor in saved.items() if key.endswith(("exp_avg", "exp_avg_sq"))]
    if not surrogates(criterion):  # what is known of readings has no net
        return {torch.float32}
    assert weights and moments
    return {tensor.dtype for tensor in [*weights, *moments, saved["replay.0"]]}


@pytest.mark.parametrize("case", CASES)
def test_autocast_changes_nothing(case):
    plain, cast = make_loss(case), make_loss(case)
    options = {"dtype": torch.bfloat16}
    for seed in range(3):
        arguments = make_arguments(case, seed)
        with torch.autocast("cpu", **options):
            loss = cast(*arguments)
        assert loss.dtype == torch.float32
        (gradient,) = torch.autograd.grad(loss, arguments[0])
        assert_identical((loss.detach(), gradient), step(plain, arguments))
    assert_identical(snapshot(cast), snapshot(plain))


def test_training_a_model_under_autocast():
    model, criterion = nn.Linear(2, 3), make_loss()
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prediction = model(torch.randn(4, 2))
            assert prediction.dtype == torch.bfloat16
            criterion(prediction, torch.randn(4, 3)).backward()
    assert model.weight.grad.isfinite().all()
    assert model.weight.grad.abs().sum() > 0
    assert surrogate_dtypes(criterion) == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_predictions_of_other_types(case, dtype):
    criterion = make_loss(case)
    train(criterion, case, range(2))
    prediction, *rest = make_arguments(case, 5)
    cast = prediction.detach().to(dtype).requires_grad_()
    expected, expected_gradient = step(
        copy.deepcopy(criterion), (cast.detach().float().requires_grad_(), *rest)
    )
    loss = criterion(cast, *rest)
    loss.backward()
    assert loss.dtype == torch.float32
    assert cast.grad.dtype == dtype
    torch.testing.assert_close(loss.detach(), expected)
    tolerance = {torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float64: 1e-6}[dtype]
    torch.testing.assert_close(cast.grad.float(), expected_gradient, rtol=tolerance, atol=1e-6)
    step(criterion, (cast, *rest))
    assert surrogate_dtypes(criterion) == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_targets_of_the_wider_unsigned_types(dtype):
    """As 16-bit images have; a surrogate learns from them as from others."""

    def is_missed(prediction, target):
        return (prediction.argmax(1) != target.long()).float()

    losses = {kind: LearnedSurrogateLoss(is_missed, surrogate="classes") for kind in (dtype, None)}
    target = torch.arange(32) % 3
    for seed in range(12):
        prediction = torch.randn(32, 3, generator=torch.Generator().manual_seed(seed))
        found = [
            step(criterion, (prediction.clone().requires_grad_(), target.to(kind or target.dtype)))
            for kind, criterion in losses.items()
        ]
        assert_identical(*found)
    assert losses[dtype].stats["updates"] > 0


def test_predictions_may_have_fewer_dimensions_than_before():
    criterion = LearnedSurrogateLoss(lambda z, y: ((z - y).abs() > 1).float())
    for shape in ((16, 3, 2), (16, 3), (16, 3, 2), (16,), (16, 3, 2)):
        loss, gradient = step(
            criterion, (torch.randn(shape, requires_grad=True), torch.randn(shape))
        )
        assert loss.isfinite() and gradient.shape == shape


CASTS = {
    "half": lambda module: module.half(),
    "double": lambda module: module.double(),
    "bfloat16": lambda module: module.to(torch.bfloat16),
}


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("through_parent", [True, False])
def test_casts_of_the_module_leave_the_surrogate_alone(cast, through_parent):
    plain, criterion = make_loss(), make_loss()
    for loss in (plain, criterion):
        train(loss, "tensors", range(2))
    parent = nn.ModuleDict({"head": nn.Linear(2, 3), "criterion": criterion})
    CASTS[cast](parent if through_parent else criterion)
    assert surrogate_dtypes(criterion) == {torch.float32}
    assert_identical(snapshot(criterion), snapshot(plain))
    assert_identical(train(criterion, "tensors", range(3)), train(plain, "tensors", range(3)))


def test_moves_keep_the_optimizer_on_the_surrogates_parameters():
    plain, criterion = make_loss(), make_loss()
    for loss in (plain, criterion):
        train(loss, "tensors", range(2))
    nn.Sequential(criterion).to("cpu").cpu().float().to(torch.float64)
    net = core_of(criterion).net
    parameters = [id(p) for p in net.module.parameters()]
    assert [id(p) for p in net.optimizer.param_groups[0]["params"]] == parameters
    assert {id(p) for p in net.optimizer.state} == set(parameters)
    assert_identical(train(criterion, "tensors", range(3)), train(plain, "tensors", range(3)))
    assert_identical(snapshot(criterion), snapshot(plain))


@pytest.mark.parametrize("case", CASES)
def test_the_default_dtype_does_not_matter(case):
    with default_dtype(torch.float64):
        criterion = make_loss(case)
        arguments = [tuple(as_float32(make_arguments(case, seed))) for seed in range(3)]
        losses = [step(criterion, some) for some in arguments]
        resumed = make_loss(case)
        resumed.load_state_dict(criterion.state_dict())
    assert surrogate_dtypes(criterion) == surrogate_dtypes(resumed) == {torch.float32}
    assert {loss.dtype for loss, _ in losses} == {torch.float32}
    reference = make_loss(case)
    expected = [step(reference, some) for some in arguments]
    assert_identical(losses, expected)


def as_float32(arguments):
    for part in arguments:
        if part.is_floating_point():
            part = part.detach().float().requires_grad_(part.requires_grad)
        yield part


@pytest.mark.parametrize("case", CASES)
def test_in_the_place_of_an_ordinary_loss_in_a_training_loop(case):
    prediction, *rest = make_arguments(case)
    parameter = nn.Parameter(prediction.detach().clone())
    criterion = make_loss(case)
    optimizer = torch.optim.SGD([parameter, *criterion.parameters()], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss = criterion(parameter, *rest)
        assert loss.requires_grad
        assert loss.shape == ()
        loss.backward()
        optimizer.step()
    assert not torch.equal(parameter, prediction)
    assert criterion.stats["calls"] == 3


def test_gradient_accumulation_equals_the_sum_of_its_parts():
    criterion, twin = make_loss(), make_loss()
    weight = nn.Parameter(torch.ones(3))
    parts = [make_arguments(seed=seed) for seed in range(3)]
    sum(criterion(prediction.detach() * weight, target) for prediction, target in parts).backward()
    expected = torch.zeros(3)
    for prediction, target in parts:
        leaf = prediction.detach().clone().requires_grad_()
        twin(leaf, target).backward()
        expected += (leaf.grad * prediction.detach()).sum(0)
    torch.testing.assert_close(weight.grad, expected)


def test_it_adds_up_with_another_loss():
    criterion = make_loss()
    prediction, target = make_arguments()
    twin = prediction.detach().clone().requires_grad_()
    (nn.functional.mse_loss(prediction, target) + 0.5 * criterion(prediction, target)).backward()
    nn.functional.mse_loss(twin, target).backward()
    own = step(make_loss(), make_arguments())[1]
    torch.testing.assert_close(prediction.grad, twin.grad + 0.5 * own)


def test_a_prediction_that_is_not_contiguous():
    criterion, twin = make_loss(), make_loss()
    prediction, target = make_arguments()
    turned = prediction.detach().T.contiguous().T.requires_grad_()
    assert not turned.is_contiguous()
    torch.testing.assert_close(step(criterion, (turned, target)), step(twin, (prediction, target)))


def test_a_target_that_requires_grad_gets_none():
    criterion = make_loss()
    prediction, target = make_arguments()
    target.requires_grad_()
    criterion(prediction, target).backward()
    assert target.grad is None


def test_a_target_made_in_inference_mode():
    criterion, twin = make_loss(), make_loss()
    prediction, target = make_arguments()
    with torch.inference_mode():
        made = target.clone()
    assert_identical(step(criterion, (prediction, made)), step(twin, (prediction, target)))
    step(criterion, make_arguments(seed=1))
