"""Recall at k, the metric."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .._support.checks import check_choice, check_number
from .._support.embeddings import AT_ONCE, labelled, unit


@torch.no_grad()
def recall_at_k(
    embeddings: Tensor,
    labels: Tensor,
    k: int | Sequence[int] = 1,
    *,
    form: Literal["any", "share"] = "any",
) -> Tensor:
    """Recall at k of embeddings, each a query and the others its database; higher is better.

    Ranks are by the cosine. Where similarities are equal, the query gets the worse rank: embeddings
    that have all become the same, or are not numbers, retrieve nothing.

    Args:
        embeddings: `(n, d)`, of any length above 1e-6.
        labels: `(n,)` integers. An example alone with its label is no query.
        k: length of the list, or several.
        form: "any", the benchmarks' r@k: whether one of the first k has the query's label. "share":
            of all that have the label, how many are among the first k (Eq. 5.1 of the thesis).

    Returns:
        `()`, or `(len(k),)` of several: the mean over queries, 0 to 1; NaN where there is none.

    Raises:
        TypeError, ValueError: for embeddings that are not `(n, d)` numbers, labels that are not
            `(n,)` integers, another form, or k below 1.

    Example:
        >>> import torch
        >>> line = torch.tensor([0.0, 0.1, 0.25, 0.45, 0.5])
        >>> embeddings = torch.stack([line.cos(), line.sin()], 1)
        >>> labels = torch.tensor([0, 0, 1, 0, 1])
        >>> recall_at_k(embeddings, labels, (1, 2))
        tensor([0.4000, 0.6000])
        >>> recall_at_k(embeddings, labels, 2, form="share")
        tensor(0.4000)

    References:
        Patel, "Learning Surrogates", doctoral thesis, Czech Technical University: section 5.2.
    """
    check_choice("form", form, ("any", "share"))
    several = tuple(k) if isinstance(k, Sequence) else (k,)
    for each in several:
        check_number("k", each, 1)
    embeddings, labels = labelled("embeddings", embeddings, labels)
    lengths = torch.tensor(several, device=embeddings.device)
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings = unit(embeddings)
        found = [embeddings.new_zeros(0, len(several))]
        wild = embeddings.isnan().any(1)
        size = max(1, AT_ONCE // max(1, len(labels)))
        for start in range(0, len(labels), size):
            end = min(start + size, len(labels))
            similarities = embeddings[start:end] @ embeddings.T
            alike = labels[start:end, None] == labels
            # What is not a number is found by none, and finds all others first.
            lost = torch.where(alike | wild, -torch.inf, torch.inf).to(similarities)
            similarities = similarities.where(~similarities.isnan(), lost)
            for matrix, value in ((similarities, -torch.inf), (alike, False)):
                matrix[:, start:end].fill_diagonal_(value)
            found.append((_any if form == "any" else _share)(similarities, alike, lengths))
    mean = torch.cat(found).nanmean(0)
    return mean if isinstance(k, Sequence) else mean[0]


def _any(similarities: Tensor, alike: Tensor, lengths: Tensor) -> Tensor:
    """Whether fewer than k of another label are as near as the nearest of its own."""
    nearest = similarities.where(alike, -torch.inf).amax(1, keepdim=True)
    before = ((similarities >= nearest) & ~alike).sum(1, keepdim=True)
    # The query itself is beyond all others, and so is no match that there is.
    hit = (before < lengths).to(similarities.dtype)
    return hit.where(alike.any(1, keepdim=True), torch.nan)


def _share(similarities: Tensor, alike: Tensor, lengths: Tensor) -> Tensor:
    """The share of its label that has a rank of k or less (Eq. 5.2)."""
    in_order = similarities.sort(1).values
    ranks = similarities.shape[1] - torch.searchsorted(in_order, similarities.contiguous())
    within = (ranks[:, :, None] <= lengths) & alike[:, :, None]
    return within.sum(1) / alike.sum(1, keepdim=True)
