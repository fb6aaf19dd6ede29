"""Proxy losses for labels with errors and for costs: rivals of a loss that asks for the metric."""

from collections.abc import Sequence

import torch
from recogniser import ALPHABET, Head, ProxyLoss, encode_targets
from torch import Tensor
from torch.nn import functional

SMOOTHING = 0.1


def generalized_cross_entropy(head: Head, q: float) -> ProxyLoss:
    """`(1 - p^q) / q`, of the words' probabilities with CTC, else of those at each position.

    Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy
    Labels", NeurIPS 2018, Eq. 6: cross-entropy for q towards 0, where what is least probable counts
    most, and the mean absolute error for q = 1, where it hardly counts.

    Args:
        head: the recogniser's.
        q: 0 to 1; the paper takes 0.7.
    """

    def ctc(output: Tensor, labels: Sequence[str]) -> Tensor:
        targets, lengths = encode_targets(labels, "ctc")
        frames = torch.full_like(lengths, output.shape[0])
        surprise = functional.ctc_loss(
            output, targets, frames, lengths, reduction="none", zero_infinity=True
        )
        return of_surprise(surprise)

    def characters(output: Tensor, labels: Sequence[str]) -> Tensor:
        (targets,) = encode_targets(labels, "characters")
        return of_surprise(
            functional.cross_entropy(output, targets.to(output.device), reduction="none")
        )

    def of_surprise(surprise: Tensor) -> Tensor:
        return ((1 - (-q * surprise).exp()) / q).mean()

    return ctc if head == "ctc" else characters


def smoothed_cross_entropy(output: Tensor, labels: Sequence[str]) -> Tensor:
    """Cross-entropy with a tenth of each target spread over all classes: label smoothing."""
    (targets,) = encode_targets(labels, "characters")
    return functional.cross_entropy(output, targets.to(output.device), label_smoothing=SMOOTHING)


def weighted_cross_entropy(classes: Sequence[int], weight: float) -> ProxyLoss:
    """Cross-entropy in which some target classes weigh more than others; one softmax a position.

    Args:
        classes: class indices.
        weight: of these; others have 1.
    """
    weights = torch.ones(len(ALPHABET) + 1)
    weights[list(classes)] = weight

    def characters(output: Tensor, labels: Sequence[str]) -> Tensor:
        (targets,) = encode_targets(labels, "characters")
        return functional.cross_entropy(
            output, targets.to(output.device), weight=weights.to(output.device)
        )

    return characters
