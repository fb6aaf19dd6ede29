"""The `repr` of settings."""

from dataclasses import MISSING, fields
from typing import Any

MOST_CHARACTERS = 60


def brief(settings: Any) -> str:
    """`Fit(every=1)`: a dataclass's object, with those fields that are not their default."""
    shown = [
        f"{field.name}={_short(getattr(settings, field.name))}"
        for field in fields(settings)
        if field.default is MISSING or getattr(settings, field.name) != field.default
    ]
    return f"{type(settings).__name__}({', '.join(shown)})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{type(value).__name__}(...)"
