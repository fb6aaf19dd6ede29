"""The expected rank correlation as a loss."""

from torch import Tensor

from .._support.checks import Reduction
from ._lists import read_lists
from ._ranks import centred_ranks, expected_ranks


def spearman_loss(
    scores: Tensor,
    targets: Tensor,
    *,
    noise: float = 0.3,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""One minus the expected Spearman correlation under noise on the scores, exactly.

    Noisy scores have no ties, so that the variance of their ranks is a constant, and the
    correlation is linear in them:

        L = 1 - Cov(E[rk(y)], rk(y*)) / (std(rk(y)) std(rk(y*))),

    with the expected ranks of `expected_ranks`. SoDeep's Eq. 4, `squared_rank_loss`, squares the
    expected ranks, which counts less than the expected square.

    Args:
        scores: `(n,)` for one list, or `(..., n)`.
        targets: of the same shape, numbers of any scale, of which only the order counts; equal
            ones share their ranks' mean.
        noise: standard deviation of the noise, in standard deviations of a list's scores, above 0.
        mask: where there is an item, bool, of the same shape; None: everywhere.
        reduction: "mean" over the lists, "sum", or "none" for one number a list.

    Returns:
        0 to 2 a list. A list whose targets are all equal has no correlation: its loss is 0, and
        the mean leaves it out. float64 of such scores, else float32.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.1, 0.7, 0.4, 0.9], requires_grad=True)
        >>> loss = spearman_loss(scores, torch.tensor([1.0, 2.0, 3.0, 4.0]))
        >>> round(loss.item(), 2)
        0.23
        >>> loss.backward()
    """
    lists = read_lists(scores, targets, mask, reduction)
    count = lists.present.sum(1)
    wanted = centred_ranks(lists.places, lists.present)
    found = expected_ranks(lists.scores, noise=noise, mask=lists.present)
    spread = wanted.square().sum(1) * count * (count.to(wanted) ** 2 - 1) / 12
    defined = spread > 0
    correlation = (found * wanted).sum(1) / spread.where(defined, 1.0).sqrt()
    return lists.reduce(1 - correlation, defined, reduction)
