"""The metric's true gradient, where it can be had: what the loss's own is held against."""

from typing import Any

import torch
from torch import Tensor

from .._batch import Batch
from .._contract import hooks
from .._core import Core
from .._metric.metric import Metric
from .._support.isolated import isolated

# Two estimates, from half the draws each.
TRUTHS = ("truth", "other truth")


def true_gradients(core: Core, batch: Batch, draws: int) -> dict[str, Tensor]:
    """Estimates with respect to a batch's prediction; none where the metric has no gradient."""
    with isolated(batch.prediction.device):
        if core.has_score:
            random = torch.Generator().manual_seed(1)
            return {name: _from_scores(core, batch, draws, random) for name in TRUTHS}
        truth = _of_differentiable(core, batch)
        return {} if truth is None else dict.fromkeys(TRUTHS, truth)


def _from_scores(core: Core, batch: Batch, draws: int, random: torch.Generator) -> Tensor:
    """The expected metric's gradient from half the draws, with the others' mean as baseline.

    REINFORCE (Williams, 1992), leave-one-out.
    """
    count = max(2, draws // 2)
    with torch.no_grad():
        drawn = [core.sample_with_score(batch, random) for _ in range(count)]
        errors = core.oracle.queue.evaluate((said, meant) for said, meant, _ in drawn)
        scores = [score for *_, score in drawn]
        advantages = (errors - errors.mean(0)) / (count - 1)
        total = torch.zeros_like(scores[0])
        for advantage, score in zip(advantages, scores, strict=True):
            total += batch.per_sample(advantage.to(score), score.ndim) * score
        return core.from_scores(total, batch)


def _of_differentiable(core: Core, batch: Batch) -> Tensor | None:
    """The gradient that autograd gives of the metric itself, if it does."""
    metric = core.oracle.metric
    predictions, targets = hooks.decode(core.task, batch)
    if not (isinstance(predictions, Tensor) and predictions.is_floating_point()):
        return None
    original = batch.prediction.detach().to(predictions)
    if predictions.shape != original.shape:
        return None
    # Where the metric takes another form than the prediction's, its gradient is of that.
    same = batch.samples_first(predictions == original).all(1)
    if not same.any():
        return None
    with torch.enable_grad():
        try:
            values = _values(metric, predictions.requires_grad_(), targets)
        except Exception:  # noqa: BLE001 - a metric need not take what has a gradient
            return None
        if not values.requires_grad:
            return None
        sign = -1 if metric.higher_is_better else 1
        (truth,) = torch.autograd.grad(sign * values.sum(), predictions)
    return truth.where(batch.per_sample(same, truth.ndim), torch.nan)


def _values(metric: Metric, predictions: Tensor, targets: Any) -> Tensor:
    """The metric's values `(batch,)`, the mean over outputs, with their graph if there is one."""
    if metric.batched:
        values: Tensor = metric.function(predictions, targets)
        return values.reshape(len(predictions), -1).mean(1)
    if metric.form is not None and metric.form.takes == "one":
        predictions, targets = predictions[:, None], targets[:, None]
    pairs = zip(predictions, targets, strict=True)
    return torch.stack([metric.function(*pair).mean() for pair in pairs])
