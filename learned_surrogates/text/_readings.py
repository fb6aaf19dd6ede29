"""A metric's mean over the readings that a recogniser may draw, and its gradient."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .._estimator import Draws, KnownDraws
from .._evaluation.measurement import Context, Measurement
from .._learning.sync import Sync
from .._measured.regressed import Regressed
from .._measured.score_function import centred
from .._metric.metric import Metric
from .._recipe import Recipe
from .._support.precision import at_least_float32
from ._controls import FACTORS, Controls
from ._expected_edit_distance import ExpectedEditDistance, expected_distances
from ._known_distance import known_distance
from ._likeliest_draws import LikeliestDraws
from ._reading_draws import ReadingDraws
from ._text_task import TextBatch, TextTask
from ._usual_metrics import AKIN, USUAL, usual_values

LIKELIEST = "likeliest readings of a sample"
LATE = (
    "of the likeliest readings nothing is known before the metric's values are there, so that a "
    "call must wait for these: executor=Workers(..., lag=0), or leave likeliest=True out"
)
FITTED = (
    "likeliest=True is for a measured gradient, and this surrogate is fitted to the metric's "
    "values: leave one of them out"
)
# Share of the targets' characters that a model must read right for the metric to lead it.
READS = 0.5


class Readings(Regressed[TextBatch]):
    r"""Measures the gradient of :math:`E_{s \sim p}[e(s, y)]`, p the model's own distribution.

    At random readings, with what is known of them as control variates (see `Controls`), whose
    weights are regressed on the measured differences of earlier calls. Where the metric is an edit
    distance, everything is known, and nothing is drawn unless that is asked for.

    Args:
        task: the task.
        known: the metric's expected value in closed form; None where there is none.
        recipe: how much is drawn.
        learns: whether the controls are used.
        akin: whether the usual loss is known to lead to the metric.
        sync: the processes that learn together.
        random: a generator on the CPU, the only source of chance.
    """

    unit, known_of = "readings a sample", "readings"

    def __init__(
        self,
        task: TextTask,
        known: ExpectedEditDistance | None,
        recipe: Recipe,
        sync: Sync,
        random: torch.Generator,
        *,
        learns: bool,
        akin: bool,
    ):
        ridge = Controls.ridge(task) if learns else torch.zeros(0, device="cpu")
        super().__init__(ridge, recipe, sync, random, beside=len(USUAL) if learns else 0)
        self.task = task
        self.known = known
        self.akin = akin

    def draw(self, batch: TextBatch, count: int) -> Draws:
        if not count:
            return self._known_draws(batch)
        if self.task.likeliest:
            # Those that a call has, whoever asks for more.
            return LikeliestDraws(self.task, batch, min(count, self.recipe.draws))
        drawn = self.task.random_classes(batch, count, self.random)
        controls = Controls(self.task, batch) if self.learns else None
        weights, share = self.regression.weights, self.weight
        draws = ReadingDraws(self.task, batch, drawn, controls, weights, share)
        if self.learns:
            # Of a usual metric, too: what is learned must not depend on its name.
            usual = centred(usual_values(draws.pairs))
            draws.seen = (torch.cat([draws.columns, usual], 2),)
        return draws

    def _known_draws(self, batch: TextBatch) -> KnownDraws:
        assert self.known is not None
        z = batch.prediction.detach()
        z = at_least_float32(z).requires_grad_()
        with torch.enable_grad():
            values = self.known.of(replace(batch, prediction=z, logits=self.task.logits(z)))
            (gradient,) = torch.autograd.grad(values.sum(), z)
        return KnownDraws(values.detach().float(), gradient.float())

    def sample_with_score(
        self, batch: TextBatch, random: torch.Generator
    ) -> tuple[Any, Any, Tensor]:
        return self.task.sample_with_score(batch, random)

    def errors(self, measured: Measurement, seen: Context) -> Tensor:
        if not self.task.likeliest:
            return measured.mean
        (shares,) = seen
        return (shares.cpu() * measured.by_sample).sum(0).where(measured.usable, torch.nan)

    def finite(self, batch: TextBatch) -> Tensor:
        # Classes may be masked with minus infinity.
        return batch.probabilities.where(batch.present[:, None], 0.0).flatten(1).isfinite().all(1)

    def base_loss_leads(self, batch: TextBatch, draws: Draws) -> bool | None:
        """Whether the base loss must lead: most characters are read wrong."""
        if isinstance(draws, ReadingDraws) and draws.controls is not None:
            distances = draws.controls.distance
        else:
            with torch.no_grad():
                distances = expected_distances(self.task, batch)
        characters = sum(max(1, len(label)) for label in batch.labels)
        return bool(distances.nansum() > (1 - READS) * characters)

    # What is told

    @property
    def base_weight(self) -> float:
        akin = self.akin or (self.learns and float(self.control.r2[1:].max()) >= AKIN)
        return self.task.base_weight if akin else 0.0

    @property
    def verdict(self) -> str:
        if self.task.likeliest:
            return f"The gradient is that of the {self.recipe.draws} {LIKELIEST}"
        return super().verdict

    @property
    def silent_advice(self) -> str:
        if self.task.likeliest:
            return "it may not tell one likely reading from another"
        return "its outputs may be so sure that all readings are the same"

    def describe(self) -> list[str]:
        if self.follows:
            assert self.known is not None
            return [
                "expected metric: known in closed form, followed from the first call; "
                + self.known.way
            ]
        if self.task.likeliest:
            return [f"draws: the {self.recipe.draws} {LIKELIEST}, no random ones"]
        kinds = ["edit distance", "whether a text is right"]
        if self.learns and len(self.regression.ridge) > 2 * FACTORS:
            kinds.append("what each class is worth")
        known = ", ".join(kinds) if self.learns else "nothing, measured only"
        return [f"draws: {self.recipe.draws} {self.unit}", f"known of them: {known}"]


class ReadingTask(TextTask):
    """A recogniser's task, the metric's mean over whose random readings is followed."""

    def estimator(
        self,
        metric: Metric,
        recipe: Recipe,
        surrogate: str | nn.Module,
        sync: Sync,
        random: torch.Generator,
    ) -> Readings:
        # By identity: a metric may be any object, and compare as it likes.
        akin = any(metric.function is other for other in self.proxy_metrics)
        known = known_distance(self, metric)
        learns = surrogate == "auto" and not self.likeliest
        if self.likeliest and recipe.late:
            raise ValueError(LATE)
        return Readings(self, known, recipe, sync, random, learns=learns, akin=akin)

    def draws_of(self, metric: Metric) -> int:
        """None of a metric whose mean is known in closed form, or whose values are fitted.

        With `surrogate="none"` nothing shall be known, and the metric is drawn; so it is where the
        likeliest readings are asked for.
        """
        self._refuse_what_is_fitted()
        if not self.measured:
            return 0
        shall_be = self.surrogate != "none" and not self.likeliest
        return 0 if shall_be and known_distance(self, metric) is not None else self.draws

    def check_draws(self, count: int, metric: Metric) -> None:
        self._refuse_what_is_fitted()
        known = known_distance(self, metric) is not None and not self.likeliest
        none = count == 0 and known
        if self.measured and count < 2 and not none:
            raise ValueError(
                f"draws={count}: readings are compared with each other, so that there must be 2 or "
                f"more; or fit a surrogate to the metric's values, {self.fits_values}"
            )

    def _refuse_what_is_fitted(self) -> None:
        if self.likeliest and not self.measured:
            raise ValueError(FITTED)
