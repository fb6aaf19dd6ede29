"""Checks of arguments, by which errors name them."""

import numbers
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from .precision import computable

# Of those that all of PyTorch's generators take.
SEEDS = 2**63
#: Of a batch's losses to one; "none" leaves one a sample.
Reduction = Literal["none", "mean", "sum"]


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises a ValueError that names the argument and its choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_reduction(value: object, name: str = "reduction") -> None:
    """Raises as `check_choice` does."""
    check_choice(name, value, get_args(Reduction))


def check_number(name: str, value: Any, least: float, *, integer: bool = True) -> None:
    """Raises a TypeError or a ValueError that names the argument and what it must be."""
    kind: Any = numbers.Integral if integer else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
        wanted = "an integer" if integer else "a number"
        raise TypeError(f"{name} must be {wanted}; got {value!r}")
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}; got {value!r}")
    if value == float("inf"):
        raise ValueError(f"{name} must be finite; got {value!r}")


def check_positive(name: str, value: Any, why: str = "") -> None:
    """Raises as `check_number` does, and a ValueError at 0 that says why that will not do."""
    check_number(name, value, 0, integer=False)
    if value == 0:
        raise ValueError(f"{name} must be above 0; got {value!r}" + (why and f": {why}"))


def check_seed(seed: Any) -> int:
    """The seed as a generator takes it, which takes no other kind of integer, such as NumPy's.

    Raises:
        TypeError, ValueError: it is none.
    """
    check_number("seed", seed, 0)
    if seed >= SEEDS:
        raise ValueError(f"seed must be below 2**63; got {seed!r}")
    return int(seed)


def check_callable(name: str, value: Any, wanted: str) -> None:
    """Raises a TypeError that names the argument and how it is called.

    Also of a module's class: that can be called, but with settings and not with data.
    """
    of_module = isinstance(value, type) and issubclass(value, nn.Module)
    if of_module or not callable(value):
        raise TypeError(
            f"{name} must be callable {wanted}; got {value!r}"
            + ", the class itself: call it" * of_module
        )


def check_tensor(name: str, tensor: Any) -> None:
    """Raises a TypeError that names what is no tensor of real numbers, all of which are there."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor; got {type(tensor).__name__}")
    if tensor.is_meta:
        raise TypeError(
            f"{name} is on the meta device, where tensors have a shape and no numbers: make it, or "
            "the model that it comes from, on a real one"
        )
    if tensor.layout != torch.strided or tensor.is_nested:
        kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        raise TypeError(f"{name} must be a dense tensor; it is {kind}")
    if tensor.is_complex():
        raise TypeError(f"{name} must be real; it is {tensor.dtype}")
    if tensor.is_floating_point() and tensor.dtype.itemsize < 2:
        raise TypeError(f"{name} must have 16 bits or more; it is {tensor.dtype}")


def read_tensor(name: str, value: Any) -> Tensor:
    """Numbers of any container as a tensor that one can compute with; raises as `check_tensor`."""
    if not isinstance(value, Tensor):
        try:
            value = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name} must be a tensor; got {type(value).__name__}") from error
    check_tensor(name, value)
    return computable(value)
