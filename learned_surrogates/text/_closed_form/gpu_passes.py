"""The passes as a kernel on a GPU: where there is one, and whether it can be relied on.

PyTorch brings Triton where it brings CUDA on Linux. Each variant of the kernel that Triton compiles
is first held against PyTorch's passes on the CPU, on a small problem. Where one fails or differs,
all are done without on that device from then on.
"""

import importlib.util
from collections.abc import Sequence
from functools import partial
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from ..._support.transfer import send
from . import pytorch_passes
from .chained_step import ChainedStep
from .compiled import Compiled
from .frame_moves import Outputs
from .spelling import NONE, Spelling

KERNEL = Compiled(
    "triton_rows",
    "Triton is installed but fails on this GPU ({error}): expected edit distances are computed by "
    "PyTorch, which takes the host longer. The values are the same",
)
# Of values and gradients, absolute and relative: more than float32's rounding errors make.
TOLERANCE = 1e-4

#: Variants that have been tried: device, and for what Triton compiles a kernel of its own.
tried: set[tuple[object, ...]] = set()


def run(
    outputs: Outputs, spelling: Spelling, ctc: bool, gradient: bool
) -> tuple[Tensor, Sequence[Tensor] | None] | None:
    """As `row_passes.run`, with costs of 1; None where the kernel cannot be had."""
    if not suits(outputs):
        return None
    return KERNEL.attempt(outputs.special.device, partial(_tried, outputs, spelling, ctc, gradient))


def suits(outputs: Outputs) -> bool:
    # In float64, Triton compiles several times as long.
    special = outputs.special
    return special.is_cuda and special.dtype == torch.float32 and special.numel() > 0


def may_run() -> bool:
    """Whether there is a GPU, and Triton, and nothing has failed."""
    installed = importlib.util.find_spec("triton") is not None
    return torch.cuda.is_available() and not KERNEL.failed_on and installed


def _tried(
    outputs: Outputs, spelling: Spelling, ctc: bool, gradient: bool, found: ModuleType
) -> tuple[Tensor, Sequence[Tensor] | None] | None:
    device, count = outputs.special.device, outputs.characters.shape[2]
    if not found.suits(count):
        return None
    variant = device, *found.variant(outputs, ctc, gradient)
    if variant not in tried:
        check(found, device, count, ctc, gradient)
        tried.add(variant)
    return _run(found, outputs, spelling, ctc, gradient)


def check(found: ModuleType, device: torch.device, count: int, ctc: bool, gradient: bool) -> None:
    """Holds the kernel against PyTorch's passes on the CPU, on a problem with so many characters.

    Raises:
        ArithmeticError: they differ.
    """
    outputs, spelling = small_problem(count)
    expected = pytorch_passes.run(ChainedStep(), 1, outputs, spelling, ctc, gradient)
    parts = outputs.characters, outputs.special, outputs.again
    characters, special, again = (send(part.float(), device) for part in parts)
    there = Outputs(characters, special, again, send(outputs.present, device))
    value, gradients = _run(found, there, spelling, ctc, gradient)
    if gradients is not None:
        gradients = [x.double().cpu() for x in gradients]
    values = _comparable(outputs, value.double().cpu(), gradients)
    for one, other in zip(values, _comparable(outputs, *expected), strict=True):
        error = (one - other).abs().max().item()
        # Neither is one that is not a number.
        if not error <= TOLERANCE * (1 + other.abs().max().item()):
            raise ArithmeticError(f"its kernel is off by {error:.1g} where it was tried")


def small_problem(count: int) -> tuple[Outputs, Spelling]:
    """Four frames, but for one sample, and three texts, of which one is empty."""
    own = count - 1
    labels = [[n % own for n in (0, 1, 0)], [own - 1], []] if own else [[], [], []]
    with torch.device("cpu"):
        numbers = torch.arange(12 * (count + 1), dtype=torch.float64)
        present = torch.ones(4, 3, dtype=torch.bool)
    p = (3 * numbers.sin()).view(4, 3, -1).softmax(2)
    present[3, 1] = False
    p *= present[..., None]
    again = p[..., 0].clone()
    again[0] = 0
    spelling = Spelling(labels, own)
    # There are more characters than the texts have.
    spelling.letters = np.array([[*range(own), NONE]] * len(labels))
    return Outputs(p[..., :-1], p[..., -1], again, present), spelling


def _run(
    found: ModuleType, outputs: Outputs, spelling: Spelling, ctc: bool, gradient: bool
) -> tuple[Tensor, Sequence[Tensor] | None]:
    device = outputs.special.device
    texts = [send(torch.from_numpy(x), device) for x in (spelling.of_column, spelling.lengths)]
    return found.run(outputs, *texts, ctc, gradient)


def _comparable(
    outputs: Outputs, value: Tensor, gradients: Sequence[Tensor] | None
) -> list[Tensor]:
    """The value, and the gradients of logits and of `again`.

    Those of probabilities differ, as it is open how values go on where these do not add up to 1.
    """
    if gradients is None:
        return [value]
    d_characters, d_special, d_again = gradients
    p = torch.cat([outputs.characters, outputs.special[..., None]], 2)
    g = torch.cat([d_characters, d_special[..., None]], 2)
    return [value, p * (g - (p * g).sum(2, keepdim=True)), d_again]
