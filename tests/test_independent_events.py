"""The mean of a ratio of counts of independent events."""

import itertools

import pytest
import torch

from learned_surrogates._support.independent_events import mean_ratio


def exact(chances, alike, size):
    """Over all that may happen."""
    total = torch.zeros(chances.shape[:-1], dtype=chances.dtype)
    for happens in itertools.product((False, True), repeat=chances.shape[-1]):
        some = torch.tensor(happens)
        probability = torch.where(some, chances, 1 - chances).prod(-1)
        total += probability * (1 + (some & alike).sum(-1)) / (size + some.sum(-1))
    return total


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_it_is_within_what_is_promised(scale, size):
    random = torch.Generator().manual_seed(0)
    shift = torch.linspace(-4, 4, 40, dtype=torch.float64)[:, None]
    spread = torch.randn(40, 8, generator=random, dtype=torch.float64)
    chances = torch.special.ndtr(scale * spread + shift)
    alike = torch.rand(40, 8, generator=random) < 0.3
    error = (mean_ratio(chances, alike, size) - exact(chances, alike, size)).abs()
    assert error.max() < (0.005 if size == 1 else 0.002)
    nothing = torch.zeros_like(alike)
    alone = (mean_ratio(chances, None, size) - exact(chances, nothing, size)).abs()
    assert alone.max() < (0.005 if size == 1 else 0.002)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_event_counts_as_it_must(dtype):
    """Of m = 1, a rare event takes half of what it happens, and one that is alike nothing."""
    chances = torch.tensor([1e-4, 0.0, 1e-4], dtype=dtype, requires_grad=True)
    alike = torch.tensor([False, False, True])
    mean_ratio(chances, alike).backward()
    assert chances.grad.tolist() == pytest.approx([-0.5, -0.5, 0.0], abs=2e-3)


@pytest.mark.parametrize("chance", [0.0, 1.0, 1e-30, 1 - 1e-7])
def test_certain_and_impossible_events_have_a_gradient(chance):
    chances = torch.full((2, 5), chance, requires_grad=True)
    value = mean_ratio(chances, torch.tensor([True, False, False, True, False]))
    assert value.tolist() == pytest.approx([0.5 if chance > 0.5 else 1.0] * 2, abs=1e-5)
    value.sum().backward()
    assert chances.grad.isfinite().all()


def test_without_events_there_is_the_number_alone():
    assert mean_ratio(torch.zeros(3, 0), None, torch.tensor([1, 2, 4])).tolist() == [1, 0.5, 0.25]
