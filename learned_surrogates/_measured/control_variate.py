"""What is worth how much as a control variate, by what draws said that it had not seen."""

import math

import torch
from torch import Tensor

# Weight of the newest call in the running sums: they tell of some 50 calls.
MOMENTUM = 0.02
# Calls without any measurement from which on what was learned counts for less and less.
PATIENCE = 50
# Of slopes and waves that tell the same, no two weights can be found.
ALIKE = 1e-4


class ControlVariate:
    r"""Weighs what slopes and waves predict of measured differences d, for several slopes.

    What is handed back is :math:`c\,g + (d - c\,l - u\,v)\,\epsilon / w`, where :math:`\epsilon` is
    normal, of n numbers, :math:`l = \langle w g, \epsilon \rangle`, and the waves v correlate with
    none of these numbers (see `expansion`). As :math:`E[l\,\epsilon] = w g`, its noise (the trace
    of its covariance, in units of the width) is

    .. math:: E[(d - c\,l - u\,v)^2 |\epsilon|^2] - |E[d\,\epsilon]|^2
              + 2 c\, E[d\,l] - c^2\, E[l^2]

    and it is least not at the regression of d on l, but where squares and products of l are weighed
    by :math:`|\epsilon|^2 - 1`. Of many numbers that is nearly the same; of one or two it is not: a
    metric in steps grows no further where a draw is far, and there the slope says too much.

    Args:
        count: how many slopes.
        numbers: n; infinite where draws are no Gaussian noise, and the weights are 1.
    """

    def __init__(self, count: int, device: torch.device, numbers: float = math.inf):
        self.numbers = numbers
        #: Running means, `(slopes, 8)`: of d l and l l; and weighed, of d l, l l, d v, v v, l v
        #: and d d.
        self.sums = torch.zeros(count, 8, dtype=torch.float32, device=device)
        #: Calls since the last measurement.
        self.age = 0

    def take(
        self,
        differences: Tensor,
        predicted: Tensor,
        squares: Tensor | None = None,
        waves: Tensor | None = None,
    ) -> None:
        """Takes what a call's draws said.

        Args:
            differences: d, `(n,)`.
            predicted: what the slopes made of them, l, `(slopes, n)`.
            squares: means of the noise's squares, :math:`|\\epsilon|^2 / n`, `(n,)`; None is 1.
            waves: what the waves made of them, v, `(slopes, n)`; None is 0.
        """
        self.age = 0
        v = torch.zeros_like(predicted) if waves is None else waves
        d = differences.to(predicted)
        usable = d.isfinite() & (predicted + v).isfinite().all(0)
        d, line, v = (part.where(usable, 0.0) for part in (d, predicted, v))
        m = torch.ones_like(d) if squares is None else squares.to(d)
        dl, ll, less = d * line, line.square(), m - 1 / self.numbers
        weighed = [dl @ less, ll @ less, (d * v) @ m, v.square() @ m, (line * v) @ m]
        of_d = (m @ d.square()).expand(len(line))
        new = torch.stack([dl.sum(1), ll.sum(1), *weighed, of_d], 1)
        new = new / usable.sum().clamp(min=1)
        # One wild sample must not spoil the sums for good.
        self.sums = torch.where(
            new.isfinite().all(), torch.lerp(self.sums, new, MOMENTUM), self.sums
        )

    @property
    def weights(self) -> Tensor:
        """The coefficients c and u that leave least noise, 0 to 1, `(2, slopes)`."""
        return self._bounded.clamp(min=0) * self._fresh

    @property
    def confirmed(self) -> Tensor:
        """How far slopes are the gradient itself, 0 to 1, `(slopes,)`: the regression of d on l."""
        dl, ll, *_ = self.sums.unbind(1)
        return _share(dl, ll).clamp(min=0) * self._fresh

    @property
    def _fresh(self) -> float:
        """Falls without measurements for long: no evidence is not old evidence."""
        return float((1 - MOMENTUM) ** max(0, self.age - PATIENCE))

    @property
    def _least_noise(self) -> Tensor:
        """c and u without bounds; c alone unless both are positive and can be told apart."""
        _, _, *products, dd = self.sums.unbind(1)
        # Of large or small differences, float32 has no room for products of four.
        dl, ll, dv, vv, lv = (product / dd for product in products)
        apart = ll * vv - lv.square()
        c, u = dl * vv - dv * lv, dv * ll - dl * lv
        both = (apart > ALIKE * ll * vv) & (c > 0) & (u > 0)
        alone = torch.stack([torch.where(ll > 0, dl / ll, 0.0), torch.zeros_like(dl)])
        return torch.where(both, torch.stack([c, u]) / apart, alone)

    @property
    def _bounded(self) -> Tensor:
        """c, -1 to 1, and u, 0 to 1: `(2, slopes)`. An opposed slope has no waves beside it."""
        _, _, dl, ll, dv, vv, lv, _ = self.sums.unbind(1)
        u = self._least_noise[1].clamp(0, 1)
        # Where one is at its bound, the other is the best beside that.
        c = _share(dl - u * lv, ll)
        c = torch.where(u > 0, c.clamp(min=0), c)
        u = torch.where(u > 0, _share(dv - c * lv, vv).clamp(min=0), 0.0)
        return torch.stack([c, u])

    @property
    def r2(self) -> Tensor:
        """Shares of the gradient's noise that slopes and waves take away, `(slopes,)`.

        1 leaves none, 0 all; below 0 is the share that the opposite slope would take.
        """
        product, square, dl, ll, dv, vv, lv, dd = self.sums.unbind(1)
        # The squared mean is at least what the slopes themselves have of it.
        mean = torch.where(square > 0, product / square * product, 0.0) / self.numbers
        c, u = self._bounded
        taken = c * (2 * dl - c * ll) + u * (2 * dv - u * vv - 2 * c * lv)
        taken = torch.where(c < 0, -taken, taken)
        return torch.where(dd > mean, taken / (dd - mean), 0.0).clamp(-1, 1)

    def to(self, device: torch.device) -> None:
        self.sums = self.sums.to(device)


def _share(product: Tensor, square: Tensor) -> Tensor:
    return torch.where(square > 0, product / square, 0.0).clamp(-1, 1)
