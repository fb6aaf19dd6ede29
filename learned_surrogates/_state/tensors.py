"""What the states of a loss are made of: named tensors, checked before they are taken.

The loss packs them into one tensor, as which they are part of a `state_dict()`.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

VERSION = 10
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
# A dimension of any size.
ANY = -1

Shapes = dict[str, tuple[int, ...]]


#: What is wrong with a state, in words.
Faults = list[str]


def check_shapes(
    state: dict[str, Tensor], expected: Shapes, beside: tuple[str, ...] = ()
) -> Faults:
    """Holds a state against the shapes that it must have.

    Args:
        state: what is looked at.
        expected: of all that it must have.
        beside: beginnings of what it may have beside that.
    """
    missing = [f"{key} is missing" for key in expected if key not in state]
    unknown = [
        f"{key} is unknown" for key in state if key not in expected and not key.startswith(beside)
    ]
    wrong = [
        f"{key} must have shape {tuple('any' if n == ANY else n for n in shape)}; in the state it "
        f"has {tuple(state[key].shape)}"
        for key, shape in expected.items()
        if key in state and not _fits(state[key].shape, shape)
    ]
    return missing + unknown + wrong


def _fits(shape: torch.Size, expected: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (n, ANY) for n, wanted in zip(shape, expected, strict=True)
    )


def impossible(state: dict[str, Tensor]) -> Faults:
    """Errors for history and random stream as no state has them."""
    errors = []
    history = state.get("history")
    # Its first row says how it goes on.
    if history is not None and history[:1, :2].isfinite().sum() != 2:
        errors.append("history must begin with two numbers")
    try:
        torch.Generator().set_state(state["random"].cpu())
    except (KeyError, RuntimeError) as error:
        errors.append(f"random is the state of no random stream: {error}")
    return errors


def not_finite(state: dict[str, Tensor], keys: Iterable[str]) -> Faults:
    """Errors for those of the keys that have numbers which are not finite."""
    return [
        f"{key} has numbers that are not finite"
        for key in keys
        if key in state and not state[key].isfinite().all()
    ]


def negative(state: dict[str, Tensor], keys: Iterable[str]) -> Faults:
    """Errors for those of the keys that have counts below 0."""
    return [
        f"{key} must not be negative"
        for key in keys
        if key in state and state[key].dtype == torch.int64 and (state[key] < 0).any()
    ]


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def as_tensor(values: int | list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device="cpu")


def wrong_version(state: dict[str, Tensor]) -> Faults:
    """What is wrong with a state of another version of this package."""
    version = state.get("version")
    if version is None or version.shape != () or int(version) == VERSION:
        return []
    return [
        f"the state has version {int(version)} and this package reads version {VERSION}: "
        "load it with the version of learned-surrogates that saved it"
    ]


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
