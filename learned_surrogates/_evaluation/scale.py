"""Whether the metric tells larger predictions from smaller ones, which its task takes for none."""

from contextlib import suppress
from typing import Any

import torch

from .._batch import Batch
from .._contract import hooks
from .._metric.metric import MetricError, take
from .._support.isolated import isolated
from .._support.warnings import warn
from .._task import Task
from .queue import Queue

# What a difference of errors must exceed, relative to their size: more than rounding.
SLACK = 1e-3
# Samples that are looked at: metrics can be dear.
MOST = 8
TELLS = (
    "metric {!r} differs where all predictions are twice as large ({:g} and {:g} in the mean), and "
    "{!r} is for metrics of their order: what it owes to their size is not followed. Is that "
    "meant? A metric of one list that needs their size goes without task="
)


def check_scale(task: Task[Any], queue: Queue, batch: Batch) -> None:
    """Warns where the metric differs between a batch and the task's `enlarged` one."""
    larger = task.enlarged(batch)
    if larger is None:
        return

    def some(samples: Any) -> Any:
        return take(samples, list(range(min(len(samples), MOST))))

    with isolated(batch.prediction.device), torch.no_grad(), suppress(MetricError):
        pairs = [map(some, hooks.decode(task, each)) for each in (batch, larger)]
        own, other = queue.evaluate((said, meant) for said, meant in pairs)
        known = own.isfinite() & other.isfinite()
        own, other = own[known], other[known]
        if ((own - other).abs() > SLACK * (1 + own.abs())).any():
            warn(TELLS.format(queue.metric.name, own.mean().item(), other.mean().item(), task))
