"""Functions of which some arguments are given already."""

import functools
from typing import Any


def whole(function: Any) -> Any:
    """The function itself, without what `functools.partial` gives it."""
    while isinstance(function, functools.partial):
        function = function.func
    return function
