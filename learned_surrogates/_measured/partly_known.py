"""The metric of a set under Gaussian noise, where the means of what it is made of are known."""

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._estimator import Draws, KnownDraws
from .._evaluation.measurement import Measurement
from .._learning.sync import Sync
from .._metric.metric import Metric
from .._recipe import Recipe
from .._support.transfer import send
from .draws import half_differences
from .regressed import Regressed

if TYPE_CHECKING:
    from .._sets.task import SetBatch, SetTask

# Differences without a column in which each column is doubted.
DOUBT = 1.0


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
        known: Known | None,
        columns: Tensor,
        weights: Tensor,
        share: float,
    ):
        self.pairs = pairs
        self.noise = noise
        self.width = width
        self.known = known
        self.seen = (columns,)
        self._columns = columns
        self._weights = weights
        self._share = share

    @cached_property
    def _told(self) -> Tensor | None:
        if self.known is None or not self._share:
            return None
        return self.known.gradient(self._weights).float()

    def known_gradient(self) -> tuple[Tensor, float] | None:
        return None if self._told is None else (self._told, self._share)

    def gradient(self, measured: Measurement, correction: float) -> Tensor:
        r"""With half differences d of the metric's, and h of what is known:

        .. math:: \nabla E[h] + (d - h)\, \epsilon / w

        which has the same mean for every h whose mean's gradient is known (`score_function`).
        """
        sets = self.noise.shape[1]
        rest = half_differences(measured.by_sample).float().where(measured.usable, 0.0)
        stands_for = measured.usable.float()
        if measured.positions is not None:
            chosen, nothing = measured.positions, rest.new_zeros(len(rest), sets)
            stands_for = nothing[0].index_copy(0, chosen, stands_for * (sets / len(chosen)))
            rest = nothing.index_copy(1, chosen, rest)
        rest = rest - self._columns @ self._weights.float()
        rest = torch.where(stands_for > 0, correction * stands_for * rest, 0.0) / len(rest)
        gradient = torch.einsum("pb,pb...->b...", send(rest, self.noise), self.noise) / self.width
        return gradient if self._told is None else gradient + self._told


class PartlyKnown(Regressed[Any]):
    r"""Measures the gradient of :math:`E[e(z + w \epsilon, y)]` of sets, :math:`\epsilon` normal.

    At antithetic pairs, with what is known of sets as control variates (see `Known`). Where the
    metric's mean has a closed form, that is followed, and nothing is drawn unless asked for.

    Args:
        task: makes sets of predictions, and knows their parts.
        metric: what is measured, unless its mean has a closed form.
        learns: whether what is known is used.
        recipe, sync, random: as `Regressed` takes them.
    """

    unit = "draws a set"

    def __init__(
        self,
        task: "SetTask[Any]",
        metric: Metric,
        recipe: Recipe,
        sync: Sync,
        random: torch.Generator,
        *,
        learns: bool,
    ):
        columns = task.columns if learns else 0
        doubt = torch.full((columns,), DOUBT, dtype=torch.float64, device="cpu")
        super().__init__(doubt, recipe, sync, random)
        self.task = task
        self.metric = metric
        self.known_of = task.known

    def draw(self, batch: "SetBatch", count: int, *, follow: bool) -> Draws:
        z, width = self._around(batch)
        if not count:
            return self._known_draws(batch, z, width)
        noise = self._noise(batch, (count // 2, *z.shape), self.random)
        drawn = [z + sign * each.to(z) * width for each in noise for sign in (1, -1)]
        known = Known(self.task.parts(batch, z, width), z) if self.learns else None
        columns = torch.zeros(*noise.shape[:2], 0, dtype=torch.float32, device="cpu")
        if known is not None:
            columns = known.columns(drawn).float().cpu()
        pairs = [self.task.decode(replace(batch, prediction=each)) for each in drawn]
        weights, share = self.regression.weights, self.weight
        return SetDraws(pairs, noise, width.float(), known, columns, share * weights, share)

    def _known_draws(self, batch: "SetBatch", z: Tensor, width: Tensor) -> KnownDraws:
        closed_form = self.task.closed_form(self.metric)
        assert closed_form is not None
        with torch.enable_grad():
            z = z.requires_grad_()
            values = closed_form(batch, z, width)
            (gradient,) = torch.autograd.grad(values.sum(), z)
        return KnownDraws(values.detach().float(), gradient.float())

    def sample_with_score(
        self, batch: "SetBatch", random: torch.Generator
    ) -> tuple[Any, Any, Tensor]:
        z, width = self._around(batch)
        noise = self._noise(batch, z.shape, random)
        predictions, targets = self.task.decode(replace(batch, prediction=z + noise.to(z) * width))
        return predictions, targets, noise / width.float()

    def differences(self, values: Tensor) -> Tensor:
        return half_differences(values)

    def finite(self, batch: "SetBatch") -> Tensor:
        return self.task.present_part(batch.prediction.detach(), batch).flatten(1).isfinite().all(1)

    def responses(self, measured: Measurement) -> Tensor:
        return half_differences(measured.by_sample[:, measured.usable])

    def _around(self, batch: "SetBatch") -> tuple[Tensor, Tensor]:
        """Predictions in 32 or 64 bits, 0 where nothing is present, and the noise's width."""
        z = batch.prediction.detach()
        z = self.task.present_part(z.to(torch.promote_types(z.dtype, torch.float32)), batch)
        return z, self.task.width(z, batch)

    def _noise(self, batch: "SetBatch", shape: tuple[int, ...], random: torch.Generator) -> Tensor:
        noise = torch.randn(shape, generator=random, dtype=torch.float32, device="cpu")
        return self.task.present_part(send(noise, batch.prediction), batch)

    # What is told

    @property
    def silent_advice(self) -> str:
        return f"the noise may be too small: give {self.task!r} a larger noise="

    def describe(self) -> list[str]:
        if self.follows:
            return ["expected metric: known in closed form, followed from the first call"]
        known = self.task.known if self.learns else "nothing, measured only"
        return [f"draws: {self.recipe.draws} a set", f"known of them: {known}"]
