"""Which samples of a batch are measured."""

import numbers
from typing import Any

import torch

from .._support.checks import check_number

Budget = float | int | None


def check_budget(budget: Any) -> None:
    """Raises an error that names the argument and its two forms."""
    if budget is None:
        return
    if isinstance(budget, numbers.Integral):
        check_number("metric_budget", budget, 1)
        return
    check_number("metric_budget", budget, 0, integer=False)
    if not 0 < budget <= 1:
        raise ValueError(
            "metric_budget must be a share of the samples, above 0 and up to 1.0, or an integer, "
            f"the most samples a call; got {budget!r}"
        )


def choose(budget: Any, samples: int, random: torch.Generator) -> list[int]:
    """The samples that are measured, in their order; at least one."""
    count = affordable(budget, samples)
    if count == samples:
        return list(range(samples))
    drawn = torch.randperm(samples, generator=random, device="cpu")[:count]
    return drawn.sort().values.tolist()


def affordable(budget: Any, samples: int) -> int:
    """How many of so many samples are measured."""
    if budget is None:
        return samples
    most = budget if isinstance(budget, numbers.Integral) else max(1, round(budget * samples))
    return min(samples, int(most))
