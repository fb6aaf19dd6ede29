"""What a slope is worth as a control variate, by what draws said that it had not seen."""

import math

import torch
from torch import Tensor

# Weight of the newest call in the running sums: they tell of some 50 calls.
MOMENTUM = 0.02
# Calls without any measurement from which on what was learned counts for less and less.
PATIENCE = 50


class ControlVariate:
    r"""Regresses measured differences d on those h that slopes predict, for several slopes.

    What is handed back is :math:`c\,g + (d - c\,h)\,\epsilon / w`, where
    :math:`h = \langle w g, \epsilon \rangle` and :math:`\epsilon` is normal, of n numbers. As
    :math:`E[h\,\epsilon] = w g`, its noise (the trace of its covariance, in units of the width) is

    .. math:: E[d^2 |\epsilon|^2] - |E[d\,\epsilon]|^2
              - 2 c\, E[(|\epsilon|^2 - 1)\, d h] + c^2\, E[(|\epsilon|^2 - 1)\, h^2]

    and it is least not at the regression of d on h, but where both are weighed by
    :math:`|\epsilon|^2 - 1`. Of many numbers that is nearly the same; of one or two it is not: a
    metric in steps grows no further where a draw is far, and there the slope says too much.

    Args:
        count: how many slopes.
        numbers: n; infinite where draws are no Gaussian noise, and the weights are 1.
    """

    def __init__(self, count: int, device: torch.device, numbers: float = math.inf):
        self.numbers = numbers
        #: Running means, `(slopes, 5)`: of d h and h h; and weighed, of d h, h h and d d.
        self.sums = torch.zeros(count, 5, dtype=torch.float32, device=device)
        #: Calls since the last measurement.
        self.age = 0

    def take(self, differences: Tensor, predicted: Tensor, squares: Tensor | None = None) -> None:
        """Takes what a call's draws said.

        Args:
            differences: d, `(n,)`.
            predicted: what the slopes made of them, h, `(slopes, n)`.
            squares: means of the noise's squares, :math:`|\\epsilon|^2 / n`, `(n,)`; None is 1.
        """
        self.age = 0
        d = differences.to(predicted)
        usable = d.isfinite() & predicted.isfinite().all(0)
        d, h = d.where(usable, 0.0), predicted.where(usable, 0.0)
        m = torch.ones_like(d) if squares is None else squares.to(d)
        weights = m - 1 / self.numbers
        dh, hh = d * h, h.square()
        of_d = (m @ d.square()).expand(len(h))
        new = torch.stack([dh.sum(1), hh.sum(1), dh @ weights, hh @ weights, of_d], 1)
        new = new / usable.sum().clamp(min=1)
        # One wild sample must not spoil the sums for good.
        self.sums = torch.where(
            new.isfinite().all(), torch.lerp(self.sums, new, MOMENTUM), self.sums
        )

    @property
    def weights(self) -> Tensor:
        """The coefficients c that leave least noise, 0 to 1, `(slopes,)`."""
        _, _, dh, hh, _ = self.sums.unbind(1)
        return _share(dh, hh) * self._fresh

    @property
    def confirmed(self) -> Tensor:
        """How far slopes are the gradient itself, 0 to 1, `(slopes,)`: the regression of d on h."""
        dh, hh, *_ = self.sums.unbind(1)
        return _share(dh, hh) * self._fresh

    @property
    def _fresh(self) -> float:
        """Falls without measurements for long: no evidence is not old evidence."""
        return float((1 - MOMENTUM) ** max(0, self.age - PATIENCE))

    @property
    def r2(self) -> Tensor:
        """Shares of the gradient's noise that the slopes take away, `(slopes,)`.

        1 leaves none, 0 all; below 0 is the share that the opposite slope would take.
        """
        product, square, dh, hh, dd = self.sums.unbind(1)
        # The squared mean is at least what the slopes themselves have of it.
        mean = torch.where(square > 0, product.square() / square, 0.0) / self.numbers
        noise = hh * (dd - mean)
        return torch.where(noise > 0, dh * dh.abs() / noise, 0.0).clamp(-1, 1)

    def to(self, device: torch.device) -> None:
        self.sums = self.sums.to(device)


def _share(product: Tensor, square: Tensor) -> Tensor:
    return torch.where(square > 0, product / square, 0.0).clamp(0, 1)
