"""How the surrogate is fitted, as arguments that were checked."""

import numbers
from dataclasses import dataclass
from typing import Any, Literal

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
LEAST_NUMBERS = {"learning_rate": 0, "penalty_weight": 0, "penalty_norm": 0}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the surrogate is fitted; each field is the loss's argument of that name.

    Raises:
        TypeError: a field is of the wrong kind.
        ValueError: a field has an impossible value.
    """

    data: Literal["local", "global", "local-global"]
    filter: float | None
    draws: int
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

    def __post_init__(self) -> None:
        check_choice("data", self.data, ("local", "global", "local-global"))
        for name, least in LEAST_INTEGERS.items():
            check_number(name, getattr(self, name), least)
        if self.filter is not None:
            check_number("filter", self.filter, 0, integer=False)
        for name, least in LEAST_NUMBERS.items():
            check_number(name, getattr(self, name), least, integer=False)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises a ValueError that names the argument and its choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_number(name: str, value: Any, least: float, *, integer: bool = True) -> None:
    """Raises a TypeError or a ValueError that names the argument and what it must be."""
    kind = numbers.Integral if integer else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
        wanted = "an integer" if integer else "a number"
        raise TypeError(f"{name} must be {wanted}; got {value!r}")
    if not float(value) >= least:
        raise ValueError(f"{name} must be at least {least}; got {value!r}")
