"""The expected edit distance as a kernel on a GPU: when it is taken, and that it is right.

Without a GPU, Triton's interpreter runs it, where Triton is installed; `test_cuda.py` has the rest.
"""

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from launches import Launches
from test_expected_edit_distance import (
    CHARACTERS,
    CTC,
    LETTERS,
    batch,
    with_gradient,
    without_kernels,
)
from torch.nn.functional import one_hot

from learned_surrogates import LearnedSurrogateLoss, text
from learned_surrogates.text import _ctc, _per_position
from learned_surrogates.text._closed_form import (
    chained_step,
    compiled,
    gpu_passes,
    pytorch_passes,
    recursion,
)

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton")
TASKS = pytest.mark.parametrize("task", [CTC, CHARACTERS], ids=["ctc", "characters"])


def by_loops(outputs, spelt, lengths, ctc, gradient):
    """What the kernel computes, by PyTorch."""
    letters = [*range(outputs.characters.shape[2] - 1), -2]
    texts = SimpleNamespace(of_column=spelt.numpy(), letters=np.array([letters] * len(spelt)))
    return pytorch_passes.run(chained_step.ChainedStep(), 1, outputs, texts, ctc, gradient)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Makes CPU tensors count as on a GPU, and returns what stands for the kernel there."""
    monkeypatch.setattr(gpu_passes.KERNEL, "failed_on", set())
    monkeypatch.setattr(gpu_passes, "tried", set())
    # It comes after Numba, of which there is none on a GPU.
    without_kernels(monkeypatch)
    monkeypatch.setattr(gpu_passes, "suits", lambda outputs: True)
    found = SimpleNamespace(
        run=by_loops,
        suits=lambda characters: True,
        variant=lambda outputs, ctc, gradient: (ctc, gradient, outputs.characters.shape[2]),
    )
    monkeypatch.setattr(gpu_passes.KERNEL, "module", found)
    return found


def counted(monkeypatch, found):
    """Calls of the kernel, each with the number of its frames."""
    calls = []
    run = found.run

    def counting(outputs, *rest):
        calls.append(len(outputs.special))
        return run(outputs, *rest)

    monkeypatch.setattr(found, "run", counting)
    return calls


@TASKS
def test_the_kernel_is_tried_on_a_small_problem_and_taken(monkeypatch, as_on_a_gpu, task):
    calls = counted(monkeypatch, as_on_a_gpu)
    criterion = text.ExpectedEditDistance(task, reduction="none")
    arguments = batch(task is CTC)
    first, second = (with_gradient(criterion, *arguments) for _ in range(2))
    assert calls == [4, 9, 9]
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    criterion(*arguments)  # a kernel of its own, for the value alone
    assert calls[3:] == [4, 9]
    logits, *rest = arguments
    expected = with_gradient(criterion, logits.double(), *rest)
    for one, other in zip(first, expected):
        torch.testing.assert_close(one, other.float(), rtol=1e-5, atol=1e-5)


def test_costs_and_sizes_that_it_does_not_know_are_left_to_pytorch(monkeypatch, as_on_a_gpu):
    calls = counted(monkeypatch, as_on_a_gpu)
    text.ExpectedEditDistance(CTC, insertion=2)(*batch(True))
    monkeypatch.setattr(as_on_a_gpu, "suits", lambda characters: characters < 4)
    text.ExpectedEditDistance(CTC)(*batch(True))
    assert calls == []


def test_without_triton_there_is_no_kernel(monkeypatch):
    monkeypatch.setitem(sys.modules, gpu_passes.KERNEL.name, None)
    assert compiled.Compiled("triton_rows", "").module is None


def fail(*_):
    raise RuntimeError("no C compiler")


def by_loops_and_a_thousandth(*arguments):
    value, gradients = by_loops(*arguments)
    return 1.001 * value, gradients


def by_loops_with_another_gradient(*arguments):
    value, gradients = by_loops(*arguments)
    return value, gradients and [2 * part for part in gradients]


def without_a_number(*arguments):
    value, gradients = by_loops(*arguments)
    return value, gradients and [part * float("nan") for part in gradients]


@TASKS
@pytest.mark.parametrize(
    ("run", "said"),
    [
        (fail, "RuntimeError: no C compiler"),
        (by_loops_and_a_thousandth, "off by 0.00"),
        (by_loops_with_another_gradient, "off by"),
        (without_a_number, "off by nan"),
    ],
)
def test_a_kernel_that_fails_or_differs_is_told_of_once_and_done_without(
    monkeypatch, as_on_a_gpu, task, run, said
):
    criterion = text.ExpectedEditDistance(task, reduction="none")
    arguments = batch(task is CTC)
    monkeypatch.setattr(gpu_passes.KERNEL, "module", None)
    expected = with_gradient(criterion, *arguments)
    monkeypatch.setattr(gpu_passes.KERNEL, "module", as_on_a_gpu)
    monkeypatch.setattr(as_on_a_gpu, "run", run)
    with pytest.warns(UserWarning, match=f"fails on this GPU .*{said}"):
        found = with_gradient(criterion, *arguments)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    with_gradient(criterion, *arguments)


def test_too_little_memory_is_not_the_kernels_fault(monkeypatch, as_on_a_gpu):
    def full(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(as_on_a_gpu, "run", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        text.ExpectedEditDistance(CTC)(*batch(True))
    assert not gpu_passes.KERNEL.failed_on


def test_it_says_so_where_there_is_a_gpu(monkeypatch, as_on_a_gpu):
    criterion = text.ExpectedEditDistance(CTC)
    assert "Triton" not in repr(criterion)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert "on a GPU compiled by Triton" in repr(criterion)
    gpu_passes.KERNEL.failed_on.add(torch.device("cuda", 0))
    assert "Triton" not in repr(criterion)


def many(ctc):
    """64 samples of 32 frames and 10 characters, mostly read right; one has a frame less."""
    random = torch.Generator().manual_seed(0)
    targets = torch.randint(1, 27, (64, 10), generator=random)
    path = torch.zeros(64, 32, dtype=torch.long)
    path[:, : 20 if ctc else 10 : 2 if ctc else 1] = targets
    logits = torch.randn(64, 32, 27, generator=random) + 8 * one_hot(path, 27)
    if ctc:
        return logits.transpose(0, 1).contiguous(), targets, [31] + [32] * 63, [10] * 64
    path[0, 31] = -100
    return logits.transpose(1, 2).contiguous(), path


@pytest.mark.parametrize("ctc", [True, False], ids=["ctc", "characters"])
@pytest.mark.parametrize(("whole", "most"), [(False, 60), (True, 70)], ids=["alone", "in the loss"])
def test_a_call_launches_few_kernels(monkeypatch, as_on_a_gpu, ctc, whole, most):
    """Forward and backward, copies to the device among them."""
    task = text.CTC(LETTERS) if ctc else text.PerPosition(LETTERS)
    criterion = text.ExpectedEditDistance(task)
    if whole:
        criterion = LearnedSurrogateLoss(metric=text.edit_distance, task=task)
    logits, *rest = many(ctc)
    logits.requires_grad_()
    # The first call has the kernel tried, and may ask whether the base loss leads.
    criterion(logits, *rest).backward()
    logits.grad = None
    counter = Launches(logits)
    run = as_on_a_gpu.run

    def one_kernel(*arguments):
        with counter.one("the kernel"):
            return run(*arguments)

    monkeypatch.setattr(as_on_a_gpu, "run", one_kernel)
    for module in (recursion, gpu_passes, _ctc, _per_position):
        monkeypatch.setattr(module, "send", counter.sending(module.send))
    with counter:
        criterion(logits, *rest).backward()
    assert counter.names.count("the kernel") == 1
    assert len(counter.names) <= most, counter.names


@needs_triton
@pytest.mark.parametrize("ctc", [True, False])
def test_in_tritons_interpreter_the_kernel_is_right(ctc):
    """In one part and in several; in a process of its own, for Triton looks once which it is."""
    script = f"""
