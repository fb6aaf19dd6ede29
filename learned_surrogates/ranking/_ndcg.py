"""The expected discounted cumulative gain as a loss."""

import torch
from torch import Tensor

from .._support.checks import Reduction, check_number
from ._lists import read_lists
from ._pairs import standardised
from ._rank_distribution import expected_worth, nodes_for
from ._ranks import check_noise

# Ranks whose probabilities are told one by one without k: after them, the discount is slow.
FIRST = 16


def ndcg_loss(
    scores: Tensor,
    targets: Tensor,
    *,
    k: int | None = None,
    noise: float = 0.3,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""One minus the expected normalised discounted cumulative gain under noise on the scores.

        NDCG@k = sum_i gain_i D(rk_i) / ideal,    D(r) = 1 / log2(1 + r) for r <= k, else 0,

    with the expectation of D by the distribution of each item's rank, as SoftRank has it (Taylor
    et al., WSDM 2008), and given the item's own noise. The discount of the expected rank, which is
    often taken in its place, has another gradient.

    Of n items, g of them with a gain, the cost grows with `g n k sqrt(n noise)`.

    Args:
        scores: `(n,)` for one list, or `(..., n)`.
        targets: gains, of the same shape, 0 or more. For grades with exponential gains, pass
            `2**grades - 1`.
        k: how many ranks count; None: all.
        noise: standard deviation of the noise, in standard deviations of a list's scores, above 0.
        mask: where there is an item, bool, of the same shape; None: everywhere.
        reduction: "mean" over the lists, "sum", or "none" for one number a list.

    Returns:
        0 to 1 a list. A list without gains has no NDCG: its loss is 0, and the mean leaves it out.
        float64 of such scores, else float32.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.1, 0.7, 0.4, 0.9], requires_grad=True)
        >>> loss = ndcg_loss(scores, torch.tensor([0.0, 1.0, 0.0, 3.0]), k=2)
        >>> round(loss.item(), 3)
        0.014
        >>> loss.backward()
    """
    check_noise(noise)
    if k is not None:
        check_number("k", k, 1)
    lists = read_lists(scores, targets, mask, reduction)
    if (lists.targets < 0).any():
        raise ValueError(f"targets must be gains of 0 or more; one is {lists.targets.min():g}")
    gains, items = lists.targets.to(lists.scores), lists.targets.shape[1]
    unit = standardised(lists.scores, lists.present) / noise
    nodes = nodes_for(lists.present, noise)
    first = max(1, min(FIRST if k is None else k, items))
    worth = _discount(torch.arange(1, first + 1, device=unit.device).to(unit))
    beyond = _discount if k is None and items > first else None
    found = expected_worth(unit, lists.present, gains > 0, worth, beyond, nodes)
    reached = (found * gains).sum(1)
    best = gains.sort(1, descending=True).values[:, :k]
    places = torch.arange(1, best.shape[1] + 1, device=unit.device).to(unit)
    ideal = (best.clamp(min=0) * _discount(places)).sum(1)
    defined = ideal > 0
    return lists.reduce(1 - reached / ideal.where(defined, 1.0), defined, reduction)


def _discount(rank: Tensor) -> Tensor:
    return 1 / (1 + rank).log2()
