"""What CTC's frames say about the characters of the text: an expectation over all paths."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._match_grid import first_columns

# Readings longer than the target by more characters than this share their last position.
MOST_ADDITIONAL = 4


def collapse(probabilities: Tensor, labels: Tensor, blank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The distribution of each character of the collapsed text, frames being independent.

    The k-th character that the frames emit is y_j with probability

    `P[k, j] = sum_t p_t(y_j) (a_t(k) - a_t(k, y_j))`

    where `a_t(k)` is the probability of k characters before frame t, and `a_t(k, c)` that of these
    and c in the frame just before: then c is a repetition and emits nothing (Graves et al., ICML
    2006, the map B). Characters that the target lacks are taken together; whether two of them in
    neighbouring frames are the same one is taken to be independent of the rest. Exact where at
    most one such character has any probability.

    Args:
        probabilities: `(batch, classes, time)`; a column of zeros is no frame.
        labels: class indices plus one, `(batch, characters)`, 0 for padding.
        blank: class index.

    Returns:
        The probability of each target character at each position of the text, `(batch, positions,
        characters)`; that of any other character, `(batch, positions)`; and which positions exist,
        `(batch, positions)`, bool. A sample has as many positions as its target has characters, and
        four more, of which the last one also holds what comes after.
    """
    time = probabilities.shape[2]
    count = labels.shape[1]
    # A character that the target has twice is one character: its first column stands for all.
    first, own = first_columns(labels)
    known = labels > 0

    classes = (labels.long() - 1).clamp(min=0)[:, :, None].expand(-1, -1, time)
    # (time, batch, characters); absent frames are blanks.
    match = (probabilities.gather(1, classes) * own[:, :, None]).permute(2, 0, 1)
    absent = probabilities.detach().sum(1) == 0
    blanks = (probabilities[:, blank] + absent.to(probabilities)).T
    other = (1 - blanks - match.sum(2)).clamp(min=0)
    characters = torch.cat([probabilities[:, :blank], probabilities[:, blank + 1 :]], 1)
    same = (characters[:, :, 1:] * characters[:, :, :-1]).sum(1).T
    same = (same - (match[1:] * match[:-1]).sum(2)).clamp(min=0)
    repeats = (same / (other[1:] * other[:-1]).clamp(min=1e-12)).clamp(max=1)
    repeats = F.pad(repeats, (0, 0, 1, 0))

    emitting = torch.cat([other[:, :, None], match], 2)
    # How much of a character's weight in the frame before makes the same one a repetition.
    sticks = torch.cat([repeats[:, :, None], torch.ones_like(match)], 2)
    repeating = emitting * sticks
    emitted = _Scan.apply(emitting, repeating, blanks, count + MOST_ADDITIONAL - 1)

    # What the last position holds is what all frames emit, less what comes before it.
    last = known.sum(1)[:, None] + MOST_ADDITIONAL - 1
    place = torch.arange(count + MOST_ADDITIONAL, device=labels.device)
    before = F.pad(emitted, (0, 0, 0, 1)) * (place < last)[:, :, None]
    of_all = emitting.sum(0) - (repeating[1:] * emitting[:-1]).sum(0)
    rest = of_all - before.sum(1)
    emitted = before + rest[:, None] * (place == last)[:, :, None]
    columns = (first + 1)[:, None].expand(-1, len(place), -1)
    return emitted.gather(2, columns) * known[:, None], emitted[:, :, 0], place <= last


class _Scan(torch.autograd.Function):
    """Passes over the frames once in each direction, with a handful of operations a frame.

    Its loops are what a GPU, and a CPU with small batches, would wait for: so the gradient is
    written out, and all that frames do not need of each other is done for all of them at once.
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
        time, batch, characters = frames.shape
        # Of k characters before a frame, and of these with a certain one in the frame just before.
        total = frames.new_empty(time + 1, batch, positions)
        before = frames.new_empty(time + 1, batch, positions, characters)
        total[0], before[0] = 0, 0
        total[0, :, 0] = 1
        emitted = torch.zeros_like(before[0])
        states = pairwise(zip(total, before, strict=True))
        inputs = zip(frames[:, :, None], stays[:, :, None], blanks[:, :, None], strict=True)
        for (now, after), (frame, stay, blank) in zip(states, inputs, strict=True):
            torch.mul(now[1], stay, out=after[1])
            less_new = torch.addcmul(after[1], now[0][:, :, None], frame, value=-1)
            after[1][:, 1:].sub_(less_new[:, :-1])
            emitted.sub_(less_new)
            torch.addcmul(after[1].sum(2), now[0], blank, out=after[0])
        ctx.save_for_backward(frames, stays, blanks, total[:-1], before[:-1])
        return emitted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_emitted: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        frames, stays, blanks, total, before = ctx.saved_tensors
        d_new, d_repeated = torch.empty_like(before), torch.empty_like(before)
        d_totals = torch.empty_like(total)
        d_before = torch.zeros_like(before[0])
        d_total = d_totals[-1].zero_()
        d_new[:, :, -1] = d_emitted[:, -1]
        for t in range(len(frames) - 1, -1, -1):
            d_before.add_(d_total[:, :, None])
            torch.add(d_emitted[:, :-1], d_before[:, 1:], out=d_new[t, :, :-1])
            if t:
                torch.sub(d_before, d_new[t], out=d_repeated[t])
                of_new = (d_new[t] @ frames[t, :, :, None])[:, :, 0]
                d_total = torch.addcmul(of_new, d_total, blanks[t, :, None], out=d_totals[t - 1])
                d_before = d_repeated[t] * stays[t, :, None]
        d_repeated[0] = 0  # of no character before the first frame
        d_frames = (total[:, :, None] @ d_new)[:, :, 0]
        d_stays = (d_repeated * before).sum(2)
        return d_frames, d_stays, (d_totals * total).sum(2), None
