"""How good the surrogate is, in figures."""

import torch
from torch import Tensor


def goodness_of_fit(
    values: Tensor, errors: Tensor, noise: Tensor | None = None
) -> dict[str, float]:
    """Compares surrogate values with the true errors, `(samples,)` each.

    Args:
        values: the surrogate's.
        errors: what it stands for.
        noise: variance of the errors where they are estimates, means over a few draws; None and
            NaN count as none.

    Returns:
        "surrogate/mae", the mean of |value - error|, in the metric's units; "surrogate/nrmse", the
        root mean square of value - error over that of the best constant, the mean, both without
        the part that is the errors' own noise: 0 is perfect, 1 knows nothing; and
        "surrogate/spearman", in -1..1. NaN where there are no samples or, for the last two,
        nothing varies.
    """
    values, errors = values.double().cpu(), errors.double().cpu()
    noisy = 0.0 if noise is None else noise.double().cpu().nan_to_num().mean().item()
    wrong = (values - errors).square().mean().item() - noisy
    varies = errors.var(correction=0).item() - noisy if len(errors) else 0.0
    return {
        "surrogate/mae": (values - errors).abs().mean().item(),
        "surrogate/nrmse": (max(wrong, 0.0) / varies) ** 0.5 if varies > 0 else float("nan"),
        "surrogate/spearman": _correlation(_ranks(values), _ranks(errors)),
    }


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 0; ties share their mean rank."""
    _, group, size = torch.unique(values, return_inverse=True, return_counts=True)
    last = size.cumsum(0).double()
    ranks: Tensor = last - (size + 1) / 2
    return ranks[group]


def _correlation(a: Tensor, b: Tensor) -> float:
    if len(a) < 2:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b) / (a.norm() * b.norm()))
