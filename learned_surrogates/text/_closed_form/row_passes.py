"""Which way the table's rows are passed over: compiled by Numba or Triton, or else by PyTorch."""

import functools
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from ..._support.warnings import warn
from . import gpu_passes, pytorch_passes
from .chained_step import ChainedStep
from .column_steps import ColumnStep, UnitStep
from .frame_moves import Outputs
from .spelling import Spelling

KERNELS = "learned_surrogates.text._closed_form.row_kernels"
NO_KERNELS = (
    "Numba is installed but fails here ({error}): expected edit distances are computed by PyTorch, "
    "which takes longer, with a text's columns as independent: values differ by thousandths"
)


def run(
    step: ColumnStep,
    insertion: int,
    outputs: Outputs,
    spelling: Spelling,
    ctc: bool,
    gradient: bool,
) -> tuple[Tensor, Sequence[Tensor] | None]:
    """The expected distances, `(batch,)`, and their gradients by characters, special and again."""
    unit = isinstance(step, UnitStep)
    # In float64 it is precision that is asked for; on the CPU in float32 a chain would take PyTorch
    # five times as long.
    quick = outputs.special.device.type == "cpu" and outputs.special.dtype == torch.float32
    found = found_kernels() if unit and quick else None
    with flushed(outputs.special.device):
        if found is not None:
            try:
                return _compiled(found, outputs, spelling, ctc, gradient)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - there is no one class of them
                give_up_kernels(error)
        if unit and not spelling.folds:
            passed = gpu_passes.run(outputs, spelling, ctc, gradient)
            if passed is not None:
                return passed
        if unit and not quick:
            step = ChainedStep()
        return pytorch_passes.run(step, insertion, outputs, spelling, ctc, gradient)


def _compiled(
    found: ModuleType,
    outputs: Outputs,
    spelling: Spelling,
    ctc: bool,
    gradient: bool,
) -> tuple[Tensor, Sequence[Tensor]]:
    of_frames = outputs.characters, outputs.special, outputs.again, outputs.present
    texts = spelling.of_column, spelling.letters, spelling.counts, spelling.lengths
    by_sample = [part.transpose(0, 1).numpy() for part in of_frames]
    value, gradients = found.run(*by_sample, *texts, ctc, gradient)
    return torch.from_numpy(value), [torch.from_numpy(x).transpose(0, 1) for x in gradients]


@contextmanager
def flushed(device: torch.device) -> Iterator[None]:
    """Takes numbers below float32's least normal one for zero, of which there are many here.

    They are products of probabilities, to which nothing comes any more, and a processor computes
    with them a hundred times slower.
    """
    if device.type != "cpu" or not torch.tensor(1e-30, device="cpu").mul(1e-10).item():
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


#: Whether the kernels have failed.
failed = False


def way_of(step: ColumnStep) -> str:
    """Which passes are taken, for people to read."""
    if not isinstance(step, UnitStep):
        return "PyTorch, columns independent"
    quick = "compiled by Numba" if found_kernels() else "columns independent"
    on_gpu = "on a GPU compiled by Triton, " if gpu_passes.may_run() else ""
    return f"PyTorch, columns in a chain; {on_gpu}on the CPU in float32 {quick}"


def found_kernels() -> ModuleType | None:
    return None if failed else kernels()


def give_up_kernels(error: Exception) -> None:
    global failed
    failed = True
    warn(NO_KERNELS.format(error=f"{type(error).__name__}: {error}"))


@functools.cache
def kernels() -> ModuleType | None:
    """The compiled pass; None where there is no Numba."""
    try:
        return importlib.import_module(KERNELS)
    except ImportError:
        return None
