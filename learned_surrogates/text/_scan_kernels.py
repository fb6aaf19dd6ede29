"""The scan over CTC's frames as one kernel in each direction, for GPUs (needs Triton).

Frame by frame, PyTorch starts a dozen kernels for a frame and its gradient, each of microseconds.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._scan import states_of

# Of a sample's positions and characters, so many cells are worked on at a time.
CELLS = 4096
CELLS_A_WARP = 256
# Sizes that follow from the texts: a kernel for each would be compiled again and again.
SIZES = ["time", "batch", "positions", "characters"]


def forward(
    frames: Tensor, stays: Tensor, blanks: Tensor, positions: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What is emitted, and the states before each frame: as `_scan.forward`."""
    time, batch, characters = frames.shape
    total, before = states_of(frames, positions)
    emitted = torch.zeros_like(before[0])
    rows, columns, warps = _tile(positions, characters)
    with torch.cuda.device_of(frames):
        _forward[(batch,)](
            *(frames, stays, blanks, total, before, emitted),
            *(time, batch, positions, characters, rows, columns),
            num_warps=warps,
            num_stages=1,
        )
    return emitted, total[:-1], before[:-1]


def backward(
    d_emitted: Tensor,
    frames: Tensor,
    stays: Tensor,
    blanks: Tensor,
    total: Tensor,
    before: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of frames, stays and blanks: as `_scan.backward`."""
    time, batch, positions, characters = before.shape
    # Of the states after a frame and before it, in turns.
    d_total = total.new_zeros(2, batch, positions)
    d_before = total.new_zeros(2, batch, positions, characters)
    d_frames, d_stays = torch.empty_like(frames), torch.empty_like(stays)
    d_blanks = torch.empty_like(blanks)
    rows, columns, warps = _tile(positions, characters)
    with torch.cuda.device_of(frames):
        _backward[(batch,)](
            *(d_emitted, frames, stays, blanks, total, before),
            *(d_total, d_before, d_frames, d_stays, d_blanks),
            *(time, batch, positions, characters, rows, columns),
            num_warps=warps,
            num_stages=1,
        )
    return d_frames, d_stays, d_blanks


def _tile(positions: int, characters: int) -> tuple[int, int, int]:
    """Positions and characters that are worked on at a time, and with how many warps."""
    columns = max(16, triton.next_power_of_2(characters))
    rows = min(max(16, triton.next_power_of_2(positions)), max(1, CELLS // columns))
    return rows, columns, min(16, max(1, rows * columns // CELLS_A_WARP))


@triton.jit(do_not_specialize=SIZES)
def _forward(
    frames,
    stays,
    blanks,
    total,
    before,
    emitted,
    time,
    batch,
    positions,
    characters,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, COLUMNS)
    is_character = c < characters
    for t in range(time):
        now = t * batch + sample
        frame = tl.load(frames + now * characters + c, mask=is_character, other=0.0)
        stay = tl.load(stays + now * characters + c, mask=is_character, other=0.0)
        blank = tl.load(blanks + now)
        totals = total + now * positions
        befores = before + now * positions * characters
        for start in range(0, positions, ROWS):
            k = start + tl.arange(0, ROWS)
            is_position = k < positions
            cell = k[:, None] * characters + c[None, :]
            exists = is_position[:, None] & is_character[None, :]
            # Of k characters before the frame, and of one less.
            of_k = tl.load(totals + k, mask=is_position, other=0.0)
            of_less = tl.load(totals + k - 1, mask=is_position & (k > 0), other=0.0)
            stayed = tl.load(befores + cell, mask=exists, other=0.0) * stay[None, :]
            has_less = exists & (k > 0)[:, None]
            stayed_less = tl.load(befores + cell - characters, mask=has_less, other=0.0)
            stayed_less = stayed_less * stay[None, :]
            new = of_k[:, None] * frame[None, :] - stayed
            after = stayed + of_less[:, None] * frame[None, :] - stayed_less
            tl.store(befores + batch * positions * characters + cell, after, mask=exists)
            of_k = of_k * blank + tl.sum(after, 1)
            tl.store(totals + batch * positions + k, of_k, mask=is_position)
            here = emitted + sample * positions * characters + cell
            tl.store(here, tl.load(here, mask=exists, other=0.0) + new, mask=exists)
        # What the next frame reads, other threads have written.
        tl.debug_barrier()


@triton.jit(do_not_specialize=SIZES)
def _backward(
    d_emitted,
    frames,
    stays,
    blanks,
    total,
    before,
    d_total,
    d_before,
    d_frames,
    d_stays,
    d_blanks,
    time,
    batch,
    positions,
    characters,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, COLUMNS)
    is_character = c < characters
    for step in range(time):
        now = (time - 1 - step) * batch + sample
        frame = tl.load(frames + now * characters + c, mask=is_character, other=0.0)
        stay = tl.load(stays + now * characters + c, mask=is_character, other=0.0)
        blank = tl.load(blanks + now)
        d_frame = tl.zeros_like(frame)
        d_stay = tl.zeros_like(stay)
        d_blank = 0.0 * blank
        after = (step % 2) * batch + sample
        earlier = (1 - step % 2) * batch + sample
        for start in range(0, positions, ROWS):
            k = start + tl.arange(0, ROWS)
            is_position = k < positions
            has_more = k + 1 < positions
            cell = k[:, None] * characters + c[None, :]
            exists = is_position[:, None] & is_character[None, :]
            # Of k characters after the frame, and of one more.
            d_of_k = tl.load(d_total + after * positions + k, mask=is_position, other=0.0)
            d_of_more = tl.load(d_total + after * positions + k + 1, mask=has_more, other=0.0)
            befores = d_before + after * positions * characters + cell
            d_stayed = tl.load(befores, mask=exists, other=0.0) + d_of_k[:, None]
            is_more = has_more[:, None] & is_character[None, :]
            d_new = tl.load(befores + characters, mask=is_more, other=0.0) + d_of_more[:, None]
            of_emitted = d_emitted + sample * positions * characters + cell
            d_new += tl.load(of_emitted, mask=exists, other=0.0)
            d_repeated = d_stayed - d_new
            of_k = tl.load(total + now * positions + k, mask=is_position, other=0.0)
            was = tl.load(before + now * positions * characters + cell, mask=exists, other=0.0)
            d_frame += tl.sum(of_k[:, None] * d_new, 0)
            d_stay += tl.sum(was * d_repeated, 0)
            d_blank += tl.sum(of_k * d_of_k, 0)
            d_of_k = d_of_k * blank + tl.sum(d_new * frame[None, :], 1)
            tl.store(d_total + earlier * positions + k, d_of_k, mask=is_position)
            befores = d_before + earlier * positions * characters + cell
            tl.store(befores, d_repeated * stay[None, :], mask=exists)
        tl.store(d_frames + now * characters + c, d_frame, mask=is_character)
        tl.store(d_stays + now * characters + c, d_stay, mask=is_character)
        tl.store(d_blanks + now, d_blank)
        tl.debug_barrier()
