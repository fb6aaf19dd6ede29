"""The metric under Gaussian noise on the prediction: draws, and the surrogate that quiets them."""

from typing import Any

import torch
from torch import Tensor, nn

from .._batch import Batch
from .._estimator import Draws, Estimator
from .._evaluation.measurement import Context, Measurement
from .._learning.replay_buffer import ReplayBuffer
from .._learning.sync import Sync
from .._recipe import Recipe
from .._state.tensors import Faults, as_tensor, check_shapes, negative, not_finite
from .._task import Task
from . import slope_state
from .draws import AntitheticPairs, as_samples, draw, half_differences
from .expansion import Told
from .experience import Experience
from .score_function import measured_gradient
from .slope import LEAST_R2, ROWS, Slope
from .smoothing import Smoothing


class GaussianDraws(Draws):
    """Antithetic pairs around predictions, and what the surrogate tells there."""

    def __init__(
        self,
        batch: Batch,
        drawn: AntitheticPairs,
        told: Told | None,
        estimator: "Gaussian",
    ):
        self.drawn = drawn
        self.pairs = drawn.pairs
        self.target = shown(batch.target)
        predicted = drawn.z.new_zeros(0) if told is None else told.predicted
        self.seen = drawn.z, drawn.noise, drawn.width, predicted, batch.target
        self._slope = self._weighed = None
        if told is not None:
            weights = estimator.slope.control.weights[:, estimator.slope.best]
            predicted = predicted[:, estimator.slope.best]
            self._slope = told.pulls[estimator.slope.best].view(drawn.z.shape) / drawn.width
            self._weighed = weights[0] * self._slope, torch.tensordot(weights, predicted, 1)
        self._confirmed = estimator.slope.confirmed
        outputs = estimator.outputs_of(drawn.z) or torch.Size()
        #: Values a sample that the metric has.
        self._count = max(1, outputs.numel())

    def known_gradient(self) -> tuple[Tensor, float] | None:
        if self._slope is None:
            return None
        return self._confirmed * self._slope / self._count, float(self._confirmed)

    def gradient(self, measured: Measurement) -> tuple[Tensor, Tensor]:
        return measured_gradient(measured, self.drawn, self._weighed)


