"""Metrics that are objects with a memory, as torchmetrics' are."""

import re
import sys
from collections.abc import Callable
from typing import Any

from .._support.partials import whole

ACCUMULATES = (
    "metric {name} is an object that remembers every call, with {methods}: it would grow for ever, "
    "and may score more than what it is called with. {remedy}"
)
FUNCTION = "Give its function instead, {}, with what the object was made with by functools.partial"
ANY_FUNCTION = (
    "Give a function instead; a library that has such objects often has their functions too"
)
# What such a memory is filled, read or emptied by: torchmetrics, torcheval, Ignite; Keras; MONAI.
MEMORIES = (
    ("update", "reset"),
    ("update_state", "reset_state"),
    ("update_state", "reset_states"),
    ("aggregate", "reset"),
)


def refuse_what_accumulates(function: Callable[..., Any]) -> None:
    """Refuses a metric that is such an object, its method, or either with some arguments given."""
    function = whole(function)
    owner = getattr(function, "__self__", function)
    for names in MEMORIES:
        if not isinstance(owner, type) and all(callable(getattr(owner, n, None)) for n in names):
            methods = " and ".join(f"{name}()" for name in names)
            found = _functional(owner)
            remedy = ANY_FUNCTION if found is None else FUNCTION.format(found)
            name = type(owner).__name__
            raise TypeError(ACCUMULATES.format(name=name, methods=methods, remedy=remedy))


def _functional(owner: Any) -> str | None:
    """`torchmetrics.functional.text.char_error_rate`, of `torchmetrics.text.CharErrorRate`."""
    for kind in type(owner).__mro__:
        library, _, module = kind.__module__.partition(".")
        if library == "torchmetrics" and module:
            place = f"torchmetrics.functional.{module.partition('.')[0]}"
            # In BLEUScore, several capitals are one word.
            parts = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+", kind.__name__)
            name = "_".join(parts).lower()
            return f"{place}.{name}" if hasattr(sys.modules.get(place), name) else f"one of {place}"
    return None
