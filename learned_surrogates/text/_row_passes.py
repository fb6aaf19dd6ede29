"""Which way the table's rows are passed over: compiled by Numba where it is, else by PyTorch."""

import functools
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from .._transfer import send
from .._warnings import warn
from ._column_steps import ColumnStep, UnitStep
from ._difference_rows import Moves, Rows
from ._spelling import Spelling

KERNELS = "learned_surrogates.text._row_kernels"
NO_KERNELS = (
    "Numba is installed but fails here ({error}): expected edit distances are computed by PyTorch, "
    "which takes longer. The values are the same"
)


def run(
    step: ColumnStep,
    moves: Moves,
    present: Tensor,
    spelling: Spelling,
    ctc: bool,
    gradient: bool,
) -> tuple[Tensor, Sequence[Tensor] | None]:
    """As `_difference_rows.Rows.run`."""
    with flushed(moves.gain.device):
        if suits_kernels(step, moves.gain) and (found := kernels()) is not None:
            try:
                return _compiled(found, moves, present, spelling, ctc, gradient)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - there is no one class of them
                give_up_kernels(error)
        device, characters = moves.gain.device, moves.gain.shape[2]
        of_column = send(torch.from_numpy(spelling.of_column.T.copy()), device)
        match = of_column == torch.arange(characters, device=device)[:, None, None]
        exists = (of_column >= 0).to(moves.gain)
        return Rows(step, moves, match.to(moves.gain), exists, ctc).run(gradient)


def _compiled(
    found: ModuleType,
    moves: Moves,
    present: Tensor,
    spelling: Spelling,
    ctc: bool,
    gradient: bool,
) -> tuple[Tensor, Sequence[Tensor]]:
    of_frames = {name: getattr(moves, name).numpy() for name in found.MOVES if name != "inverse"}
    of_frames["inverse"] = (1 / moves.mass).numpy()
    texts = spelling.of_column, spelling.counts, spelling.lengths
    mean, d_moves = found.run(of_frames, present.numpy(), *texts, ctc, gradient)
    return torch.from_numpy(mean), [torch.from_numpy(array) for array in d_moves]


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


def suits_kernels(step: ColumnStep, tensor: Tensor) -> bool:
    suits = isinstance(step, UnitStep) and tensor.dtype == torch.float32
    return suits and tensor.device.type == "cpu" and not failed


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
