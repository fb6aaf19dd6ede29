"""The row of the edit-distance table after all frames, in probabilities: both directions.

A *state* is what the frame before has read: one of the target's distinct characters, any other
one, or nothing. For each state and each column of the target, the row's step there is a
distribution, jointly with the state. Given the state, columns are taken as independent
(`column_steps`) or as a Markov chain (`chained_step`), which is the one approximation. A frame
that reads character k from any other state takes their mixture through the columns, left to right;
one that goes on with k leaves its state as it is; and one that reads nothing gathers all of them.

Column j of a frame needs columns up to j of the frame before, and column j - 1 of its own: so step
n does column j of frame n - j, for all j at once. Only steps are sequential, and each is a dozen
elementwise operations and one product of matrices. With time laid out in reverse, what the columns
need of their frames is one slice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .column_steps import ColumnStep

# Numbers of steps, channels, columns, samples and characters that are kept for the way back, three
# times; longer lines are passed over once more, in parts.
AT_ONCE = 2**22
# And of which the way back prepares what it can at a time, ten times: what a cache holds.
AT_A_TIME = 2**17
# Nothing comes from where there is less; a float32 of its inverse still has room above.
LEAST_MASS = 1e-20


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

        There nothing happens. Characters come first: `(characters, room, batch)`.
        """

        def lay_out(x: Tensor, outside: float) -> Tensor:
            x = x.movedim(-1, 0) if x.ndim == 3 else x
            time = x.shape[-2]
            room = x.new_full((*x.shape[:-2], time + 2 * (columns - 1), x.shape[-1]), outside)
            room[..., columns - 1 : columns - 1 + time, :] = x.flip(-2)
            return room

        outside = {"keep": 1.0, "mass": 1.0, "hold": 1.0}
        names = [field.name for field in fields(self)]
        return Moves(**{n: lay_out(getattr(self, n), outside.get(n, 0.0)) for n in names})


State = tuple[Tensor, Tensor, Tensor]


