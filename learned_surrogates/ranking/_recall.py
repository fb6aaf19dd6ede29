"""The expected recall among the first k as a loss."""

from torch import Tensor

from .._support.checks import Reduction, check_number
from ._lists import read_lists
from ._pairs import standardised
from ._rank_distribution import expected_worth, nodes_for
from ._ranks import check_noise


def recall_loss(
    scores: Tensor,
    targets: Tensor,
    *,
    k: int,
    noise: float = 0.3,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""One minus the expected share of relevant items that are among the first k, under noise.

        R@k = mean over relevant i of 1[rk_i <= k]

    (SoDeep's Eq. 8, whose `< K` is for ranks that begin at 0), with the probability of `rk_i <= k`
    given i's own noise in closed form. An item that is many noises away from the first k has no
    gradient: train with a larger `noise` at first, or with another loss.

    Of n items, g of them relevant, the cost grows with `g n k sqrt(n noise)`.

    Args:
        scores: `(n,)` for one list, or `(..., n)`.
        targets: of the same shape: items above 0 are relevant.
        k: how many items are looked at.
        noise: standard deviation of the noise, in standard deviations of a list's scores, above 0.
        mask: where there is an item, bool, of the same shape; None: everywhere.
        reduction: "mean" over the lists, "sum", or "none" for one number a list.

    Returns:
        0 to 1 a list. A list without a relevant item has no recall: its loss is 0, and the mean
        leaves it out. float64 of such scores, else float32.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.1, 0.7, 0.4, 0.9], requires_grad=True)
        >>> loss = recall_loss(scores, torch.tensor([1, 0, 0, 1]), k=2)
        >>> round(loss.item(), 3)
        0.5
        >>> loss.backward()
    """
    check_noise(noise)
    check_number("k", k, 1)
    lists = read_lists(scores, targets, mask, reduction)
    relevant = lists.targets > 0
    unit = standardised(lists.scores, lists.present) / noise
    nodes = nodes_for(lists.present, noise)
    worth = unit.new_ones(max(1, min(k, unit.shape[1])))
    total = expected_worth(unit, lists.present, relevant, worth, None, nodes).sum(1)
    count = relevant.sum(1)
    return lists.reduce(1 - total / count.clamp(min=1), count > 0, reduction)
