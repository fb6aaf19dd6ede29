"""Similarity mixup (SiMix)."""

import torch
from torch import Tensor

from .._support.embeddings import AT_ONCE, positive_pairs


def mixed(embeddings: Tensor, labels: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """The batch with a virtual example for each pair of a label, behind it.

    A virtual example alpha x + (1 - alpha) z (Eq. 5.8 of the thesis) is not of length one again.
    Therefore its similarities are those of x and z, mixed (Eq. 5.9 and 5.10): one product of the
    embeddings that are returned has all of them.

    Args:
        embeddings: `(n, d)`, of length one.
        labels: `(n,)`.
        random: a generator on the CPU; draws alpha, uniform from 0 to 1, once a pair.

    Returns:
        `(n + pairs, d)` and `(n + pairs,)`.
    """
    one, other = unordered_pairs(labels)
    alpha = torch.rand(len(one), 1, generator=random, dtype=embeddings.dtype).to(embeddings.device)
    virtual = alpha * embeddings[one] + (1 - alpha) * embeddings[other]
    return torch.cat([embeddings, virtual]), torch.cat([labels, labels[one]])


def unordered_pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of all pairs of a label, `(pairs,)` each, the first the smaller one."""
    some = max(1, AT_ONCE // max(1, len(labels)))
    found = [labels.new_zeros(2, 0, dtype=torch.long)]
    for start in range(0, len(labels), some):
        rows, columns = positive_pairs(labels, start, min(start + some, len(labels)))
        found.append(torch.stack([rows + start, columns]))
    one, other = torch.cat(found, 1)
    return one[one < other], other[one < other]
