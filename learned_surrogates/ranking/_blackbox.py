"""Ranks by blackbox differentiation."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .._support.checks import check_positive
from ._lists import read_scores


def blackbox_rank(scores: Tensor, *, strength: float = 1.0, mask: Tensor | None = None) -> Tensor:
    r"""Exact ranks, with the gradient of a linear interpolation between them.

    Ranks are the solution of a linear problem, the permutation y that minimises `w . y` for scores
    w. Its derivative is taken as that of blackbox solvers: with g, the loss's gradient of the
    ranks,

        dL/dw = (rk(w + strength g) - rk(w)) / strength,

    two sorts in all (Vlastelica et al., Eq. 2; Rolinek et al. print it with dL/dy on the left).
    If the loss is linear in the ranks, it is the exact gradient of the interpolation
    `(min_y (w + strength g) . y - min_y w . y) / strength`.

    The loss that follows must have a gradient of the ranks that is itself of use: Spearman's has,
    and what counts how many ranks are below k has not. Where the order is right the gradient is
    zero. A margin keeps it alive: pass `scores - margin * relevant`, in training only (Eq. 7).

    Args:
        scores: `(n,)` or `(..., n)`.
        strength: lambda, how far the interpolation reaches, in units of scores over those of the
            loss's gradient, above 0. The smaller it is, the nearer to ranks, and the more often
            the gradient is zero.
        mask: where there is an item, bool, of the same shape; None: everywhere.

    Returns:
        `(..., n)`, 1 for the highest score, equal ones in the order in which they come; 0 where
        there is no item; NaN in a list with a score that is NaN. float64 of such scores, else
        float32.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.2, 0.9, 0.5], requires_grad=True)
        >>> found = blackbox_rank(scores, strength=1.0)
        >>> found
        tensor([3., 1., 2.], grad_fn=...)
        >>> found[0].backward()  # the first rank is too large
        >>> scores.grad
        tensor([-2.,  1.,  1.])

    References:
        - Vlastelica et al., "Differentiation of Blackbox Combinatorial Solvers", ICLR 2020.
        - Rolinek et al., "Optimizing Rank-Based Metrics with Blackbox Differentiation", CVPR 2020.
        - Rolinek et al., "Deep Graph Matching via Blackbox Differentiation of Combinatorial
          Solvers", ECCV 2020.
    """
    check_positive("strength", strength, "the gradient is divided by it")
    rows, present, _ = read_scores(scores, mask)
    found: Tensor = _BlackboxRank.apply(rows, present, strength)
    return found.reshape(scores.shape)


class _BlackboxRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, present: Tensor, strength: float) -> Tensor:
        found = _permutation(rows, present)
        ctx.strength = strength
        ctx.save_for_backward(rows, present, found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rows, present, found = ctx.saved_tensors
        moved = _permutation(rows + ctx.strength * gradient, present)
        return (moved - found) / ctx.strength, None, None


def _permutation(rows: Tensor, present: Tensor) -> Tensor:
    """Ranks without ties, `(lists, n)`."""
    _, order = rows.where(present, -math.inf).sort(dim=1, descending=True, stable=True)
    # What is not there comes last, also behind scores of minus infinity.
    absent = (~present).gather(1, order).int()
    order = order.gather(1, absent.argsort(dim=1, stable=True))
    places = torch.arange(1, rows.shape[1] + 1, device=rows.device, dtype=rows.dtype)
    found = torch.zeros_like(rows).scatter(1, order, places.expand_as(rows))
    found = found.where(~(rows.isnan() & present).any(1, keepdim=True), torch.nan)
    return found.where(present, 0.0)