class Gaussian(Estimator[Any]):
    r"""Measures the gradient of :math:`E[e(z + w \epsilon, y)]`, :math:`\epsilon` normal.

    At antithetic pairs of draws, with the slope of a surrogate as a control variate (see
    `score_function.estimate`): never noisier than the draws alone, the quieter, the more it learns,
    and unbiased whatever the surrogate where all of their correction is taken.

    Args:
        task: makes of a moved prediction what the metric takes.
        smoothing: the noise's standard deviation, if it is given.
        recipe: how the surrogate is fitted.
        given: a form's name, a module, "auto" or "none".
        sync: the processes that fit it together.
        random: a generator on the CPU, the only source of chance.
    """

    def __init__(
        self,
        task: Task[Any],
        smoothing: float | Tensor | None,
        recipe: Recipe,
        given: str | nn.Module,
        sync: Sync,
        random: torch.Generator,
    ):
        self.task = task
        self.random = random
        self.recipe = recipe
        self.sync = sync
        self.smoothing = Smoothing(smoothing)
        self.slope = Slope(given, recipe.learning_rate, recipe.seed, sync)
        self.experience = Experience(recipe)

    @property
    def replay(self) -> ReplayBuffer:
        return self.experience.replay

    def follow(self, batch: Batch) -> None:
        self.smoothing.follow(batch.prediction.detach(), shown(batch.target))

    def draw(self, batch: Batch, count: int) -> GaussianDraws:
        drawn = draw(self.task, batch, self._width(batch), count, self.random)
        return GaussianDraws(batch, drawn, self._told(drawn, batch), self)

    def sample_with_score(self, batch: Batch, random: torch.Generator) -> tuple[Any, Any, Tensor]:
        drawn = draw(self.task, batch, self._width(batch), 2, random)
        return *drawn.pairs[0], drawn.noise[0] / drawn.width

    def differences(self, values: Tensor) -> Tensor:
        return half_differences(values)

    def correction(self, given: float | None) -> float:
        # A surrogate that tells nothing leaves the draws alone, and these count in full.
        return 1.0 if given is None or not self.r2 >= LEAST_R2 else given

    def check(self, draws: Draws, measured: Measurement) -> None:
        assert isinstance(draws, GaussianDraws)
        outputs = measured.values.shape[2:]
        self.slope.try_out(*as_samples(draws.drawn.z, draws.target, outputs))

    def observe(self, measured: Measurement, seen: Context) -> None:
        # The loss may have moved since.
        z, noise, width, predicted, target = (part.to(self.slope.device) for part in seen)
        self.experience.observe(
            measured,
            z,
            noise,
            width,
            predicted if len(predicted) else None,
            shown(target),
            self.slope,
            self.random,
        )

    def _width(self, batch: Batch) -> Tensor:
        z = batch.prediction.detach()
        if not self.smoothing.fits(z):
            self.follow(batch)
        return self.smoothing.width(z.float())

    def outputs_of(self, z: Tensor) -> torch.Size | None:
        """Those with a value each, `()` of one a sample; None where that is not known.

        As many dimensions as before: a net of single outputs serves any number of them. Samples of
        fewer dimensions have no such outputs.
        """
        known = self.experience.outputs
        return None if known is None or len(known) >= z.ndim else z.shape[1 : 1 + len(known)]

    def _told(self, drawn: AntitheticPairs, batch: Batch) -> Told | None:
        """By the surrogate's forms; None where there are none."""
        outputs = self.outputs_of(drawn.z)
        if outputs is None:
            return None
        samples, target = as_samples(drawn.z, shown(batch.target), outputs)
        if target is None or not self.slope.fits(samples, target):
            return None
        width = drawn.width.expand_as(drawn.z).reshape(samples.shape)
        noise = drawn.noise.reshape(-1, *samples.shape)
        return self.slope.tell(samples, target, noise, width, self.experience.size.most)

    # What is learned

    def learn(self, *, every: bool) -> None:
        slope = self.slope
        slope.control.age += 1
        self._make_if_wanted()
        if slope.forms and slope.calls == 0:
            self.update(self.experience.first_steps)
        elif slope.forms and (slope.eager or every):
            self.update(self.recipe.fit.steps)
        slope.select()

    @property
    def _fewest(self) -> int:
        # Where samples are large, or the user wants few of them kept, there are never more.
        return min(self.slope.rows, self.replay.capacity)

    @property
    def _enough(self) -> bool:
        """Whether a surrogate can be made of what there is."""
        return self.replay.size >= self._fewest

    def _make_if_wanted(self) -> None:
        """Makes the surrogate's forms, once there is something to make them by."""
        if self.slope.wanted and not self.sync.active and self._enough:
            self._make()

    def _make(self) -> None:
        rows = self.experience.sample(4 * ROWS, self.random)
        assert rows is not None
        self.slope.make(rows)

    def update(self, steps: int) -> None:
        """Fits the surrogate by some gradient steps."""
        self._make_if_wanted()
        for _ in range(steps):
            self.slope.fit(self.experience.sample(self.recipe.batch_size, self.random))
            self.updates += bool(self.slope.forms)

    # What is told

    @property
    def r2(self) -> float:
        return self.slope.r2

    @property
    def weight(self) -> float:
        return float(self.slope.weight)

    def stats(self) -> dict[str, Any]:
        return {"gradient/smoothing": self.smoothing.mean_width}

    @property
    def verdict(self) -> str:
        if self.r2 != self.r2:
            return (
                f"The gradient is measured by {self.recipe.draws} draws a sample, without a "
                "surrogate"
            )
        return (
            f"The gradient is measured by {self.recipe.draws} draws a sample. The surrogate "
            f"({self.slope.name}) takes {max(self.r2, 0):.0%} of their noise away"
        )

    @property
    def silent_advice(self) -> str:
        return (
            f"the noise, of standard deviation {self.smoothing.mean_width:.3g}, may be too "
            "small: give task=Tensors(smoothing=) a larger width"
        )

    def describe(self) -> list[str]:
        width = self.smoothing.mean_width
        shown = "not known before the first call" if width != width else f"{width:.3g}"
        return [
            f"draws: {self.recipe.draws} a sample, smoothing {shown}",
            f"surrogate: {self._describe_slope()}",
        ]

    def _describe_slope(self) -> str:
        slope = self.slope
        if slope.given == "none":
            return "none, measured only"
        if slope.forms:
            names = ", ".join(slope.names)
            return f"{names}, followed: {slope.name}" if len(slope.names) > 1 else names
        if slope.unsuited:
            return "no form fits these predictions and targets, measured only"
        if slope.resting:
            return "none earned its cost, measured only for now"
        known = f"{self.replay.size} of {self._fewest}"
        return f"not built: that follows the first calls, {known} differences are measured"

    # Where it lives

    def look(self) -> Any:
        return self.smoothing.look()

    def restore(self, looked: Any) -> None:
        self.smoothing.restore(looked)

    def to(self, device: torch.device) -> None:
        self.smoothing.to(device)
        self.slope.to(device)
        self.replay.to(device)

    def save(self, *, with_replay: bool) -> dict[str, Tensor]:
        own = {"updates": as_tensor(self.updates)}
        learned = slope_state.save(self.slope) | self.experience.save(with_replay=with_replay)
        return own | self.smoothing.save() | learned

    def faults(self, state: dict[str, Tensor]) -> Faults:
        made = slope_state.made(state)
        shapes = {"updates": ()} | self.smoothing.shapes(state)
        shapes |= slope_state.shapes(state, made=made) | self.experience.shapes(state, made=made)
        # Of forms and replay it is not known yet which keys there are.
        faults = check_shapes(state, shapes, beside=("replay.", *slope_state.OWN))
        faults += not_finite(state, slope_state.FINITE) + self.smoothing.impossible(state)
        faults += negative(state, shapes)
        return faults or self.experience.replay_faults(state)

    def load(self, state: dict[str, Tensor]) -> Faults:
        slope, faults = slope_state.load(state, self.slope)
        if not faults:
            self.slope, self.updates = slope, int(state["updates"])
            self.smoothing.load(state, slope.device)
            self.experience.load(state, slope.device)
        return faults

    # Several processes

    def offer(self) -> tuple[int, int, int]:
        able = self.replay.size if self.slope.wanted and self._enough else 0
        return int(bool(self.slope.forms)), able, int(self.slope.wanted)

    def shared(self) -> dict[str, Any]:
        if not self.slope.forms:
            self._make()
        return slope_state.shared(self.slope)

    def take(self, shared: dict[str, Any]) -> None:
        slope_state.take(self.slope, shared)


def shown(target: Tensor) -> Tensor | None:
    """Targets, if the surrogate can see them: those that are no tensor have no numbers."""
    return target if target[:1].numel() else None
