"""Passes over CTC's frames: how many characters there were, and which the last one was."""

import functools
import importlib
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .._warnings import warn

# Of its frames and cells, the backward loop keeps so many before it takes them together: a large
# part of what a processor's cache holds.
AT_ONCE = 2**19
NO_KERNELS = (
    "Triton is installed but fails on this GPU ({error}): CTC's frames are passed over one by one, "
    "which takes the host longer. The values are the same"
)


class Scan(torch.autograd.Function):
    """Passes over the frames once in each direction.

    Its loops are what a GPU, and a CPU with small batches, would wait for: so the gradient is
    written out, and all that frames do not need of each other is done for all of them at once. On a
    GPU with Triton, each direction is one kernel.
    """

    @staticmethod
    def forward(ctx: Any, frames: Tensor, stays: Tensor, blanks: Tensor, positions: int) -> Tensor:
        """What is emitted at each position, `(batch, positions, characters)`.

        Args:
            ctx: of the function.
            frames: probability of each character, `(time, batch, characters)`.
            stays: that part of it which, after the same character, repeats it; likewise.
            blanks: probability of the blank, `(time, batch)`.
            positions: of the text; what comes after them is left out.
        """
        inputs = frames.contiguous(), stays.contiguous(), blanks.contiguous()
        emitted, total, before = run("forward", *inputs, positions)
        ctx.save_for_backward(*inputs, total, before)
        return emitted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_emitted: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        frames, stays, blanks = run("backward", d_emitted.contiguous(), *ctx.saved_tensors)
        return frames, stays, blanks, None


def run(direction: Literal["forward", "backward"], *arguments: Any) -> tuple[Tensor, ...]:
    """The pass in one direction: by a kernel if there is one, by the loop if not."""
    loops: dict[str, Callable[..., tuple[Tensor, ...]]]
    loops = {"forward": forward, "backward": backward}
    if suits_kernels(arguments[0]):
        try:
            found = kernels()
            if found is not None:
                # Triton compiles for each size, and with the machine's own C compiler.
                return getattr(found, direction)(*arguments)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - there is no one class of them
            give_up_kernels(arguments[0].device, error)
    return loops[direction](*arguments)


def forward(
    frames: Tensor, stays: Tensor, blanks: Tensor, positions: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What is emitted, and the states before each frame.

    These are the probability of k characters, `(time, batch, positions)`, and of these with a
    certain one in the frame just before, `(time, batch, positions, characters)`.
    """
    _, batch, characters = frames.shape
    total, before = states_of(frames, positions)
    emitted, repeated = torch.zeros_like(before[0]), torch.empty_like(before[0])
    # Of each position less what is new there, behind a row of zeros: so it is also of one less.
    rows = frames.new_zeros(batch, positions + 1, characters)
    less_new, of_one_less = rows[:, 1:], rows[:, :-1]
    states = pairwise(zip(total, total[..., None], before, strict=True))
    inputs = zip(frames[:, :, None], stays[:, :, None], blanks[:, :, None], strict=True)
    for ((now, column, was), (after, _, becomes)), (frame, stay, blank) in zip(
        states, inputs, strict=True
    ):
        torch.mul(was, stay, out=repeated)
        torch.addcmul(repeated, column, frame, value=-1, out=less_new)
        torch.sub(repeated, of_one_less, out=becomes)
        emitted.sub_(less_new)
        torch.addcmul(becomes.sum(2), now, blank, out=after)
    return emitted, total[:-1], before[:-1]


def backward(
    d_emitted: Tensor,
    frames: Tensor,
    stays: Tensor,
    blanks: Tensor,
    total: Tensor,
    before: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of frames, stays and blanks."""
    time, batch, positions, characters = before.shape
    d_frames, d_stays = torch.empty_like(frames), torch.empty_like(stays)
    d_totals = torch.empty_like(total)
    # Of the states after a frame, before a row of zeros: so they are also of one character more.
    rows = before.new_zeros(batch, positions + 1, characters)
    d_before, of_one_more = rows[:, :-1], rows[:, 1:]
    d_total = torch.zeros_like(total[0])
    size = min(time, max(1, AT_ONCE // max(1, d_emitted.numel())))
    d_new, d_repeated = before.new_empty(2, size, batch, positions, characters)
    for end in range(time, 0, -size):
        part = slice(max(0, end - size), end)
        inputs = (frames[part, :, :, None], stays[part, :, None], blanks[part, :, None])
        outputs = (d_totals[part], d_new, d_repeated)
        # The first part may have fewer frames than there is room for.
        for frame, stay, blank, d_now, new, again in reversed(list(zip(*inputs, *outputs))):
            d_now.copy_(d_total)
            d_before.add_(d_total[:, :, None])
            torch.add(d_emitted, of_one_more, out=new)
            torch.sub(d_before, new, out=again)
            d_total = torch.addcmul((new @ frame)[:, :, 0], d_total, blank)
            torch.mul(again, stay, out=d_before)
        count = end - part.start
        d_frames[part] = (total[part, :, None] @ d_new[:count])[:, :, 0]
        d_stays[part] = (before[part] * d_repeated[:count]).sum(2)
    return d_frames, d_stays, (d_totals * total).sum(2)


def states_of(frames: Tensor, positions: int) -> tuple[Tensor, Tensor]:
    """Room for the states before each frame and after the last; those before the first are set."""
    time, batch, characters = frames.shape
    total = frames.new_empty(time + 1, batch, positions)
    before = frames.new_empty(time + 1, batch, positions, characters)
    total[0], before[0] = 0, 0
    total[0, :, 0] = 1
    return total, before


#: GPUs on which the kernels have failed.
failed_on: set[torch.device] = set()


def suits_kernels(tensor: Tensor) -> bool:
    return tensor.is_cuda and tensor.numel() > 0 and tensor.device not in failed_on


def give_up_kernels(device: torch.device, error: Exception) -> None:
    failed_on.add(device)
    warn(NO_KERNELS.format(error=f"{type(error).__name__}: {error}"))


@functools.cache
def kernels() -> ModuleType | None:
    """`forward` and `backward` as kernels; None where there is no Triton."""
    try:
        return importlib.import_module("._scan_kernels", __package__)
    except ImportError:
        return None
