"""What has been learned about Gaussian draws, as flat tensors, and back."""

from typing import Any

import torch
from torch import Tensor, nn

from .._estimator import Estimator
from .._learning.replay_buffer import ReplayBuffer
from .._state.tensors import (
    ANY,
    Faults,
    Shapes,
    adam_shapes,
    as_tensor,
    check_shapes,
    load_adam,
    not_finite,
    part,
    save_adam,
)
from .experience import Experience
from .forms import NAMES
from .slope import Slope
from .smoothing import Smoothing

# updates, smoothing's calls; the slope's calls, best, unsuited, resting, its control variate's age;
# whether smoothing's errors are doubtful
COUNTERS = 8
TYPES = {
    **dict.fromkeys(("learned", "outputs", "forms", "z_shape", "target_shape"), torch.int64),
    **dict.fromkeys(("moments", "scale", "sums", "adam"), torch.float32),
    **dict.fromkeys(("replay.0", "replay.2", "replay.3"), torch.float32),
    "difference": torch.float64,
}
# What is never anything else, whatever has been measured.
FINITE = ("moments", "scale", "sums")
# What there is once forms have been made.
MADE = ("forms", "scale", "sums", "z_shape", "target_shape")
# A module of the user's own, in the place of a form's number.
GIVEN = len(NAMES)


