"""Tasks of metrics that judge a set: a list, a batch's labels, a mask."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .._batch import Batch
from .._learning.sync import Sync
from .._measured.partly_known import PartlyKnown, Parts
from .._metric.metric import Metric
from .._recipe import Recipe
from .._support.checks import check_number
from .._task import Task

#: The mean of a metric's error under noise, `(sets,)`: of a batch, a prediction and the width.
ClosedForm = Callable[[Any, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class SetBatch(Batch):
    """Sets, each of which is a sample.

    Attributes:
        prediction: `(sets, ...)`.
        target: `(sets, ...)`.
        present: what of a set's target counts, of its shape, bool.
        call: the prediction as it was handed over.
        shape: of the sets as they were handed over, for `reduction="none"`.
    """

    present: Tensor
    call: Tensor
    shape: torch.Size

    @property
    def whole(self) -> Tensor:
        return self.call

    def replaced(self, prediction: Tensor) -> Tensor:
        return prediction.reshape(self.call.shape)

    def reduce(self, value: Tensor, reduction: str) -> Tensor:
        value = super().reduce(value, reduction)
        return value.reshape(self.shape) if reduction == "none" else value


SetType = TypeVar("SetType", bound=SetBatch)


class SetTask(Task[SetType]):
    """Sets whose metric's gradient is measured under Gaussian noise, and partly known.

    Args:
        noise: standard deviation of the noise, in those of the predictions (see `width`).
    """

    measured = can_sample = True
    surrogates = ("auto", "none")
    fits_values = "task=Tensors(smoothing=0)"
    draws = 2
    # Libraries' metrics of one set take several for something else, such as labels.
    batched = False
    #: What is known of draws, in words, and how many scores that makes.
    known: str
    columns: int

    def __init__(self, *, noise: float):
        check_number("noise", noise, 0, integer=False)
        if noise == 0:
            raise ValueError("noise must be above 0: without any, the metric has no gradient")
        self.noise = noise

    @abstractmethod
    def parts(self, batch: SetType, z: Tensor, width: Tensor) -> Parts:
        """What is known of sets under noise of this width around z."""

    def closed_form(self, metric: Metric) -> ClosedForm | None:
        """The mean of a metric's error, where that is known; found by the metric's identity."""
        return None

    def present_part(self, tensor: Tensor, batch: SetType) -> Tensor:
        """A tensor `(..., *prediction)`, 0 where nothing is present."""
        return tensor.where(batch.present, 0.0)

    def width(self, z: Tensor, batch: SetType) -> Tensor:
        """The noise's standard deviation, to be broadcast to z.

        In those of all that is present in the call: its sets share a scale.
        """
        spread = deviation(z.flatten()[None], batch.present.expand_as(z).flatten()[None])
        return self.noise * spread.squeeze()

    def estimator(
        self,
        metric: Metric,
        recipe: Recipe,
        surrogate: str | nn.Module,
        sync: Sync,
        random: torch.Generator,
    ) -> PartlyKnown:
        if isinstance(surrogate, nn.Module):
            raise TypeError(
                f"surrogate= must be 'auto' or 'none' with {self!r}: what is known of sets has a "
                "closed form, and no module is fitted"
            )
        return PartlyKnown(self, metric, recipe, sync, random, learns=surrogate == "auto")

    def draws_of(self, metric: Metric) -> int:
        return self.draws if self.closed_form(metric) is None else 0

    def check_draws(self, count: int, metric: Metric) -> None:
        if count % 2 or (count == 0 and self.closed_form(metric) is None):
            raise ValueError(
                f"draws={count}: draws around a set come in pairs, at least one: give 2, 4, ..."
            )

    def represent(self, prediction: Tensor, batch: SetType) -> Tensor:
        raise NotImplementedError("no surrogate is fitted to sets")

    def encode(self, predictions: Any, targets: Any, shape: Any) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("no surrogate is fitted to sets")

    def build_surrogate(self, z: Tensor, y: Tensor) -> nn.Module:
        raise NotImplementedError("no surrogate is fitted to sets")


def deviation(rows: Tensor, present: Tensor) -> Tensor:
    """Standard deviations of what is present and finite, `(rows, 1)`; 1 where nothing varies.

    Args:
        rows: `(rows, n)`.
        present: of the same shape, bool.
    """
    # One set that is not finite is no matter of the others.
    present = present & rows.isfinite()
    count = present.sum(1, keepdim=True).clamp(min=1)
    mean = rows.where(present, 0.0).sum(1, keepdim=True) / count
    variance = (rows - mean).where(present, 0.0).square().sum(1, keepdim=True) / count
    # But for rounding.
    least = (8 * torch.finfo(rows.dtype).eps) ** 2 * mean.square()
    return variance.where(variance > least, 1.0).sqrt()
