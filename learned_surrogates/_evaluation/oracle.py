"""The metric as the calls of one loss ask it: on part of a batch, at once or later."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .._batch import Batch
from .._metric.metric import Metric
from .._task import Task
from .budget import Budget, choose
from .first_batches import FirstBatches
from .measurement import Context, Evaluation, Measurement
from .queue import Queue
from .workers import Workers

#: What the metric is asked about: predictions and targets of a whole batch, as often as drawn.
Pairs = list[tuple[Any, Any]]


class Oracle:
    """Owns a value of the metric from the question to the answer.

    A learning call asks (`ask`) and then takes what has been answered by now, of its own batch and
    of earlier ones (`answers`). Where nothing is learned, it asks and waits (`ask_now`).

    Args:
        task: knows what the first batches may look amiss in.
        metric: the user's, as an error.
        workers: where it is evaluated, and when its values are due; None is here and now.
        budget: how much of a batch is evaluated.
    """

    def __init__(self, task: Task[Any], metric: Metric, workers: Workers | None, budget: Budget):
        self.metric = metric
        self.budget = budget
        self.queue = Queue(metric, workers)
        self.first_batches = FirstBatches(task, self.queue)
        #: That the last question took, with what was waited for.
        self.seconds = 0.0

    def ask(
        self, batch: Batch, pairs: Pairs, random: torch.Generator, sound: Tensor | None = None
    ) -> Evaluation:
        """Asks about a learning call's batch, and waits for what is due.

        Args:
            batch: as the task read it.
            pairs: what the metric is asked about; none where nothing need be.
            random: chooses the samples, where the budget is not for all.
            sound: which samples have a finite prediction, `(batch,)`, and so a value; None is all.

        Raises:
            MetricError: the metric failed, on this batch or on an earlier one that is due; this one
                is forgotten.
            ValueError: the metric seems to be taken the wrong way round.
        """
        start = time.perf_counter()
        size = len(batch.target)
        self.first_batches.check(batch)
        evaluation = Evaluation(size if pairs else 0)
        if not pairs:
            evaluation.settle()
            return evaluation
        if not self.queue.is_full():
            evaluation = self.submit(size, pairs, random)
            evaluation.sound = sound
        with self.cancelled_by_errors(evaluation):
            self.queue.wait_for_due(evaluation)
            # Where a call does not wait for the metric, neither does it for this.
            if evaluation.measured is not None:
                self.first_batches.check_metric(batch, evaluation.measured.mean)
            elif evaluation.jobs:
                self.first_batches.direction_comes_late()
        self.seconds = time.perf_counter() - start
        return evaluation

    def submit(self, size: int, pairs: Pairs, random: torch.Generator) -> Evaluation:
        """Asks about as much of a batch as the budget is for, and does not wait."""
        return self.queue.submit(pairs, size, choose(self.budget, size, random))

    def ask_now(self, size: int, pairs: Pairs) -> Measurement | None:
        """Asks about all of a batch, and waits; None where there is nothing to ask."""
        if not pairs:
            return None
        evaluation = self.queue.submit(pairs, size, list(range(size)))
        self._wait(evaluation)
        return evaluation.measured

    def ask_ahead(
        self, size: int, pairs: Pairs, random: torch.Generator, sound: Tensor
    ) -> Evaluation | None:
        """Asks about as much of a batch as the budget is for, and waits; None is nothing to ask.

        Args:
            size, pairs, random, sound: as `ask` takes them.
        """
        if not pairs:
            return None
        evaluation = self.submit(size, pairs, random)
        evaluation.sound = sound
        self._wait(evaluation)
        self.queue.unmeasured += evaluation.batch - evaluation.sent
        return evaluation

    def _wait(self, evaluation: Evaluation) -> None:
        with self.cancelled_by_errors(evaluation):
            self.queue.wait(evaluation)

    @contextmanager
    def cancelled_by_errors(self, evaluation: Evaluation | None) -> Iterator[None]:
        """A context after whose errors nobody works on an evaluation any more."""
        try:
            yield
        except BaseException:
            if evaluation is not None:
                self.queue.cancel(evaluation)
            raise

    def answers(
        self, evaluation: Evaluation | None = None, seen: Context | None = None
    ) -> Iterator[tuple[Measurement, Context]]:
        """What has been answered by now, oldest first, with what was seen of it at its call.

        Args:
            evaluation: the present call's; None for one without samples, or whose metric failed.
            seen: what is to be kept of its batch until it is answered.
        """
        self.queue.enqueue(evaluation or Evaluation(), None if evaluation is None else seen)
        for arrived in self.queue.collect():
            if arrived.measured is not None and arrived.seen is not None:
                yield arrived.measured, arrived.seen

    def check_first(self, batch: Batch, errors: Tensor) -> None:
        """Looks at what may be meant otherwise, of a batch with these errors `(batch,)`.

        Raises:
            ValueError: the metric seems to be taken the wrong way round.
        """
        self.first_batches.check(batch)
        self.first_batches.check_metric(batch, errors)

    def stats(self) -> dict[str, Any]:
        """Figures of the evaluations."""
        return {
            "metric/seconds": self.seconds,
            "metric/pending": self.queue.samples_pending,
            "metric/lost": self.queue.lost,
            "metric/unmeasured": self.queue.unmeasured,
        }
