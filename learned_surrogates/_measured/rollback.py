"""What leaves no trace: a call that only looks, and one that raises."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .._estimator import Estimator
from .._evaluation.queue import Queue
from .._learning.sync import Sync
from .record import Record

# Of the record.
FIGURES = ("silent_calls", "skipped", "signal", "metric_mean")


class Rollback:
    """Sets random stream and figures back to what they were before.

    Args:
        sync: the processes that learn together.
        random: the random stream.
        queue: counts samples that are lost.
        record: counts calls without any difference, and what was measured.
        estimator: what its draws change.
    """

    def __init__(
        self,
        sync: Sync,
        random: torch.Generator,
        queue: Queue,
        record: Record,
        estimator: Estimator[Any],
    ):
        self.sync = sync
        self.random = random
        self.queue = queue
        self.record = record
        self.estimator = estimator
        #: Calls with a gradient from which nothing was learned.
        self.looks = 0

    @contextmanager
    def always(self) -> Iterator[None]:
        """A context after which all is as it was."""
        go_back = self._way_back()
        try:
            yield
        finally:
            go_back()

    def draw_otherwise(self) -> None:
        """Has a call after which the random stream is as it was draw as no other such call has."""
        self.looks += 1
        drawn = int(torch.randint(2**32, (), generator=self.random, device="cpu"))
        self.random.manual_seed(drawn << 30 | self.looks % 2**30)

    @contextmanager
    def on_error(self) -> Iterator[None]:
        """A context after whose errors all is as it was."""
        go_back = self._way_back()
        try:
            yield
        except BaseException:
            # What several processes have agreed on stands.
            if not self.sync.active:
                go_back()
            raise

    def _way_back(self) -> Callable[[], None]:
        queue, record = self.queue, self.record
        before = self.random.get_state(), queue.lost
        figures = {name: getattr(record, name) for name in FIGURES}
        looked = self.estimator.look()

        def go_back() -> None:
            self.random.set_state(before[0])
            queue.lost = before[1]
            vars(record).update(figures)
            self.estimator.restore(looked)

        return go_back