import torch
from learned_surrogates.text._closed_form import gpu_passes, triton_rows
for characters, gradient in ((2, True), (1, False)):
    gpu_passes.check(triton_rows, torch.device("cpu"), characters, {ctc}, gradient)
triton_rows.KEPT = 1
gpu_passes.check(triton_rows, torch.device("cpu"), 4, {ctc}, True)
"""
    root = str(Path(__file__).parents[1])
    variables = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", script], env=variables, check=True)


@needs_triton
def test_of_more_than_510_distinct_characters_there_is_no_kernel():
    rows = importlib.import_module(gpu_passes.KERNEL.name)
    assert rows.suits(510 + 1)
    assert not rows.suits(511 + 1)


@needs_triton
@pytest.mark.long
@pytest.mark.parametrize("generation", [80, 90])
@pytest.mark.parametrize(("ctc", "states"), [(True, 16), (False, 64)])
def test_triton_compiles_it_for_real_devices(generation, ctc, states):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    rows = importlib.import_module(gpu_passes.KERNEL.name)
    kinds = {"present": "*i1", "spelt": "*i64", "lengths": "*i64"}
    kinds |= dict.fromkeys(rows.SIZES, "i32")
    constants = {"CTC": ctc, "GRADIENT": True, "STATES": states}
    kinds |= dict.fromkeys(constants, "constexpr")
    signature = {name: kinds.get(name, "*fp32") for name in rows._pass.arg_names}
    options = {"num_warps": max(1, states // 32), "num_stages": 1, "enable_fp_fusion": True}
    found = compile(
        ASTSource(fn=rows._pass, signature=signature, constexprs=constants),
        target=GPUTarget("cuda", generation, 32),
        options=options,
    )
    # What sums over warps, and no more.
    assert found.metadata.shared <= 4 * options["num_warps"]
    assert f".target sm_{generation}" in found.asm["ptx"]
