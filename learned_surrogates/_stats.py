"""How good the surrogate is, in figures."""

import torch
from torch import Tensor


def agreement(values: Tensor, errors: Tensor) -> dict[str, float]:
    """Compares surrogate values with the true errors, `(samples,)` each.

    Returns:
        `surrogate_error`, the mean of |value - error|, in the metric's units; `relative_error`,
        the same over the error of the best constant, the median; `rank_correlation`, Spearman's,
        in -1..1. NaN where there are no samples or, for the last two, nothing varies.
    """
    values, errors = values.double().cpu(), errors.double().cpu()
    absolute = (values - errors).abs().mean().item()
    constant = (errors - errors.median()).abs().mean().item() if len(errors) else 0.0
    return {
        "surrogate_error": absolute,
        "relative_error": absolute / constant if constant else float("nan"),
        "rank_correlation": _correlation(_ranks(values), _ranks(errors)),
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
