"""What is known of draws around sets, and the gradient that they tell with it."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .._estimator import Draws
from .._evaluation.measurement import Measurement
from .._measured.draws import half_differences
from .._support.transfer import send
from .spread import Spread


class Parts(ABC):
    """Numbers of a drawn prediction whose means are known, such as ranks or counts of hits.

    Of a batch of sets. Most metrics of a set are functions of a few such numbers. What a metric is
    of them need not be known: usual `scores` of them stand for it, and are weighed by regression.
    """

    @abstractmethod
    def means(self, z: Tensor) -> Tensor:
        """`(sets, numbers)`, the means under the noise around z; exact, and differentiable."""

    @abstractmethod
    def of(self, drawn: Tensor) -> Tensor:
        """`(sets, numbers)` of a drawn prediction."""

    @abstractmethod
    def scores(self, numbers: Tensor) -> Tensor:
        """`(sets, columns)`, differentiable functions of `(sets, numbers)`."""


class Known:
    r"""What is known of draws: scores of their parts, to first order.

    With numbers b of a draw s, their means m(z) = E[b(s)], and scores M, column k of a draw is
    :math:`\langle \nabla M_k(m), b(s) \rangle`, with the slope held where it is. The gradient of
    its mean is that of :math:`M_k(m(z))`, which is the domain's closed form (soft counts in the
    place of counts, expected ranks in the place of ranks), and it is exact: whatever is not linear
    in M is left to the draws.
    """

    def __init__(self, parts: Parts, z: Tensor):
        self.parts = parts
        with torch.enable_grad():
            self._z = z.detach().requires_grad_()
            self._means = parts.means(self._z)
            means = self._means.detach().requires_grad_()
            each = parts.scores(means).unbind(1)
            slopes = [torch.autograd.grad(m.sum(), means, retain_graph=True)[0] for m in each]
        #: `(sets, columns, numbers)`
        self._slopes = torch.stack(slopes, 1)

    def columns(self, drawn: list[Tensor]) -> Tensor:
        """Half differences of antithetic pairs, `(pairs, sets, columns)`.

        Args:
            drawn: predictions, each followed by its opposite.
        """
        numbers = half_differences(torch.stack([self.parts.of(each) for each in drawn]))
        return torch.einsum("bkn,pbn->pbk", self._slopes, numbers)

    def gradient(self, weights: Tensor) -> Tensor:
        """Of the weighed columns' means, of z's shape.

        Args:
            weights: `(columns,)`.
        """
        upstream = torch.einsum("bkn,k->bn", self._slopes, send(weights, self._z).to(self._slopes))
        (gradient,) = torch.autograd.grad(self._means, self._z, upstream, retain_graph=True)
        return gradient


class SetDraws(Draws):
    """Antithetic pairs around sets, and what is known of them.

    Args:
        pairs: what the metric gets.
        noise: of standard deviation 1, 0 where nothing is present: `(pairs, sets, ...)`.
        width: to be broadcast to a prediction.
        spread: with which it moves.
        known: what is known; None for nothing.
        columns: `(pairs, sets, columns)`, on the CPU.
        weights: of the columns, scaled by how far they were confirmed, `(columns,)`.
        share: how far that is, 0 to 1.
    """

    def __init__(
        self,
        pairs: list[tuple[Any, Any]],
        noise: Tensor,
        width: Tensor,
        spread: Spread,
        known: Known | None,
        columns: Tensor,
        weights: Tensor,
        share: float,
    ):
        self.pairs = pairs
        self.noise = noise
        self.width = width
        self.spread = spread
        self.known = known
        self.seen = (columns,)
        self._columns = columns
        self._weights = weights
        self._share = share

    @cached_property
    def _told(self) -> Tensor | None:
        if self.known is None or not self._share:
            return None
        return self.spread.moving(self.known.gradient(self._weights)).float()

    def known_gradient(self) -> tuple[Tensor, float] | None:
        return None if self._told is None else (self._told, self._share)

    def gradient(self, measured: Measurement) -> tuple[Tensor, Tensor]:
        r"""With half differences d of the metric's, and h of what is known:

        .. math:: \nabla E[h] + (d - h)\, \epsilon / w

        which has the same mean for every h whose mean's gradient is known (`score_function`); and
        with what it owes to w (`Spread`).
        """
        rest = half_differences(measured.by_sample)
        rest, stands_for = measured.stand_in(rest)
        rest = rest - self._columns @ self._weights.float()
        rest = torch.where(stands_for > 0, stands_for * rest, 0.0) / len(rest)
        gradient = torch.einsum("pb,pb...->b...", send(rest, self.noise), self.noise) / self.width
        gradient = self.spread.moving(gradient)
        return torch.zeros_like(gradient) if self._told is None else self._told, gradient
