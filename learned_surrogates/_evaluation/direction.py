"""Whether the metric is best where a prediction equals its target, as its direction says."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from .._batch import Batch
from .._contract import hooks
from .._metric.error import MetricError
from .._metric.metric import Metric
from .._metric.values import take
from .._support.isolated import isolated
from .._support.warnings import warn
from .._task import Task
from .queue import Queue

# What a difference of errors must exceed, relative to their size: more than rounding.
SLACK = 1e-4

WRONG = (
    "metric {name!r} is better for these predictions ({own:g} in the mean) than for their targets "
    "in their place ({perfect:g}), as it is taken that {direction}. {remedy}"
)
MEANT = (
    ". If that is meant, as where the metric takes predictions on another scale than targets, "
    "higher_is_better=False says so"
)
REMEDIES = {
    False: "If higher is better, pass higher_is_better=True and best=, the value of a perfect "
    "prediction: a function that says so itself no longer does within a lambda or a partial",
    True: "If lower is better, leave out higher_is_better=True and pass best=, the value of a "
    "perfect prediction, if that is not 0",
}
FAR = (
    "metric {name!r} is {perfect:g} where predictions equal their targets, and {own:g} for the "
    "model's: is best={best:g} really its best value? The loss cannot come near 0"
)
UNTOLD = (
    "metric {name!r}: nobody said whether higher or lower is better, and {why}: it is taken that "
    "lower is better. Say higher_is_better=False, or True with best=, the value of a perfect "
    "prediction"
)
WHY = {
    "targets": "these targets do not tell what a perfect prediction would be",
    "late": "its values come after the call, too late to find out",
}
# Share of a batch's samples on which perfect predictions must be no better, for a doubt.
MOST = 0.75


def check_direction(task: Task[Any], queue: Queue, batch: Batch, errors: Tensor) -> bool:
    """Holds a batch's errors against those of predictions that equal their targets.

    Args:
        task: says which those are, and whether they are the best there is.
        queue: of the metric's evaluations.
        batch: as the task read it.
        errors: what the metric said of it, `(batch,)`, NaN where that is not known.

    Returns:
        Whether they tell the direction: predictions that are as good as their targets do not.

    Raises:
        ValueError: all of the batch is better than, or as good as, its targets in its place.
    """
    sure, found = task.target_is_best, []
    told = queue.metric.told_direction
    if told and not (sure or task.target_is_good):
        return True
    with isolated(batch.prediction.device), torch.no_grad():
        candidates, targets = hooks.perfect(task, batch), hooks.decode(task, batch)[1]
        if not sure and not errors.isfinite().all():
            # Where only some samples are measured, the metric is dear: no others are now.
            some = errors.isfinite().nonzero()[:, 0].tolist()
            candidates, targets = [take(each, some) for each in candidates], take(targets, some)
            errors = errors[some]
        for predictions in candidates if len(errors) else []:
            with suppress(MetricError):  # of a pair that the model does not make
                found.append(queue.evaluate([(predictions, targets)])[0])
    if not (sure or len(errors)):
        return False
    if not found:
        if not (sure or told):
            warn_untold(queue.metric, "targets")
        return True
    perfect = torch.stack(found)
    # A candidate on which the metric fails is none.
    perfect = perfect.where(perfect.isfinite(), torch.inf)
    perfect = perfect.amin(0) if sure else perfect[perfect.mean(1).argmin()]
    known = errors.isfinite() & perfect.isfinite()
    if told and not sure:
        _doubt_best(queue.metric, errors[known], perfect[known])
        return True
    return _compare(queue.metric, errors[known], perfect[known], sure) or not sure


def warn_untold(metric: Metric, why: str) -> None:
    """Warns that a metric's direction is taken, and not known; `why` is one of `WHY`."""
    warn(UNTOLD.format(name=metric.name, why=WHY[why]))


def _compare(metric: Metric, own: Tensor, perfect: Tensor, sure: bool) -> bool:
    """Errors of the predictions and of the targets in their place, `(samples,)`."""
    if not len(own):
        return False
    slack = SLACK * (1 + own.abs() + perfect.abs())
    no_better = (perfect >= own - slack).double().mean()
    opposed = (perfect > own + slack).any() and bool(perfect.mean() > own.mean())
    if opposed and no_better >= (1 if sure else MOST):
        direction = f"{'higher' if metric.higher_is_better else 'lower'} is better"
        remedy = REMEDIES[metric.higher_is_better]
        figures = _figures(metric, own, perfect)
        message = WRONG.format(direction=direction, remedy=remedy, **figures)
        if sure:
            raise ValueError(message)
        warn(message + MEANT)
        return True
    if sure:
        _doubt_best(metric, own, perfect)
    return bool((own > perfect + slack).any())


def _doubt_best(metric: Metric, own: Tensor, perfect: Tensor) -> None:
    """Warns where targets in the predictions' place are better than these, and far from `best`."""
    if not len(own):
        return
    slack = SLACK * (1 + own.abs() + perfect.abs())
    if (own > perfect + slack).any() and perfect.median() > own.mean() / 2 + slack.max():
        warn(FAR.format(best=metric.best, **_figures(metric, own, perfect)))


def _figures(metric: Metric, own: Tensor, perfect: Tensor) -> dict[str, Any]:
    """For words of errors `(samples,)`: the metric's name, and its means."""
    means = (metric.value(errors).mean().item() for errors in (own, perfect))
    return {"name": metric.name} | dict(zip(("own", "perfect"), means))
