"""The row of the edit-distance table after all frames, in probabilities: both directions.

A *state* is what the frame before has read: one of the target's distinct characters, any other
one, or nothing. For each state and each column of the target, the row's step there is a
distribution, jointly with the state; columns are taken as independent given the state, which is the
one approximation. A frame that reads character k from any other state takes their mixture through
the columns, left to right (`_column_steps`); one that goes on with k leaves its state as it is; and
one that reads nothing gathers all of them.

Column j of a frame needs columns up to j of the frame before, and column j - 1 of its own: so step
n does column j of frame n - j, for all j at once. Only steps are sequential, and each is a dozen
elementwise operations and one product of matrices. With time laid out in reverse, what the columns
need of their frames is one slice.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._column_steps import ColumnStep

# Cells of steps, columns, samples and states that are kept for the way back at a time; about 20
# numbers each.
AT_ONCE = 2**19


@dataclass(frozen=True)
class Moves:
    """What each frame does, `(time, batch, characters)`; the last character is any other one.

    Attributes:
        gain: probability of reading a character that has not just been read.
        keep: probability of going on with the one just read, given that; 1 in padding.
        mass: probability of the states that `gain` comes from.
        leave: of the last character's own state, the share that it is read from once more,
            `(time, batch)`.
        special: probability of reading nothing, or of the end, `(time, batch)`.
        hold: what nothing or the end keeps of itself apart from that, `(time, batch)`.
    """

    gain: Tensor
    keep: Tensor
    mass: Tensor
    leave: Tensor
    special: Tensor
    hold: Tensor

    def skewed(self, columns: int) -> "Moves":
        """Time in reverse, with room around it for columns that are ahead or behind.

        There nothing happens: `keep` and `hold` are 1.
        """

        def lay_out(x: Tensor, outside: float) -> Tensor:
            room = x.new_full((len(x) + 2 * (columns - 1), *x.shape[1:]), outside)
            room[columns - 1 : columns - 1 + len(x)] = x.flip(0)
            return room

        zero = (self.gain, self.leave, self.special)
        gain, leave, special = (lay_out(x, 0) for x in zero)
        return Moves(
            gain, lay_out(self.keep, 1), lay_out(self.mass, 1), leave, special, lay_out(self.hold, 1)
        )


class Rows:
    """Passes over frames and columns.

    Args:
        step: of a column.
        moves: of the frames.
        match: whether a column's character is that of a state, `(columns, batch, characters)`.
        exists: which columns a sample has, `(columns, batch)`.
        ctc: whether a character is read once for all frames in a row that have it, and nothing may
            be read between; else each frame reads one, and the end is where it stays.
    """

    def __init__(self, step: ColumnStep, moves: Moves, match: Tensor, exists: Tensor, ctc: bool):
        self.step, self.match, self.exists, self.ctc = step, match, exists, ctc
        self.time, self.batch, self.characters = moves.gain.shape
        self.columns = len(match)
        self.count = self.time + self.columns - 1
        self.moves = moves.skewed(self.columns)
        self.inverse = 1 / self.moves.mass
        like = moves.gain
        self.mixing = torch.ones(self.characters, self.characters).to(like)
        if ctc:
            self.mixing.fill_diagonal_(0)
        self.ones = torch.ones(self.characters).to(like)
        shape = (step.channels, self.columns, self.batch, self.characters)
        self.values = torch.tensor(step.values).to(like).view(-1, 1, 1)
        h, v = (torch.tensor(part).to(like).view(-1, 1, 1) for part in (step.h, step.v))
        state, last = like.new_zeros(shape), like.new_zeros(shape[:-1])
        # CTC starts with nothing read; positions in a state of no meaning.
        (last if ctc else state[..., -1]).copy_(h)
        # What is right of a column is behind it; the first place is left of the first column.
        carry = like.new_zeros(shape[0], shape[1] + 1, *shape[2:])
        carry[:, 0] = v
        self.start = state, last, carry
        least = max(1, AT_ONCE // state[0].numel())
        self.size = self.count if self.count <= least else max(least, int(self.count**0.5))

    def run(self, gradient: bool) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """The mean of the last row's last number less its first, `(batch,)`, and its gradients.

        Returns:
            the means, and the gradients of gain, keep, mass, leave and special; or None.
        """
        now = self.start
        starts = []
        kept: list[tuple[Tensor, ...]] = []
        for first in range(0, self.count, self.size):
            starts.append(now)
            # Where all steps go together, they are not passed over twice.
            keep = kept if gradient and self.size >= self.count else None
            for n in range(first, min(first + self.size, self.count)):
                now = self._forward(n, now, keep)
        state, last, _ = now
        ended = (self._total(state) + last) * self.values
        mean = (ended.sum(0) * self.exists).sum(0)
        if not gradient:
            return mean, None
        d_last = (self.values * self.exists).expand_as(last)
        d_state = d_last[..., None].expand_as(state)
        adjoint = d_state, d_last, torch.zeros_like(self.start[2])
        room = self.moves.gain
        # Of gain, keep, mass; of leave and special.
        wide = tuple(torch.zeros_like(room) for _ in range(3))
        narrow = tuple(torch.zeros_like(room[..., 0]) for _ in range(2))
        for first in reversed(range(0, self.count, self.size)):
            now = starts.pop()
            if self.size < self.count:
                kept = []
                for n in range(first, min(first + self.size, self.count)):
                    now = self._forward(n, now, kept)
            adjoint = self._backward(first, kept, adjoint, wide, narrow)
        # Of the mixture, which is divided by the mass; all else follows from what it was divided to.
        wide[2].mul_(self.inverse).neg_()
        narrow[0].mul_(self.inverse[..., -1])
        inside = slice(self.columns - 1, self.columns - 1 + self.time)
        return mean, tuple(x[inside].flip(0) for x in (*wide, *narrow))

    def _slice(self, n: int) -> slice:
        return slice(self.count - 1 - n, self.count - 1 - n + self.columns)

    def _total(self, state: Tensor) -> Tensor:
        return (state.view(-1, self.characters) @ self.ones).view(state.shape[:-1])

    def _forward(
        self,
        n: int,
        now: tuple[Tensor, Tensor, Tensor],
        kept: list[tuple[Tensor, ...]] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        state, last, carry = now
        at, moves = self._slice(n), self.moves
        mix = (state.view(-1, self.characters) @ self.mixing).view(state.shape)
        total = self._total(state)
        if self.ctc:
            mix += last[..., None]
            mix[..., -1].addcmul_(state[..., -1], moves.leave[at])
            total += last
        mix *= self.inverse[at]
        below, right = self.step.forward(mix, carry[:, :-1], self.match)
        after = state * moves.keep[at]
        after_last = total * moves.special[at]
        after_last.addcmul_(last, moves.hold[at])
        after_carry = torch.empty_like(carry)
        after_carry[:, 0] = carry[:, 0]
        for channel, (h, v) in enumerate(zip(below, right, strict=True)):
            after[channel].addcmul_(h, moves.gain[at])
            after_carry[channel, 1:] = v
        if kept is not None:
            kept.append((state, total, mix, carry))
        return after, after_last, after_carry

    def _backward(
        self,
        first: int,
        kept: list[tuple[Tensor, ...]],
        adjoint: tuple[Tensor, Tensor, Tensor],
        wide: tuple[Tensor, ...],
        narrow: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The adjoint before these steps; adds to the gradients of what their frames do."""
        state, total, mix, carry = (torch.stack(part) for part in zip(*kept, strict=True))
        below, parts = self.step.prepare(mix, carry[:, :, :-1], self.match)
        d_after, d_mixed = torch.empty_like(mix), torch.empty_like(mix)
        d_afters = torch.empty_like(total)
        moves, mixing = self.moves, self.mixing.T
        d_state, d_last, d_carry = adjoint
        for i in reversed(range(len(kept))):
            at = self._slice(first + i)
            d_after[i], d_afters[i] = d_state, d_last
            dh, dv = self.step.backward(
                [part[i] for part in parts], d_state * moves.gain[at], d_carry[:, 1:]
            )
            d_carry = torch.zeros_like(d_carry)
            for channel, (of_h, of_v) in enumerate(zip(dh, dv, strict=True)):
                d_mixed[i, channel] = of_h
                d_carry[channel, :-1] = of_v
            d_mix = d_mixed[i] * self.inverse[at]
            d_total = d_last * moves.special[at]
            d_last = d_last * moves.hold[at]
            mixed = (d_mix.view(-1, self.characters) @ mixing).view(d_mix.shape)
            if self.ctc:
                mixed[..., -1].addcmul_(d_mix[..., -1], moves.leave[at])
                d_last = d_last + d_total + self._total(d_mix)
            d_state = mixed.addcmul_(d_state, moves.keep[at]).add_(d_total[..., None])
        d_gain = d_after[:, 0] * below[0]
        for channel in range(1, self.step.channels):
            d_gain.addcmul_(d_after[:, channel], below[channel])
        of_mass = (d_mixed * mix).sum(1)
        of_leave = (d_mixed[..., -1] * state[..., -1]).sum(1)
        sums = (d_gain, (d_after * state).sum(1), of_mass, of_leave, (d_afters * total).sum(1))
        # Column j of step n belongs to frame n - j.
        end = self._slice(first).start + 1
        for j in range(self.columns):
            place = slice(end - len(kept) + j, end + j)
            for into, of_cells in zip((*wide, *narrow), sums, strict=True):
                into[place] += of_cells[:, j].flip(0)
        return d_state, d_last, d_carry
