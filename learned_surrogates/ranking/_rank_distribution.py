r"""The distribution of an item's rank under Gaussian noise on all scores.

Given the item's own noise u, other items are above it independently of each other, item j with the
probability p_j = Phi(gap_j - u), in units of the noise. How many are is Poisson-binomial, and the
expectation over u is a Gauss-Hermite sum. SoftRank (Taylor et al.: SoftRank: Optimizing Non-Smooth
Rank Metrics, WSDM 2008) takes the p_j as independent without u.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ._pairs import for_each_item

# Noises between two scores that hardly ever change places: once in 100,000 draws.
REACH = 6.0


def nodes_for(present: Tensor, noise: float) -> int:
    """Values of the own noise that resolve the rank of an item of the longest list.

    Some `items * noise` others are within reach of the noise, and the more there are, the sharper
    is the step at which the item has passed k of them.

    Args:
        present: where there is an item, `(lists, n)`, bool.
        noise: in standard deviations of a list's scores.
    """
    items = int(present.sum(1).max()) if len(present) else 0
    return min(64, max(8, math.ceil(3 * math.sqrt(items * noise))))


@functools.cache
def _hermite(nodes: int) -> tuple[list[float], list[float]]:
    places, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return places.tolist(), (weights / weights.sum()).tolist()


def chances_above(gaps: Tensor, others: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """The probability that an item is above, for each value of the own noise.

    Args:
        gaps: `(rows, n)`, in units of the noise.
        others: which items there are beside the own one, `(rows, n)`, bool.
        nodes: values of the own noise.

    Returns:
        `(rows, nodes, n)`, and the weights of the nodes, `(nodes,)`.
    """
    own, weights = (gaps.new_tensor(part) for part in _hermite(nodes))
    chances = torch.special.ndtr(gaps[:, None] - own[:, None])
    return chances.where(others[:, None], 0.0), weights


def first_counts(chances: Tensor, most: int) -> Tensor:
    """Probabilities that none, one, ... `most - 1` of independent events happen.

    The product of the polynomials 1 - p + p t, pair by pair, without the powers that nobody asks
    for.

    Args:
        chances: p, `(..., events)`.
        most: of the counts.

    Returns:
        `(..., most)`.
    """
    powers = torch.stack([1 - chances, chances], -2)[..., :most, :]
    while powers.shape[-1] > 1:
        if powers.shape[-1] % 2:
            nothing = torch.zeros_like(powers[..., :1])
            nothing[..., 0, :] = 1
            powers = torch.cat([powers, nothing], -1)
        powers = _product(powers[..., ::2], powers[..., 1::2], most)
    if not powers.shape[-1]:  # no events
        powers = powers.new_ones(*powers.shape[:-2], 1, 1)
    return F.pad(powers[..., 0], (0, most - powers.shape[-2]))


def _product(a: Tensor, b: Tensor, most: int) -> Tensor:
    """Products of polynomials, whose coefficients are in the dimension before the last."""
    size = min(most, 2 * a.shape[-2] - 1)
    total = F.pad(a[..., :1, :] * b, (0, 0, 0, size - b.shape[-2]))
    for power in range(1, a.shape[-2]):
        term = a[..., power : power + 1, :] * b[..., : size - power, :]
        total = total + F.pad(term, (0, 0, power, size - power - term.shape[-2]))
    return total


def expected_worth(
    unit: Tensor,
    present: Tensor,
    chosen: Tensor,
    worth: Tensor,
    beyond: Callable[[Tensor], Tensor] | None,
    nodes: int,
) -> Tensor:
    """What an item's rank is worth in the mean over all noise, `(lists, n)`.

    An item that is far below the first k is not among them, nor above one that is: their ranks'
    distribution is made without it. Ranks beyond k need their mean, and what is far below those.

    Args:
        unit: scores in units of the noise, `(lists, n)`.
        present: where there is an item, `(lists, n)`, bool.
        chosen: the items that count, `(lists, n)`, bool; others get 0.
        worth: of the ranks 1 to k, `(k,)`.
        beyond: of ranks after that, a slow function of them; it gets their mean. None: nothing.
        nodes: values of the own noise.
    """
    best, order = unit.detach().where(present, -math.inf).sort(1, descending=True)
    border = best[:, len(worth) - 1 : len(worth)]
    near = chosen & ~(unit < border - REACH)  # NaN is near: the loss shall be NaN
    reach = REACH if beyond is None else 2 * REACH
    seen = (~(best < border - reach)).sum(1)
    first = order[:, : int(seen.max()) if len(seen) else 0]
    near_first = near.gather(1, first)
    found = for_each_item(
        lambda gaps, others, _: _worth_near(gaps, others, worth, beyond, nodes),
        unit.gather(1, first),
        present.gather(1, first),
        near_first,
        numbers=6 * nodes,
    )
    values = torch.zeros_like(near_first, dtype=unit.dtype).masked_scatter(near_first, found)
    # Of no lists, or lists of nothing, the sum has a graph, too.
    nothing = unit.where(torch.zeros_like(chosen), 0.0)
    total = nothing.scatter(1, first, values)
    if beyond is None:
        return total
    far = chosen & ~near
    ranks = for_each_item(_mean_rank, unit, present, far)
    return total.masked_scatter(far, beyond(ranks))


def _worth_near(
    gaps: Tensor,
    others: Tensor,
    worth: Tensor,
    beyond: Callable[[Tensor], Tensor] | None,
    nodes: int,
) -> Tensor:
    chances, weights = chances_above(gaps, others, nodes)
    probabilities = first_counts(chances, len(worth))
    mean = (probabilities * worth).sum(-1)
    if beyond is not None:
        counts = torch.arange(len(worth), device=worth.device)
        left = (1 - probabilities.sum(-1)).clamp(min=0)
        above = chances.sum(-1) - (probabilities * counts).sum(-1)
        some = left > 1e-4
        rank = 1 + (above / left.where(some, 1.0)).clamp(min=len(worth))
        mean = mean + left * beyond(rank.where(some, len(worth) + 1.0))
    return (mean * weights).sum(-1)


def _mean_rank(gaps: Tensor, others: Tensor, _: Tensor) -> Tensor:
    return 1 + torch.special.ndtr(gaps / math.sqrt(2)).where(others, 0.0).sum(1)
