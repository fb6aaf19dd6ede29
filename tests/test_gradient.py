import pytest
import torch
from conftest import (
    ALPHABET,
    CASES,
    CLASSES,
    MEASURED,
    OF_VALUES,
    assert_identical,
    make_arguments,
    make_loss,
    train,
)
from torch import nn
from within import core_of, surrogates

from learned_surrogates import EmbeddingDistance, text
from learned_surrogates._gradient import with_known_gradient


def plain_backward(criterion, arguments, weights, reduction):
    """Value and gradient of the surrogate by autograd through everything."""
    prediction = arguments[0].detach().clone().requires_grad_()
    batch = criterion.task.read(prediction, *arguments[1:])
    net = core_of(criterion).net
    value = net.value(criterion.task.represent(prediction, batch), net.expand(batch.target))
    loss = {"none": value, "mean": value.mean(), "sum": value.sum()}[reduction]
    if batch.batch_dim is None and reduction == "none":
        loss = loss[0]
    (loss * weights).sum().backward()
    return loss.detach(), prediction.grad


def assert_plain_gradient(criterion, arguments):
    for reduction in ("none", "mean", "sum"):
        criterion.reduction = reduction
        shape = criterion.eval()(*arguments).shape
        weights = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        expected_loss, expected = plain_backward(criterion, arguments, weights, reduction)
        loss = criterion.train()(*arguments)
        (gradient,) = torch.autograd.grad((loss * weights).sum(), arguments[0])
        torch.testing.assert_close(loss.detach(), expected_loss)
        torch.testing.assert_close(gradient, expected)
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("case", OF_VALUES)
def test_gradient_is_plain_backpropagation_through_the_surrogate(case):
    criterion = make_loss(case)
    train(criterion, case, range(3))
    assert_plain_gradient(criterion, make_arguments(case, seed=9))


def test_gradient_of_ctc_with_concatenated_targets():
    criterion = make_loss("ctc")
    train(criterion, "ctc", range(2))
    log_probs, targets, input_lengths, target_lengths = make_arguments("ctc", seed=3)
    rows = zip(targets, target_lengths, strict=True)
    concatenated = torch.cat([row[:count] for row, count in rows])
    assert_plain_gradient(criterion, (log_probs, concatenated, input_lengths, target_lengths))


def test_gradient_of_ctc_for_one_sample_without_a_batch():
    criterion = make_loss("ctc")
    train(criterion, "ctc", range(2))
    log_probs, targets, input_lengths, target_lengths = make_arguments("ctc", seed=3, batch=1)
    single = log_probs.detach()[:, 0].requires_grad_()
    assert_plain_gradient(criterion, (single, targets[0], input_lengths[0], target_lengths[0]))


def test_gradient_of_characters_with_classes_last():
    task = text.PerPosition(ALPHABET, classes_last=True)
    criterion = make_loss("characters", task=task)
    logits, target = make_arguments("characters", seed=3)
    arguments = (logits.detach().transpose(1, 2).contiguous().requires_grad_(), target)
    criterion(*arguments)
    assert_plain_gradient(criterion, arguments)


@pytest.mark.parametrize("classes_last", [False, True])
def test_gradient_of_characters_for_one_sample_without_a_batch(classes_last):
    task = text.PerPosition(ALPHABET, classes_last=classes_last)
    criterion = make_loss("characters", task=task)
    logits, target = make_arguments("characters", seed=3, batch=1)
    target[0, :5].clamp_(min=1)
    target[0, 5:] = 0
    single = logits.detach()[0].T if classes_last else logits.detach()[0]
    arguments = (single.contiguous().requires_grad_(), target[0])
    criterion(*arguments)
    assert_plain_gradient(criterion, arguments)


def test_gradient_of_characters_with_ignored_positions():
    criterion = make_loss("characters")
    logits, target = make_arguments("characters", seed=3)
    target[0, 5:] = -100
    target[1, 2] = -100
    criterion(logits, target)
    assert_plain_gradient(criterion, (logits, target))
    criterion.reduction = "sum"
    (gradient,) = torch.autograd.grad(criterion(logits, target), logits)
    assert not gradient[0, :, 5:].any()
    assert not gradient[1, :, 2].any()
    assert gradient[2:].abs().sum((1, 2)).all()


def test_gradient_flows_on_to_what_made_the_prediction():
    criterion = make_loss()
    train(criterion, "tensors", range(2))
    model = nn.Linear(2, 3)
    x, target = torch.randn(4, 2), torch.randn(4, 3)
    prediction = model(x)
    leaf = prediction.detach().requires_grad_()
    criterion.eval()
    criterion(prediction, target).backward()
    criterion(leaf, target).backward()
    torch.testing.assert_close(model.weight.grad, leaf.grad.T @ x)
    torch.testing.assert_close(model.bias.grad, leaf.grad.sum(0))


class TinySurrogate(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(features, 5), nn.Tanh(), nn.Linear(5, 4))

    def forward(self, z, y):
        return (self.net(z) - self.net(y)).square().sum(-1)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("case", OF_VALUES)
