"""The passes over frames and columns as one kernel, for GPUs (needs Triton).

As `row_kernels` has them, but all characters have a state. A sample is a block of threads, a state
a thread, and columns come one after the other. What a frame reads, the frame before has written:
so threads wait for each other once a frame, and where states are summed.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .frame_moves import Outputs
from .triton_columns import nine, put
from .triton_frames import backward, forward, moves

# Numbers that are kept for the way back at a time; longer lines are passed over once more.
KEPT = 2**24
STATES_A_WARP = 32
# More have too few registers for each.
MOST_STATES = 512
# Sizes that follow from the texts: a kernel for each would be compiled again and again.
SIZES = ["time", "batch", "room", "count", "size", "parts"]


def suits(characters: int) -> bool:
    """Whether so many distinct characters have room."""
    return _states(characters) <= MOST_STATES


def variant(outputs: Outputs, ctc: bool, gradient: bool) -> tuple[bool, bool, int]:
    """For what Triton compiles a kernel of its own."""
    return ctc, gradient, _states(outputs.characters.shape[2])


def run(
    outputs: Outputs, spelt: Tensor, lengths: Tensor, ctc: bool, gradient: bool
) -> tuple[Tensor, Sequence[Tensor] | None]:
    """The expected distances, `(batch,)`, and their gradients: of characters, special and again.

    Args:
        outputs: of at least one frame and sample.
        spelt: the state of each column's character, `(batch, columns)`.
        lengths: of the targets.
        ctc: whether frames in a row are merged.
        gradient: whether to compute gradients.
    """
    inputs = [x.contiguous() for x in (outputs.characters, outputs.special, outputs.again)]
    time, batch, count = inputs[0].shape
    room, states = spelt.shape[1], _states(count)
    row = batch * room * 9 * states
    size = max(1, min(time, KEPT // (2 * row)))
    if size < time:
        size = max(size, int(time**0.5))
    parts = -(-time // size)
    like = outputs.special
    value = like.new_empty(batch)
    if gradient:
        gradients: list[Tensor] = [torch.empty_like(x) for x in inputs[:2]]
        gradients.append(torch.zeros_like(inputs[2]))
        rows, carries, d_rows = (like.new_empty(n * row) for n in (size + parts, size, 2))
    else:
        rows = like.new_empty(2 * row)
        gradients, carries, d_rows = inputs, rows, rows  # to none of them anything is written
    with torch.cuda.device_of(like):
        _pass[(batch,)](
            *(*inputs, outputs.present.T.contiguous(), spelt, lengths),
            *(value, *gradients, rows, carries, d_rows),
            *(time, batch, room, count, size, parts),
            *(ctc, gradient, states),
            num_warps=max(1, states // STATES_A_WARP),
            num_stages=1,
            enable_fp_fusion=True,
        )
    return value, gradients if gradient else None


def _states(characters: int) -> int:
    """Those of the characters and of nothing read, and what is missing to a power of two."""
    return triton.next_power_of_2(characters + 1)


@triton.jit
def _start(row, d_row, columns, length, k, state, GRADIENT: tl.constexpr, STATES: tl.constexpr):
    """The row before all frames, and the gradient of the one after them."""
    zero = tl.zeros([STATES], row.dtype.element_ty)
    for j in range(columns):
        at = j * 9 * STATES + k
        one = tl.where(k == state, 1.0, zero)
        # Left of the first column, h is taken for -1.
        c, i = tl.where(j == 0, one, zero), tl.where(j == 0, zero, one)
        put(row + at, zero, zero, c, zero, zero, zero, zero, zero, i, STATES)
        if GRADIENT:
            p = tl.where(j < length, 1.0, zero)
            put(d_row + at, -p, zero, p, -p, zero, p, -p, zero, p, STATES)


@triton.jit
def _ended(row, length, k, STATES: tl.constexpr):
    """The mean of the row's last number less its first, by state."""
    mean = tl.zeros([STATES], row.dtype.element_ty)
    for j in range(length):
        a, _, c, d, _, f, g, _, i = nine(row + j * 9 * STATES + k, STATES)
        mean += c + f + i - a - d - g
    return mean


@triton.jit(do_not_specialize=SIZES)
def _pass(
    characters, special, again, present, spelt, lengths,
    value, d_characters, d_special, d_again, rows, carries, d_rows,
    time, batch, room, count, size, parts,
    CTC: tl.constexpr, GRADIENT: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """One sample. Of long lines, parts of so many frames: to the end, and then back, once more.

    Rows are those before each part and after the last, and then those within a part.
    """
    sample = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, STATES)
    counts = k < (STATES if CTC else count)
    length = tl.load(lengths + sample).to(tl.int32)
    # Without a target, a column that counts for nothing has the mass.
    columns = tl.maximum(length, 1)
    spelt += sample * room
    present += sample * time
    row = 0 * sample + room * 9 * STATES  # in 64 bits, as the sample
    rows += sample * row * ((size + parts) if GRADIENT else 2)
    if GRADIENT:
        carries += sample * row * size
        d_rows += sample * row * 2
    _start(rows, d_rows, columns, length, k, count if CTC else count - 1, GRADIENT, STATES)
    tl.debug_barrier()
    total = tl.zeros([STATES], value.dtype.element_ty)
    for index in range((2 * parts - 1) if GRADIENT else parts):
        part = index
        if GRADIENT:
            part = tl.minimum(index, 2 * parts - 2 - index)
        first = part * size
        here = tl.minimum(size, time - first)
        for r in range(here):
            if GRADIENT:
                before = tl.where(r == 0, part, parts + r)
                after = tl.where(r + 1 == here, part + 1, parts + r + 1)
            else:
                before = (first + r) % 2
                after = 1 - before
            at = (first + r) * batch + sample
            now, none, own, keep = moves(
                characters, special, again, tl.load(present + first + r), at, k, count, CTC
            )
            read = forward(
                rows + before * row, rows + after * row, carries + r * row, spelt, columns, k,
                counts, now, none, own, keep, STATES, GRADIENT,
            )  # fmt: skip
            # Once more, it counts no more.
            total += tl.where(index < parts, read, 0.0)
            tl.debug_barrier()
        if GRADIENT:
            for step in range(tl.where(index < parts - 1, 0, here)):
                r = here - 1 - step
                before = tl.where(r == 0, part, parts + r)
                at = (first + r) * batch + sample
                now, none, own, keep = moves(
                    characters, special, again, tl.load(present + first + r), at, k, count, CTC
                )
                after = (time - 1 - first - r) % 2
                d_now, d_none, d_own = backward(
                    rows + before * row, carries + r * row, d_rows + after * row,
                    d_rows + (1 - after) * row, spelt, columns, k,
                    counts, now, none, own, keep, STATES,
                )  # fmt: skip
                tl.store(d_characters + at * count + k, d_now, mask=k < count)
                tl.store(d_special + at + k * 0, d_none, mask=k == count)
                if CTC:
                    tl.store(d_again + at + k * 0, d_own, mask=k == count - 1)
                tl.debug_barrier()
    total += _ended(rows + (parts if GRADIENT else time % 2) * row, length, k, STATES)
    tl.store(value + sample, tl.sum(total, 0))
