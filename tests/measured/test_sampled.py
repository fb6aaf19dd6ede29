"""Tasks of the user's own whose predictions are distributions to draw from."""

import copy
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from conftest import assert_identical
from torch import nn
from within import core_of

from learned_surrogates import Batch, LearnedSurrogateLoss, SampledTask, Workers, check_task


@dataclass(frozen=True, kw_only=True)
class Meant(Batch):
    bits: list


class Bits(SampledTask):
    """Logits `(bits, batch)` and a list of lists of bits; each is on with its own probability."""

    target_is_best = True

    def read(self, logits, bits):
        target = torch.tensor(bits, dtype=torch.float32)
        return Meant(prediction=logits, target=target, batch_dim=1, bits=[list(b) for b in bits])

    def decode(self, batch):
        return (batch.prediction > 0).T.int().tolist(), [list(b) for b in batch.bits]

    def sample_with_score(self, batch, random):
        p = batch.prediction.sigmoid()
        drawn = torch.rand(p.shape, generator=random).to(p) < p
        return drawn.T.int().tolist(), [list(b) for b in batch.bits], drawn.float() - p


class Unsure(Bits):
    target_is_best = False


def far(said, meant):
    """No sum over bits."""
    return float(sum(said) != sum(meant)) + 3.0 * (said[0] != meant[0]) * said[1]


def exact(logits, meant):
    """The gradient of the mean of `far`, `(bits,)`."""
    logits = logits.double().requires_grad_()
    total = 0.0
    for said in itertools.product((0, 1), repeat=len(logits)):
        signs = torch.tensor(said) * 2.0 - 1
        total = total + (signs * logits).sigmoid().prod() * far(said, meant)
    (gradient,) = torch.autograd.grad(total, logits)
    return gradient.float()


def call(batch=256):
    logits = torch.tensor([[0.3], [-0.5], [1.0]]).expand(-1, batch)
    return logits.clone().requires_grad_(), [[1, 0, 1]] * batch


@pytest.mark.parametrize("options", [{}, {"draws": 2}, {"metric_budget": 0.25}])
def test_it_is_the_means_gradient(options):
    """The mean over 60 calls of 256 samples; 4 standard errors."""
    criterion = LearnedSurrogateLoss(far, task=Bits(), batched=False, **options)
    found = []
    for _ in range(60):
        logits, meant = call()
        (256 * criterion(logits, meant)).backward()
        found.append(logits.grad.mean(1))
    found = torch.stack(found)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - exact(logits.detach()[:, 0], meant[0])).abs() < 4 * error).all()
    assert error.max() < 0.02


def test_it_keeps_the_contracts_and_says_what_it_does():
    logits, meant = torch.randn(3, 6), [[1, 0, 1], [0, 0, 1]] * 3
    check = check_task(Bits(), logits, meant)
    assert not check.failed
    criterion = LearnedSurrogateLoss(far, task=Bits(), batched=False)
    assert "draws: 4 a sample\n  surrogate: none, measured only" in repr(criterion)
    criterion(*call(8)).backward()
    assert criterion.stats["gradient/effective_draws"] == 4
    outcome = criterion.check([call()], draws=16)
    assert outcome.directions["this loss"].cosine > 0.7
    assert outcome.helps


def test_a_resumed_run_is_the_uninterrupted_one():
    def trained(criterion, model, calls):
        model.zero_grad()
        for number in calls:
            x = torch.randn(16, 4, generator=torch.Generator().manual_seed(number))
            criterion(model(x).T, (x[:, :3] > 0).int().tolist()).backward()
        return [p.grad.clone() for p in model.parameters()]

    def loss():
        return LearnedSurrogateLoss(far, task=Bits(), batched=False, metric_budget=0.5)

    torch.manual_seed(0)
    model, criterion = nn.Linear(4, 3), loss()
    trained(criterion, model, range(7))
    twin, other = copy.deepcopy(model), loss()
    other.load_state_dict(criterion.state_dict())
    assert_identical(trained(criterion, model, range(7, 12)), trained(other, twin, range(7, 12)))


def test_samples_on_which_the_metric_fails_have_no_gradient_and_masks_may_be_infinite():
    def fails(said, meant):
        if meant[0] == 0:
            raise ValueError("no such thing")
        return far(said, meant)

    criterion = LearnedSurrogateLoss(fails, task=Bits(), batched=False, on_metric_error="skip")
    logits, meant = call(8)
    meant[3] = [0, 1, 1]
    with torch.no_grad():
        logits[2, 5] = -torch.inf
    criterion(logits, meant).backward()
    assert not logits.grad[:, 3].any()
    assert logits.grad.isfinite().all()
    assert logits.grad[:, 5].any()


def test_late_values_leave_it_to_the_base_loss():
    def usual(logits, meant):
        return (logits**2).mean()

    criterion = LearnedSurrogateLoss(
        far,
        task=Bits(),
        batched=False,
        base_loss=usual,
        executor=Workers(ThreadPoolExecutor, lag=2),
    )
    for _ in range(4):
        logits, meant = call(8)
        criterion(logits, meant).backward()
    (expected,) = torch.autograd.grad(usual(logits, meant), logits)
    torch.testing.assert_close(logits.grad, expected)


def test_what_does_not_go_with_it_is_refused():
    with pytest.raises(TypeError, match=r"'none' with .*Bits.*no module is fitted"):
        LearnedSurrogateLoss(far, task=Bits(), surrogate=nn.Linear(2, 2))
    with pytest.raises(ValueError, match="must be 2 or more"):
        LearnedSurrogateLoss(far, task=Bits(), draws=1)

    class Short(Bits):
        def sample_with_score(self, batch, random):
            said, meant, score = super().sample_with_score(batch, random)
            return said, meant, score[0]

    with pytest.raises(TypeError, match=r"Short.sample_with_score must return.*returned score"):
        LearnedSurrogateLoss(far, task=Short(), batched=False)(*call(8))


def test_a_score_of_the_wrong_sign_is_told_by_a_check():
    class Opposed(Bits):
        def sample_with_score(self, batch, random):
            said, meant, score = super().sample_with_score(batch, random)
            return said, meant, -score

    criterion = LearnedSurrogateLoss(far, task=Opposed(), batched=False)
    outcome = criterion.check([call()], draws=16)
    assert "raises the error: it leads away" in outcome.verdict
    assert not outcome.helps


def test_draws_that_write_into_the_prediction_are_refused():
    class InPlace(Bits):
        def sample_with_score(self, batch, random):
            batch.prediction.mul_(2)
            return super().sample_with_score(batch, random)

    with pytest.raises(ValueError, match=r"InPlace\.sample_with_score"):
        LearnedSurrogateLoss(far, task=InPlace(), batched=False)(*call(8))


@pytest.mark.parametrize("count", [0, 1])
def test_a_tasks_own_number_of_draws_is_checked_too(count):
    class Few(Bits):
        draws = count

    with pytest.raises(ValueError, match="must be 2 or more"):
        LearnedSurrogateLoss(far, task=Few(), batched=False)


def test_the_signal_is_of_the_others():
    """A metric that is another number at each call: no two draws are alike."""
    numbers = itertools.count()
    criterion = LearnedSurrogateLoss(
        lambda said, meant: float(next(numbers)),
        task=Unsure(),
        batched=False,
        draws=2,
        higher_is_better=False,
    )
    criterion(*call(8)).backward()
    assert core_of(criterion).record.signal == 1.0
