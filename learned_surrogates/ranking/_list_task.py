"""Any metric of a list."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .._batch import lasting
from .._metric.metric import Metric
from .._sets.spread import Spread
from .._sets.task import ClosedForm, SetBatch, SetTask
from .._support.precision import at_least_float32
from .._support.warnings import warn
from ._average_precision import average_precision_loss
from ._lists import read_lists
from ._metrics import average_precision, spearman
from ._rank_parts import RankParts
from ._spearman import spearman_loss

PADDED = (
    "targets are -1 at the end of lists, and not negative elsewhere: is that padding? Give mask=, "
    "true where there is an item; else it counts as an item of little worth"
)
TURNED = (
    "where mask is true, all targets of a list are the same, and elsewhere they are not: it must "
    "be true where there is an item, and false for padding"
)


def _relevant(targets: Tensor, counted: Tensor) -> Tensor:
    """Which lists have a relevant item among those that are counted, both `(lists, n)`."""
    return ((targets > 0) & counted).any(1)


def _varies(targets: Tensor, counted: Tensor) -> Tensor:
    """Which lists have different targets among those that are counted, both `(lists, n)`."""
    low = targets.where(counted, targets.amax()).amin(1)
    high = targets.where(counted, targets.amin()).amax(1)
    return low < high


# By metric: the loss that is one minus its mean under noise, and the lists that have one.
CLOSED_FORMS = (
    (average_precision, average_precision_loss, _relevant),
    (spearman, spearman_loss, _varies),
)


class Lists(SetTask[SetBatch]):
    r"""Lists of scores, each of which is a sample: the task of any metric of a list.

    The loss is called as `criterion(scores, targets, mask=None)`, and the metric with one list at a
    time, two tensors `(n,)` on the CPU without what is masked: what scikit-learn, SciPy and
    torchmetrics take. What is followed is the metric's mean under Gaussian noise on the scores,
    measured at two draws a list. Of draws, the means of ranks are known exactly; what the metric
    has in common with scores of ranks (correlation, average precision, discounted gains, gains
    among the first k) takes no noise into the gradient. It is a metric of the order: no scale of
    scores counts, and where one does, a warning says so.

    The mean of `ranking.average_precision` and `ranking.spearman` has a closed form: it is followed
    without a metric call (`average_precision_loss`, `spearman_loss`).

    Args:
        noise: standard deviation of the noise, in those of a list's scores, above 0.

    Raises:
        TypeError, ValueError: `noise` is no number above 0; at a call, scores that are no tensor of
            floating-point numbers, targets or a mask of another shape, a mask that is not bool.

    Example:
        >>> import torch
        >>> from learned_surrogates import LearnedSurrogateLoss, ranking
        >>> def best_of_three(scores, targets):  # (n,) each
        ...     return targets[scores.topk(3).indices].max()
        >>> criterion = LearnedSurrogateLoss(
        ...     best_of_three, task=ranking.Lists(), higher_is_better=True, best=4.0
        ... )
        >>> scores = torch.randn(8, 20, requires_grad=True)  # 8 lists
        >>> criterion(scores, torch.randint(0, 5, (8, 20))).backward()
        >>> scores.grad.shape
        torch.Size([8, 20])
    """

    known = "ranks"
    columns = RankParts.columns

    def __init__(self, *, noise: float = 0.3):
        super().__init__(noise=noise)

    def __repr__(self) -> str:
        return f"ranking.Lists(noise={self.noise:g})"

    def read(self, scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> SetBatch:
        lists = read_lists(scores, targets, mask, "none")
        if len(lists.present) and not lists.present.shape[1]:
            raise ValueError(
                f"scores must have an item a list; their shape is {tuple(scores.shape)}"
            )
        rows = lists.present.shape
        # As they are, for the metric.
        own = lasting(targets).to(scores.device).reshape(rows)
        return SetBatch(
            prediction=scores.reshape(rows),
            target=own,
            present=lists.present,
            call=scores,
            shape=lists.shape,
        )

    def warn_about(self, batch: SetBatch) -> bool:
        target, present = batch.target, batch.present
        if present.all():
            # Marks of padding that stand behind the others, and nowhere else.
            marks = at_least_float32(target) == -1  # of bytes, 255 would be
            behind = marks.any() and not (marks[:, :-1] & ~marks[:, 1:]).any()
            if behind and (target.where(~marks, 0) >= 0).all() and not marks.all(1).any():
                warn(PADDED)
        elif not _varies(target, present).any() and _varies(target, ~present).any():
            warn(TURNED)
        return True

    def decode(self, batch: SetBatch) -> tuple[list[Tensor], list[Tensor]]:
        present = batch.present.cpu()
        # numpy, and with it most metrics, has no bfloat16.
        prediction = at_least_float32(batch.prediction.detach())
        return _lists(prediction.cpu(), present), _lists(batch.target.cpu(), present)

    def perfect(self, batch: SetBatch) -> list[Any]:
        return [[each.float() for each in self.decode(batch)[1]]]

    def spread(self, z: Tensor, batch: SetBatch) -> Spread:
        return Spread(z, batch.present)

    def halved(self, batch: SetBatch) -> SetBatch:
        z = batch.prediction.detach()
        return replace(batch, prediction=(z + self.spread(z, batch).mean) / 2)

    def parts(self, batch: SetBatch, z: Tensor, width: Tensor) -> RankParts:
        return RankParts(batch.target, batch.present, width)

    def closed_form(self, metric: Metric) -> ClosedForm | None:
        for function, loss, defined in CLOSED_FORMS:
            # By identity: a metric may be any object, and compare as it likes.
            if metric.function is function and metric.higher_is_better and metric.best == 1:
                return partial(self._expected, loss, defined)
        return None

    def _expected(
        self,
        loss: Callable[..., Tensor],
        defined: Callable[[Tensor, Tensor], Tensor],
        batch: SetBatch,
        z: Tensor,
        width: Tensor,
    ) -> Tensor:
        """By lists; NaN where it is not defined."""
        losses = loss(z, batch.target, noise=self.noise, mask=batch.present, reduction="none")
        return losses.where(defined(batch.target, batch.present), torch.nan)


def _lists(rows: Tensor, present: Tensor) -> list[Tensor]:
    if present.all():
        return list(rows.clone())
    return [row[mask] for row, mask in zip(rows, present)]
