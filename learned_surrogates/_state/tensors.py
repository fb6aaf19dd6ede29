"""What the states of a loss are made of: flat tensors, checked before they are taken.

The loss packs them into one tensor, as which they are part of a `state_dict()`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

VERSION = 7
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
# A dimension of any size.
ANY = -1

Shapes = dict[str, tuple[int, ...]]


@dataclass
class Faults:
    """What is wrong with a state: keys that are missing or unknown, and other errors."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.errors)

    def __add__(self, other: "Faults") -> "Faults":
        return Faults(
            self.missing + other.missing,
            self.unexpected + other.unexpected,
            self.errors + other.errors,
        )


def check_shapes(state: dict[str, Tensor], expected: Shapes) -> Faults:
    """Holds a state against the shapes that it must have."""
    wrong = [
        f"{key} must have shape {tuple('any' if n == ANY else n for n in shape)}; in the state it "
        f"has {tuple(state[key].shape)}"
        for key, shape in expected.items()
        if key in state and not _fits(state[key].shape, shape)
    ]
    return Faults(
        missing=[key for key in expected if key not in state],
        unexpected=[key for key in state if key not in expected],
        errors=wrong,
    )


def _fits(shape: torch.Size, expected: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (n, ANY) for n, wanted in zip(shape, expected, strict=True)
    )


def typed(
    state: dict[str, Tensor], types: dict[str, torch.dtype]
) -> tuple[dict[str, Tensor], list[str]]:
    """A state whose tensors have the types that they must have, and errors where they cannot.

    Floating-point numbers are cast, as a state may have been saved in half precision; what counts
    or names something is no such number.

    Args:
        state: as it was read.
        types: of keys, or of all keys that begin so. Others stay as they are, but half precision.
    """
    cast, errors = {}, []
    for key, tensor in state.items():
        half = torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.dtype
        prefixes = [name for name in types if key == name or key.startswith(f"{name}.")]
        wanted = types[max(prefixes, key=len)] if prefixes else half
        if tensor.dtype != wanted and not (wanted.is_floating_point and tensor.is_floating_point()):
            names = [str(dtype).removeprefix("torch.") for dtype in (wanted, tensor.dtype)]
            errors.append(f"{key} must be {names[0]}; in the state it is {names[1]}")
        cast[key] = tensor.to(wanted)
    return cast, errors


def impossible(state: dict[str, Tensor]) -> list[str]:
    """Errors for counters, history and random stream as no state has them."""
    errors = []
    if "counters" in state and (state["counters"] < 0).any():
        errors.append("counters must not be negative")
    history = state.get("history")
    # Its first row says how it goes on.
    if history is not None and history[:1, :2].isfinite().sum() != 2:
        errors.append("history must begin with two numbers")
    try:
        torch.Generator().set_state(state["random"].cpu())
    except (KeyError, RuntimeError) as error:
        errors.append(f"random is the state of no random stream: {error}")
    return errors


def not_finite(state: dict[str, Tensor], keys: Iterable[str]) -> list[str]:
    """Errors for those of the keys that have numbers which are not finite."""
    return [
        f"{key} has numbers that are not finite"
        for key in keys
        if key in state and not state[key].isfinite().all()
    ]


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def as_tensor(values: int | list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device="cpu")


def wrong_version(state: dict[str, Tensor]) -> Faults | None:
    """What is wrong with a state of another version of this package; None if it is of this one."""
    version = state.get("version")
    if version is None or version.shape != () or int(version) == VERSION:
        return None
    return Faults(
        errors=[
            f"the state has version {int(version)} and this package reads version {VERSION}: "
            "load it with the version of learned-surrogates that saved it"
        ]
    )


def save_adam(
    optimizer: torch.optim.Optimizer | None, named: dict[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Adam's moments of named parameters, as far as there are any."""
    moments = {} if optimizer is None else optimizer.state
    return {
        f"adam.{name}.{key}": moments[parameter][key]
        for name, parameter in named.items()
        if parameter in moments
        for key in MOMENTS
    }


def adam_shapes(state: dict[str, Tensor], named: dict[str, nn.Parameter]) -> Shapes:
    """The shapes of the moments that a state must have: of a parameter all or, early, none."""
    shapes: Shapes = {}
    for name, parameter in named.items():
        keys = {key: f"adam.{name}.{key}" for key in MOMENTS}
        if any(key in state for key in keys.values()):
            shapes |= {key: tuple(parameter.shape) for key in keys.values()}
            shapes[keys["step"]] = ()
    return shapes


def load_adam(
    optimizer: torch.optim.Optimizer | None,
    named: dict[str, nn.Parameter],
    moments: dict[str, Tensor],
) -> None:
    """Takes Adam's moments of named parameters, of which it has those that are trained."""
    if optimizer is None:
        return
    names = [name for name, parameter in named.items() if parameter.requires_grad]
    state: dict[str, Any] = optimizer.state_dict()
    state["state"] = {
        index: {key: moments[f"{name}.{key}"].clone() for key in MOMENTS}
        for index, name in enumerate(names)
        if f"{name}.step" in moments
    }
    optimizer.load_state_dict(state)


def ring_shapes(state: dict[str, Tensor], ring: str, fields: list[tuple[int, ...]]) -> Shapes:
    """Shapes of a ring buffer's fields: all or none, as it may be empty, or left out."""
    keys = [f"{ring}.{i}" for i in range(len(fields))]
    held = [state[key] for key in keys if key in state]
    if not held:
        return {}
    count = len(held[0]) if held[0].ndim else ANY
    return {key: (count, *field) for key, field in zip(keys, fields, strict=True)}
