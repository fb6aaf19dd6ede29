"""Whether a recogniser's output is what a loss takes: logarithms, and the classes' dimension."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .._support.partials import whole
from .._support.warnings import warn

# How far a sum of probabilities, or its logarithm, may be off: half precision has three digits.
ROUNDING = 0.02
# Share of positions that must be of a kind; the others may be padding.
MOST = 0.5

PROBABILITIES = (
    "{name} is not negative and sums to 1 over the classes: it seems to hold probabilities. The "
    "loss takes their logarithms, and makes of probabilities nearly the same for all classes: give "
    "{name}.log(), or the model's output before its softmax"
)
LOGITS = (
    "{name} are no log-probabilities, their exponentials do not sum to 1 over the classes: {loss}, "
    "the base loss, is wrong about such scores, though the surrogate is not. Give "
    "{name}.log_softmax({dim})"
)
OTHER_DIMENSION = (
    "{name} are probabilities, or their logarithms, over the {dimension}, and not over the "
    "classes: was the softmax taken along a wrong dimension? The classes are in dimension {dim}"
)


def doubt_scores(
    scores: Tensor, present: Tensor, name: str, dim: int, base_loss: Callable[..., Any] | None
) -> bool:
    """Warns of what is no output of a log-softmax, where that matters.

    Args:
        scores: `(batch, classes, length)`.
        present: which positions count, `(batch, length)`, bool.
        name: of the argument.
        dim: of the classes in the argument.
        base_loss: called with the same argument.

    Returns:
        Whether the scores tell what they are.
    """
    classes = scores.float().transpose(1, 2)[present]  # (positions, classes)
    classes = classes[classes.isfinite().any(1) & ~(classes.isnan() | classes.isposinf()).any(1)]
    # Zeros and ones are made by hand, for a test say.
    certain = bool(((classes == 0) | (classes == 1)).all())
    normal = _share(classes.logsumexp(1).abs() < ROUNDING)
    sums_to_one = _share((classes.sum(1) - 1).abs() < ROUNDING)
    if certain:
        return False
    if sums_to_one > MOST and (classes >= 0).all():
        warn(PROBABILITIES.format(name=name))
    elif normal < 1 - MOST and (dimension := _summed_over(scores)):
        warn(OTHER_DIMENSION.format(name=name, dimension=dimension, dim=dim))
    elif normal < 1 - MOST and takes_log_probabilities(base_loss):
        loss = whole(base_loss)
        loss_name = getattr(loss, "__name__", type(loss).__name__)
        warn(LOGITS.format(name=name, loss=loss_name, dim=dim))
    return True


def _summed_over(scores: Tensor) -> str | None:
    """The dimension, other than the classes', over which scores `(batch, classes, length)` or their
    exponentials sum to 1 everywhere."""
    scores = scores.float()
    for dim, name in ((2, "positions"), (0, "batch")):
        if scores.shape[dim] > 1:
            sums = scores.sum(dim) if (scores >= 0).all() else scores.exp().sum(dim)
            if ((sums - 1).abs() < ROUNDING).all():
                return name
    return None


def _share(marks: Tensor) -> float:
    return marks.float().mean().item() if len(marks) else 1.0


def takes_log_probabilities(loss: Callable[..., Any] | None) -> bool:
    """Whether it is a loss of PyTorch's that is wrong about plain logits."""
    loss = whole(loss)
    return isinstance(loss, nn.CTCLoss | nn.NLLLoss) or loss is F.ctc_loss or loss is F.nll_loss


def takes_classes_second(loss: Callable[..., Any] | None) -> bool:
    """Whether it is a cross-entropy of PyTorch's, whose input is `(batch, classes, ...)`."""
    loss = whole(loss)
    classes = isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss))
    return classes or loss is F.cross_entropy or loss is F.nll_loss
