"""Whether a recogniser's output is what a loss takes: logarithms, and the classes' dimension."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .._support.warnings import warn

# How far a sum of probabilities, or its logarithm, may be off: half precision has three digits.
ROUNDING = 0.02

PROBABILITIES = (
    "{name} is not negative and sums to 1 over the classes: it seems to hold probabilities. The "
    "loss takes their logarithms, and makes of probabilities nearly the same for all classes: give "
    "{name}.log(), or the model's output before its softmax"
)
LOGITS = (
    "{name} are no log-probabilities, their exponentials do not sum to 1 over the classes: {loss}, "
    "the base loss, is wrong about such scores, though the surrogate is not. Give "
    "{name}.log_softmax(-1)"
)


def doubt_scores(
    scores: Tensor, present: Tensor, name: str, base_loss: Callable[..., Any] | None
) -> bool:
    """Warns of what is no output of a log-softmax, where that matters.

    Args:
        scores: `(batch, classes, length)`.
        present: which positions count, `(batch, length)`, bool.
        name: of the argument.
        base_loss: called with the same argument.

    Returns:
        Whether the scores tell what they are.
    """
    classes = scores.float().transpose(1, 2)[present]  # (positions, classes)
    classes = classes[classes.isfinite().any(1) & ~(classes.isnan() | classes.isposinf()).any(1)]
    # Zeros and ones are made by hand, for a test say.
    certain = ((classes == 0) | (classes == 1)).all()
    sums_to_one = ((classes.sum(1) - 1).abs() < ROUNDING).all()
    if sums_to_one and (classes >= 0).all() and not certain:
        warn(PROBABILITIES.format(name=name))
    elif isinstance(base_loss, nn.CTCLoss) or base_loss is F.ctc_loss:
        amiss = classes.logsumexp(1).abs() > ROUNDING
        if amiss.float().mean() > 0.5:
            loss = getattr(base_loss, "__name__", type(base_loss).__name__)
            warn(LOGITS.format(name=name, loss=loss))
    return not bool(certain)


def takes_classes_second(loss: Callable[..., Any] | None) -> bool:
    """Whether it is a cross-entropy of PyTorch's, whose input is `(batch, classes, ...)`."""
    classes = isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss))
    return classes or loss is F.cross_entropy or loss is F.nll_loss