class Remembering(Estimator[Any]):
    """What an estimator of Gaussian draws has learned, and how it is saved, loaded and shared.

    Attributes:
        smoothing: the noise's width.
        slope: the surrogate's forms.
        experience: measured differences.
    """

    smoothing: Smoothing
    slope: Slope
    experience: Experience

    @property
    def replay(self) -> ReplayBuffer:
        return self.experience.replay

    types = TYPES

    def save(self, *, with_replay: bool) -> dict[str, Tensor]:
        """Counters, spreads, forms, Adam's moments, replay."""
        slope, smoothing, outputs = self.slope, self.smoothing, self.experience.outputs
        counters = [self.updates, smoothing.calls, slope.calls, slope.best]
        counters += [int(slope.unsuited), int(slope.resting), slope.control.age]
        counters += [int(smoothing.doubtful)]
        mean = self.experience.size.mean
        state = {
            "learned": as_tensor(counters),
            "difference": torch.tensor(mean, dtype=torch.float64, device="cpu"),
        }
        if outputs is not None:
            state["outputs"] = as_tensor(list(outputs))
        if smoothing.moments is not None:
            state["moments"] = smoothing.moments
        if slope.forms:
            assert slope.shapes is not None
            numbers = [NAMES.index(name) if name in NAMES else GIVEN for name in slope.names]
            state |= {
                "forms": as_tensor(numbers),
                "scale": slope.scale,
                "sums": slope.control.sums,
                "z_shape": as_tensor(list(slope.shapes[0])),
                "target_shape": as_tensor(list(slope.shapes[1])),
            }
            for number, form in enumerate(slope.forms):
                state |= {f"form.{number}.{k}": v for k, v in form.state_dict().items()}
            state |= save_adam(slope.optimizer, _named(slope))
        if with_replay:
            samples = self.replay.oldest_first()
            state |= {f"replay.{i}": field for i, field in enumerate(samples)}
        return state

    def faults(self, state: dict[str, Tensor]) -> Faults:
        """What can be seen to be wrong with a state before forms are made for it."""
        faults = check_shapes(state, self._shapes(state))
        faults.errors += _impossible(state)
        # Of forms and replay it is not known yet which keys there are.
        rest = [key for key in faults.unexpected if key.startswith(("form.", "adam.", "replay."))]
        faults.unexpected = [key for key in faults.unexpected if key not in rest]
        return faults or _replay_faults(state)

    def load(self, state: dict[str, Tensor]) -> Faults:
        """Takes a saved state without `faults`; one that shows some only now changes nothing."""
        loaded = None
        if "forms" in state:
            try:
                loaded = self._slope(state)
            except Exception as error:  # noqa: BLE001 - of whatever a spoilt state asks for
                return Faults(errors=[f"the surrogate of the state cannot be made: {error}"])
            parameters = _named(loaded)
            own = {key: value for key, value in state.items() if key.startswith(("form.", "adam."))}
            faults = check_shapes(own, _shapes_of(loaded.forms) | adam_shapes(own, parameters))
            if faults:
                return faults
            device = self.slope.device
            for number, form in enumerate(loaded.forms):
                form.load_state_dict(part(state, f"form.{number}."))
            loaded.scale = state["scale"].to(device, copy=True)
            loaded.control.sums = state["sums"].to(device, copy=True)
            _load_moments(loaded, part(state, "adam."))
        self._take(state, loaded)
        return Faults()

    def shared(self) -> dict[str, Any]:
        """What the surrogate is, on the CPU."""
        slope = self.slope
        return {
            "names": slope.names,
            "weights": [_to_cpu(form.state_dict()) for form in slope.forms],
            "moments": part(_to_cpu(save_adam(slope.optimizer, _named(slope))), "adam."),
            "shapes": slope.shapes,
            "scale": slope.scale.cpu(),
            "sums": slope.control.sums.cpu(),
            "best": slope.best,
            "calls": slope.calls,
        }

    def take(self, shared: dict[str, Any]) -> None:
        """Takes what another process has shared; what is remembered stays what it is.

        So does what its own draws said of the same forms, as in a state that each has loaded.
        """
        slope = self.slope
        own = slope.control.sums, slope.best, slope.control.age
        kept = bool(slope.names) and slope.names == shared["names"]
        slope.calls = shared["calls"]
        if not shared["names"]:
            slope.unsuited = True
            return
        slope.rebuild(shared["names"], shared["shapes"])
        for form, weights in zip(slope.forms, shared["weights"], strict=True):
            form.load_state_dict(weights)
        _load_moments(slope, shared["moments"])
        slope.scale = shared["scale"].to(slope.device)
        slope.control.sums, slope.best = shared["sums"].to(slope.device), shared["best"]
        if kept:
            slope.control.sums, slope.best, slope.control.age = own

    def _take(self, state: dict[str, Tensor], loaded: Slope | None) -> None:
        smoothing, device = self.smoothing, self.slope.device
        self.updates, smoothing.calls, *of_slope, age, doubtful = state["learned"].tolist()
        smoothing.doubtful = bool(doubtful)
        outputs = state.get("outputs")
        self.experience.outputs = None if outputs is None else torch.Size(outputs.tolist())
        moments = state.get("moments")
        smoothing.moments = None if moments is None else moments.to(device, copy=True)
        smoothing.forget_width()
        self.experience.size.mean = state["difference"].item()
        self.experience.loaded = True
        slope = self.slope = loaded or self.slope.afresh()
        slope.calls, slope.best = of_slope[:2]
        slope.unsuited, slope.resting = map(bool, of_slope[2:])
        slope.control.age = age
        self.replay.clear()
        replayed = part(state, "replay.")
        if replayed:
            self.replay.add(*(replayed[key].to(device) for key in sorted(replayed)))

    def _shapes(self, state: dict[str, Tensor]) -> Shapes:
        """The shapes of what does not depend on the forms."""
        shapes: Shapes = {"learned": (COUNTERS,), "difference": ()}
        counters = state.get("learned", torch.zeros(0, device="cpu"))
        counted = counters.shape == shapes["learned"]
        updates, followed, resting = (counted and int(counters[i]) for i in (0, 1, 5))
        if "moments" in state or followed:
            dims = state["moments"].ndim if "moments" in state else 1
            shapes["moments"] = (4, *[ANY] * (dims - 1))
        made = any(key in MADE or key.startswith(("form.", "adam.")) for key in state)
        # Without a surrogate there are no updates, but of one that has been given up.
        made = made or bool(updates and not resting)
        if made or "outputs" in state:
            shapes["outputs"] = (ANY,)
        if made:
            forms = state.get("forms", torch.zeros((), device="cpu"))
            count = len(forms) if forms.ndim == 1 else ANY
            shapes |= {"forms": (ANY,), "scale": (), "sums": (count, 5), "z_shape": (ANY,)}
            shapes |= {"target_shape": (ANY,)}
        return shapes

    def _slope(self, state: dict[str, Tensor]) -> Slope:
        """Forms as the state names them, their weights yet to be loaded."""
        numbers = state["forms"].tolist()
        if not all(0 <= number <= GIVEN for number in numbers):
            raise ValueError(f"forms are {numbers}")
        names = [NAMES[number] if number < GIVEN else "given" for number in numbers]
        given, best = self.slope.given, int(state["learned"][3])
        wanted = ["given"] if isinstance(given, nn.Module) else [given]
        if given != "auto" and names != wanted:
            raise ValueError(f"forms are {', '.join(names)}; surrogate= asks for {wanted[0]}")
        if not 0 <= best < len(names):
            raise ValueError(f"counters say that number {best} of {len(names)} forms is the best")
        shapes = torch.Size(state["z_shape"].tolist()), torch.Size(state["target_shape"].tolist())
        slope = self.slope.afresh()
        # What is in the state is held against the forms before there is memory for them.
        expected = _shapes_of(slope.imagined(names, shapes))
        for key in sorted(state.keys() & expected.keys()):
            held = tuple(state[key].shape)
            if held != expected[key]:
                raise ValueError(f"{key} must have shape {expected[key]}; it has {held}")
        slope.rebuild(names, shapes)
        return slope


