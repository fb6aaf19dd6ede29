"""SoDeep's losses of ranks, with any sorter.

Engilberge et al., "SoDeep: a Sorting Deep net to learn ranking loss surrogates", CVPR 2019.
"""

import math

import torch.nn.functional as F
from torch import Tensor

from .._support.checks import Reduction, check_number
from ._lists import ReadLists, read_lists
from ._ranks import Sorter, expected_ranks, ranks


def squared_rank_loss(
    scores: Tensor,
    targets: Tensor,
    *,
    sorter: Sorter = expected_ranks,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""SoDeep's loss for Spearman's correlation (Eq. 4), scaled so that exact ranks give `1 - r_s`.

        L = 6 / (d (d^2 - 1)) ||f(y) - rk(y*)||^2

    With expected ranks, `spearman_loss` is the exact expectation, and this is not.

    Args:
        scores: `(n,)` for one list, or `(..., n)`.
        targets: of the same shape, numbers of any scale, of which only the order counts.
        sorter: f, of scores `(lists, n)` their ranks, descending from 1: `expected_ranks`,
            `sigmoid_ranks`, `blackbox_rank`, a net such as `LSTMSorter`, a `functools.partial`.
        mask: where there is an item, bool, of the same shape; None: everywhere. The sorter is then
            called with `mask=`.
        reduction: "mean" over the lists, "sum", or "none" for one number a list.

    Returns:
        0 to 2 a list for ranks that are permutations. A list of fewer than two items has 0, and
        the mean leaves it out.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; a sorter that returns
            another shape.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.1, 0.7, 0.4, 0.9], requires_grad=True)
        >>> loss = squared_rank_loss(scores, torch.tensor([1, 2, 3, 4]), sorter=blackbox_rank)
        >>> round(loss.item(), 3)
        0.2
    """
    lists = read_lists(scores, targets, mask, reduction)
    found = _sorted(sorter, lists, mask)
    wanted = ranks(lists.places, mask=lists.present)
    count = lists.present.sum(1).to(found)
    squares = (found - wanted).where(lists.present, 0.0).square().sum(1)
    scale = count * (count**2 - 1) / 6
    return lists.reduce(squares / scale.clamp(min=1), count > 1, reduction)


def rank_sum_loss(
    scores: Tensor,
    targets: Tensor,
    *,
    sorter: Sorter = expected_ranks,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""SoDeep's loss for mean average precision (Eq. 7): the mean rank of relevant items, over d.

        L = <f(y), y*> / (rel d)

    It is not AP. With exact ranks it is the area under the ROC curve, `1 - AUC = (d L - (rel + 1) /
    2) / (d - rel)`, and an item at rank 50 counts as much as one at rank 2. For AP there is
    `average_precision_loss`.

    Args:
        scores: `(n,)` for one list, or `(..., n)`.
        targets: of the same shape: items above 0 are relevant.
        sorter: f, see `squared_rank_loss`.
        mask: where there is an item, bool, of the same shape; None: everywhere.
        reduction: "mean" over the lists, "sum", or "none" for one number a list.

    Returns:
        0 to 1 a list. A list without a relevant item has 0, and the mean leaves it out.

    Raises:
        TypeError, ValueError: as `squared_rank_loss`.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.1, 0.7, 0.4, 0.9], requires_grad=True)
        >>> rank_sum_loss(scores, torch.tensor([0, 1, 0, 1]), sorter=blackbox_rank).item()
        0.375
    """
    lists = read_lists(scores, targets, mask, reduction)
    found = _sorted(sorter, lists, mask)
    relevant = lists.targets > 0
    count = relevant.sum(1)
    scale = (count * lists.present.sum(1)).clamp(min=1)
    return lists.reduce(found.where(relevant, 0.0).sum(1) / scale, count > 0, reduction)


def rank_margin_loss(
    scores: Tensor,
    targets: Tensor,
    *,
    margin: float = 1.0,
    sorter: Sorter = expected_ranks,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""SoDeep's loss for recall (Eq. 9 and 10): a triplet loss of ranks with the hardest negative.

        L = max(0, alpha + f(y)_p - min_c f(y)_c)

    for the relevant item p, in the mean over them if there are several, and all others c. In a
    square matrix of similarities, leave the query itself out by the mask.

    Args:
        scores: `(n,)` for one list (a query), or `(..., n)`.
        targets: of the same shape: items above 0 are relevant.
        margin: alpha, in ranks; not published.
        sorter: f, see `squared_rank_loss`.
        mask: where there is an item, bool, of the same shape; None: everywhere.
        reduction: "mean" over the lists, "sum", or "none" for one number a list.

    Returns:
        0 or more a list. A list without a relevant item or without another one has 0, and the mean
        leaves it out.

    Raises:
        TypeError, ValueError: as `squared_rank_loss`.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.1, 0.7, 0.4, 0.9], requires_grad=True)
        >>> rank_margin_loss(scores, torch.tensor([0, 1, 0, 0]), sorter=blackbox_rank).item()
        2.0
    """
    check_number("margin", margin, 0, integer=False)
    lists = read_lists(scores, targets, mask, reduction)
    found = _sorted(sorter, lists, mask)
    relevant = lists.targets > 0
    others = lists.present & ~relevant
    count = relevant.sum(1)
    defined = (count > 0) & others.any(1)
    hardest = F.pad(found.where(others, math.inf), (0, 1), value=math.inf).amin(1)
    excess = (margin + found - hardest.where(defined, 0.0)[:, None]).clamp(min=0)
    total = excess.where(relevant, 0.0).sum(1)
    return lists.reduce(total / count.clamp(min=1), defined, reduction)


def _sorted(sorter: Sorter, lists: ReadLists, mask: Tensor | None) -> Tensor:
    """The sorter's ranks `(lists, n)`."""
    ragged = {} if mask is None else {"mask": lists.present}
    found = sorter(lists.scores, **ragged)
    if not isinstance(found, Tensor) or found.shape != lists.scores.shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"sorter must return a rank for each score, {tuple(lists.scores.shape)}; got {got}"
        )
    return found
