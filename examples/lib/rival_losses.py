"""Proxy losses for labels with errors and for costs: rivals of a loss that asks for the metric.

Called as `nn.CTCLoss` or `nn.CrossEntropyLoss`, so that each can be its `base_loss` as well.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .recogniser import CLASSES, Head

SMOOTHING = 0.1


def generalized_cross_entropy(head: Head, q: float) -> Callable[..., Tensor]:
    """`(1 - p^q) / q`, of the words' probabilities with CTC, else of those at each position.

    Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy
    Labels", NeurIPS 2018, Eq. 6: cross-entropy for q towards 0, where what is least probable counts
    most, and the mean absolute error for q = 1, where it hardly counts.

    Args:
        head: the recogniser's.
        q: 0 to 1; the paper takes 0.7.
    """

    def ctc(output: Tensor, *targets: Tensor) -> Tensor:
        surprise = functional.ctc_loss(output, *targets, reduction="none", zero_infinity=True)
        return of_surprise(surprise)

    def characters(output: Tensor, targets: Tensor) -> Tensor:
        return of_surprise(functional.cross_entropy(output, targets, reduction="none"))

    def of_surprise(surprise: Tensor) -> Tensor:
        return ((1 - (-q * surprise).exp()) / q).mean()

    return ctc if head == "ctc" else characters


def smoothed_cross_entropy() -> nn.Module:
    """Cross-entropy with a tenth of each target spread over all classes: label smoothing."""
    return nn.CrossEntropyLoss(label_smoothing=SMOOTHING)


def weighted_cross_entropy(classes: Sequence[int], weight: float) -> nn.Module:
    """Cross-entropy in which some target classes weigh more than others; one softmax a position.

    Args:
        classes: class indices.
        weight: of these; others have 1.
    """
    weights = torch.ones(CLASSES)
    weights[list(classes)] = weight
    return nn.CrossEntropyLoss(weight=weights)
