"""Checks of arguments, by which errors name them."""

import numbers
from typing import Any


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
