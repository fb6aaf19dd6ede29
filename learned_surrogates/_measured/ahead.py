"""What is measured ahead of calls, without a gradient: before the first one, and in a warm-up."""

from collections.abc import Callable
from typing import Any

from .._batch import Batch
from .._estimator import Estimator
from .._evaluation.budget import affordable
from .._evaluation.measurement import Context, Measurement
from .._evaluation.oracle import Oracle
from .._learning.sync import Sync
from .._recipe import Recipe
from .record import Record
from .rollback import Rollback


class Ahead:
    """Has the metric judge draws around predictions that are not trained on for it.

    Args:
        estimator: draws, and learns from what is said of them.
        oracle: the metric, as it is asked.
        recipe: how much is asked.
        sync: the processes that learn together.
        record: what was told so far.
        rollback: leaves no trace of what raises.
        observe: takes what the metric said; gives whether any of it is usable.
    """

    def __init__(
        self,
        estimator: Estimator[Any],
        oracle: Oracle,
        recipe: Recipe,
        sync: Sync,
        record: Record,
        rollback: Rollback,
        observe: Callable[[Measurement, Context], bool],
    ):
        self.estimator = estimator
        self.oracle = oracle
        self.recipe = recipe
        self.sync = sync
        self.record = record
        self.rollback = rollback
        self.observe = observe

    def begin(self, batch: Batch) -> None:
        """Measures ahead of the first call, so that its gradient is quiet from then on.

        Not where values come late or are few, as the metric is dear then, where a base loss leads,
        nor with other processes, of which one may have no batch.
        """
        record, executor, size = self.record, self.recipe.executor, len(batch.target)
        if record.calls or self.estimator.updates or not self.recipe.draws:
            return
        late = executor is not None and executor.lag != 0
        few = affordable(self.recipe.metric_budget, size) < size
        if late or few or self.sync.active or (record.leading and record.has_base_loss):
            return
        self.oracle.first_batches.check(batch)
        for _ in range(self.estimator.ahead):
            if self.measure(batch):
                self.estimator.update(1)

    def measure(self, batch: Batch) -> bool:
        """Remembers what draws of a batch say; waits for it.

        Returns:
            Whether they said anything.
        """
        measured = None
        with self.rollback.on_error():
            self.estimator.follow(batch)
            draws = self.estimator.draw(batch, self.recipe.draws)
            # Other processes are told of an error by the next exchange.
            with self.sync.defer_error():
                measured = self.oracle.ask_now(len(batch.target), draws.pairs)
        return measured is not None and self.observe(measured, draws.seen)
