"""Tasks of metrics that judge a set, a list, a batch's labels or a mask; what measures them."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .._batch import Batch
from .._contract import hooks
from .._estimator import Draws, KnownDraws
from .._evaluation.measurement import Measurement
from .._learning.sync import Sync
from .._measured.draws import half_differences
from .._measured.regressed import EAGER, Regressed
from .._metric.metric import Metric
from .._recipe import Recipe
from .._state.tensors import Faults
from .._support.checks import check_positive
from .._support.moderate import bounded
from .._support.precision import at_least_float32
from .._support.transfer import send
from .._task import MeasuredTask
from .correction import Correction
from .known import Known, Parts, SetDraws
from .spread import Spread

# Differences without a column in which each column is doubted.
RIDGE = 1.0
# Share of the metric's differences that must be known for draws to be left out, as far as they are
# not worth their noise: where it is less, what is known may lead anywhere.
LEAST_KNOWN = 0.05
# Times as much as in a call that is measured before the first, as the weights begin at nothing.
AHEAD = 4

#: The mean of a metric's error under noise, `(sets,)`: of a batch, a prediction and the width.
ClosedForm = Callable[[Any, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class SetBatch(Batch):
    """Sets, each of which is a sample.

    Attributes:
        prediction: `(sets, ...)`.
        target: `(sets, ...)`.
        present: what of a set's target counts, of its shape, bool.
        call: the prediction as it was handed over.
        shape: of the sets as they were handed over, for `reduction="none"`.
    """

    present: Tensor
    call: Tensor
    shape: torch.Size

    @property
    def whole(self) -> Tensor:
        return self.call

    def replaced(self, prediction: Tensor) -> Tensor:
        return prediction.reshape(self.call.shape)

    def reduce(self, value: Tensor, reduction: str) -> Tensor:
        # One set without members has no value, and is a mean of none.
        nothing = not self.shape and not len(value)
        value = super().reduce(value, "mean" if nothing and reduction == "none" else reduction)
        return value.reshape(self.shape) if reduction == "none" else value


SetType = TypeVar("SetType", bound=SetBatch)


class SetTask(MeasuredTask[SetType]):
    """Sets whose metric's gradient is measured under Gaussian noise, and partly known.

    Args:
        noise: standard deviation of the noise, in those of the predictions (see `spread`).
    """

    surrogates = ("auto", "none")
    fits_values = "task=Tensors(smoothing=0)"
    draws = 2
    # Libraries' metrics of one set take several for something else, such as labels.
    batched = False
    target_is_good = True
    #: What is known of draws, in words, and how many scores that makes.
    known: str
    columns: int

    def __init__(self, *, noise: float):
        check_positive("noise", noise, "without any, the metric has no gradient")
        self.noise = noise

    @abstractmethod
    def parts(self, batch: SetType, z: Tensor, width: Tensor) -> Parts:
        """What is known of sets under noise of this width around z."""

    def closed_form(self, metric: Metric) -> ClosedForm | None:
        """The mean of a metric's error, where that is known; found by the metric's identity."""
        return None

    def present_part(self, tensor: Tensor, batch: SetType) -> Tensor:
        """A tensor `(..., *prediction)`, 0 where nothing is present."""
        return tensor.where(batch.present, 0.0)

    @abstractmethod
    def spread(self, z: Tensor, batch: SetType) -> Spread:
        """By which the noise is measured: of each set, or of the call, whose sets share it."""

    def estimator(
        self,
        metric: Metric,
        recipe: Recipe,
        surrogate: str | nn.Module,
        sync: Sync,
        random: torch.Generator,
    ) -> "PartlyKnown[SetType]":
        self.refuse_module(surrogate)
        return PartlyKnown(self, metric, recipe, sync, random, learns=surrogate == "auto")

    def draws_of(self, metric: Metric) -> int:
        return self.draws if self.closed_form(metric) is None else 0

    def check_draws(self, count: int, metric: Metric) -> None:
        if count % 2 or (count == 0 and self.closed_form(metric) is None):
            raise ValueError(
                f"draws={count}: draws around a set come in pairs, at least one: give 2, 4, ..."
            )


class PartlyKnown(Regressed[SetType]):
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
        task: SetTask[SetType],
        metric: Metric,
        recipe: Recipe,
        sync: Sync,
        random: torch.Generator,
        *,
        learns: bool,
    ):
        columns = task.columns if learns else 0
        ridge = torch.full((columns,), RIDGE, dtype=torch.float64, device="cpu")
        super().__init__(ridge, recipe, sync, random)
        self.task = task
        self.metric = metric
        self.known_of = task.known
        self.ahead = AHEAD if learns else 0
        self._correction = Correction()

    def draw(self, batch: SetType, count: int) -> Draws:
        z, spread, width = self._around(batch)
        if not count:
            return self._known_draws(batch, z, spread, width)
        noise = self._noise(batch, (count // 2, *z.shape), self.random)
        drawn = [z + sign * each.to(z) * width for each in noise for sign in (1, -1)]
        known = Known(self.task.parts(batch, z, width), z) if self.learns else None
        columns = torch.zeros(*noise.shape[:2], 0, dtype=torch.float32, device="cpu")
        if known is not None:
            columns = known.columns(drawn).float().cpu()
        pairs = [hooks.decode(self.task, replace(batch, prediction=each)) for each in drawn]
        weights, share = self.regression.weights, self.weight
        weights = share * weights
        return SetDraws(pairs, noise, width.float(), spread, known, columns, weights, share)

    def _known_draws(self, batch: SetType, z: Tensor, spread: Spread, width: Tensor) -> KnownDraws:
        closed_form = self.task.closed_form(self.metric)
        assert closed_form is not None
        with torch.enable_grad():
            z = z.requires_grad_()
            values = closed_form(batch, z, width)
            # A set of which the metric is not defined counts as the mean of the others.
            undefined = values.isnan() & self.finite(batch)
            known = values.where(~undefined, 0.0)
            mean = known.sum() / (~undefined).sum().clamp(min=1)
            values = known.where(~undefined, mean)
            (gradient,) = torch.autograd.grad(values.sum(), z)
        return KnownDraws(values.detach().float(), spread.moving(gradient).float(), undefined)

    def sample_with_score(self, batch: SetType, random: torch.Generator) -> tuple[Any, Any, Tensor]:
        z, _, width = self._around(batch)
        noise = self._noise(batch, z.shape, random)
        predictions, targets = hooks.decode(
            self.task, replace(batch, prediction=z + noise.to(z) * width)
        )
        return predictions, targets, noise / width.float()

    def from_scores(self, products: Tensor, batch: SetType) -> Tensor:
        return self._around(batch)[1].moving(products)

    def differences(self, values: Tensor) -> Tensor:
        return half_differences(values)

    def finite(self, batch: SetType) -> Tensor:
        z = self.task.present_part(batch.prediction.detach(), batch).flatten(1)
        return (z.isfinite() | z.isneginf()).all(1)

    def responses(self, measured: Measurement) -> Tensor:
        return half_differences(measured.by_sample[:, measured.usable])

    def _around(self, batch: SetType) -> tuple[Tensor, Spread, Tensor]:
        """Predictions in 32 or 64 bits, 0 where nothing is present, and the noise's width."""
        z = batch.prediction.detach()
        z = self.task.present_part(at_least_float32(z), batch)
        # What is masked with minus infinity is as with the lowest number there is.
        z = bounded(z.where(~z.isneginf(), torch.finfo(z.dtype).min))
        spread = self.task.spread(z, batch)
        return z, spread, self.task.noise * spread.deviation

    def _noise(self, batch: SetType, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
        noise = torch.randn(shape, generator=random, dtype=torch.float32, device="cpu")
        # Half precision has no room for what is small or large beside it.
        noise = self.task.present_part(send(noise, batch.prediction.device), batch)
        return noise.masked_fill_(batch.prediction.detach().isneginf(), 0.0)

    # What the draws correct by

    def correction(self, given: float | None) -> float:
        if given is not None:
            return given
        # Where next to nothing is known, nothing is corrected: there are the draws alone.
        return self._correction.share if self.r2 >= LEAST_KNOWN else 1.0

    def weigh(self, batch: SetType, correction: Tensor) -> None:
        due = self.calls < EAGER or (self.calls + 1) % self.recipe.fit.every == 0
        if self.learns and due:
            self._correction.read(batch, correction)

    def look(self) -> Any:
        return super().look(), self._correction.look()

    def restore(self, looked: Any) -> None:
        learned, correction = looked
        super().restore(learned)
        self._correction.restore(correction)

    # What is told

    @property
    def silent_advice(self) -> str:
        return f"the noise may be too small: give {self.task!r} a larger noise="

    def describe(self) -> list[str]:
        if self.follows:
            return ["expected metric: known in closed form, followed from the first call"]
        known = self.task.known if self.learns else "nothing, measured only"
        return [f"draws: {self.recipe.draws} a set", f"known of them: {known}"]

    # Where it lives

    def to(self, device: torch.device) -> None:
        super().to(device)
        self._correction.quality.to(device)

    def save(self, *, with_replay: bool) -> dict[str, Tensor]:
        return super().save(with_replay=with_replay) | self._correction.save()

    def faults(self, state: dict[str, Tensor]) -> Faults:
        own = {key: value for key, value in state.items() if key.startswith("correction.")}
        rest = {key: value for key, value in state.items() if key not in own}
        return self._correction.faults(own) + super().faults(rest)

    def load(self, state: dict[str, Tensor]) -> Faults:
        self._correction.load(state, self.device)
        return super().load(state)
