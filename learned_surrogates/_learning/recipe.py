"""How the surrogate is fitted, as arguments that were checked."""

from dataclasses import dataclass
from typing import Literal

from .._evaluation.budget import Budget, check_budget
from .._evaluation.workers import Workers
from .._fitted.filter import Filter
from .._support.checks import check_choice, check_number

# The least value of each number; those in the first are integers.
LEAST_INTEGERS = {
    "draws": 0,
    "update_every": 1,
    "update_steps": 1,
    "batch_size": 1,
    "penalty_every": 1,
    "warm_up_updates": 0,
    "replay_capacity": 1,
    "replay_bytes": 1,
    "seed": 0,
}
LEAST_NUMBERS = {
    "base_weight": 0,
    "correction": 0,
    "learning_rate": 0,
    "penalty_weight": 0,
    "penalty_norm": 0,
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the surrogate is fitted; each field is the loss's argument of that name.

    Raises:
        TypeError: a field is of the wrong kind.
        ValueError: a field has an impossible value.
    """

    data: Literal["local", "global", "local-global"]
    filter: Filter | None
    draws: int
    base_weight: float | None
    correction: float
    update_every: int
    update_steps: int
    batch_size: int
    learning_rate: float
    penalty_weight: float
    penalty_norm: float
    penalty_every: int
    warm_up_updates: int
    replay_capacity: int
    replay_bytes: int
    seed: int
    executor: Workers | None
    metric_budget: Budget

    def __post_init__(self) -> None:
        check_choice("data", self.data, ("local", "global", "local-global"))
        for name, least in LEAST_INTEGERS.items():
            check_number(name, getattr(self, name), least)
        for name, least in LEAST_NUMBERS.items():
            if name != "base_weight" or self.base_weight is not None:
                check_number(name, getattr(self, name), least, integer=False)
        check_budget(self.metric_budget)
        late = self.executor is not None and self.executor.lag != 0
        if self.filter is not None and (late or self.metric_budget is not None):
            raise ValueError(
                "filter= compares the surrogate with the metric of the same call and sample: it "
                "needs an executor's values in the call, executor=Workers(..., lag=0), and no "
                "metric_budget"
            )
        for name in ("base_weight", "correction"):
            if (getattr(self, name) or 0) > 1:
                raise ValueError(f"{name} must be at most 1; got {getattr(self, name)!r}")
