"""Which way the table's rows are passed over: compiled by Numba or Triton, or else by PyTorch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from . import gpu_passes, pytorch_passes
from .chained_step import ChainedStep
from .column_steps import ColumnStep, UnitStep
from .compiled import Compiled
from .frame_moves import Outputs
from .spelling import Spelling

CPU = torch.device("cpu")
KERNELS = Compiled(
    "row_kernels",
    "Numba is installed but fails here ({error}): expected edit distances are computed by PyTorch, "
    "which takes longer, with a text's columns as independent: values differ by thousandths",
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
    unit, device = isinstance(step, UnitStep), outputs.special.device
    # In float64 it is precision that is asked for; on the CPU in float32 a chain would take PyTorch
    # five times as long.
    quick = device.type == "cpu" and outputs.special.dtype == torch.float32
    passed = None
    if unit and quick:
        passed = KERNELS.attempt(CPU, partial(_compiled, outputs, spelling, ctc, gradient))
    if passed is None and unit and not spelling.folds:
        passed = gpu_passes.run(outputs, spelling, ctc, gradient)
    if passed is not None:
        return passed
    if unit and not quick:
        step = ChainedStep()
    with flushed(device):
        return pytorch_passes.run(step, insertion, outputs, spelling, ctc, gradient)


def _compiled(
    outputs: Outputs, spelling: Spelling, ctc: bool, gradient: bool, kernels: ModuleType
) -> tuple[Tensor, Sequence[Tensor] | None]:
    of_frames = outputs.characters, outputs.special, outputs.again, outputs.present
    texts = spelling.of_column, spelling.letters, spelling.counts, spelling.lengths
    by_sample = [part.transpose(0, 1).numpy() for part in of_frames]
    with flushed(CPU):
        value, gradients = kernels.run(*by_sample, *texts, ctc, gradient)
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


def way_of(step: ColumnStep) -> str:
    """Which passes are taken, for people to read."""
    if not isinstance(step, UnitStep):
        return "PyTorch, columns independent"
    compiled = KERNELS.module is not None and CPU not in KERNELS.failed_on
    quick = "compiled by Numba" if compiled else "columns independent"
    on_gpu = "on a GPU compiled by Triton, " if gpu_passes.may_run() else ""
    return f"PyTorch, columns in a chain; {on_gpu}on the CPU in float32 {quick}"
