"""Numbers with which one can still compute, and those that only fill a place."""

import torch
from torch import Tensor

# What equal numbers must exceed to be fill values: so many standard deviations of the others, from
# their mean, and so many times the largest of them. Zeros, as of a ReLU, never do.
APART, LARGER = 5.0, 2.0
# The same of a number that is alone, and of how many others that can be told.
ALONE, OTHERS = 1e3, 16
# What can still be divided by a noise's width.
LARGEST = 1e30


def moderate(samples: Tensor) -> Tensor:
    """Which samples `(batch, ...)` are finite, and so are their squares in float32: `(batch,)`."""
    return samples[:, None].flatten(1).float().square().sum(1).isfinite()


def bounded(numbers: Tensor) -> Tensor:
    """Numbers within `LARGEST`, as the lowest one there is may mask an output; others stay."""
    return torch.where(numbers.isfinite(), numbers.clamp(-LARGEST, LARGEST), numbers)


def fill_values(numbers: Tensor) -> Tensor:
    """Which numbers are one and the same, far below or above all others, of the tensor's shape.

    So are the logits of classes that are impossible: -1e9, say, where a mask was filled in. They
    vary with the mask, and say nothing of what the others vary by. What is not finite is none, and
    no other.
    """
    if not numbers.numel():
        return torch.zeros_like(numbers, dtype=torch.bool)
    finite = numbers.isfinite()
    edges = torch.stack(
        [numbers.where(finite, torch.inf).amin(), numbers.where(finite, -torch.inf).amax()]
    )
    lowest, highest = (numbers == edge for edge in edges)
    counts = torch.stack([lowest.sum(), highest.sum()])
    at_edge = lowest | highest | ~finite
    inner = numbers.masked_fill(at_edge, 0.0)
    of_inner = numbers.numel() - at_edge.sum()
    centre = inner.sum() / of_inner.clamp(min=1)
    spread = torch.linalg.vector_norm((numbers - centre).masked_fill_(at_edge, 0.0)).square()
    # The others of one edge are what is within both, and the other edge.
    opposite, of_opposite = edges.flip(0), counts.flip(0)
    count = (of_inner + of_opposite).clamp(min=1)
    mean = (of_inner * centre + of_opposite * opposite) / count
    spread = spread + of_inner * (centre - mean).square() + of_opposite * (opposite - mean).square()
    largest = torch.stack(inner.aminmax()).abs().amax().maximum(opposite.abs())
    apart, larger = (torch.where(counts > 1, least, ALONE) for least in (APART, LARGER))
    far = (edges - mean).abs() > apart * (spread / count).sqrt()
    far = far & (edges.abs() > larger * largest) & (spread > 0)
    far = far & ((counts > 1) | (count >= OTHERS))
    return (lowest & far[0]) | (highest & far[1])
