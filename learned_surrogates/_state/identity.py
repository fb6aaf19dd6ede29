"""What a state was fitted to, as far as that can be known, and what differs from that."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._metric.metric import Metric
from .._metric.parameters import Reversed
from .._support.partials import given
from .._task import Task

# Longer settings, such as an alphabet of thousands, go in as their beginning and a digest.
LONGEST = 80
# Numbers of a tensor that are listed.
MOST = 10_000
# States of one loss have one size, for what copies or averages them key by key.
BLOCK = 1024
# What settings are of, alone or in lists.
PLAIN = (str, bytes, int, float, complex, Enum, np.generic, torch.dtype)

OTHERS = (
    "the state that is loaded was fitted to something else: {differences}. What it holds is used "
    "all the same, which is right where only names have changed"
)


def identity(metric: Metric, task: Task[Any]) -> dict[str, str]:
    """Name, arguments, direction and best value of a metric; class and settings of a task."""
    found = {
        "metric": metric.name,
        "higher_is_better": str(metric.higher_is_better),
        "best": f"{metric.best:g}",
        "task": type(task).__name__,
    }
    found |= {f"metric.{name}": _short(value) for name, value in _given(metric.function)}
    return found | {f"task.{name}": _short(value) for name, value in _settings(task, [])}


def as_bytes(found: Mapping[str, str]) -> Tensor:
    """As a tensor of bytes, which all that carries states can carry."""
    text = json.dumps(found, sort_keys=True).encode()
    text += b" " * (-len(text) % BLOCK)
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def from_bytes(packed: Tensor) -> dict[str, str]:
    """What `as_bytes` was given.

    Raises:
        ValueError: it was something else.
    """
    if packed.dtype != torch.uint8 or packed.ndim != 1:
        raise ValueError("fitted_to must be bytes")
    try:
        found = json.loads(packed.cpu().numpy().tobytes())
    except ValueError as error:
        raise ValueError(f"fitted_to cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("fitted_to must be a dict")
    return found


def differences(saved: Mapping[str, str], own: Mapping[str, str]) -> list[str]:
    """In words."""
    keys = [key for key in {**own, **saved} if saved.get(key) != own.get(key)]
    return [
        f"{key} was {saved.get(key, 'not set')}, and is {own.get(key, 'not set')}" for key in keys
    ]


def of_another_task(saved: Mapping[str, str], own: Mapping[str, str]) -> str | None:
    """In words, whose state it is, and whose this one would be; None where their tasks agree."""
    that, this = _task_of(saved, own), _task_of(own, saved)
    return None if that == this else f"it is of a loss for {that}, this one is for {this}"


def _task_of(found: Mapping[str, str], other: Mapping[str, str]) -> str:
    """`CTC(alphabet.classes=7)`: its class, and the settings that differ from another of it."""
    name = found.get("task", "no task")
    if name != other.get("task"):
        return name
    settings = [
        f"{key.removeprefix('task.')}={value}"
        for key, value in sorted(found.items())
        if key.startswith("task.") and other.get(key) != value
    ]
    return f"{name}({', '.join(settings)})"


def _given(function: Any) -> Iterator[tuple[str, Any]]:
    """Names, or places, and values of what `functools.partial` gives a metric."""
    function = function.function if isinstance(function, Reversed) else function
    for name, value in given(function).items():
        if isinstance(value, Tensor) and _is_dense(value):
            yield name, value.tolist() if value.numel() <= MOST else _digest(value)
        elif _is_plain(value):
            yield name, value


def _settings(owner: Any, known: list[Any]) -> Iterator[tuple[str, Any]]:
    """Names and values of what was set to a number, a text or a tensor, or to a list of them.

    Args:
        owner: has them, or objects that do.
        known: the objects that were gone through, which these may hold, too.
    """
    known.append(owner)
    for name, value in vars(owner).items():
        name = name.lstrip("_")
        if name == "surrogate" or value is None:  # that has keys of its own, and this none
            continue
        if isinstance(value, Tensor):
            if _is_dense(value):
                yield name, value.tolist()
        elif _is_plain(value):
            yield name, value
        elif callable(value) or isinstance(value, ModuleType):
            continue
        elif hasattr(value, "__dict__") and not any(value is each for each in known):
            yield from ((f"{name}.{inner}", each) for inner, each in _settings(value, known))


def _is_dense(tensor: Tensor) -> bool:
    """Whether its numbers are there to be listed."""
    listed = tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized)
    return listed and not tensor.is_meta


def _digest(tensor: Tensor) -> str:
    """Of a tensor that would take seconds to list, each time that a state is saved."""
    numbers = tensor.detach().cpu().resolve_conj().contiguous().flatten().view(torch.uint8)
    digest = hashlib.blake2b(numbers.numpy().tobytes(), digest_size=6)
    return f"{tuple(tensor.shape)} {digest.hexdigest()}"


def _is_plain(value: Any) -> bool:
    """Whether its `repr` is the same in another process: an object's may show its address."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, PLAIN)


def _short(value: Any) -> str:
    text = repr(value)
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}... ({hashlib.blake2b(text.encode(), digest_size=6).hexdigest()})"
