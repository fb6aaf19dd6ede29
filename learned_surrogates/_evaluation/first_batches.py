"""What is looked at in the first calls: whether something else is meant than what was given."""

from typing import Any

import torch
from torch import Tensor

from .._batch import Batch
from .._contract import hooks
from .._support.isolated import isolated
from .._task import Task
from .direction import check_direction, warn_untold
from .queue import Queue
from .scale import check_scale

# Calls in which it is looked, until one has told.
DOUBTFUL = 100


class FirstBatches:
    """Has a task warn of its batches, and the metric looked at, until one has told.

    Args:
        task: knows what may be meant.
        queue: of the metric's evaluations.
    """

    def __init__(self, task: Task[Any], queue: Queue):
        self.task = task
        self.queue = queue
        #: How often it is still looked at batches, at the direction, and at the scale.
        self.of_batches = self.of_direction = self.of_scale = DOUBTFUL

    def check(self, batch: Batch) -> None:
        """Has the task warn of a batch that looks amiss."""
        if self.of_batches:
            with isolated(batch.prediction.device), torch.no_grad():
                told = hooks.warn_about(self.task, batch)
            self.of_batches = 0 if told else self.of_batches - 1

    def direction_comes_late(self) -> None:
        """Warns, where nobody said the direction and values come too late to find it out."""
        if self.of_direction and not (self.task.target_is_best or self.queue.metric.told_direction):
            warn_untold(self.queue.metric, "late")
            self.of_direction = 0

    def check_metric(self, batch: Batch, errors: Tensor) -> None:
        """Holds the errors `(batch,)` of a batch against those of perfect predictions.

        And the metric against itself, where predictions are smaller.

        Raises:
            ValueError: the metric seems to be taken the wrong way round.
        """
        if self.of_scale:
            told = check_scale(self.task, self.queue, batch)
            self.of_scale = 0 if told else self.of_scale - 1
        if self.of_direction:
            told = check_direction(self.task, self.queue, batch, errors)
            self.of_direction = 0 if told else self.of_direction - 1
