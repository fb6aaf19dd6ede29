"""What reading one character does to one column of the edit-distance table, in probabilities.

D[i, j] is the distance of the first i characters read to the first j of the target. A row is known
by its *horizontal* steps h = D[i, j] - D[i, j - 1], two rows differ by *vertical* steps
v = D[i + 1, j] - D[i, j]. With the character read, column j turns (v left of it, h above it) into
(h below it, v right of it):

    d = min(0 if the characters match else substitution, v + deletion, h + insertion)
    h' = d - v,    v' = d - h.

Here h and v are distributions, taken as independent: `(channels, ...)` of probabilities.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

Parts = Sequence[Tensor]


class ColumnStep(Protocol):
    """The step, and its gradient.

    Attributes:
        channels: numbers that a distribution of h or v is kept as.
        h, v: those of the table's first row and first column, which are certain.
        values: of h, such that its mean is `(values * distribution).sum()`.
    """

    channels: int
    h: list[float]
    v: list[float]
    values: list[float]

    def forward(self, h: Tensor, v: Tensor, match: Tensor) -> tuple[Parts, Parts]:
        """h' and v' of h and v `(channels, ...)`; match is bool, `(...)`."""

    def prepare(self, h: Tensor, v: Tensor, match: Tensor) -> tuple[Parts, Parts]:
        """h' once more, and what `backward` needs of many steps at a time, `(steps, ...)` each."""

    def backward(self, parts: Parts, dh: Tensor, dv: Tensor) -> tuple[Parts, Parts]:
        """The gradients of h and v, from those of h' and v'."""


class UnitStep:
    """The step where every error costs 1: h and v are in {-1, 0, 1}.

    With a, b = P(v = -1), P(v = 1) and c, d = P(h = -1), P(h = 1), the two channels,

        P(h' = -1) = b c',    P(h' = 1) = a + (1 - a - b)(1 - c')
        P(v' = -1) = d a',    P(v' = 1) = c + (1 - c - d)(1 - a')

    where c' and a' are c and a, or 1 where the characters match.
    """

    channels = 2
    h = [0.0, 1.0]
    v = [0.0, 1.0]
    values = [-1.0, 1.0]

    def forward(self, h: Tensor, v: Tensor, match: Tensor) -> tuple[Parts, Parts]:
        (c, d), (a, b) = h, v
        c1, a1 = c.masked_fill(match, 1), a.masked_fill(match, 1)
        up = torch.addcmul(a, (1 - a).sub_(b), 1 - c1)
        right = torch.addcmul(c, (1 - c).sub_(d), 1 - a1)
        return (c1.mul_(b), up), (a1.mul_(d), right)

    def prepare(self, h: Tensor, v: Tensor, match: Tensor) -> tuple[Parts, Parts]:
        c, d, a, b = h[:, 0], h[:, 1], v[:, 0], v[:, 1]
        differ = ~match
        c1, a1 = c.masked_fill(match, 1), a.masked_fill(match, 1)
        u, x = 1 - c1, 1 - a1
        z = (1 - a).sub_(b)
        below = (b * c1, torch.addcmul(a, z, u))
        n = (1 - c).sub_(d)
        return below, (b * differ, z * differ, c1, u, d * differ, n * differ, a1, x)

    def backward(self, parts: Parts, dh: Tensor, dv: Tensor) -> tuple[Parts, Parts]:
        b, z, c1, u, d, n, a1, x = parts
        (d_minus, d_plus), (d_left, d_right) = dh, dv
        dc = (d_minus * b).addcmul_(d_plus, z, value=-1).addcmul_(d_right, a1)
        dd = (d_left * a1).addcmul_(d_right, x, value=-1)
        da = (d_plus * c1).addcmul_(d_left, d).addcmul_(d_right, n, value=-1)
        db = (d_minus * c1).addcmul_(d_plus, u, value=-1)
        return (dc, dd), (da, db)


class WholeNumberStep:
    """The step for whole-number costs: h in [-insertion, deletion], v in [-deletion, insertion].

    Where each pair of v and h leads is a table, made once: of the pairs' probabilities, h' and v'
    have sums, which a product of matrices takes.
    """

    def __init__(self, insertion: int, deletion: int, substitution: int):
        size = insertion + deletion + 1
        self.channels = size
        self.h = [0.0] * (size - 1) + [1.0]
        self.v = [0.0] * (size - 1) + [1.0]
        self.values = [float(value - insertion) for value in range(size)]
        # (match, h' or v', of v and h, becomes)
        self.table = torch.zeros(2, 2, size, size, size, device="cpu")
        for match in (0, 1):
            for vertical in range(size):
                for horizontal in range(size):
                    v, h = vertical - deletion, horizontal - insertion
                    least = min(0 if match else substitution, v + deletion, h + insertion)
                    self.table[match, 0, vertical, horizontal, least - v + insertion] = 1
                    self.table[match, 1, vertical, horizontal, least - h + deletion] = 1

    def forward(self, h: Tensor, v: Tensor, match: Tensor) -> tuple[Parts, Parts]:
        size = self.channels
        table = self.table.to(h).flatten(2, 3)
        joint = (v[:, None] * h[None]).flatten(2).flatten(0, 1)
        of_both = torch.where(
            match.flatten(), *(table[e].transpose(1, 2).flatten(0, 1) @ joint for e in (1, 0))
        ).view(2, size, *match.shape)
        return of_both[0].unbind(), of_both[1].unbind()

    def prepare(self, h: Tensor, v: Tensor, match: Tensor) -> tuple[Parts, Parts]:
        steps = zip(h, v, match.expand(len(h), *match.shape), strict=True)
        below = torch.stack([torch.stack(list(self.forward(*step)[0])) for step in steps])
        return below.unbind(1), (h, v, match.expand(len(h), *match.shape))

    def backward(self, parts: Parts, dh: Tensor, dv: Tensor) -> tuple[Parts, Parts]:
        h, v, match = parts
        size = self.channels
        table = self.table.to(h).permute(0, 2, 3, 1, 4).flatten(3, 4).flatten(1, 2)
        d_both = torch.cat([dh, dv]).flatten(1)
        d_joint = torch.where(match.flatten(), table[1] @ d_both, table[0] @ d_both)
        d_joint = d_joint.view(size, size, *match.shape)
        return (d_joint * v[:, None]).sum(0).unbind(), (d_joint * h[None]).sum(1).unbind()
