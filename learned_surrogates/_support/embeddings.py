"""Embeddings with labels: what makes them so, and which of them belong together."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_tensor
from .precision import at_least_float32, computable

# Numbers that one operation holds at a time, where rows are taken in chunks: 16 MB in float32. More
# is slower where it leaves the caches.
AT_ONCE = 2**22
# Shorter embeddings have no direction to speak of, and are not made longer than this allows.
LEAST_NORM = 1e-6


def labelled(name: str, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings `(n, d)` in float32 or float64, and labels `(n,)` beside them.

    Args:
        name: of the embeddings, for errors.

    Raises:
        TypeError: not tensors; embeddings that are not floating-point; labels that are.
        ValueError: other shapes, or of different numbers.
    """
    for each, tensor in ((name, embeddings), ("labels", labels)):
        check_tensor(each, tensor)
    if not embeddings.is_floating_point():
        raise TypeError(f"{name} must be floating-point; they are {embeddings.dtype}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, one a class; they are {labels.dtype}")
    if embeddings.ndim != 2:
        raise ValueError(f"{name} must have shape (n, d); their shape is {tuple(embeddings.shape)}")
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"labels must have shape ({len(embeddings)},), one for each of {name}; "
            f"their shape is {tuple(labels.shape)}"
        )
    return at_least_float32(embeddings), computable(labels).to(embeddings.device)


def unit(embeddings: Tensor) -> Tensor:
    """Embeddings `(n, d)` of length one."""
    return F.normalize(embeddings, dim=1, eps=LEAST_NORM)


def positives_of(labels: Tensor) -> Tensor:
    """How many others have each one's label, `(n,)`."""
    _, which, counts = labels.unique(return_inverse=True, return_counts=True)
    return counts[which] - 1


def positive_pairs(labels: Tensor, start: int, end: int) -> tuple[Tensor, Tensor]:
    """Rows of `start:end`, less `start`, and others of the same label: `(pairs,)` indices each."""
    alike = labels[start:end, None] == labels
    alike[:, start:end].fill_diagonal_(False)
    rows, columns = alike.nonzero(as_tuple=True)
    return rows, columns
