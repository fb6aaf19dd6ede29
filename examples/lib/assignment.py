"""Linear assignment: the solver, its blackbox derivative, and a soft one.

An assignment of n things to n others is a permutation matrix y; with costs w it is the one of the
lowest w . y.
"""

from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.autograd.function import once_differentiable


def assigned(costs: Tensor) -> Tensor:
    """Which column each row gets, `(batch, n)`, at costs `(batch, n, n)`."""
    found = [linear_sum_assignment(each)[1] for each in costs.detach().cpu().numpy()]
    return torch.from_numpy(np.stack(found)).to(costs.device)


def blackbox_assignment(costs: Tensor, strength: float) -> Tensor:
    """The assignment as matrices `(batch, n, n)`, with the derivative of blackbox solvers.

    With g the loss's gradient in it, that in the costs is (y(w + strength g) - y(w)) / strength,
    a second run of the solver (Vlastelica et al., "Differentiation of Blackbox Combinatorial
    Solvers", ICLR 2020; Rolinek et al., ECCV 2020, print it with the other derivative on the left).
    It is the exact gradient of (min_y (w + strength g) . y - min_y w . y) / strength where g does
    not depend on y, as for the Hamming distance.
    """
    found: Tensor = _Blackbox.apply(costs, strength)
    return found


class _Blackbox(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, costs: Tensor, strength: float) -> Tensor:
        found = _matrices(costs)
        ctx.strength = strength
        ctx.save_for_backward(costs, found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        costs, found = ctx.saved_tensors
        return (_matrices(costs + ctx.strength * gradient) - found) / ctx.strength, None


def _matrices(costs: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(assigned(costs), costs.shape[2]).to(costs)


def sinkhorn(scores: Tensor, steps: int = 20) -> Tensor:
    """Logarithms of matrices `(batch, n, n)` whose rows and columns sum to one.

    Rows and columns are normalised in turn, the rows last (Sinkhorn and Knopp, 1967; as a layer:
    Mena et al., "Learning Latent Permutations with Gumbel-Sinkhorn Networks", ICLR 2018, without
    the noise).
    """
    for _ in range(steps):
        scores = scores.log_softmax(1).log_softmax(2)
    return scores
