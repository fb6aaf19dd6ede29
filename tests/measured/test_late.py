"""Values that come after their call, or never: what is followed, and what the loss says."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import l1, make_arguments
from executors import ByHand
from torch import nn
from within import core_of

from learned_surrogates import LearnedSurrogateLoss, Workers, text


def late_loss(base_weight):
    """Of an L1 distance whose values come a call later, beside a mean squared error."""
    return LearnedSurrogateLoss(
        l1,
        batched=True,
        higher_is_better=False,
        base_loss=nn.MSELoss(),
        base_weight=base_weight,
        executor=Workers(ThreadPoolExecutor, lag=1),
    )


def base_gradient(base, prediction, target):
    leaf = prediction.detach().clone().requires_grad_()
    base(leaf, target).backward()
    return leaf.grad


def gradient(criterion, prediction, target):
    leaf = prediction.detach().clone().requires_grad_()
    criterion(leaf, target).backward()
    return leaf.grad


def test_what_was_asked_is_not_worked_on_where_the_base_loss_raises():
    executor = ByHand()

    def base(prediction, target):
        raise OSError("disk full")

    criterion = LearnedSurrogateLoss(
        l1, batched=True, higher_is_better=False, base_loss=base, executor=Workers(executor, lag=1)
    )
    with pytest.raises(OSError, match="disk full"):
        criterion(*make_arguments())
    assert executor.given and all(future.cancelled() for future, *_ in executor.given)
    assert criterion.stats["metric/pending"] == 0


@pytest.mark.parametrize("base_weight", [None, 0.5, 1.0])
def test_a_base_loss_leads_as_it_does_without_an_executor(base_weight):
    criterion = late_loss(base_weight)
    for seed in range(30):
        arguments = make_arguments(seed=seed)
        found = gradient(criterion, *arguments)
        assert criterion.stats["base_loss/share"] == 1
        torch.testing.assert_close(found, base_gradient(nn.MSELoss(), *arguments))


@pytest.mark.parametrize("base_weight", [0.0, 0.25, 1.0])
def test_it_keeps_its_share_of_what_was_learned(base_weight):
    """(1 - b) (c S + (1 - c) base) + b base."""
    criterion = late_loss(base_weight)
    core = core_of(criterion)
    for seed in range(120):
        gradient(criterion, *make_arguments(seed=seed))
    core.record.leading = False
    prediction, target = make_arguments(seed=200)
    batch = criterion.task.read(prediction, target)
    known, weight = core.estimator.draw(batch, 2).known_gradient()
    assert weight > 0.1
    base = base_gradient(nn.MSELoss(), prediction, target)
    expected = (1 - base_weight) * (known / len(target) + (1 - weight) * base) + base_weight * base
    found = gradient(criterion, prediction, target)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_text_that_is_not_read_yet_follows_its_base_loss():
    ctc = nn.CTCLoss(zero_infinity=True)
    criterion = LearnedSurrogateLoss(
        text.normalized_edit_distance,
        task=text.CTC("abcd"),
        base_loss=ctc,
        executor=Workers(ThreadPoolExecutor, lag=1),
    )
    for seed in range(30):
        torch.manual_seed(seed)
        target = torch.randint(1, 5, (8, 3)), torch.full((8,), 9), torch.full((8,), 3)
        logits = torch.randn(9, 8, 5).log_softmax(-1)
        found, expected = (logits.clone().requires_grad_() for _ in range(2))
        criterion(found, *target).backward()
        ctc(expected, *target).backward()
        torch.testing.assert_close(found.grad, expected.grad)


@pytest.mark.parametrize("lag", [0, 1, None])
def test_where_all_values_are_lost_the_loss_is_none(lag):
    made = ByHand()
    criterion = LearnedSurrogateLoss(
        l1,
        batched=True,
        higher_is_better=False,
        on_metric_error="skip",
        executor=Workers(made, lag=lag, timeout=0.01),
    )
    values = []
    for seed in range(4):
        values.append(criterion(*make_arguments(seed=seed)).item())
        time.sleep(0.02)
    assert values[-1] != values[-1]
    # While they are on their way, nobody knows.
    assert values[0] == 0 if lag != 0 else values[0] != values[0]


@pytest.mark.parametrize(("budget", "measured"), [(None, 64), (0.25, 16), (3, 12)])
def test_a_warm_up_keeps_to_the_budget(budget, measured):
    asked = []

    def metric(prediction, target):
        asked.append(len(prediction))
        return l1(prediction, target)

    criterion = LearnedSurrogateLoss(
        metric, batched=True, higher_is_better=False, metric_budget=budget
    )
    batches = [make_arguments(batch=16, seed=seed) for seed in range(4)]
    stats = criterion.warm_up(iter(batches), updates=4)
    assert sum(asked) == 2 * measured
    assert stats["metric/unmeasured"] == 64 - measured
