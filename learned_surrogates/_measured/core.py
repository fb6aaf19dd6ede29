"""One call of the loss where the metric's gradient is measured."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._base_loss import Base
from .._budget import choose
from .._evaluations import Evaluation, Evaluations, Measurement, Seen
from .._history import History
from .._island import island
from .._metric import Metric
from .._processes import Stream
from .._recipe import Recipe
from .._replay import Replay
from .._state_tensors import Faults
from .._sync import Sync
from .._task import Batch, Task
from .._transfer import send
from .._warnings import warn
from . import state
from .bounded import bounded_slopes
from .draws import Draws, as_samples, draw, half_differences
from .estimator import measured_gradient
from .experience import Experience
from .quality import Quality
from .slope import FEWEST_ROWS, FIRST_STEPS, Slope
from .smoothing import Smoothing
from .together import agree

# Signal over noise of a step below which a base loss has led as far as it does.
SPENT = 0.05
# Calls after which it is done without, where that cannot be read.
UNREAD = 100
# Noise from the user's own seed could be the very numbers that predictions were drawn from.
SALT = 0x2545F4914F6CDD1D
# Seed of the draws of a gradient that is checked.
CHECKED = 2**40
# Calls in a row without any difference after which the user is warned.
PATIENCE = 100

REMEMBERED = (
    "calls",
    "updates",
    "metric",
    "surrogate/r2",
    "surrogate/weight",
    "gradient/worth",
    "gradient/signal_to_noise",
    "base_loss/cosine",
    "base_loss/cosine_error",
)
SILENT = (
    "for {calls} calls the metric of all draws around a prediction was the same, so that there is "
    "nothing to follow: the model may be too far from where the metric tells good from bad, or the "
    "noise, of standard deviation {width:.3g}, may be too small. {remedy}, or give "
    "task=Tensors(smoothing=) a larger width"
)
NOTHING = (
    "for {calls} calls the metric's values came after their call, and there is neither a surrogate "
    "nor a base loss to follow meanwhile: the gradient was zero. Give base_loss=, or let the call "
    "wait for its values: executor=Workers(..., lag=0)"
)
REMEDIES = {
    True: "Meanwhile the base loss trains the model",
    False: "Give base_loss= the loss that is usual for such outputs, which leads until the metric "
    "does, or train the model with it first",
}


class MeasuredCore:
    r"""Hands back the gradient of :math:`E[e(z + w \epsilon, y)]`, :math:`\epsilon` normal.

    Measured at draws, with the surrogate's slope as a control variate (see `estimate`): unbiased
    whatever the surrogate, never noisier than the draws alone, and the quieter, the more it learns.

    Not an `nn.Module`, nor does it hold anything where the loss's `parameters()`, `buffers()` or
    `modules()` would find it: an optimizer given those would minimise the surrogate instead of
    fitting it, and wrappers for distributed training would synchronise or shard it.
    """

    def __init__(
        self, task: Task[Any], metric: Metric, recipe: Recipe, given: str | nn.Module, sync: Sync
    ):
        self.task = task
        self.metric = metric
        self.recipe = recipe
        self.sync = sync
        self.device = torch.device("cpu")
        self.random = Stream()
        self.random.manual_seed(recipe.seed ^ SALT)
        self.evaluations = Evaluations(metric, recipe.executor)
        self.smoothing = Smoothing(task.smoothing)
        self.slope = Slope(given, recipe.learning_rate, recipe.seed, sync)
        self.experience = Experience(metric, recipe)
        self.quality = Quality()
        self.history = History(REMEMBERED)
        self.calls = self.updates = self.silent_calls = 0
        #: Whether there was a base loss at the last call, and whether it leads.
        self.has_base_loss, self.leading = False, True
        self.metric_seconds = self.update_seconds = 0.0

    @property
    def replay(self) -> Replay:
        return self.experience.replay

    # A call

    def call(
        self, batch: Batch, base: Base, *, differentiable: bool, learning: bool
    ) -> tuple[Tensor, Tensor | None, bool]:
        """The errors `(batch,)`, and the gradient to hand back.

        Args:
            batch: as the task read it.
            base: gives the base loss's gradient; None without one.
            differentiable: whether a gradient is asked for. Else errors are those of the
                predictions as they are, and of draws around them otherwise.
            learning: whether the loss learns from the call.

        Returns:
            Errors, gradient of the prediction's shape if there is one, and whether there are new
            figures.

        Raises:
            MetricError: the metric failed; nothing has changed.
        """
        # An empty batch counts where other processes may have a full one.
        learning = learning and (len(batch.target) > 0 or self.sync.active)
        self.has_base_loss = base is not None
        with island(self.device):
            if not learning:
                with self._unchanged(always=True):
                    return *self._look(batch, base, differentiable), False
            self.sync.failure = None
            with self._unchanged():
                agree(self)
                if not len(batch.target):
                    gradient = torch.zeros_like(batch.prediction, dtype=torch.float32)
                    evaluation, seen = None, None
                    value = gradient.new_zeros(0)
                else:
                    self.smoothing.follow(batch.prediction.detach().float(), _tensor(batch))
                    draws = draw(
                        self.task, batch, self._width(batch), self.recipe.draws, self.random
                    )
                    evaluation = self._measure(batch, draws)
                    slopes = self._slopes(draws.z, batch)
                    measured = None if evaluation is None else evaluation.measured
                    if measured is not None and not self.calls:
                        outputs = measured.values.shape[2:]
                        self.slope.try_out(*as_samples(draws.z, _tensor(batch), outputs))
                    if measured is not None:
                        self._warn_if_silent(measured, base)
                    value, gradient = self._followed(
                        batch, draws, measured, slopes, base, learning=True
                    )
                    nothing = torch.zeros(0, device=self.device)
                    told = nothing if slopes is None else slopes
                    seen = draws.z, draws.deviations, told, batch.target
            self.calls += 1
            self._take_in(batch, evaluation, seen)
            self._hand_over()
            news = self._learn()
        return value, gradient, news

    def give_up(self) -> None:
        """Raises what the metric raised in a call, once all processes know."""
        self.sync.give_up()

    def warn_if_idle(self) -> None:
        """In evaluation mode gradients are measured as ever: nothing to warn of."""

    # What a gradient check asks for

    #: Whether there is a mean over draws, and its gradient can be measured.
    expects = scores = True

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A context that leaves no trace of what was only looked at."""
        with self._unchanged(always=True):
            yield

    def first_look(self, batch: Batch, errors: Tensor) -> None:
        """There are no doubts about plain tensors."""

    def sample(self, batch: Batch, random: torch.Generator) -> tuple[Any, Any]:
        """A draw, as the metric takes it."""
        return self.scored_sample(batch, random)[:2]

    def scored_sample(self, batch: Batch, random: torch.Generator) -> tuple[Any, Any, Tensor]:
        """A draw, and the gradient of its log-likelihood with respect to the prediction."""
        width = self._width(batch)
        draws = draw(self.task, batch, width, 2, random)
        return *draws.pairs[0], draws.deviations[0] / draws.width.square()

    def gradient(self, batch: Batch, draws: int) -> Tensor:
        """What a call hands back, measured by so many draws; changes nothing."""
        with island(self.device), self._unchanged(always=True):
            # Not the stream from which others draw to judge it.
            self.random.manual_seed(CHECKED)
            return self._look(batch, None, True, draws - draws % 2)[1]  # type: ignore[return-value]

    def _look(
        self, batch: Batch, base: Base, differentiable: bool, count: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """A call from which nothing is learned; waits for the metric."""
        size = len(batch.target)
        if not differentiable:
            if not size:
                return batch.prediction.detach().float().new_zeros(0), None
            with torch.no_grad():
                measured = self._now([self.task.decode(batch)], size)
            return self._values(measured, _finite(batch.prediction)), None
        z = batch.prediction.detach().float()
        if not size:
            return z.new_zeros(0), torch.zeros_like(z)
        draws = draw(self.task, batch, self._width(batch), count or self.recipe.draws, self.random)
        measured = self._now(draws.pairs, size)
        return self._followed(batch, draws, measured, self._slopes(z, batch), base, learning=False)

    def _width(self, batch: Batch) -> Tensor:
        z = batch.prediction.detach().float()
        if self.smoothing.given is None and self.smoothing.moments is None:
            self.smoothing.follow(z, _tensor(batch))
        return self.smoothing.width(z)

    def _now(self, pairs: list[tuple[Any, Any]], size: int) -> Measurement | None:
        evaluation = self.evaluations.start(pairs, size, list(range(size)))
        self.evaluations.finish(evaluation)
        return evaluation.measured

    def _measure(self, batch: Batch, draws: Draws) -> Evaluation | None:
        """Has the metric evaluated on a call's draws; None where it failed and that is to wait.

        With other processes, an error is raised only once they have been told: they wait.
        """
        start, measured = time.perf_counter(), None
        with self.sync.told():
            measured = self._started(batch, draws)
            self.metric_seconds = time.perf_counter() - start
        return measured

    def _started(self, batch: Batch, draws: Draws) -> Evaluation:
        size = len(batch.target)
        evaluation = Evaluation(size)
        try:
            if not self.evaluations.full:
                positions = choose(self.recipe.metric_budget, size, self.random)
                evaluation = self.evaluations.start(draws.pairs, size, positions)
            self.evaluations.settle(evaluation)
        except BaseException:
            self.evaluations.drop(evaluation)
            raise
        return evaluation

    def _slopes(self, z: Tensor, batch: Batch) -> Tensor | None:
        """Slopes of the surrogate's forms, `(forms, *z.shape)`; None where there are none."""
        if self.experience.outputs is None:
            return None
        samples, target = as_samples(z, _tensor(batch), self.experience.outputs)
        if target is None or not self.slope.fits(samples, target):
            return None
        slopes = self.slope.slopes(samples, target)
        width, _ = as_samples(self._width(batch).expand(z.shape), None, self.experience.outputs)
        return bounded_slopes(slopes, width, self.experience.size.most).view(-1, *z.shape)

    def _followed(
        self,
        batch: Batch,
        draws: Draws,
        measured: Measurement | None,
        slopes: Tensor | None,
        base: Base,
        *,
        learning: bool,
    ) -> tuple[Tensor, Tensor]:
        """Values and gradients of a call's samples."""
        z, weight = draws.z, self.slope.weight
        slope = None if slopes is None else slopes[self.slope.best]
        finite = _finite(z)
        value = self._values(measured, finite)
        if measured is None or not measured.usable.any():
            # Nothing was measured in this call: what was learned is followed as far as it was
            # confirmed, and the base loss for the rest.
            known = torch.zeros_like(z) if slope is None else weight * slope / self._count
            if base is None:
                if slope is None:
                    self._warn(NOTHING)
                return value, known
            rest = torch.ones_like(weight) if slope is None else 1 - weight
            return value, known + rest * base().to(known).where(rest > 0, 0.0)
        gradient = measured_gradient(measured, draws, slope, weight, self.recipe.correction)
        share = self.base_share
        reading = learning and (self.calls + 1) % self.recipe.update_every == 0
        other = base().to(gradient) if base is not None and (share or reading) else None
        if reading:
            self.quality.read(batch.prediction, gradient, other)
        # A NaN in a sample's prediction must show, whatever the metric makes of it.
        gradient = gradient.where(batch.per_sample(finite, gradient.ndim), torch.nan)
        if other is not None and share:
            gradient = other if share == 1 else (1 - share) * gradient + share * other
        return value, gradient

    @property
    def _count(self) -> int:
        """How many values the metric has for a sample."""
        outputs = self.experience.outputs
        return 1 if outputs is None else max(1, outputs.numel())

    @property
    def base_share(self) -> float:
        """Share of the base loss's gradient: all while it leads, then what the user gives it."""
        if not self.has_base_loss:
            return 0.0
        return 1.0 if self.leading else self.recipe.base_weight or 0.0

    def _hand_over(self) -> None:
        """Ends the base loss's lead, for good, where it leads no further or away from the metric.

        In an untrained model, the base loss tells every batch the same, and the metric hardly
        anything. At the end of its way the base loss's mean is zero, and what is left is noise.
        """
        if not (self.leading and self.has_base_loss and self.experience.signal > 0):
            return
        left = self.quality.base_signal_to_noise
        cosine, error = self.quality.cosine
        unread = left != left and self.calls >= UNREAD
        if unread or left < SPENT or cosine + 3 * error < 0:
            self.leading = False

    def _values(self, measured: Measurement | None, finite: Tensor) -> Tensor:
        """Errors `(batch,)`: means over draws; of unmeasured samples, the mean of those measured.

        Where nothing was measured in the call, the mean of the last one that was; 0 before any.
        """
        last = self.experience.metric_mean
        rest = abs(last - self.metric.best) if last == last else 0.0
        values = torch.full((len(finite),), rest, dtype=torch.float32, device="cpu")
        if measured is not None and measured.usable.any():
            errors = measured.by_sample.mean(0).float()
            mean = errors[measured.usable].mean()
            errors = errors.where(measured.usable, mean)
            values = errors
            if measured.positions is not None:
                values = mean.repeat(len(finite)).index_copy(0, measured.positions, errors)
        return send(values, finite.device).where(finite, torch.nan)

    # What is learned

    def _take_in(self, batch: Batch, evaluation: Evaluation | None, seen: Seen | None) -> None:
        """Remembers what has arrived by now, of this call and of earlier ones."""
        if evaluation is None:
            self.evaluations.hold(Evaluation(), self.calls)
        else:
            self.evaluations.hold(evaluation, self.calls, seen)
        self.slope.control.age += 1
        for arrived in self.evaluations.arrived():
            if arrived.measured is not None and arrived.seen is not None:
                z, deviations, slopes, target = arrived.seen
                self._observe(arrived.measured, z, deviations, slopes, target)

    def _observe(self, measured: Measurement, *seen: Tensor) -> None:
        z, deviations, slopes, target = seen
        self.experience.observe(
            measured,
            z,
            deviations,
            slopes if len(slopes) else None,
            target if target[:1].numel() else None,
            self.slope,
            self.random,
        )

    def _learn(self) -> bool:
        """Fits the surrogate, if this call is one that does; whether there are new figures."""
        start, slope = time.perf_counter(), self.slope
        every = self.calls % self.recipe.update_every == 0
        if slope.wanted and not self.sync.active and self.experience.enough:
            self.make_forms()
        if slope.forms and slope.calls == 0:
            self.update(FIRST_STEPS)
        elif slope.forms and (slope.eager or every):
            self.update(self.recipe.update_steps)
        slope.select()
        self.update_seconds = time.perf_counter() - start
        return every

    def make_forms(self) -> None:
        """Makes the surrogate's forms by what has been measured."""
        rows = self.experience.sample(4 * FEWEST_ROWS, self.random)
        assert rows is not None
        self.slope.make(rows)

    def update(self, steps: int) -> None:
        """Fits the surrogate by some gradient steps."""
        for _ in range(steps):
            self.slope.fit(self.experience.sample(self.recipe.batch_size, self.random))
            self.updates += bool(self.slope.forms)

    def warm_up(
        self, batches: Iterator[Batch] | None, steps: Iterable[int], has_base_loss: bool
    ) -> dict[str, Any]:
        """Measures batches and fits the surrogate to them, a gradient step each.

        Returns:
            The figures after it.

        Raises:
            MetricError: the metric failed, in this process or another.
            ValueError: there are no batches.
        """
        if batches is None:
            raise ValueError("warm_up needs batches, what the loss would be called with")
        self.sync.failure = None
        for _ in steps:
            batch = next(batches, None)
            with island(self.device):
                if batch is not None and len(batch.target):
                    self.to(batch.prediction.device)
                    self._measure_ahead(batch)
                if self.slope.wanted and not self.sync.active and self.experience.enough:
                    self.make_forms()
                agree(self)
                self.update(1)
        self.sync.give_up()
        return self.conclude(has_base_loss)

    def _measure_ahead(self, batch: Batch) -> None:
        """Remembers what draws of a batch say, without a gradient; waits for it."""
        measured = None
        with self._unchanged():
            self.smoothing.follow(batch.prediction.detach().float(), _tensor(batch))
            draws = draw(self.task, batch, self._width(batch), self.recipe.draws, self.random)
            # Other processes are told of an error by the next exchange.
            with self.sync.told():
                measured = self._now(draws.pairs, len(batch.target))
            slopes = self._slopes(draws.z, batch)
        if measured is not None:
            told = torch.zeros(0, device="cpu") if slopes is None else slopes
            self._observe(measured, draws.z, draws.deviations, told, batch.target)

    # What is told

    def describe(self) -> list[str]:
        """Lines of the loss's `repr`."""
        width, slope = self.smoothing.mean_width, self.slope
        lines = [
            f"draws: {self.recipe.draws} a sample, smoothing "
            + ("not known before the first call" if width != width else f"{width:.3g}"),
            f"surrogate: {self._describe_slope()}",
            f"calls: {self.calls:,}, updates: {self.updates:,}",
        ]
        if slope.forms:
            lines.insert(
                2, f"R2 {slope.r2:.2f}: {self.recipe.draws} draws do the work of {self.worth:.1f}"
            )
        return lines

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
        return "not built: that follows the first calls"

    def _warn_if_silent(self, measured: Measurement, base: Base) -> None:
        if not measured.usable.any():
            return
        if half_differences(measured.values[:, measured.usable]).any():
            self.silent_calls = 0
        else:
            width = self.smoothing.mean_width
            self._warn(SILENT, width=width, remedy=REMEDIES[base is not None])

    def _warn(self, message: str, **parts: Any) -> None:
        """Counts a call without a signal, and warns when there were many in a row."""
        self.silent_calls += 1
        if self.silent_calls == PATIENCE:
            warn(message.format(calls=PATIENCE, **parts))

    @property
    def worth(self) -> float:
        """How many draws alone would be as quiet as those of a call with the surrogate's slope."""
        r2 = self.slope.r2
        return (
            self.recipe.draws / (1 - min(max(0.0, r2), 0.999))
            if r2 == r2
            else float(self.recipe.draws)
        )

    def stats(self) -> dict[str, Any]:
        """The figures that `LearnedSurrogateLoss.stats` shows."""
        return {
            "calls": self.calls,
            "updates": self.updates,
            "replay_size": self.replay.size,
            "metric": self.experience.metric_mean,
            "smoothing": self.smoothing.mean_width,
            "gradient/worth": self.worth,
            "gradient/signal": self.experience.signal,
            "gradient/signal_to_noise": self.quality.signal_to_noise,
            "surrogate/r2": self.slope.r2,
            "surrogate/weight": float(self.slope.weight),
            "base_loss/share": self.base_share,
            "base_loss/cosine": self.quality.cosine[0],
            "base_loss/cosine_error": self.quality.cosine[1],
            "metric_seconds": self.metric_seconds,
            "update_seconds": self.update_seconds,
            "skipped": self.experience.skipped,
            "waiting": self.evaluations.waiting,
            "lost": self.evaluations.lost,
            "unmeasured": self.evaluations.unmeasured,
        }

    def conclude(self, has_base_loss: bool) -> dict[str, Any]:
        """The figures after an update, remembered."""
        stats = self.stats()
        self.history.add(stats)
        return stats

    # Where it lives

    def save(self, *, with_replay: bool) -> dict[str, Tensor]:
        """The state as flat tensors."""
        return state.save(self, with_replay=with_replay)

    def load(self, saved: dict[str, Tensor]) -> Faults:
        """Takes a saved state, unless it has faults: then all is left as it was."""
        return state.load(self, saved)

    def to(self, device: torch.device) -> None:
        if device == self.device:
            return
        self.device = device
        with island(device):
            self.smoothing.to(device)
            self.quality.to(device)
            self.slope.to(device)
            self.replay.to(device)

    @contextmanager
    def _unchanged(self, *, always: bool = False) -> Iterator[None]:
        """A context whose errors, or which always, leaves random stream and figures alone."""
        random, lost = self.random.get_state(), self.evaluations.lost
        smoothing = self.smoothing.moments, self.smoothing.calls
        silent = self.silent_calls
        try:
            yield
        except BaseException:
            always = always or not self.sync.active
            raise
        finally:
            if always:
                self.random.set_state(random)
                self.evaluations.lost = lost
                self.silent_calls = silent
                self.smoothing.moments, self.smoothing.calls = smoothing
                self.smoothing.forget_width()


def _tensor(batch: Batch) -> Tensor | None:
    """The targets, if the surrogate can see them."""
    return batch.target if batch.target[:1].numel() else None


def _finite(prediction: Tensor) -> Tensor:
    """Which samples are finite, `(batch,)`."""
    return prediction.detach()[:, None].flatten(1).isfinite().all(1)
