"""Whether the metric tells larger predictions from smaller ones, which its task takes for none."""

from contextlib import suppress
from typing import Any

import torch

from .._batch import Batch
from .._contract import hooks
from .._metric.error import MetricError
from .._metric.values import take
from .._support.isolated import isolated
from .._support.warnings import warn
from .._task import Task
from .queue import Queue

# What a difference of errors must exceed, relative to their size: more than rounding.
SLACK = 1e-3
# Samples that are looked at: metrics can be dear.
MOST = 8
TELLS = (
    "metric {!r} differs where predictions are half as far apart ({:g} and {:g} in the mean), and "
    "{!r} is for metrics of their order: what it owes to their size is not followed. A metric of "
    "one list that needs their size goes without task=; one that has chance in it differs, too"
)


def check_scale(task: Task[Any], queue: Queue, batch: Batch) -> bool:
    """Warns where the metric differs between a batch and the task's `halved` one.

    Returns:
        Whether the batch has told: predictions that are all zero do not.
    """
    halved = task.halved(batch)
    if halved is None:
        return True
    if torch.equal(halved.prediction, batch.prediction):
        return False

    def some(samples: Any) -> Any:
        return take(samples, list(range(min(len(samples), MOST))))

    with isolated(batch.prediction.device), torch.no_grad(), suppress(MetricError):
        pairs = [map(some, hooks.decode(task, each)) for each in (batch, halved)]
        own, other = queue.evaluate((said, meant) for said, meant in pairs)
        known = own.isfinite() & other.isfinite()
        own, other = own[known], other[known]
        if ((own - other).abs() > SLACK * (1 + own.abs())).any():
            means = [queue.metric.value(errors.mean()).item() for errors in (own, other)]
            warn(TELLS.format(queue.metric.name, *means, task))
        return bool(known.any())
    return False