def _shapes_of(forms: list[nn.Module]) -> Shapes:
    """Shapes of what the forms have in a state."""
    return {
        f"form.{number}.{key}": tuple(tensor.shape)
        for number, form in enumerate(forms)
        for key, tensor in form.state_dict().items()
    }


def _load_moments(slope: Slope, moments: dict[str, Tensor]) -> None:
    """Takes Adam's moments of the forms' parameters."""
    if slope.optimizer is not None:
        trained = [name for name, p in _named(slope).items() if p.requires_grad]
        load_adam(slope.optimizer, trained, moments)


def _replay_faults(state: dict[str, Tensor]) -> Faults:
    """What is wrong with the remembered differences."""
    replayed = part(state, "replay.")
    if not replayed:
        return Faults()
    fields = [tuple(replayed[key].shape[1:]) for key in sorted(replayed)]
    if len(fields) != 4 or len({len(field) for field in replayed.values()}) != 1:
        return Faults(errors=["replay must have four fields of as many samples"])
    if fields[0] != fields[2] or fields[3]:
        return Faults(errors=["replay.2 must have the shape of replay.0, and replay.3 none"])
    seen = [tuple(state[key].tolist()) for key in ("z_shape", "target_shape") if key in state]
    if seen and seen != fields[:2]:
        return Faults(errors=["replay must have samples of z_shape and target_shape"])
    return Faults()


def _impossible(state: dict[str, Tensor]) -> list[str]:
    """Errors for values that no state has."""
    errors = not_finite(state, FINITE)
    counts = ("learned", "outputs", "z_shape", "target_shape")
    errors += [
        f"{key} must not be negative" for key in counts if key in state and (state[key] < 0).any()
    ]
    if "moments" in state and (state["moments"][1::2] < 0).any():
        errors.append("moments must have variances of 0 or more")
    return errors


def _named(slope: Slope) -> dict[str, nn.Parameter]:
    """The forms' parameters by their names in the state."""
    return {
        f"{number}.{name}": parameter
        for number, form in enumerate(slope.forms)
        for name, parameter in form.named_parameters()
    }


def _to_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.cpu() for key, tensor in tensors.items()}