class Rows:
    """Passes over frames and columns.

    Args:
        step: of a column.
        moves: of the frames.
        match: 1 where a column's character is that of a state, `(characters, columns, batch)`.
        exists: 1 where a sample has a column, `(columns, batch)`.
        ctc: whether a character is read once for all frames in a row that have it, and nothing may
            be read between; else each frame reads one, and the end is where it stays.
    """

    def __init__(self, step: ColumnStep, moves: Moves, match: Tensor, exists: Tensor, ctc: bool):
        self.step = step.on(match)
        self.match, self.exists, self.ctc = match, exists, ctc
        self.time, batch, characters = moves.gain.shape
        self.columns = len(exists)
        self.count = self.time + self.columns - 1
        self.moves = moves.skewed(self.columns)
        self.inverse = 1 / self.moves.mass
        like = moves.gain
        mixing = like.new_ones(characters, characters)
        if ctc:
            mixing.fill_diagonal_(0)
        self.mixing = mixing.expand(step.channels, -1, -1)
        self.shape = step.channels, characters, self.columns, batch
        self.values, v = (like.new_tensor(part).view(-1, 1, 1) for part in (step.values, step.v))
        row = like.new_tensor(step.row(self.columns))[..., None]
        state, last = like.new_zeros(self.shape), like.new_zeros(step.channels, self.columns, batch)
        # CTC starts with nothing read; positions in a state of no meaning.
        (last if ctc else state[:, -1]).copy_(row)
        # What is right of a column is behind it; the first place is left of the first column.
        carry = like.new_zeros(len(step.v), characters, self.columns + 1, batch)
        carry[:, :, 0] = v
        self.start = state, last, carry
        least = max(1, AT_ONCE // max(1, state.numel()))
        self.size = self.count if self.count <= least else max(least, int(self.count**0.5))

    def run(self, gradient: bool) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """The mean of the last row's last number less its first, `(batch,)`, and its gradients.

        Returns:
            the means, and the gradients of gain, keep, mass, leave and special; or None.
        """
        # Of each step the states before it, and after the last; of a value alone, two in turns.
        kept = self._room(self.size if gradient else 1)
        starts: list[State] = []
        now = self.start
        for first in range(0, self.count, self.size):
            if gradient and self.size < self.count:
                starts.append(tuple(part.clone() for part in now))  # type: ignore[arg-type]
            now = self._forward(first, now, kept)
        state, last, _ = now
        ended = (state.sum(1) + last) * self.values
        mean = (ended.sum(0) * self.exists).sum(0)
        if not gradient:
            return mean, None
        d_last = (self.values * self.exists).expand_as(last).clone()
        d_state = d_last[:, None].expand_as(state).clone()
        adjoint = d_state, d_last, torch.zeros_like(self.start[2])
        room = self.moves.gain
        # Of gain, keep and mass; of leave and special.
        wide, narrow = room.new_zeros(3, *room.shape), room.new_zeros(2, *room.shape[1:])
        part = max(1, AT_A_TIME // max(1, state.numel()))
        for first in reversed(range(0, self.count, self.size)):
            if starts:
                self._forward(first, starts.pop(), kept)
            count = min(self.size, self.count - first)
            for begin in reversed(range(0, count, part)):
                steps = [x[begin : min(begin + part, count)] for x in kept]
                adjoint = self._backward(first + begin, steps, adjoint, wide, narrow)
        # So far of the mixtures as they are, but what they are made of is divided by the mass.
        wide[2].mul_(self.inverse).neg_()
        narrow[0].mul_(self.inverse[-1])
        inside = slice(self.columns - 1, self.columns - 1 + self.time)
        d_wide, d_narrow = wide[:, :, inside].flip(2).movedim(1, -1), narrow[:, inside].flip(1)
        return mean, (*d_wide.unbind(), *d_narrow.unbind())

    def _slice(self, n: int) -> slice:
        return slice(self.count - 1 - n, self.count - 1 - n + self.columns)

    def _room(self, size: int) -> tuple[Tensor, ...]:
        """Of states, last, total, mix and carry; one more of what is before and after steps."""
        state, last, carry = self.start
        more = [x.new_empty(size + 1, *x.shape) for x in (state, last, carry)]
        # What is left of the first column is always the same.
        more[2][:, :, :, 0] = carry[:, :, 0]
        total, mix = (x.new_empty(size, *x.shape) for x in (last, state))
        return more[0], more[1], total, mix, more[2]

    def _forward(self, first: int, now: State, kept: tuple[Tensor, ...]) -> State:
        """Steps from this one to the end of their part, and the state behind them."""
        states, lasts, totals, mixes, carries = kept
        size = len(totals)
        for part, value in zip((states, lasts, carries), now, strict=True):
            part[0].copy_(value)
        moves, end = self.moves, min(first + self.size, self.count)
        for n in range(first, end):
            i, j = (n - first) % (size + 1), (n - first + 1) % (size + 1)
            state, last, carry, total = states[i], lasts[i], carries[i], totals[i % size]
            at, mix = self._slice(n), mixes[i % size]
            shape = len(state), state.shape[1], -1
            torch.bmm(self.mixing, state.view(shape), out=mix.view(shape))
            torch.sum(state, 1, out=total)
            if self.ctc:
                mix += last[:, None]
                mix[:, -1].addcmul_(state[:, -1], moves.leave[at])
                total += last
            # By its own sum: were it off by a rounding error, this would grow from frame to frame.
            mix /= mix.sum(0).clamp_(min=LEAST_MASS)
            torch.mul(state, moves.keep[:, at], out=states[j])
            below = self.step.forward(mix, carry[:, :, :-1], self.match, carries[j][:, :, 1:])
            for after, h in zip(states[j], below, strict=True):
                after.addcmul_(h, moves.gain[:, at])
            torch.mul(total, moves.special[at], out=lasts[j])
            lasts[j].addcmul_(last, moves.hold[at])
        j = (end - first) % (size + 1)
        return states[j], lasts[j], carries[j]

    def _backward(
        self, first: int, kept: Sequence[Tensor], adjoint: State, wide: Tensor, narrow: Tensor
    ) -> State:
        """The adjoint before these steps; adds to the gradients of what their frames do."""
        state, _, total, mix, carry = kept
        count = len(total)
        below, parts = self.step.prepare(mix[:count], carry[:count, :, :, :-1], self.match)
        d_after, d_mixed = state.new_empty(2, count, *state.shape[1:])
        d_afters = torch.empty_like(total)
        moves = self.moves
        d_state, d_last, d_carry = adjoint
        shape = len(d_state), d_state.shape[1], -1
        for i in reversed(range(count)):
            at = self._slice(first + i)
            d_after[i].copy_(d_state)
            d_afters[i].copy_(d_last)
            before = torch.zeros_like(d_carry)
            self.step.backward(
                [part[i] for part in parts],
                d_state * moves.gain[:, at],
                d_carry[:, :, 1:],
                d_mixed[i],
                before[:, :, :-1],
            )
            d_carry = before
            d_mix = d_mixed[i] * self.inverse[:, at]
            d_total = d_last * moves.special[at]
            d_last = d_last * moves.hold[at]
            mixed = torch.bmm(self.mixing, d_mix.view(shape)).view(d_mix.shape)
            if self.ctc:
                mixed[:, -1].addcmul_(d_mix[:, -1], moves.leave[at])
                d_last += d_total
                d_last += d_mix.sum(1)
            d_state = mixed.addcmul_(d_state, moves.keep[:, at]).add_(d_total[:, None])
        of_wide = mix.new_zeros(count, 3, *mix.shape[2:])
        of_narrow = mix.new_zeros(count, 2, *total.shape[2:])
        for channel, h in enumerate(below):
            d_channel, d_mix = d_after[:, channel], d_mixed[:, channel]
            of_wide[:, 0].addcmul_(d_channel, h)
            of_wide[:, 1].addcmul_(d_channel, state[:count, channel])
            of_wide[:, 2].addcmul_(d_mix, mix[:count, channel])
            of_narrow[:, 0].addcmul_(d_mix[:, -1], state[:count, channel, -1])
            of_narrow[:, 1].addcmul_(d_afters[:, channel], total[:, channel])
        for i in range(count):
            at = self._slice(first + i)
            wide[:, :, at] += of_wide[i]
            narrow[:, at] += of_narrow[i]
        return d_state, d_last, d_carry
