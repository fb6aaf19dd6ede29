"""One call of the loss where the metric's gradient is measured."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .._base_loss import Base
from .._estimator import Draws, Estimator
from .._evaluation.budget import choose
from .._evaluation.doubts import Doubts
from .._evaluation.queue import Evaluation, Evaluations, Measurement, Seen
from .._learning.history import History
from .._learning.recipe import Recipe
from .._learning.replay import Replay
from .._learning.sync import Sync
from .._metric.metric import Metric
from .._state.tensors import Faults
from .._support.island import island
from .._support.transfer import send
from .._support.warnings import warn
from .._task import Batch, Task
from . import state
from .quality import Quality
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
# Weight of the newest call in the running share of differences that are not zero.
MOMENTUM = 0.05
# What is told of the gradient before it is measured cannot be worth more draws than so many.
MOST_TOLD = 0.999

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
    "nothing to follow: the model may be too far from where the metric tells good from bad, or "
    "{advice}. {remedy}"
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
    """Hands back the gradient of a metric's expected value, measured at draws.

    Not an `nn.Module`, nor does it hold anything where the loss's `parameters()`, `buffers()` or
    `modules()` would find it: an optimizer given those would minimise the surrogate instead of
    fitting it, and wrappers for distributed training would synchronise or shard it.

    Args:
        task: decodes predictions, and says what the first batch is held against.
        metric: the true metric, as an error.
        recipe: how many draws, how much of the batch, what share of the base loss.
        estimator: draws around predictions; its random stream is the core's.
        random: the random stream.
        sync: the processes that learn together.
    """

    def __init__(
        self,
        task: Task[Any],
        metric: Metric,
        recipe: Recipe,
        estimator: Estimator[Any],
        random: torch.Generator,
        sync: Sync,
    ):
        self.task = task
        self.metric = metric
        self.recipe = recipe
        self.estimator = estimator
        self.random = random
        self.sync = sync
        self.device = torch.device("cpu")
        self.evaluations = Evaluations(metric, recipe.executor)
        self.doubts = Doubts(task, self.evaluations)
        self.quality = Quality()
        self.history = History(REMEMBERED)
        self.calls = self.silent_calls = self.skipped = 0
        #: Running share of differences that are not zero; NaN before the first.
        self.signal = float("nan")
        #: Of the last call that was measured.
        self.metric_mean = float("nan")
        #: Whether there was a base loss at the last call, and whether it leads.
        self.has_base_loss, self.leading = False, True
        self.metric_seconds = self.update_seconds = 0.0

    @property
    def updates(self) -> int:
        return self.estimator.updates

    @property
    def replay(self) -> Replay | None:
        """What the surrogate is fitted to, where that is remembered."""
        return self.estimator.replay

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
                if len(batch.target):
                    value, gradient, evaluation, seen = self._learning_call(batch, base)
                else:
                    gradient = torch.zeros_like(batch.prediction, dtype=torch.float32)
                    value, evaluation, seen = gradient.new_zeros(0), None, None
            self.calls += 1
            self._take_in(evaluation, seen)
            self._hand_over()
            every = self.calls % self.recipe.update_every == 0
            start = time.perf_counter()
            self.estimator.learn(every=every)
            self.update_seconds = time.perf_counter() - start
        return value, gradient, every

    def _learning_call(
        self, batch: Batch, base: Base
    ) -> tuple[Tensor, Tensor, Evaluation | None, Seen]:
        """Value, gradient, and what there is to learn from."""
        draws = self.estimator.draw(batch, self.recipe.draws, follow=True)
        evaluation = self._measure(batch, draws)
        measured = None if evaluation is None else evaluation.measured
        if draws.values is not None:
            self.metric_mean = self.metric.value(draws.values.mean()).item()
        if measured is not None:
            if not self.calls:
                self.estimator.check(draws, measured)
            self._warn_if_silent(measured, base)
        if self.leading and self.estimator.leads(batch, draws) is False:
            self.leading = False
        value, gradient = self._followed(batch, draws, measured, base, learning=True)
        return value, gradient, evaluation, draws.seen

    def give_up(self) -> None:
        """Raises what the metric raised in a call, once all processes know."""
        self.sync.give_up()

    def warn_if_idle(self) -> None:
        """In evaluation mode gradients are measured as ever: nothing to warn of."""

    def _look(
        self, batch: Batch, base: Base, differentiable: bool, count: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """A call from which nothing is learned; waits for the metric."""
        size = len(batch.target)
        if not size:
            z = batch.prediction.detach().float()
            return z.new_zeros(0), torch.zeros_like(z) if differentiable else None
        if not differentiable:
            with torch.no_grad():
                measured = self._now([self.task.decode(batch)], size)
            return self._values(batch, None, measured), None
        draws = self.estimator.draw(batch, count or self.recipe.draws, follow=False)
        measured = self._now(draws.pairs, size)
        return self._followed(batch, draws, measured, base, learning=False)

    # What the metric says

    def _now(self, pairs: list[tuple[Any, Any]], size: int) -> Measurement | None:
        if not pairs:
            return None
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
        evaluation = Evaluation(size if draws.pairs else 0)
        try:
            self.doubts.look(batch)
            if draws.pairs and not self.evaluations.full:
                positions = choose(self.recipe.metric_budget, size, self.random)
                evaluation = self.evaluations.start(draws.pairs, size, positions)
            self.evaluations.settle(evaluation)
            # Where a call does not wait for the metric, neither does it for this.
            if evaluation.measured is not None:
                self.doubts.look_at_direction(batch, evaluation.measured.known(size))
        except BaseException:
            self.evaluations.drop(evaluation)
            raise
        return evaluation

    def _take_in(self, evaluation: Evaluation | None, seen: Seen | None) -> None:
        """Learns from what has arrived by now, of this call and of earlier ones."""
        if evaluation is None:
            self.evaluations.hold(Evaluation(), self.calls)
        else:
            self.evaluations.hold(evaluation, self.calls, seen)
        for arrived in self.evaluations.arrived():
            if arrived.measured is not None and arrived.seen is not None:
                self._observe(arrived.measured, arrived.seen)

    def _observe(self, measured: Measurement, seen: Seen) -> None:
        usable = measured.usable
        self.skipped += int((~usable).sum())
        if not usable.any():
            return
        values = measured.values[:, usable]
        self.metric_mean = self.metric.value(values.mean()).item()
        share = (self.estimator.differences(values) != 0).float().mean().item()
        known = self.signal == self.signal
        self.signal = self.signal + MOMENTUM * (share - self.signal) if known else share
        self.estimator.observe(measured, seen)

    def _values(self, batch: Batch, draws: Draws | None, measured: Measurement | None) -> Tensor:
        """Errors `(batch,)`: means over draws; of unmeasured samples, the mean of those measured.

        Where nothing was measured in the call, the mean of the last one that was; 0 before any. NaN
        where the prediction is not finite, whatever the metric makes of it.
        """
        finite = self.estimator.finite(batch)
        if measured is None and draws is not None and draws.values is not None:
            return draws.values.where(finite, torch.nan)
        last = self.metric_mean
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

    # What is followed

    def _followed(
        self,
        batch: Batch,
        draws: Draws,
        measured: Measurement | None,
        base: Base,
        *,
        learning: bool,
    ) -> tuple[Tensor, Tensor]:
        """Values and gradients of a call's samples."""
        value = self._values(batch, draws, measured)
        told = draws.told()
        if measured is not None and measured.usable.any():
            gradient = draws.gradient(measured, self.recipe.correction)
        elif told is not None and draws.values is not None:
            gradient, _ = told
        else:
            # Nothing was measured in this call: what was learned is followed as far as it was
            # confirmed, and the base loss for the rest.
            if told is None and base is None:
                self._warn(NOTHING)
            gradient, weight = told or (torch.zeros_like(batch.prediction.float()), 0.0)
            if base is None or weight == 1:
                return value, gradient
            return value, gradient + (1 - weight) * base().to(gradient)
        share = self.base_share
        reading = learning and (self.calls + 1) % self.recipe.update_every == 0
        other = base().to(gradient) if base is not None and (share or reading) else None
        if reading:
            self.quality.read(batch, gradient, other)
        finite = self.estimator.finite(batch)
        gradient = gradient.where(batch.per_sample(finite, gradient.ndim), torch.nan)
        if other is not None and share:
            gradient = other if share == 1 else (1 - share) * gradient + share * other
        return value, gradient

    @property
    def base_weight(self) -> float:
        """The base loss's share once it leads no longer: as given, or as the estimator has it."""
        given = self.recipe.base_weight
        return self.estimator.base_weight if given is None else given

    @property
    def base_share(self) -> float:
        """Share of the base loss's gradient: all while it leads, then what the user gives it."""
        if not self.has_base_loss:
            return 0.0
        return 1.0 if self.leading else self.base_weight

    def _hand_over(self) -> None:
        """Ends the base loss's lead, for good, where it leads no further or away from the metric.

        In an untrained model, the base loss tells every batch the same, and the metric hardly
        anything. At the end of its way the base loss's mean is zero, and what is left is noise.
        """
        if not (self.leading and self.has_base_loss and self.signal > 0):
            return
        left = self.quality.base_signal_to_noise
        cosine, error = self.quality.cosine
        unread = left != left and self.calls >= UNREAD
        if unread or left < SPENT or cosine + 3 * error < 0:
            self.leading = False

    # Warnings

    def _warn_if_silent(self, measured: Measurement, base: Base) -> None:
        if not measured.usable.any():
            return
        if self.estimator.differences(measured.values[:, measured.usable]).any():
            self.silent_calls = 0
        else:
            advice, remedy = self.estimator.silent_advice, REMEDIES[base is not None]
            self._warn(SILENT, advice=advice, remedy=remedy)

    def _warn(self, message: str, **parts: Any) -> None:
        """Counts a call without a signal, and warns when there were many in a row."""
        self.silent_calls += 1
        if self.silent_calls == PATIENCE:
            warn(message.format(calls=PATIENCE, **parts))

    # What a gradient check asks for

    #: Whether there is a mean over draws, and its gradient can be measured.
    expects = scores = True

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A context that leaves no trace of what was only looked at."""
        with self._unchanged(always=True):
            yield

    def first_look(self, batch: Batch, errors: Tensor) -> None:
        """Doubts about the first batch `(batch,)`, which has these errors."""
        self.doubts.look(batch)
        self.doubts.look_at_direction(batch, errors)

    def sample(self, batch: Batch, random: torch.Generator) -> tuple[Any, Any]:
        """A draw, as the metric takes it."""
        return self.scored_sample(batch, random)[:2]

    def scored_sample(self, batch: Batch, random: torch.Generator) -> tuple[Any, Any, Tensor]:
        """A draw, and the gradient of its log-likelihood with respect to the prediction."""
        return self.estimator.scored(batch, random)

    def gradient(self, batch: Batch, draws: int) -> Tensor:
        """What a call hands back, measured by so many draws; changes nothing."""
        with island(self.device), self._unchanged(always=True):
            # Not the stream from which others draw to judge it.
            self.random.manual_seed(CHECKED)
            count = draws - draws % 2 if self.recipe.draws else 0
            return self._look(batch, None, True, count)[1]  # type: ignore[return-value]

    # Before the first call

    def warm_up(self, batches: Iterator[Batch] | None, steps: Iterable[int]) -> dict[str, Any]:
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
                self.estimator.make_if_wanted()
                agree(self)
                self.estimator.update(1)
        self.sync.give_up()
        return self.conclude()

    def _measure_ahead(self, batch: Batch) -> None:
        """Remembers what draws of a batch say, without a gradient; waits for it."""
        measured = None
        with self._unchanged():
            draws = self.estimator.draw(batch, self.recipe.draws, follow=True)
            # Other processes are told of an error by the next exchange.
            with self.sync.told():
                measured = self._now(draws.pairs, len(batch.target))
        if measured is not None:
            self._observe(measured, draws.seen)

    # What is told

    def describe(self) -> list[str]:
        """Lines of the loss's `repr`."""
        lines = self.estimator.describe()
        if self.estimator.r2 == self.estimator.r2 and self.recipe.draws:
            lines.append(
                f"R2 {self.estimator.r2:.2f}: {self.recipe.draws} draws do the work of "
                f"{self.worth:.1f}"
            )
        return [*lines, f"calls: {self.calls:,}, updates: {self.updates:,}"]

    @property
    def worth(self) -> float:
        """How many draws alone would be as quiet as those of a call with what is known."""
        if not self.recipe.draws:
            return float("inf")
        r2 = self.estimator.r2
        told = min(max(0.0, r2), MOST_TOLD) if r2 == r2 else 0.0
        return self.recipe.draws / (1 - told)

    def stats(self) -> dict[str, Any]:
        """The figures that `LearnedSurrogateLoss.stats` shows."""
        return {
            "calls": self.calls,
            "updates": self.updates,
            "replay_size": 0 if self.replay is None else self.replay.size,
            "metric": self.metric_mean,
            **self.estimator.stats(),
            "gradient/worth": self.worth,
            "gradient/signal": self.signal,
            "gradient/signal_to_noise": self.quality.signal_to_noise,
            "surrogate/r2": self.estimator.r2,
            "surrogate/weight": self.estimator.weight,
            "base_loss/share": self.base_share,
            "base_loss/cosine": self.quality.cosine[0],
            "base_loss/cosine_error": self.quality.cosine[1],
            "metric_seconds": self.metric_seconds,
            "update_seconds": self.update_seconds,
            "skipped": self.skipped,
            "waiting": self.evaluations.waiting,
            "lost": self.evaluations.lost,
            "unmeasured": self.evaluations.unmeasured,
        }

    def conclude(self) -> dict[str, Any]:
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
            self.quality.to(device)
            self.estimator.to(device)

    @contextmanager
    def _unchanged(self, *, always: bool = False) -> Iterator[None]:
        """A context whose errors, or which always, leaves random stream and figures alone."""
        before = self.random.get_state(), self.evaluations.lost, self.silent_calls
        looked = self.estimator.look()
        try:
            yield
        except BaseException:
            always = always or not self.sync.active
            raise
        finally:
            if always:
                self.random.set_state(before[0])
                self.evaluations.lost, self.silent_calls = before[1:]
                self.estimator.restore(looked)
