"""What reading one character does to one column of the edit-distance table, in probabilities.

D[i, j] is the distance of the first i characters read to the first j of the target. A row is known
by its *horizontal* steps h = D[i, j] - D[i, j - 1], two rows differ by *vertical* steps
v = D[i + 1, j] - D[i, j]. With the character read, column j turns (v left of it, h above it) into
(h below it, v right of it):

    d = min(0 if the characters match else substitution, v + deletion, h + insertion)
    h' = d - v,    v' = d - h.

Here h and v are distributions, taken as independent: `(channels, ...)` of probabilities.
"""

import copy
from collections.abc import Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from ..._support.transfer import send

Parts = Sequence[Tensor]


class ColumnStep(Protocol):
    """The step, and its gradient.

    Attributes:
        channels: of a distribution of h, which add up to 1.
        v: the distribution of the table's first column, which is certain.
        values: of h, such that its mean is `(values * distribution).sum()`.
    """

    channels: int
    v: Sequence[float]
    values: Sequence[float]

    def on(self, like: Tensor) -> Self:
        """The step for tensors on the device of this one, and of its type."""
        return self

    def row(self, columns: int) -> list[list[float]]:
        """The distributions of h in the table's first row, by channel."""

    def forward(self, h: Tensor, v: Tensor, match: Tensor, right: Tensor) -> Sequence[Tensor]:
        """h', by its channels, of h and v `(channels, ...)`; v' is written to `right`.

        Args:
            h: distributions.
            v: distributions.
            match: 1 where the characters match, else 0; `(...)`.
            right: of v's shape.
        """

    def prepare(self, h: Tensor, v: Tensor, match: Tensor) -> tuple[Sequence[Tensor], Parts]:
        """h' once more, and what `backward` needs; of many steps, `(steps, channels, ...)`."""

    def backward(
        self, parts: Parts, dh: Tensor, dv: Tensor, d_above: Tensor, d_left: Tensor
    ) -> None:
        """Writes the gradients of h and v, from those of h' and v'."""


class UnitStep(ColumnStep):
    """The step where every error costs 1: h and v are in {-1, 0, 1}.

    With a, b = P(v = -1), P(v = 1), z = 1 - a - b, and c, n, d = P(h = -1), P(h = 0), P(h = 1),

        P(h' = -1) = b c',    P(h' = 0) = z c' + b (1 - c'),    P(h' = 1) = a + z (1 - c')
        P(v' = -1) = d a',    P(v' = 1) = c + n (1 - a')

    where c' and a' are c and a, or 1 where the characters match.
    """

    channels = 3
    v: Sequence[float] = (0.0, 1.0)
    values: Sequence[float] = (-1.0, 0.0, 1.0)

    def row(self, columns: int) -> list[list[float]]:
        return [[0.0] * columns, [0.0] * columns, [1.0] * columns]

    def forward(self, h: Tensor, v: Tensor, match: Tensor, right: Tensor) -> Sequence[Tensor]:
        (c, n, d), (a, b) = h, v
        c1, a1 = torch.maximum(c, match), torch.maximum(a, match)
        u, z = 1 - c1, (1 - a).sub_(b)
        torch.mul(d, a1, out=right[0])
        torch.addcmul(c, n, a1.neg_().add_(1), out=right[1])
        return b * c1, (b * u).addcmul_(z, c1), torch.addcmul(a, z, u)

    def prepare(self, h: Tensor, v: Tensor, match: Tensor) -> tuple[Sequence[Tensor], Parts]:
        c, n, d, a, b = *h.unbind(1), *v.unbind(1)
        differ = 1 - match
        c1, a1 = torch.maximum(c, match), torch.maximum(a, match)
        u, x, z = 1 - c1, 1 - a1, (1 - a).sub_(b)
        below = b * c1, (b * u).addcmul_(z, c1), torch.addcmul(a, z, u)
        return below, (b * differ, z * differ, c1, u, d * differ, n * differ, a1, x)

    def backward(
        self, parts: Parts, dh: Tensor, dv: Tensor, d_above: Tensor, d_left: Tensor
    ) -> None:
        b, z, c1, u, d, n, a1, x = parts
        left, right = dv
        minus, plus = dh[0] - dh[1], dh[2] - dh[1]
        torch.addcmul(right, minus, b, out=d_above[0]).addcmul_(plus, z, value=-1)
        torch.mul(right, x, out=d_above[1])
        torch.mul(left, a1, out=d_above[2])
        torch.mul(plus, c1, out=d_left[0]).addcmul_(left, d).addcmul_(right, n, value=-1)
        torch.mul(minus, c1, out=d_left[1]).addcmul_(plus, u, value=-1)


class TabledStep(ColumnStep):
    """A step whose probabilities are products with a table of where what comes to a column leads.

    Args:
        table: on the CPU.
    """

    def __init__(self, table: Tensor):
        self.table = table

    def on(self, like: Tensor) -> Self:
        step = copy.copy(self)
        step.table = send(self.table, like)
        return step

    def prepare(self, h: Tensor, v: Tensor, match: Tensor) -> tuple[Sequence[Tensor], Parts]:
        unused = torch.empty_like(h[0])
        steps = zip(h, v, strict=True)
        below = torch.stack([torch.stack([*self.forward(*step, match, unused)]) for step in steps])
        return below.unbind(1), (h, v, match.expand(len(h), *match.shape))


class WholeNumberStep(TabledStep):
    """The step for whole-number costs: h in [-insertion, deletion], v in [-deletion, insertion].

    Where each pair of v and h leads is a table, made once: of the pairs' probabilities, h' and v'
    have sums, which a product of matrices takes.
    """

    def __init__(self, insertion: int, deletion: int, substitution: int):
        size = insertion + deletion + 1
        self.channels = size
        self.v: Sequence[float] = [0.0] * (size - 1) + [1.0]
        self.values: Sequence[float] = [float(value - insertion) for value in range(size)]
        # (match, h' or v', what it becomes, of v and h)
        table = torch.zeros(2, 2, size, size, size, device="cpu")
        for match in (0, 1):
            for vertical in range(size):
                for horizontal in range(size):
                    v, h = vertical - deletion, horizontal - insertion
                    least = min(0 if match else substitution, v + deletion, h + insertion)
                    table[match, 0, least - v + insertion, vertical, horizontal] = 1
                    table[match, 1, least - h + deletion, vertical, horizontal] = 1
        super().__init__(table.flatten(3, 4).flatten(1, 2))  # (match, h' and v', pairs)

    def row(self, columns: int) -> list[list[float]]:
        return [[number] * columns for number in self.v]

    def forward(self, h: Tensor, v: Tensor, match: Tensor, right: Tensor) -> Sequence[Tensor]:
        pairs = (v[:, None] * h[None]).reshape(self.channels**2, -1)
        both = torch.where(match.flatten() > 0, self.table[1] @ pairs, self.table[0] @ pairs)
        below, beside = both.view(2, self.channels, *match.shape)
        right.copy_(beside)
        return below.unbind()

    def backward(
        self, parts: Parts, dh: Tensor, dv: Tensor, d_above: Tensor, d_left: Tensor
    ) -> None:
        h, v, match = parts
        table = self.table.transpose(1, 2)
        d_both = torch.cat([dh, dv]).flatten(1)
        d_pairs = torch.where(match.flatten() > 0, table[1] @ d_both, table[0] @ d_both)
        d_pairs = d_pairs.view(self.channels, self.channels, *match.shape)
        torch.sum(d_pairs * v[:, None], 0, out=d_above)
        d_left.copy_((d_pairs * h[None]).sum(1))
