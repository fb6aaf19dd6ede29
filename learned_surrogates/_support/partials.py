"""Functions of which some arguments are given already."""

import functools
from typing import Any


def whole(function: Any) -> Any:
    """The function itself, without what `functools.partial` gives it."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def given(function: Any) -> dict[str, Any]:
    """What `functools.partial` gives it, by places and names."""
    if not isinstance(function, functools.partial):
        return {}
    return {str(place): value for place, value in enumerate(function.args)} | function.keywords
