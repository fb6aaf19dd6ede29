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
    _scan.failed_on.clear()
    yield
    _scan.kernels.cache_clear()
    _scan.failed_on.clear()


def take_kernels(monkeypatch, module):
    """As on a GPU, with this in place of Triton's kernels."""
    monkeypatch.setitem(sys.modules, KERNELS, module)
    suits = lambda tensor: tensor.device not in _scan.failed_on  # noqa: E731
    monkeypatch.setattr(_scan, "suits_kernels", suits)


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
    inputs = distributions(5, 2, 3)
    expected = _scan.Scan.apply(*inputs, 4)
    take_kernels(monkeypatch, None)
    assert _scan.kernels() is None
    assert torch.equal(_scan.Scan.apply(*inputs, 4), expected)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_kernels_that_fail_are_told_of_once_and_done_without(monkeypatch, direction):
    def fail(*_):
        raise RuntimeError("no C compiler")

    loops = {"forward": _scan.forward, "backward": _scan.backward}
    inputs = [part.clone().requires_grad_() for part in distributions(5, 2, 3)]
    emitted = _scan.Scan.apply(*inputs, 4)
    expected = emitted, *torch.autograd.grad(emitted.square().sum(), inputs)
    take_kernels(monkeypatch, SimpleNamespace(**loops | {direction: fail}))
    with pytest.warns(UserWarning, match="Triton is installed but fails .* no C compiler"):
        emitted = _scan.Scan.apply(*inputs, 4)
        found = emitted, *torch.autograd.grad(emitted.square().sum(), inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    _scan.Scan.apply(*inputs, 4)


def test_too_little_memory_is_not_the_kernels_fault(monkeypatch):
    def fail(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    take_kernels(monkeypatch, SimpleNamespace(forward=fail))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        _scan.Scan.apply(*distributions(5, 2, 3), 4)
    assert not _scan.failed_on


def test_kernels_that_work_are_taken(monkeypatch):
    calls = []

    def forward(*arguments):
        calls.append(arguments)
        return _scan.forward(*arguments)

    take_kernels(monkeypatch, SimpleNamespace(forward=forward))
    _scan.Scan.apply(*distributions(5, 2, 3), 4)
    assert len(calls) == 1


@pytest.mark.parametrize("frames_at_once", [1, 2, 3])
def test_the_gradient_is_the_same_however_many_frames_are_taken_together(
    monkeypatch, frames_at_once
):
    """Also where the first part has fewer frames than there is room for."""
    random = torch.Generator().manual_seed(1)
    inputs = [part.clone().requires_grad_() for part in distributions(7, 2, 3)]
    outside = torch.randn(2, 4, 3, generator=random, dtype=torch.float64)
    emitted = _scan.Scan.apply(*inputs, 4)
    expected = torch.autograd.grad((emitted * outside).sum(), inputs)
    monkeypatch.setattr(_scan, "AT_ONCE", frames_at_once * outside.numel())
    emitted = _scan.Scan.apply(*inputs, 4)
    found = torch.autograd.grad((emitted * outside).sum(), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
