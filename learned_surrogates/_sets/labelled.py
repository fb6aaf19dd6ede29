"""What tasks of labels and of masks share: classes are claimed, and hits are counted."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._support.checks import check_number, check_tensor
from .._support.warnings import warn
from .hits import Hits, claims
from .spread import Spread
from .task import SetBatch, SetTask

PROBABILITIES = (
    "logits are all between 0 and 1: they seem to be probabilities, of which threshold=0 makes a "
    "yes throughout. Give the model's output before its sigmoid, or threshold=0.5"
)
ONE_HOT = (
    "each of the {items} targets has exactly one of the {classes} marks: if classes exclude one "
    "another, give their numbers, targets.argmax(1). Marks are taken as independent, each claimed "
    "above its threshold, so that what the largest logit says is not trained"
)
# Items, all with one mark, that are no chance.
MANY = 16


@dataclass(frozen=True, kw_only=True)
class LabelledBatch(SetBatch):
    """Sets of items that are of classes.

    Attributes:
        prediction: logits, `(sets, ..., classes, ...)`.
        target: classes `(sets, ...)`, integers; or marks of the prediction's shape, bool.
        present: of the prediction's shape, with one class.
        class_dim: of the prediction.
        exclusive: whether an item is of one class, the one with the highest logit.
    """

    class_dim: int
    exclusive: bool


class LabelledSets(SetTask[LabelledBatch]):
    """Sets of items with logits; hits and claims of draws are known.

    Args:
        noise: standard deviation of the noise, in that of the call's logits.
        threshold: above which a logit says yes, where items may have several marks or one.
    """

    known = "hits and claims"
    #: What is known of a draw.
    made_of: type[Hits] = Hits

    def __init__(self, *, noise: float, threshold: float):
        super().__init__(noise=noise)
        check_number("threshold", threshold, -torch.inf, integer=False)
        self.threshold = threshold

    @property
    def _numbers(self) -> str:
        """For `repr`."""
        threshold = f", threshold={self.threshold:g}" if self.threshold else ""
        return f"noise={self.noise:g}{threshold}"

    def spread(self, z: Tensor, batch: LabelledBatch) -> Spread:
        present = batch.present.expand_as(z)
        centre = None if batch.exclusive else self.threshold
        return Spread(z.reshape(1, -1), present.reshape(1, -1), centre)

    def parts(self, batch: LabelledBatch, z: Tensor, width: Tensor) -> Hits:
        dim = batch.class_dim

        def laid_out(tensor: Tensor) -> Tensor:
            return tensor.movedim(dim, 1).flatten(2)

        present = laid_out(batch.present)
        target = batch.target
        if batch.exclusive:
            classes = batch.prediction.shape[dim]
            target = F.one_hot(target.clamp(0, classes - 1), classes).movedim(-1, dim)
        marked = (laid_out(target) > 0) & present
        zones = self.zones(marked, batch) & present
        threshold = None if batch.exclusive else self.threshold
        return self.made_of(laid_out, marked, zones, width, threshold)

    def warn_about(self, batch: LabelledBatch) -> bool:
        logits = batch.prediction.detach()[batch.present.expand_as(batch.prediction)]
        if not len(logits):
            return False
        within = bool(((logits >= 0) & (logits <= 1)).all())
        # Zeros and ones are made by hand, for a test say.
        between = bool(((logits > 0) & (logits < 1)).any())
        if within and between and self.threshold == 0 and not batch.exclusive:
            warn(PROBABILITIES)
        classes = batch.prediction.shape[batch.class_dim]
        if not batch.exclusive and classes > 1:
            marks = batch.target.sum(batch.class_dim, keepdim=True)[batch.present]
            if len(marks) >= MANY and (marks == 1).all():
                warn(ONE_HOT.format(items=len(marks), classes=classes))
        return between or not within

    def zones(self, marked: Tensor, batch: LabelledBatch) -> Tensor:
        """Which items are counted together, `(sets, zones, items)`, bool."""
        return torch.ones_like(marked[:, :1])

    def said(self, batch: LabelledBatch) -> Tensor:
        """What is predicted: classes, or marks, laid out as the target."""
        prediction = batch.prediction.detach()
        if batch.exclusive:
            return prediction.argmax(batch.class_dim)
        return claims(prediction, self.threshold)


def check_logits(name: str, logits: Any, targets: Any) -> None:
    """Raises unless both are tensors, the first of floating-point numbers."""
    for each, tensor in ((name, logits), ("targets", targets)):
        check_tensor(each, tensor)
    if not logits.is_floating_point():
        raise TypeError(
            f"{name} must be floating-point logits; they are {logits.dtype}. Hand over the model's "
            "output before any argmax or threshold"
        )


def check_classes(targets: Tensor, classes: int, ignore: int | None, remedy: str) -> None:
    """Raises unless targets are integers from 0 to `classes - 1`, or the one to be ignored."""
    if targets.is_floating_point():
        raise TypeError(f"targets must be integers, the items' classes; they are {targets.dtype}")
    # As bytes, numbers beyond 255 would be others to PyTorch.
    wide = targets.long()
    wrong = (wide < 0) | (wide >= classes)
    if ignore is not None:
        wrong &= wide != ignore
    if wrong.any():
        raise ValueError(
            f"targets must be classes from 0 to {classes - 1}; some are {targets[wrong][0].item()}"
            + f": {remedy}" * bool(remedy)
        )


def check_marks(targets: Tensor, remedy: str = "") -> None:
    """Raises unless targets are marks of yes and no."""
    if not ((targets == 0) | (targets == 1)).all():
        wrong = targets[(targets != 0) & (targets != 1)]
        raise ValueError(
            f"targets of the logits' shape must be 0 and 1; some are {wrong[0].item()}"
            + f": {remedy}" * bool(remedy)
        )
