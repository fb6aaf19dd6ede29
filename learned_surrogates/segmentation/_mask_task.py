"""Any metric of a mask."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._batch import lasting
from .._metric.metric import Metric
from .._sets.hits import Hits
from .._sets.labelled import (
    LabelledBatch,
    LabelledSets,
    check_classes,
    check_logits,
    check_marks,
)
from .._sets.task import ClosedForm
from ._expected_iou import expected_iou
from ._iou import iou

LAYOUTS = (
    "logits must be (images, 1, ...) or (images, channels, ...) with masks of that shape, "
    "(images, height, width) with masks of that shape, or (images, classes, ...) with class maps "
    "(images, ...); shapes are {} and {}"
)

OF_MASKS = (
    "segmentation.iou alone is for masks, and these are class maps: give metric=functools.partial("
    "segmentation.iou, classes={}), which is the mean over classes"
)


class Masks(LabelledSets):
    r"""Masks, each of which is a sample: the task of any metric of hard masks.

    The loss is called as `criterion(logits, masks)`, as `nn.BCEWithLogitsLoss` or
    `nn.CrossEntropyLoss` are, and the metric with one image at a time: two masks `(height, width)`,
    bool (`(channels, height, width)` where there are several channels), or class maps
    `(height, width)`, int64, on the CPU. A metric of batches, such as `segmentation.iou`, gets
    `(images, ...)`; say `batched=True` if it does not say so itself. What is followed is the
    metric's mean under Gaussian noise on the logits, measured at two draws an image. Of draws, the
    means of hits and false alarms are known exactly, in the mask and along its outline; what the
    metric has in common with scores of them takes no noise into the gradient.

    The mean of `segmentation.iou` has a closed form: it is followed without a metric call.

    Args:
        noise: standard deviation of the noise, in that of the call's logits, above 0.
        together: whether a call's images are one set, as for the IoU of a data set: the metric
            gets `(images, height, width)`. Its value depends on how many they are.
        threshold: logits above it are foreground; class maps have none.
        ignore_index: the class of pixels that do not count, in class maps. They get no noise and no
            gradient; the metric sees them, and must leave them out itself.

    Raises:
        TypeError, ValueError: here for other numbers; at a call, for logits that are no tensor of
            floating-point numbers, masks or class maps of another shape, classes that are none.

    Example:
        >>> import torch
        >>> from learned_surrogates import LearnedSurrogateLoss, segmentation
        >>> def is_missed(said, true):  # (height, width) each, bool
        ...     return float((said & true).sum() < 0.5 * (said | true).sum())
        >>> criterion = LearnedSurrogateLoss(is_missed, task=segmentation.Masks())
        >>> logits = torch.randn(4, 1, 16, 16, requires_grad=True)
        >>> criterion(logits, torch.rand(4, 1, 16, 16) < 0.3).backward()
        >>> logits.grad.shape
        torch.Size([4, 1, 16, 16])
    """

    columns = 2 * Hits.columns

    def __init__(
        self,
        *,
        noise: float = 0.3,
        together: bool = False,
        threshold: float = 0.0,
        ignore_index: int | None = None,
    ):
        super().__init__(noise=noise, threshold=threshold)
        self.together = together
        self.ignore_index = ignore_index

    def __repr__(self) -> str:
        ignored = f", ignore_index={self.ignore_index}" if self.ignore_index is not None else ""
        together = ", together=True" if self.together else ""
        return f"segmentation.Masks({self._numbers}{together}{ignored})"

    def read(self, logits: Tensor, masks: Tensor) -> LabelledBatch:
        check_logits("logits", logits, masks)
        target = lasting(masks).to(logits.device)
        exclusive = logits.ndim > 3 and masks.shape == logits.shape[:1] + logits.shape[2:]
        prediction = logits[:, None] if logits.ndim == 3 else logits
        if exclusive and logits.shape[1] == 1:
            exclusive, target = False, target[:, None]
        elif logits.ndim < 3 or not (exclusive or masks.shape == logits.shape):
            raise ValueError(LAYOUTS.format(tuple(logits.shape), tuple(masks.shape)))
        if not logits.shape[1:].numel():
            raise ValueError(f"logits must have a pixel an image; shape is {tuple(logits.shape)}")
        present = torch.ones_like(prediction[:, :1], dtype=torch.bool)
        ignored = self.ignore_index
        if exclusive:
            remedy = "give ignore_index= the one of pixels that do not count"
            check_classes(target, logits.shape[1], ignored, remedy if ignored is None else "")
            target = target.long()
            if ignored is not None:
                present = (target != ignored)[:, None]
        else:
            remedy = "ignore_index= is for class maps (images, ...)"
            check_marks(target, "" if ignored is None else remedy)
            target = target.reshape(prediction.shape) > 0
        if self.together and len(logits):
            prediction, target, present = prediction[None], target[None], present[None]
        return LabelledBatch(
            prediction=prediction,
            target=target,
            present=present,
            call=logits,
            shape=torch.Size() if self.together else logits.shape[:1],
            class_dim=2 if self.together else 1,
            exclusive=exclusive,
        )

    def decode(self, batch: LabelledBatch) -> tuple[Tensor, Tensor]:
        said, true = self.said(batch), batch.target
        if not batch.exclusive and said.shape[batch.class_dim] == 1:
            said, true = said.squeeze(batch.class_dim), true.squeeze(batch.class_dim)
        return said.cpu(), true.cpu().clone()

    def perfect(self, batch: LabelledBatch) -> list[Any]:
        return [self.decode(batch)[1]]

    def zones(self, marked: Tensor, batch: LabelledBatch) -> Tensor:
        """All pixels, and those next to another class."""
        maps = marked.reshape(-1, 1, *batch.prediction.shape[-2:]).float()
        outer, inner = F.max_pool2d(maps, 3, 1, 1), -F.max_pool2d(-maps, 3, 1, 1)
        outlines = (outer > inner).reshape(marked.shape).any(1, keepdim=True)
        return torch.cat([torch.ones_like(outlines), outlines], 1)

    def closed_form(self, metric: Metric) -> ClosedForm | None:
        if metric.function is not iou or not metric.higher_is_better or metric.best != 1:
            return None
        return self._expected_iou

    def _expected_iou(self, batch: LabelledBatch, z: Tensor, width: Tensor) -> Tensor:
        if batch.exclusive:
            raise ValueError(OF_MASKS.format(batch.prediction.shape[batch.class_dim]))
        return 1 - expected_iou(z, batch.target, width, self.threshold)
