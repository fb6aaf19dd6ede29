"""Ranks, and what stands in for them where a gradient is needed.

All of them are descending and begin at 1, the rank of the highest score:
`rk(y)_i = 1 + sum_{j != i} 1[y_j > y_i]`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .._support.checks import check_positive
from ._lists import read_scores
from ._pairs import for_each_item, standardised

# Scores `(lists, n)` in, ranks `(lists, n)` out; called with `mask=` where lists are ragged.
Sorter = Callable[..., Tensor]


def ranks(scores: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Exact ranks, 1 for the highest score; equal scores share the mean of theirs.

    Without a gradient: it is zero wherever it exists.

    Args:
        scores: `(n,)` or `(..., n)`.
        mask: where there is an item, bool, of the same shape; None: everywhere.

    Returns:
        of the same shape, 0 where there is no item; NaN in a list with a score that is NaN, which
        has no order.

    Raises:
        TypeError, ValueError: scores or a mask of the wrong kind or shape.

    Example:
        >>> import torch
        >>> ranks(torch.tensor([0.2, 0.9, 0.5, 0.5]))
        tensor([4.0000, 1.0000, 2.5000, 2.5000])
    """
    rows, present, _ = read_scores(scores, mask)
    # As a view, such as `scores.T`, it would be copied at each search, with a warning.
    rows = rows.detach().where(present, -math.inf).contiguous()
    ordered = rows.sort(1).values
    # What is not there is below all that is, also below scores of minus infinity.
    below = torch.searchsorted(ordered, rows).maximum((~present).sum(1, keepdim=True))
    not_above = torch.searchsorted(ordered, rows, right=True)
    found = rows.shape[1] - (below + not_above - 1).to(rows.dtype) / 2
    found = found.where(~rows.isnan().any(1, keepdim=True), torch.nan)
    return found.where(present, 0.0).reshape(scores.shape)


def centred_ranks(rows: Tensor, present: Tensor) -> Tensor:
    """Exact ranks less their mean, `(lists, n)`; 0 where there is no item, or nothing varies."""
    # It is known, and summed up it would be off by rounding.
    mean = (present.sum(1, keepdim=True) + 1) / 2
    return (ranks(rows, mask=present) - mean).where(present, 0.0)


def expected_ranks(scores: Tensor, *, noise: float = 0.3, mask: Tensor | None = None) -> Tensor:
    r"""Expected ranks under Gaussian noise on the scores, in closed form.

    With scores y, standardised within their list, and independent noise of standard deviation s on
    each,

        E[rk_i] = 1 + sum_{j != i} Phi((y_j - y_i) / (sqrt(2) s)).

    Works for lists of any length, at a cost of `n ** 2`; nothing is fitted.

    Args:
        scores: `(n,)` or `(..., n)`, of any scale.
        noise: s, in standard deviations of the list's scores, above 0.
        mask: where there is an item, bool, of the same shape; None: everywhere.

    Returns:
        of the same shape, 1 to n, 0 where there is no item; float64 of such scores, else float32.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.

    Example:
        >>> import torch
        >>> expected_ranks(torch.tensor([0.2, 0.9, 0.5, 0.5]))
        tensor([3.9955, 1.0002, 2.5022, 2.5022])
    """
    check_noise(noise)
    rows, present, _ = read_scores(scores, mask)
    unit = standardised(rows, present) / (math.sqrt(2) * noise)
    return ranks_of_pairs(torch.special.ndtr, unit, present, scores)


def sigmoid_ranks(scores: Tensor, *, sharpness: float = 10.0, mask: Tensor | None = None) -> Tensor:
    """SoDeep's handcrafted sorter: a sigmoid for each pair (Eq. 11 and 12, and 1 for the first).

    `1 + sum_{j != i} sigmoid(sharpness (y_j - y_i))`, of the scores as they are: unlike
    `expected_ranks`, it depends on their scale.

    Args:
        scores: `(n,)` or `(..., n)`, about between -1 and 1.
        sharpness: lambda of the paper, above 0.
        mask: where there is an item, bool, of the same shape; None: everywhere.

    Returns:
        of the same shape, 0 where there is no item; float64 of such scores, else float32.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.

    Example:
        >>> import torch
        >>> sigmoid_ranks(torch.tensor([0.2, 0.9, 0.5]), sharpness=100.0)
        tensor([3., 1., 2.])

    References:
        Engilberge et al., "SoDeep: a Sorting Deep net to learn ranking loss surrogates", CVPR 2019.
    """
    check_positive("sharpness", sharpness)
    rows, present, _ = read_scores(scores, mask)
    return ranks_of_pairs(torch.sigmoid, rows * sharpness, present, scores)


def check_noise(noise: float) -> None:
    """Raises where it is not a number above 0."""
    check_positive("noise", noise, "without any, ranks have no gradient")


def ranks_of_pairs(
    above: Callable[[Tensor], Tensor], rows: Tensor, present: Tensor, scores: Tensor
) -> Tensor:
    """Sums over an item's pairs, and 1, of the scores' shape; 0 where there is no item.

    Args:
        above: of the gaps by which others stand above an item, `(rows, n)`.
        rows: `(lists, n)`.
        present: where there is an item, `(lists, n)`, bool.
        scores: as they were handed over, of any shape.
    """
    found = for_each_item(
        lambda gaps, others, _: 1 + above(gaps).where(others, 0.0).sum(1), rows, present, present
    )
    return torch.zeros_like(rows).masked_scatter(present, found).reshape(scores.shape)
