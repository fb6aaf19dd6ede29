"""How far predictions vary, by which noise is measured, and what gradients owe to that."""

import torch
from torch import Tensor

from .._support.moderate import fill_values


class Spread:
    r"""Mean and standard deviation of what is present and finite, a row at a time.

    Marks, such as -1e9 in masked places, count in neither.

    Noise of a width :math:`w` that is in proportion to it grows where a row's numbers move apart.
    A metric that no scale changes has the same mean where both distances from a centre t and noise
    grow alike, :math:`\langle \nabla_z J, z - t \rangle + w\, \partial J / \partial w = 0`, so that
    the mean's gradient, with the width moving, follows from that at a constant width, g:

    .. math:: g - \langle g, z - t \rangle \frac{\partial \log w}{\partial z}

    Args:
        rows: `(rows, n)`, of which each has a width of its own.
        present: what counts, of the same shape, bool.
        centre: t; None is for the mean, where none is distinguished.
    """

    def __init__(self, rows: Tensor, present: Tensor, centre: float | None = None):
        # One set that is not finite is no matter of the others.
        seen = rows.detach().masked_fill(~present, torch.nan)
        self._counted = seen.isfinite() & ~fill_values(seen)
        count = self._counted.sum(1, keepdim=True).clamp(min=1)
        #: `(rows, 1)`
        self.mean = rows.where(self._counted, 0.0).sum(1, keepdim=True) / count
        from_mean = (rows - self.mean).where(self._counted, 0.0)
        variance = from_mean.square().sum(1, keepdim=True) / count
        # But for rounding.
        varies = variance > (8 * torch.finfo(rows.dtype).eps) ** 2 * self.mean.square()
        variance = variance.where(varies, 1.0)
        #: `(rows, 1)`; 1 where nothing varies.
        self.deviation = variance.sqrt()
        self._from_centre = from_mean if centre is None else rows - centre
        # Of the width's logarithm.
        self._slope = from_mean.where(varies, 0.0) / (count * variance)

    def moving(self, gradient: Tensor) -> Tensor:
        """The gradient where the width moves, of one at a constant width.

        Args:
            gradient: of the rows' numbers, in any shape that has them in their order.
        """
        rows = gradient.reshape(self._slope.shape)
        along = (rows * self._from_centre).where(self._counted & rows.isfinite(), 0.0)
        moved = rows - along.sum(1, keepdim=True) * self._slope
        return moved.to(gradient).reshape(gradient.shape)
