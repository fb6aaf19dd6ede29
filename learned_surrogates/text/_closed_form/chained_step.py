"""What reading one character does to a column, with neighbouring columns as a Markov chain.

As `column_steps`, with unit costs, but a column is kept as the probabilities of the pair of steps
at its left neighbour and at itself, `(h left, h)`: given the step at its left neighbour, it is
independent of all columns before that one. What comes from the left is the pair `(v, h)` of the
left neighbour, from which `(h', v')` there follow.
"""

import functools
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from .column_steps import Parts, TabledStep
from .difference_rows import LEAST_MASS


def _turned(match: int, v: int, h: int) -> tuple[int, int]:
    """What a column turns v and h into."""
    least = min(0 if match else 1, v + 1, h + 1)
    return least - v, least - h


@functools.cache
def _ways() -> Tensor:
    """Where the triples (v, h) of the left neighbour and h lead to, `(54, 27)`.

    To pairs of nine each: (v, h), of a left neighbour that does not match or does; and (h' left,
    h'), for neither, the column itself, the left neighbour and both.
    """
    ways = torch.zeros(6, 9, 27, device="cpu")
    signs = -1, 0, 1
    for triple, (v, h, own) in enumerate(itertools.product(signs, repeat=3)):
        for left in (0, 1):
            below, beside = _turned(left, v, h)
            ways[left, 3 * (beside + 1) + own + 1, triple] = 1
            for match in (0, 1):
                own_below, _ = _turned(match, beside, own)
                ways[2 + 2 * left + match, 3 * (below + 1) + own_below + 1, triple] = 1
    return ways.flatten(0, 1)


class ChainedStep(TabledStep):
    """The step where every error costs 1, of pairs."""

    channels = 9
    # Left of the first column, h is taken for -1, so that it stays so, with v = 1 to its right.
    v: Sequence[float] = (0.0,) * 6 + (1.0, 0.0, 0.0)
    values: Sequence[float] = (-1.0, 0.0, 1.0) * 3

    def __init__(self) -> None:
        super().__init__(_ways())

    def row(self, columns: int) -> list[list[float]]:
        row = [[0.0] * columns for _ in range(9)]
        row[2][0] = 1.0
        row[8][1:] = [1.0] * (columns - 1)
        return row

    def forward(self, h: Tensor, v: Tensor, match: Tensor, right: Tensor) -> Sequence[Tensor]:
        given, _ = self._given_left(h)
        triples = (v.unflatten(0, (3, 3))[:, :, None] * given[None]).flatten(3).flatten(0, 2)
        pairs = (self.table @ triples).view(6, 9, *match.shape)
        left, own = self._matches(match)
        right.copy_(torch.where(left, pairs[1], pairs[0]))
        below = torch.where(
            left, torch.where(own, pairs[5], pairs[4]), torch.where(own, pairs[3], pairs[2])
        )
        return below.unbind()

    def backward(
        self, parts: Parts, dh: Tensor, dv: Tensor, d_above: Tensor, d_left: Tensor
    ) -> None:
        h, v, match = parts
        left, own = self._matches(match)
        beside = (~left, left)
        below = (~left & ~own, ~left & own, left & ~own, left & own)
        d_pairs = [dv.where(which, 0) for which in beside] + [dh.where(which, 0) for which in below]
        d_triples = self.table.T @ torch.cat(d_pairs).flatten(1)
        d_triples = d_triples.view(3, 3, 3, *match.shape)
        given, mass = self._given_left(h)
        d_left.copy_((d_triples * given).sum(2).flatten(0, 1))
        d_given = (d_triples * v.unflatten(0, (3, 3))[:, :, None]).sum(0)
        d_given -= (d_given * given).sum(1, keepdim=True)
        d_above.copy_((d_given / mass).flatten(0, 1))

    @staticmethod
    def _given_left(h: Tensor) -> tuple[Tensor, Tensor]:
        """Of pairs, h given h left of it, `(3, 3, ...)`; and the probabilities of the latter."""
        pairs = h.unflatten(0, (3, 3))
        mass = pairs.sum(1, keepdim=True).clamp_(min=LEAST_MASS)
        return pairs / mass, mass

    @staticmethod
    def _matches(match: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the left neighbours match, and the columns themselves."""
        own = match > 0
        left = torch.zeros_like(own)
        left[..., 1:, :] = own[..., :-1, :]
        return left, own
