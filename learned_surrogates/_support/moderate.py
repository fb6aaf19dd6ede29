"""Numbers with which one can still compute, and those that only mark something."""

import torch
from torch import Tensor

# What equal numbers must exceed to be marks: so many standard deviations of the others, from their
# mean, and so many times the largest of them. Zeros, as of a ReLU, never do.
APART, LARGER = 5.0, 2.0


def moderate(samples: Tensor) -> Tensor:
    """Which samples `(batch, ...)` are finite, and so are their squares in float32: `(batch,)`."""
    return samples[:, None].flatten(1).float().square().sum(1).isfinite()


def marks(numbers: Tensor) -> Tensor:
    """Which numbers are one and the same, far below or above all others, of the tensor's shape.

    So are the logits of classes that are impossible: -1e9, say, where a mask was filled in. They
    vary with the mask, and say nothing of what the others vary by.
    """
    found = torch.zeros_like(numbers, dtype=torch.bool)
    for edge in (numbers.amin(), numbers.amax()) if numbers.numel() else ():
        equal = numbers == edge
        others = numbers.where(~equal, 0.0)
        count = (~equal).sum().clamp(min=1)
        mean = others.sum() / count
        deviation = ((others - mean).where(~equal, 0.0).square().sum() / count).sqrt()
        far = (edge - mean).abs() > APART * deviation
        far = far & (edge.abs() > LARGER * others.abs().amax())
        found |= equal & far & (deviation > 0) & (equal.sum() > 1)
    return found