def test_gradcheck_with_a_float64_surrogate(case, reduction):
    arguments = make_arguments(case, seed=2, batch=2, length=6)
    # The form that the surrogate "embedding" sees is what a surrogate of one's own gets.
    features = {"tensors": 3, "boxes": 6}.get(case.partition("-")[0], 6 * CLASSES)
    torch.manual_seed(0)
    surrogate = TinySurrogate(features).double()
    criterion = make_loss(case, surrogate=surrogate, reduction=reduction).eval()
    prediction = arguments[0].detach().double().requires_grad_()
    loss = criterion(prediction, *arguments[1:])
    assert loss.dtype == torch.float64
    assert torch.autograd.gradcheck(lambda p: criterion(p, *arguments[1:]), prediction)


@pytest.mark.parametrize("case", CASES)
def test_one_backward_after_updates_uses_the_gradients_of_each_forward(case):
    first, second = make_arguments(case, seed=1), make_arguments(case, seed=2)
    accumulated, stepwise = make_loss(case), make_loss(case)
    total = accumulated(*first) + accumulated(*second)
    total.backward()
    for arguments, grown in ((first, first[0].grad), (second, second[0].grad)):
        leaf = arguments[0].detach().clone().requires_grad_()
        stepwise(leaf, *arguments[1:]).backward()
        assert_identical(leaf.grad, grown)
    assert accumulated.stats["updates"] == stepwise.stats["updates"] >= 2


def test_backward_twice_through_one_call():
    criterion = make_loss()
    prediction, target = make_arguments()
    loss = criterion(prediction, target)
    (once,) = torch.autograd.grad(loss, prediction, retain_graph=True)
    (again,) = torch.autograd.grad(2 * loss, prediction)
    torch.testing.assert_close(again, 2 * once)


def test_graph_holds_nothing_of_the_surrogate():
    criterion = make_loss()
    prediction, target = make_arguments()
    loss = criterion(prediction, target)
    reached, pending = set(), [loss.grad_fn]
    while pending:
        node = pending.pop()
        reached.add(id(getattr(node, "variable", None)))
        pending += [parent for parent, _ in node.next_functions if parent is not None]
    assert id(prediction) in reached
    assert not reached & {id(p) for p in core_of(criterion).net.module.parameters()}
    assert all(p.grad is None for p in core_of(criterion).net.module.parameters())


@pytest.mark.parametrize("batch_dim", [0, 1, 2])
def test_known_gradient_equals_autograd_along_any_batch_dimension(batch_dim):
    random = torch.Generator().manual_seed(0)
    prediction = torch.randn(2, 3, 4, generator=random, dtype=torch.float64).requires_grad_()
    others = [dim for dim in range(3) if dim != batch_dim]
    value = prediction.sin().sum(others)
    weights = torch.randn(value.shape, generator=random, dtype=torch.float64)
    (expected,) = torch.autograd.grad((value * weights).sum(), prediction)
    known = with_known_gradient(prediction, value.detach(), prediction.detach().cos(), batch_dim)
    assert_identical(known.detach(), value.detach())
    (gradient,) = torch.autograd.grad((known * weights).sum(), prediction)
    torch.testing.assert_close(gradient, expected)


def test_large_loss_scale_does_not_overflow_a_half_precision_gradient():
    prediction = torch.ones(2, 3, dtype=torch.float16, requires_grad=True)
    gradient = torch.full((2, 3), 1e-3)
    loss = with_known_gradient(prediction, torch.ones(2), gradient, 0)
    (loss.sum() * 2.0**17).backward()
    torch.testing.assert_close(prediction.grad, torch.full((2, 3), 131.072).half())


def test_gradient_is_finite_where_prediction_equals_target():
    distance = EmbeddingDistance(nn.Linear(3, 4))
    z = torch.randn(2, 3, requires_grad=True)
    (first,) = torch.autograd.grad(distance(z, z.detach()).sum(), z, create_graph=True)
    first.square().sum().backward()
    assert first.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in distance.parameters())


@pytest.mark.parametrize("case", CASES)
def test_perfect_predictions_keep_everything_finite(case):
    options = {} if case in MEASURED else {"penalty_weight": 0.1}
    criterion = make_loss(case, steps=2, **options)
    if case in ("tensors", "measured"):
        target = torch.randn(4, 3)
        arguments = (target.clone().requires_grad_(), target)
    elif case.startswith("boxes"):
        _, target = make_arguments(case)
        arguments = (target.clone().requires_grad_(), target)
    elif case.startswith("ctc"):
        path = torch.tensor([[1, 0, 2, 0], [3, 3, 0, 1]])
        log_probs = 40 * nn.functional.one_hot(path.T, CLASSES).float()
        log_probs = log_probs.log_softmax(-1).requires_grad_()
        arguments = (log_probs, torch.tensor([[1, 2], [3, 1]]), [4, 4], [2, 2])
    else:
        target = torch.tensor([[1, 2, 0, 0], [3, 4, 5, 0]])
        logits = 200 * nn.functional.one_hot(target, CLASSES).float().transpose(1, 2)
        arguments = (logits.requires_grad_(), target)
    for _ in range(5):
        loss = criterion(*arguments)
        (gradient,) = torch.autograd.grad(loss, arguments[0])
        assert loss.isfinite()
        assert gradient.isfinite().all()
        weights = [p for net in surrogates(criterion) for p in net.parameters()]
        assert all(p.isfinite().all() for p in weights)
    assert weights or case.endswith("auto")
    if case in MEASURED:  # the draws are not perfect
        with torch.no_grad():
            assert criterion(*arguments) == 0
        return
    perfect = core_of(criterion).oracle.metric.best
    assert criterion.stats["metric/mean"] == pytest.approx(perfect, abs=1e-6)
