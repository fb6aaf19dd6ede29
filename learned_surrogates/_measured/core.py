"""One call of the loss where the metric's gradient is measured."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .._base_loss import Base
from .._batch import Batch
from .._core import Core
from .._estimator import Draws, Estimator
from .._evaluation.budget import affordable
from .._evaluation.measurement import Context, Evaluation, Measurement
from .._evaluation.oracle import Oracle
from .._learning.history import History
from .._learning.replay_buffer import ReplayBuffer
from .._learning.sync import Sync
from .._recipe import Recipe
from .._state.tensors import Faults
from .._support.isolated import isolated
from .._support.processes import Stream
from .._support.transfer import send
from .._task import Task
from . import state
from .followed import Followed
from .record import Record
from .together import agree

# Noise from the user's own seed could be the very numbers that predictions were drawn from.
SALT = 0x2545F4914F6CDD1D
# What calls change of the record's figures before they may raise.
FIGURES = ("silent_calls", "skipped", "signal", "metric_mean", "leading", "known")
# Seed of the draws of a gradient that is checked.
CHECKED = 2**40


class MeasuredCore(Core):
    """Hands back the gradient of a metric's expected value, measured at draws.

    Args:
        surrogate: one of the task's, or a module of the user's.

    The others as `Core` has them.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        task: Task[Any],
        oracle: Oracle,
        recipe: Recipe,
        sync: Sync,
        surrogate: str | nn.Module,
    ):
        super().__init__(task, oracle, recipe, sync)
        self.random = Stream()
        self.random.manual_seed(recipe.seed ^ SALT)
        self.estimator: Estimator[Any] = task.estimator(
            oracle.metric, recipe, surrogate, sync, self.random
        )
        self.record = Record(self.estimator, oracle.metric, recipe.draws)
        self.followed = Followed(self.record, recipe)
        #: Calls with a gradient from which nothing was learned.
        self.looks = 0

    @property
    def history(self) -> History:
        return self.record.history

    @property
    def replay(self) -> ReplayBuffer | None:
        return self.estimator.replay

    # A call

    def call(
        self, batch: Batch, base: Base, *, differentiable: bool, learning: bool
    ) -> tuple[Tensor, Tensor | None, bool]:
        """See `Core`: errors of draws around the predictions or, without gradients, of these."""
        # An empty batch counts where other processes may have a full one.
        learning = learning and (len(batch.target) > 0 or self.sync.active)
        self.record.has_base_loss = base is not None
        with isolated(self.device):
            if not learning:
                with self.unchanged():
                    if differentiable:
                        self._draw_otherwise()
                    return *self._look(batch, base, differentiable), False
            self.sync.failure = None
            self.record.surrogate_seconds = 0.0
            with self.unchanged_by_errors():
                self._agree()
                if len(batch.target):
                    self._measure_ahead(batch)
                    value, gradient, evaluation, seen = self._learning_call(batch, base)
                else:
                    gradient = torch.zeros_like(batch.prediction, dtype=torch.float32)
                    value, evaluation, seen = gradient.new_zeros(0), None, None
            self.record.calls += 1
            for measured, of_call in self.oracle.answers(evaluation, seen):
                self._observe(measured, of_call)
            self.record.hand_over()
            every = self.record.calls % self.recipe.fit.every == 0
            start = time.perf_counter()
            self.estimator.learn(every=every)
            self.record.surrogate_seconds += time.perf_counter() - start
        return value, gradient, every

    @property
    def has_learned(self) -> bool:
        return bool(self.record.calls)

    def _draw_otherwise(self) -> None:
        """Sets a random stream for a call that is to leave none behind: another one each time."""
        self.looks += 1
        drawn = int(torch.randint(2**32, (), generator=self.random, device="cpu"))
        self.random.manual_seed(drawn << 30 | self.looks % 2**30)

    def _learning_call(
        self, batch: Batch, base: Base
    ) -> tuple[Tensor, Tensor, Evaluation | None, Context]:
        """Value, gradient, and what there is to learn from."""
        start = time.perf_counter()
        self.estimator.follow(batch)
        draws = self.estimator.draw(batch, self.recipe.draws)
        self.record.surrogate_seconds += time.perf_counter() - start
        finite = self.estimator.finite(batch)
        evaluation = None
        # With other processes, an error is raised only once they have been told: they wait.
        with self.sync.defer_error():
            sound = finite.cpu() if draws.pairs else None
            if sound is not None:
                self.record.warn_if_not_finite(sound)
            evaluation = self.oracle.ask(batch, draws.pairs, self.random, sound)
        # The base loss, say, may raise.
        with self.oracle.cancelled_by_errors(evaluation):
            measured = None if evaluation is None else evaluation.measured
            self._take_figures(batch, draws, measured)
            awaited = evaluation is not None and not evaluation.settled
            value = self._values(finite, draws, measured, awaited=awaited)
            gradient = self.followed.gradient(batch, finite, draws, measured, base, learning=True)
        return value, gradient, evaluation, draws.seen

    def _take_figures(self, batch: Batch, draws: Draws, measured: Measurement | None) -> None:
        """Takes what a call says of the metric, and of who is to lead."""
        record = self.record
        if draws.values is not None:
            record.take_known(draws.values, draws.undefined)
        if measured is not None:
            if not record.calls:
                self.estimator.check(draws, measured)
            record.warn_if_silent(measured)
        if record.leading:
            leads = self.estimator.base_loss_leads(batch, draws)
            record.leading = leads is not False
            record.known = leads is None and draws.values is not None

    def _look(self, batch: Batch, base: Base, differentiable: bool) -> tuple[Tensor, Tensor | None]:
        """A call from which nothing is learned; waits for the metric."""
        if not len(batch.target):
            z = batch.prediction.detach().float()
            return z.new_zeros(0), torch.zeros_like(z) if differentiable else None
        if not differentiable:
            # It says so where there is nothing; a step has the last figure there was.
            with torch.no_grad():
                return self.evaluated(batch, self.estimator.finite(batch)), None
        return self._look_around(batch, base, self.recipe.draws)

    def _look_around(self, batch: Batch, base: Base, count: int) -> tuple[Tensor, Tensor]:
        """Value and gradient by so many draws."""
        draws = self.estimator.draw(batch, count)
        measured = self.oracle.ask_now(len(batch.target), draws.pairs)
        finite = self.estimator.finite(batch)
        gradient = self.followed.gradient(batch, finite, draws, measured, base, learning=False)
        return self._values(finite, draws, measured), gradient

    # What the metric says

    def _observe(self, measured: Measurement, seen: Context) -> bool:
        usable = self.record.observe(measured, seen)
        if usable:
            self.estimator.observe(measured, seen)
        return usable

    def _values(
        self,
        finite: Tensor,
        draws: Draws,
        measured: Measurement | None,
        *,
        awaited: bool = False,
    ) -> Tensor:
        """Errors `(batch,)`: means over draws; of unmeasured samples, the mean of those measured.

        Where nothing was measured in the call, the mean of the last one that was; before any, 0
        where values are on their way, and NaN where the metric had none. NaN where the prediction
        is not finite, whatever the metric makes of it.

        Args:
            finite: where it is, `(batch,)`.
            awaited: whether the call's own values come later.
        """
        if measured is not None and measured.usable.any():
            errors = self.estimator.errors(measured, draws.seen)
            values = send(measured.over_batch(errors), finite.device)
        elif draws.values is not None:
            values = draws.values
        else:
            last = self.record.metric_mean
            rest = abs(last - self.oracle.metric.best)
            if rest != rest and awaited and not self.oracle.queue.calls_without_value:
                rest = 0.0
            values = torch.full((len(finite),), rest, dtype=torch.float32, device=finite.device)
        return values.where(finite, torch.nan)

    @property
    def base_share(self) -> float:
        """Share of the base loss's gradient in a call."""
        return self.followed.base_share

    # What a gradient check asks for

    follows_expectation = has_score = True

    def snapshot(self) -> Callable[[], None]:
        random, lost = self.random.get_state(), self.oracle.queue.lost
        figures = {name: getattr(self.record, name) for name in FIGURES}
        looked = self.estimator.look()

        def go_back() -> None:
            self.random.set_state(random)
            self.oracle.queue.lost = lost
            vars(self.record).update(figures)
            self.estimator.restore(looked)

        return go_back

    def sample_with_score(self, batch: Batch, random: torch.Generator) -> tuple[Any, Any, Tensor]:
        return self.estimator.sample_with_score(batch, random)

    def from_scores(self, products: Tensor, batch: Batch) -> Tensor:
        return self.estimator.from_scores(products, batch)

    def gradient(self, batch: Batch, draws: int) -> Tensor:
        with isolated(self.device), self.unchanged():
            # Not the stream from which others draw to judge it.
            self.random.manual_seed(CHECKED)
            count = draws + draws % 2 if self.recipe.draws else 0
            return self._look_around(batch, None, count)[1]

    # Before the first call

    def _measure_ahead(self, batch: Batch) -> None:
        """Measures draws ahead of the first call, so that its gradient is quiet from then on.

        Not where values come late or are few, as the metric is dear then, where a base loss leads,
        nor with other processes, of which one may have no batch.
        """
        record, size = self.record, len(batch.target)
        if record.calls or self.estimator.updates or not self.recipe.draws:
            return
        few = affordable(self.recipe.metric_budget, size) < size
        leads = record.leading and record.has_base_loss
        if self.recipe.late or few or leads or self.sync.active:
            return
        self.oracle.first_batches.check(batch)
        for _ in range(self.estimator.ahead):
            if self._take_ahead(batch):
                self.estimator.update(1)

    def _take_ahead(self, batch: Batch) -> bool:
        """Takes what draws of a batch say, without a gradient; waits for it.

        Returns:
            Whether they said anything.
        """
        evaluation = None
        with self.unchanged_by_errors():
            self.estimator.follow(batch)
            draws = self.estimator.draw(batch, self.recipe.draws)
            # Other processes are told of an error by the next exchange.
            with self.sync.defer_error():
                sound = self.estimator.finite(batch).cpu()
                evaluation = self.oracle.ask_ahead(
                    len(batch.target), draws.pairs, self.random, sound
                )
        measured = None if evaluation is None else evaluation.measured
        return measured is not None and self._observe(measured, draws.seen)

    def warm_up(self, batches: Iterator[Batch] | None, steps: Iterable[int]) -> dict[str, Any]:
        if batches is None:
            raise ValueError("warm_up needs batches, what the loss would be called with")
        self.sync.failure = None
        for _ in steps:
            batch = next(batches, None)
            with isolated(self.device):
                if batch is not None and len(batch.target):
                    self.to(batch.prediction.device)
                    self._take_ahead(batch)
                self._agree()
                self.estimator.update(1)
        self.sync.give_up()
        return self.conclude()

    # What is told

    def describe(self) -> list[str]:
        lines, correction = self.record.describe(), self.followed.correction
        if correction < 1:
            lines.append(f"of the draws' correction, {correction:.0%} is taken: correction=")
        return lines

    def stats(self) -> dict[str, Any]:
        own = self.record.stats(self.base_share)
        correction = {"gradient/correction": float(self.followed.correction)}
        return own | correction | self.oracle.stats()

    def conclude(self) -> dict[str, Any]:
        stats = self.stats()
        self.record.history.add(stats)
        return stats

    # Where it lives

    def save(self, *, with_replay: bool) -> dict[str, Tensor]:
        return state.save(self.record, self.oracle.queue, self.random, with_replay=with_replay)

    def load(self, saved: dict[str, Tensor]) -> Faults:
        faults = state.load(saved, self.record, self.oracle.queue, self.random, self.device)
        if not faults:
            self.sync.agreed = False
        return faults

    def to(self, device: torch.device) -> None:
        if device == self.device:
            return
        self.device = device
        with isolated(device):
            self.record.quality.to(device)
            self.estimator.to(device)

    def _agree(self) -> None:
        agree(self.sync, self.random, self.record, self.device)
