"""What the surrogate is fitted to: LS, Eq. 6."""

from collections.abc import Callable

import torch
from torch import Tensor

from .._surrogate import norm


def objective(
    surrogate: Callable[[Tensor, Tensor], Tensor],
    z: Tensor,
    y: Tensor,
    error: Tensor,
    *,
    penalty_weight: float,
    penalty_norm: float,
) -> tuple[Tensor, Tensor | None]:
    """`mean (S(z, y) - e)^2 + weight * mean (||dS(z, y)/dz|| - norm)^2`.

    LS (Patel, Hodaň, Matas, ECCV 2020), Eq. 6; the penalty is Eq. 5, where `norm` is 1.

    Args:
        surrogate: `S(z, y) -> (batch,)`.
        z: represented predictions, `(batch, ..., features)`.
        y: represented targets, `(batch, ...)`.
        error: the true metric as an error, `(batch,)`.
        penalty_weight: 0 leaves the penalty out, and with it the double backward that it costs.
        penalty_norm: the gradient norm asked for, in the metric's units per unit of z.

    Returns:
        The objective, and the penalty without its weight, if it was computed.
    """
    if not penalty_weight:
        return (surrogate(z, y) - error).square().mean(), None
    z = z.detach().requires_grad_()
    value = surrogate(z, y)
    (gradient,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    penalty = (norm(gradient.flatten(1)) - penalty_norm).square().mean()
    return (value - error).square().mean() + penalty_weight * penalty, penalty.detach()
