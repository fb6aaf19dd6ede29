"""A surrogate's forms as named tensors, and back; what other processes take of them."""

from typing import Any

import torch
from torch import Tensor, nn

from .._state.tensors import (
    ANY,
    Faults,
    Shapes,
    adam_shapes,
    as_tensor,
    check_shapes,
    load_adam,
    part,
    save_adam,
)
from .forms import NAMES
from .slope import Slope

# Calls, the best form, whether none is suited or worth its cost, the control variate's age.
COUNTS = (5,)
# What is never anything else, whatever has been measured.
FINITE = ("scale", "sums")
# What there is once forms have been made, and the beginnings of what these have themselves.
MADE = ("forms", "scale", "sums", "z_shape", "target_shape")
OWN = ("form.", "adam.")
# A module of the user's own, in the place of a form's number.
GIVEN = len(NAMES)


def save(slope: Slope) -> dict[str, Tensor]:
    """Counts; forms with their weights and Adam's moments, once they are made."""
    counts = [slope.calls, slope.best, slope.unsuited, slope.resting, slope.control.age]
    state = {"slope": as_tensor(list(map(int, counts)))}
    if not slope.forms:
        return state
    assert slope.shapes is not None
    numbers = [NAMES.index(name) if name in NAMES else GIVEN for name in slope.names]
    state |= {
        "forms": as_tensor(numbers),
        "scale": slope.scale,
        "sums": slope.control.sums,
        "z_shape": as_tensor(list(slope.shapes[0])),
        "target_shape": as_tensor(list(slope.shapes[1])),
    }
    state |= {f"form.{key}": value for key, value in slope.forms.state_dict().items()}
    return state | save_adam(slope.optimizer, _named(slope))


def made(state: dict[str, Tensor]) -> bool:
    """Whether a state has something of forms."""
    return any(key in MADE or key.startswith(OWN) for key in state)


def shapes(state: dict[str, Tensor], *, made: bool) -> Shapes:
    """The shapes of what does not depend on the forms, which are `made` or not."""
    if not made:
        return {"slope": COUNTS}
    forms = state.get("forms", torch.zeros((), device="cpu"))
    count = len(forms) if forms.ndim == 1 else ANY
    of_samples = {"z_shape": (ANY,), "target_shape": (ANY,)}
    return {"slope": COUNTS, "forms": (ANY,), "scale": (), "sums": (count, 8)} | of_samples


def load(state: dict[str, Tensor], slope: Slope) -> tuple[Slope, Faults]:
    """A slope as the state has it, with the settings of this one, which is left as it is."""
    loaded = slope.afresh()
    if "forms" in state:
        try:
            _rebuild(state, loaded)
        except Exception as error:  # noqa: BLE001 - of whatever a spoilt state asks for
            return slope, [f"the surrogate of the state cannot be made: {error}"]
        own = {key: value for key, value in state.items() if key.startswith(OWN)}
        expected = _shapes_of(loaded.forms) | adam_shapes(own, _named(loaded))
        if faults := check_shapes(own, expected):
            return slope, faults
        loaded.forms.load_state_dict(part(state, "form."))
        load_adam(loaded.optimizer, _named(loaded), part(state, "adam."))
        loaded.scale = state["scale"].to(slope.device, copy=True)
        loaded.control.sums = state["sums"].to(slope.device, copy=True)
    loaded.calls, loaded.best, unsuited, resting, loaded.control.age = state["slope"].tolist()
    loaded.unsuited, loaded.resting = bool(unsuited), bool(resting)
    return loaded, []


def shared(slope: Slope) -> dict[str, Any]:
    """What the other processes take, on the CPU."""
    return {
        "names": slope.names,
        "weights": _to_cpu(slope.forms.state_dict()),
        "moments": part(_to_cpu(save_adam(slope.optimizer, _named(slope))), "adam."),
        "shapes": slope.shapes,
        "scale": slope.scale.cpu(),
        "sums": slope.control.sums.cpu(),
        "best": slope.best,
        "calls": slope.calls,
    }


def take(slope: Slope, shared: dict[str, Any]) -> None:
    """Takes what another process has shared.

    What its own draws said of the same forms, as in a state that each has loaded, it keeps.
    """
    own = slope.control.sums, slope.best, slope.control.age
    kept = bool(slope.names) and slope.names == shared["names"]
    slope.calls = shared["calls"]
    if not shared["names"]:
        slope.unsuited = True
        return
    slope.rebuild(shared["names"], shared["shapes"])
    slope.forms.load_state_dict(shared["weights"])
    load_adam(slope.optimizer, _named(slope), shared["moments"])
    slope.scale = shared["scale"].to(slope.device)
    slope.control.sums, slope.best = shared["sums"].to(slope.device), shared["best"]
    if kept:
        slope.control.sums, slope.best, slope.control.age = own


def _rebuild(state: dict[str, Tensor], slope: Slope) -> None:
    """Makes the forms that a state names, their weights yet to be loaded.

    Raises:
        ValueError: they cannot be what the state says, or not what the user asks for.
    """
    numbers, best = state["forms"].tolist(), int(state["slope"][1])
    if not all(0 <= number <= GIVEN for number in numbers):
        raise ValueError(f"forms are {numbers}")
    names = [NAMES[number] if number < GIVEN else "given" for number in numbers]
    wanted = ["given"] if isinstance(slope.given, nn.Module) else [slope.given]
    if slope.given != "auto" and names != wanted:
        raise ValueError(f"forms are {', '.join(names)}; surrogate= asks for {wanted[0]}")
    if not 0 <= best < len(names):
        raise ValueError(f"counters say that number {best} of {len(names)} forms is the best")
    samples = torch.Size(state["z_shape"].tolist()), torch.Size(state["target_shape"].tolist())
    # What is in the state is held against the forms before there is memory for them.
    expected = _shapes_of(slope.imagined(names, samples))
    for key in sorted(state.keys() & expected.keys()):
        held = tuple(state[key].shape)
        if held != expected[key]:
            raise ValueError(f"{key} must have shape {expected[key]}; it has {held}")
    slope.rebuild(names, samples)


def _shapes_of(forms: nn.ModuleList) -> Shapes:
    """Shapes of what the forms have in a state."""
    return {f"form.{key}": tuple(tensor.shape) for key, tensor in forms.state_dict().items()}


def _named(slope: Slope) -> dict[str, nn.Parameter]:
    """The forms' parameters by their names in the state."""
    return dict(slope.forms.named_parameters())


def _to_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.cpu() for key, tensor in tensors.items()}
