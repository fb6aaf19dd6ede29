"""Any metric of the labels of a batch."""

import re
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from .._batch import lasting
from .._metric.metric import Metric
from .._metric.parameters import first_two
from .._sets.distances import Distances
from .._sets.labelled import (
    LabelledBatch,
    LabelledSets,
    check_classes,
    check_logits,
    check_marks,
)
from .._sets.task import PartlyKnown
from .._support.checks import check_number
from .._support.precision import at_least_float32
from .._support.warnings import warn

# Of parameters of metrics that take scores, as scikit-learn's.
SCORES = re.compile(r"scores?|prob(a|s|as|abilit(y|ies))?|logits?|confidences?")
TAKES_SCORES = (
    "metric {!r} takes {!r}, and gets labels: give classification.Sets(gives='scores') if it is a "
    "metric of scores, such as the area under a curve"
)
UNKNOWN = "leave rows whose label is not known out, logits[known] and targets[known]"
LAYOUTS = (
    "logits must be (n, classes) with classes (n,), (n,) with marks (n,), or (n, labels) with "
    "marks (n, labels); shapes are {} and {}"
)


class SetsBatch(LabelledBatch):
    """Sets of rows of a call's prediction."""

    def replaced(self, prediction: Tensor) -> Tensor:
        rows = prediction.flatten(0, 1)[self.present.flatten()]
        return rows.reshape(self.call.shape)


class Sets(LabelledSets):
    r"""Batches whose labels are judged together: the task of F1, kappa, MCC, any metric of a set.

    The loss is called as `criterion(logits, targets)`, and the metric with one set: two tensors of
    labels on the CPU, predicted and true, as scikit-learn and torchmetrics take them: `(n,)`
    classes or marks, or `(n, labels)` marks, int64. What is followed is the metric's mean under
    Gaussian noise on the logits, measured at several draws a set. Of draws, the means of hits and
    claims of each class are known exactly, and of distances from the true class; what the metric
    has in common with scores of them (accuracy, precision, recall, F1, correlation, weighted kappa)
    takes no noise into the gradient.

    The metric of a set depends on how many it has: F1 of 64 is not that of a test set.

    Args:
        noise: standard deviation of the noise, in that of the call's logits, above 0.
        size: of a set: a call's samples are divided, in their order, into sets of about this many.
            None takes all of a call.
        threshold: logits above it are a yes; exclusive classes have none.
        gives: what the metric gets for a prediction: "labels", or the "scores" `(n, ...)`, for a
            metric such as the area under a curve.

    Raises:
        TypeError, ValueError: here for other arguments; at a call, for logits that are no tensor of
            floating-point numbers, targets of another shape, classes that are none.

    Example:
        >>> import torch
        >>> from learned_surrogates import LearnedSurrogateLoss, classification
        >>> def f2(said, true):  # (n,) each
        ...     hits, claims, positives = (said & true).sum(), said.sum(), true.sum()
        ...     return 5 * hits / (claims + 4 * positives).clamp(min=1)
        >>> criterion = LearnedSurrogateLoss(
        ...     f2, task=classification.Sets(), higher_is_better=True, best=1.0
        ... )
        >>> logits = torch.randn(64, requires_grad=True)
        >>> criterion(logits, torch.arange(64) % 4 == 0).backward()
        >>> logits.grad.shape
        torch.Size([64])
    """

    made_of = Distances
    columns = Distances.columns
    # There are few sets in a call.
    draws = 8

    def __init__(
        self,
        *,
        noise: float = 0.3,
        size: int | None = None,
        threshold: float = 0.0,
        gives: Literal["labels", "scores"] = "labels",
    ):
        super().__init__(noise=noise, threshold=threshold)
        if size is not None:
            check_number("size", size, 1)
        if gives not in ("labels", "scores"):
            raise ValueError(f"gives must be 'labels' or 'scores'; got {gives!r}")
        self.size = size
        self.gives = gives

    def __repr__(self) -> str:
        gives = "" if self.gives == "labels" else f", gives={self.gives!r}"
        return f"classification.Sets({self._numbers}, size={self.size}{gives})"

    def read(self, logits: Tensor, targets: Tensor) -> SetsBatch:
        check_logits("logits", logits, targets)
        exclusive = logits.ndim == 2 and targets.ndim == 1 and logits.shape[1] > 1
        alike = targets.shape == (logits.shape[:1] if exclusive else logits.shape)
        if logits.ndim not in (1, 2) or not alike:
            column = tuple(logits.shape) == (*targets.shape, 1)
            remedy = ": give logits.squeeze(1)" * column
            raise ValueError(LAYOUTS.format(tuple(logits.shape), tuple(targets.shape)) + remedy)
        target = lasting(targets).to(logits.device)
        if exclusive:
            check_classes(target, logits.shape[1], None, UNKNOWN)
            if self.threshold:
                raise ValueError(
                    f"threshold={self.threshold:g} is for marks; of exclusive classes the highest "
                    "logit says which: leave it out"
                )
        else:
            check_marks(target, UNKNOWN)
        rows = len(logits)
        sets = 1 if self.size is None else max(1, round(rows / self.size))
        index, present = _divided(rows, min(sets, rows), logits.device)
        columns = logits[:, None] if logits.ndim == 1 else logits
        target = target[index] if exclusive else target.reshape(columns.shape)[index] > 0
        return SetsBatch(
            prediction=columns[index],
            target=target.long() if exclusive else target,
            present=present[..., None],
            call=logits,
            shape=torch.Size() if self.size is None else index.shape[:1],
            class_dim=2,
            exclusive=exclusive,
        )

    def decode(self, batch: LabelledBatch) -> tuple[list[Tensor], list[Tensor]]:
        if self.gives == "scores":
            said = at_least_float32(batch.prediction.detach())
        else:
            said = self.said(batch).long()
        return self._sets(said, batch), self._sets(batch.target.long(), batch)

    def halved(self, batch: LabelledBatch) -> LabelledBatch | None:
        if self.gives == "labels":
            return None
        return replace(batch, prediction=(batch.prediction.detach() + self.threshold) / 2)

    def perfect(self, batch: LabelledBatch) -> list[Any]:
        return [self.decode(batch)[1]] if self.gives == "labels" else []

    def estimator(self, metric: Metric, *args: Any, **kwargs: Any) -> PartlyKnown[LabelledBatch]:
        name = next(iter(first_two(metric.function)), "")
        if self.gives == "labels" and any(map(SCORES.fullmatch, name.lower().split("_"))):
            warn(TAKES_SCORES.format(metric.name, name))
        return super().estimator(metric, *args, **kwargs)

    def _sets(self, items: Tensor, batch: LabelledBatch) -> list[Tensor]:
        """Of each set what is present; of single marks without their dimension."""
        if items.ndim == 3 and batch.call.ndim == 1:
            items = items.squeeze(2)
        present = batch.present.squeeze(2).cpu()
        return [each[mask] for each, mask in zip(items.cpu(), present)]


def _divided(rows: int, sets: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of sets that are as equal as they can be, and which of them there are.

    Returns:
        `(sets, size)` each; a set that is shorter ends with a row of another.
    """
    if not sets:
        nothing = torch.zeros(0, 1, dtype=torch.long, device=device)
        return nothing, nothing.bool()
    size = -(-rows // sets)
    starts = torch.arange(sets + 1, device=device) * rows // sets
    index = starts[:-1, None] + torch.arange(size, device=device)
    present = index < starts[1:, None]
    return index.clamp(max=rows - 1), present
