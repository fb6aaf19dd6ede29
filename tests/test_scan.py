"""The scan over CTC's frames, and what happens where its kernels cannot be had."""

import sys
from types import SimpleNamespace

import pytest
import torch

from learned_surrogates.text import _scan

KERNELS = "learned_surrogates.text._scan_kernels"


@pytest.fixture(autouse=True)
def nothing_known_of_kernels():
    _scan.kernels.cache_clear()
    yield
    _scan.kernels.cache_clear()


def distributions(time, batch, characters):
    random = torch.Generator().manual_seed(0)
    shares = torch.randn(time, batch, characters + 1, generator=random, dtype=torch.float64)
    shares = shares.softmax(2)
    return shares[:, :, 1:], shares[:, :, 1:] * 0.7, shares[:, :, 0]


@pytest.mark.parametrize("size", [(1, 1, 1), (5, 2, 3)])
def test_the_gradient_that_is_written_out_is_right(size):
    inputs = [part.clone().requires_grad_() for part in distributions(*size)]
    assert torch.autograd.gradcheck(lambda *parts: _scan.Scan.apply(*parts, 4), inputs)


def test_inputs_need_not_be_contiguous():
    inputs = distributions(5, 2, 3)
    laid_out = [part.transpose(0, 1).contiguous().transpose(0, 1) for part in inputs]
    assert torch.equal(_scan.Scan.apply(*inputs, 4), _scan.Scan.apply(*laid_out, 4))


def test_without_triton_there_are_no_kernels(monkeypatch):
    monkeypatch.setitem(sys.modules, KERNELS, None)
    assert _scan.kernels(torch.device("cpu")) is None


def test_kernels_that_fail_are_told_of_once_and_done_without(monkeypatch):
    def forward(*_):
        raise RuntimeError("no C compiler")

    monkeypatch.setitem(sys.modules, KERNELS, SimpleNamespace(forward=forward))
    with pytest.warns(UserWarning, match="Triton is installed but fails .* no C compiler"):
        assert _scan.kernels(torch.device("cpu")) is None
    assert _scan.kernels(torch.device("cpu")) is None


def test_kernels_that_work_are_taken(monkeypatch):
    loops = SimpleNamespace(forward=_scan.forward, backward=_scan.backward)
    monkeypatch.setitem(sys.modules, KERNELS, loops)
    assert _scan.kernels(torch.device("cpu")) is loops
