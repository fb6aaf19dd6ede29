"""What is known of lists under noise: the means of ranks, and scores of them."""

import math

import torch
from torch import Tensor

from .._sets.known import Parts
from ._ranks import centred_ranks, ranks, ranks_of_pairs

# Places that scores of the first few look at.
FIRST = (1, 2, 3, 5, 10, 20, 50)


class RankParts(Parts):
    r"""Ranks of all items, and of the better ones among themselves.

    Under noise of standard deviation w on each score, both have means in closed form,
    :math:`E[rk_i] = 1 + \sum_{j \ne i} \Phi((z_j - z_i) / (\sqrt 2 w))`, exactly. The scores are
    rank correlation, average precision, discounted gains, and the gains among the first k; gains
    are the targets, and steeper ones, as exponential gains of grades are.

    Args:
        targets: `(lists, n)`.
        present: where there is an item, `(lists, n)`, bool.
        width: w, `(lists, 1)`.
    """

    columns = 2 + 2 * (2 + len(FIRST))

    def __init__(self, targets: Tensor, present: Tensor, width: Tensor):
        self.present = present
        self.width = width
        worth = targets.to(width)
        self.count = present.sum(1, keepdim=True).clamp(min=1)
        low = worth.where(present, math.inf).amin(1, keepdim=True)
        high = worth.where(present, -math.inf).amax(1, keepdim=True)
        spread = torch.where(high > low, high - low, 1.0)
        # 0 for the least of a list, 1 for the best.
        gains = ((worth - low) / spread).where(present, 0.0)
        self.better = present & (gains > self._mean(gains))
        self.centred = centred_ranks(worth, present)
        kinds = gains, gains**3
        places = torch.arange(1, gains.shape[1] + 1, device=gains.device).to(gains)
        ideal = [self._discounted(kind.sort(1, descending=True).values, places) for kind in kinds]
        #: What the ideal order has, by which metrics of gains are mostly divided: `(lists, ...)`.
        self.ideal = [each.where(each > 0, 1.0) for each in ideal]
        # Ranks are a permutation, so that a sum over all of them is a constant; one to first order
        # is not, and would be noise.
        self.gains = [(kind - self._mean(kind)).where(present, 0.0) for kind in kinds]

    def means(self, z: Tensor) -> Tensor:
        unit = z / (math.sqrt(2) * self.width)
        found = [
            ranks_of_pairs(torch.special.ndtr, unit, mask, unit)
            for mask in (self.present, self.better)
        ]
        return torch.cat(found, 1)

    def of(self, drawn: Tensor) -> Tensor:
        return torch.cat([ranks(drawn, mask=mask) for mask in (self.present, self.better)], 1)

    def scores(self, numbers: Tensor) -> Tensor:
        rank, among = numbers.where(numbers > 0, 1.0).chunk(2, 1)
        count = self.count[:, 0]
        # All scores are about as large, so that none is doubted more than others.
        correlation = 12 * (self.centred * rank).sum(1) / count**3
        precision = (among / rank).where(self.better, 0.0).sum(1)
        found = [correlation, precision / self.better.sum(1).clamp(min=1)]
        gained = [
            self._discounted(gains, rank) / ideal for gains, ideal in zip(self.gains, self.ideal)
        ]
        return torch.cat([torch.stack(found, 1), *gained], 1)

    def _discounted(self, gains: Tensor, rank: Tensor) -> Tensor:
        """Sums of gains `(lists, discounts)`, by several discounts of their rank."""
        found = [1 / (1 + rank).log2(), 1 / rank]
        found += [torch.sigmoid(4 * (k + 0.5 - rank) / k) for k in FIRST]
        return torch.stack([(gains * discount).sum(1) for discount in found], 1)

    def _mean(self, gains: Tensor) -> Tensor:
        return gains.sum(1, keepdim=True) / self.count
