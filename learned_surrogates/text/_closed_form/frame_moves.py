"""From the outputs' probabilities to what frames do to the table's row, and back by hand."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .difference_rows import LEAST_MASS, Moves


@dataclass(frozen=True)
class Outputs:
    """Probabilities of each frame, zero in padding.

    Attributes:
        characters: of the target's distinct characters, and of all others together, `(time, batch,
            characters)`.
        special: of the blank or the end, `(time, batch)`.
        again: that two of the others in a row are the same one, `(time, batch)`, of the frame
            before and this one; zero in the first.
        present: which frames there are, bool, `(time, batch)`.
    """

    characters: Tensor
    special: Tensor
    again: Tensor
    present: Tensor


class CTCMoves:
    """Frames of CTC: what they have read last is what they have, of the probability they give it.

    So the mass of what is not character k is that of the frame before without k; and of the others,
    a part `again` of the frame before counts as k.
    """

    def __init__(self, outputs: Outputs):
        self.outputs = outputs
        p, special, present = outputs.characters, outputs.special, outputs.present
        count = p.shape[2]
        # What was not there before the first frame was nothing.
        self.before = p.new_zeros(len(p), p.shape[1], count + 1)
        self.before[1:, :, :-1], self.before[1:, :, -1] = p[:-1], special[:-1]
        self.before[0, :, -1] = 1
        # A sum of what is there: a difference would leave nothing of small numbers.
        self.mixing = p.new_ones(count + 1, count).fill_diagonal_(0)
        leave = 1 - outputs.again
        mass = self.before @ self.mixing
        mass[..., -1].addcmul_(leave, self.before[..., -2])
        self.mass = mass.clamp_(min=LEAST_MASS).masked_fill_(~present[..., None], 1)
        keep = p.clone()
        keep[..., -1] *= outputs.again
        self.moves = Moves(
            gain=p * self.mass,
            keep=keep.masked_fill_(~present[..., None], 1),
            mass=self.mass,
            leave=leave,
            special=special,
            hold=(~present).to(p),
        )

    def backward(
        self, d_gain: Tensor, d_keep: Tensor, d_mass: Tensor, d_leave: Tensor, d_special: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of characters, special and again."""
        p, again = self.outputs.characters, self.outputs.again
        d_mass = d_mass + d_gain * p
        d_p = (d_gain * self.mass).add_(d_keep)
        d_p[..., -1].addcmul_(d_keep[..., -1], again - 1)
        d_before = d_mass @ self.mixing.T
        d_before[..., -2].addcmul_(d_mass[..., -1], 1 - again)
        d_again = d_keep[..., -1] * p[..., -1]
        d_again -= d_leave
        d_again.addcmul_(d_mass[..., -1], self.before[..., -2], value=-1)
        d_p[:-1] += d_before[1:, :, :-1]
        d_special = d_special.clone()
        d_special[:-1] += d_before[1:, :, -1]
        return d_p, d_special, d_again


class PositionMoves:
    """Positions with a character each, as long as the text has not ended."""

    def __init__(self, outputs: Outputs):
        self.outputs = outputs
        p, present = outputs.characters, outputs.present
        self.goes_on = p.sum(2).masked_fill_(~present, 1)
        ones = torch.ones_like(self.goes_on[:1])
        self.mass = torch.cat([ones, self.goes_on[:-1]]).cumprod(0).clamp_(min=LEAST_MASS)
        absent = (~present).to(p)
        self.moves = Moves(
            gain=p * self.mass[..., None],
            keep=absent[..., None].expand_as(p),
            mass=self.mass[..., None].expand_as(p),
            leave=torch.zeros_like(absent),
            special=outputs.special,
            hold=torch.ones_like(absent),
        )

    def backward(
        self, d_gain: Tensor, d_keep: Tensor, d_mass: Tensor, d_leave: Tensor, d_special: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of characters, special and again."""
        p, present = self.outputs.characters, self.outputs.present
        d_masses = (d_mass + d_gain * p).sum(2)
        d_goes_on = torch.empty_like(d_masses)
        later = torch.zeros_like(d_masses[0])
        for t in reversed(range(len(p))):
            d_goes_on[t] = self.mass[t] * later
            later = torch.addcmul(d_masses[t], self.goes_on[t], later)
        d_p = d_gain * self.mass[..., None] + (d_goes_on * present)[..., None]
        return d_p, d_special, torch.zeros_like(d_special)
