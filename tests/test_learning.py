"""Statistical: seeds are fixed, and each tolerance is well away from what is seen."""

import numpy as np
import pytest
import torch
from conftest import ALPHABET, CLASSES, l1
from within import core_of

from learned_surrogates import Fit, FitValues, LearnedSurrogateLoss, Tensors, text
from learned_surrogates.text import edit_distance


def descend(criterion, prediction, arguments, steps, lr):
    optimizer = torch.optim.Adam([prediction], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        criterion(prediction, *arguments).backward()
        optimizer.step()
    return prediction.detach()


def relative_error(criterion, readings, targets):
    """The surrogate's mean error on texts, over that of the best constant."""
    z, stored = criterion.task.encode(readings, targets, torch.Size((7, 7)))
    errors = torch.from_numpy(edit_distance(readings, targets))
    with torch.no_grad():
        values = core_of(criterion).net.value(z, core_of(criterion).net.expand(stored))
    return (values - errors).abs().mean() / (errors - errors.median()).abs().mean()


@pytest.mark.parametrize("seed", range(2))
def test_l1_is_learned_and_descended(seed):
    random = torch.Generator().manual_seed(seed)

    def draw(count):
        return torch.randn(count, 3, generator=random)

    criterion = LearnedSurrogateLoss(l1, task=Tensors(smoothing=0), fit=Fit(every=1), seed=seed)
    stats = criterion.warm_up([(draw(64), draw(64)) for _ in range(100)], updates=300)
    assert stats["surrogate/nrmse"] < 1
    prediction, target = draw(32).requires_grad_(), draw(32)
    before = l1(prediction.detach(), target).mean()
    after = l1(descend(criterion, prediction, (target,), steps=100, lr=0.05), target).mean()
    fresh, fresh_target = draw(256), draw(256)
    criterion.reduction = "none"
    errors = l1(fresh, fresh_target)
    off = (criterion.eval()(fresh, fresh_target) - errors).abs().mean()
    assert off < 0.5 * (errors - errors.median()).abs().mean()
    assert after < 0.1 * before


@pytest.mark.parametrize("seed", range(3))
def test_l1_is_measured_and_descended(seed):
    random = torch.Generator().manual_seed(seed)
    prediction = torch.randn(32, 3, generator=random).requires_grad_()
    target = torch.randn(32, 3, generator=random)
    criterion = LearnedSurrogateLoss(l1, seed=seed)
    before = l1(prediction.detach(), target).mean()
    after = l1(descend(criterion, prediction, (target,), steps=100, lr=0.05), target).mean()
    assert after < 0.1 * before
    assert criterion.stats["surrogate/r2"] > 0.2
    assert criterion.stats["gradient/effective_draws"] > 2.5
    assert after < criterion.stats["metric/mean"] < before


@pytest.mark.parametrize("seed", range(2))
def test_edit_distance_is_learned_and_descended(seed):
    random = torch.Generator().manual_seed(seed)
    task = text.PerPosition(ALPHABET)
    generator = text.RandomEdits(ALPHABET, max_distance=6, max_length=6)
    criterion = LearnedSurrogateLoss(
        edit_distance,
        task=task,
        surrogate="conditioned",
        fit=FitValues(generator=generator, every=2, batch_size=32, learning_rate=3e-3),
        seed=seed,
    )
    criterion.warm_up(updates=200)
    assert relative_error(criterion, *generator(256, np.random.default_rng(seed))) < 0.6

    target = torch.randint(1, CLASSES, (16, 7), generator=random)
    target[:, 5:] = 0
    logits = torch.randn(16, CLASSES, 7, generator=random).requires_grad_()

    def distance(logits):
        return edit_distance(*task.decode(task.read(logits, target))).mean()

    before = distance(logits.detach())
    after = distance(descend(criterion, logits, (target,), steps=80, lr=0.1))
    assert after < 0.6 * before
