"""The state of what is measured and learned, as flat tensors, and back."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .._state_tensors import (
    ANY,
    VERSION,
    Faults,
    Shapes,
    adam_shapes,
    as_tensor,
    check_shapes,
    load_adam,
    not_finite,
    part,
    save_adam,
    typed,
    wrong_version,
)
from .forms import NAMES
from .slope import Slope

if TYPE_CHECKING:
    from .core import MeasuredCore

COUNTERS = ("calls", "updates", "silent_calls", "leading")
FIGURES = ("signal", "metric_mean", "difference")
# What there is once forms have been made.
MADE = ("forms", "scale", "sums", "z_shape", "target_shape")
TYPES = {
    **dict.fromkeys(("version", "counters", "outputs", "forms"), torch.int64),
    **dict.fromkeys(("z_shape", "target_shape"), torch.int64),
    **dict.fromkeys(("figures", "quality", "history"), torch.float64),
    **dict.fromkeys(("vectors", "moments", "scale", "sums", "adam"), torch.float32),
    **dict.fromkeys(("replay.0", "replay.2", "replay.3"), torch.float32),
    "random": torch.uint8,
}
# What is never anything else, whatever has been measured.
FINITE = ("quality", "vectors", "moments", "scale", "sums")
# A module of the user's own, in the place of a form's number.
GIVEN = len(NAMES)


def save(core: "MeasuredCore", *, with_replay: bool) -> dict[str, Tensor]:
    """The state: counters, random stream, spreads, forms, Adam's moments, replay."""
    slope, evaluations = core.slope, core.evaluations
    counters = [getattr(core, name) for name in COUNTERS]
    counters += [core.experience.skipped, evaluations.lost, evaluations.unmeasured]
    counters += [core.smoothing.calls, core.quality.readings]
    counters += [slope.calls, slope.best, int(slope.unsuited), int(slope.resting)]
    counters += [slope.control.age]
    state = {
        "version": as_tensor(VERSION),
        "counters": as_tensor(counters),
        "random": core.random.get_state(),
        "figures": torch.tensor(
            [getattr(core.experience, name) for name in FIGURES], dtype=torch.float64, device="cpu"
        ),
        "quality": core.quality.figures,
        "history": core.history.save(),
    }
    if core.experience.outputs is not None:
        state["outputs"] = as_tensor(list(core.experience.outputs))
    if core.quality.vectors is not None:
        state["vectors"] = core.quality.vectors
    if core.smoothing.moments is not None:
        state["moments"] = core.smoothing.moments
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
        state |= save_adam(slope.optimizer, named(slope))
    if with_replay:
        samples = core.replay.oldest_first()
        state |= {f"replay.{i}": field for i, field in enumerate(samples)}
    return state


def load(core: "MeasuredCore", state: dict[str, Tensor]) -> Faults:
    """Takes a saved state, unless it has faults: then all is left as it was."""
    faults = wrong_version(state)
    if faults is not None:
        return faults
    state, errors = typed(state, TYPES)
    if errors:
        return Faults(errors=errors)
    faults = check_shapes(state, _shapes(core, state))
    faults.errors += _impossible(state)
    built = "forms" in state
    # Of forms and replay it is not known yet which keys there are.
    rest = [key for key in faults.unexpected if key.startswith(("form.", "adam.", "replay."))]
    faults.unexpected = [key for key in faults.unexpected if key not in rest]
    if faults:
        return faults
    replayed = part(state, "replay.")
    if replayed:
        fields = [tuple(replayed[key].shape[1:]) for key in sorted(replayed)]
        if len(fields) != 4 or len({len(field) for field in replayed.values()}) != 1:
            return Faults(errors=["replay must have four fields of as many samples"])
        if fields[0] != fields[2] or fields[3]:
            return Faults(errors=["replay.2 must have the shape of replay.0, and replay.3 none"])
        seen = [tuple(state[key].tolist()) for key in ("z_shape", "target_shape") if key in state]
        if seen and seen != fields[:2]:
            return Faults(errors=["replay must have samples of z_shape and target_shape"])
    loaded = None
    if built:
        try:
            loaded = _slope(core, state)
        except Exception as error:  # noqa: BLE001 - of whatever a spoilt state asks for
            return Faults(errors=[f"the surrogate of the state cannot be made: {error}"])
        parameters = named(loaded)
        expected = {
            f"form.{number}.{key}": tuple(tensor.shape)
            for number, form in enumerate(loaded.forms)
            for key, tensor in form.state_dict().items()
        }
        own = {key: value for key, value in state.items() if key.startswith(("form.", "adam."))}
        faults = check_shapes(own, expected | adam_shapes(own, parameters))
        if faults:
            return faults
        for number, form in enumerate(loaded.forms):
            form.load_state_dict(part(state, f"form.{number}."))
        loaded.scale = state["scale"].to(core.device, copy=True)
        loaded.control.sums = state["sums"].to(core.device, copy=True)
        load_moments(loaded, part(state, "adam."))
    _take(core, state, loaded)
    return Faults()


def load_moments(slope: Slope, moments: dict[str, Tensor]) -> None:
    """Takes Adam's moments of the forms' parameters."""
    if slope.optimizer is not None:
        trained = [name for name, p in named(slope).items() if p.requires_grad]
        load_adam(slope.optimizer, trained, moments)


def _take(core: "MeasuredCore", state: dict[str, Tensor], loaded: Slope | None) -> None:
    # What may fail comes first.
    core.random.set_state(state["random"].cpu())
    counters = state["counters"].tolist()
    core.calls, core.updates, core.silent_calls = counters[:3]
    core.leading = bool(counters[3])
    core.evaluations.clear()
    core.experience.skipped, core.evaluations.lost, core.evaluations.unmeasured = counters[4:7]
    core.smoothing.calls, core.quality.readings = counters[7:9]
    core.quality.figures = state["quality"].cpu().double()
    for name, figure in zip(FIGURES, state["figures"].tolist(), strict=True):
        setattr(core.experience, name, figure)
    core.history.load(state["history"])
    outputs = state.get("outputs")
    core.experience.outputs = None if outputs is None else torch.Size(outputs.tolist())
    vectors = state.get("vectors")
    core.quality.vectors = None if vectors is None else vectors.to(core.device, copy=True)
    moments = state.get("moments")
    core.smoothing.moments = None if moments is None else moments.to(core.device, copy=True)
    core.smoothing.forget_width()
    core.slope = loaded or core.slope.afresh()
    core.slope.calls, core.slope.best = counters[9:11]
    core.slope.unsuited, core.slope.resting = bool(counters[11]), bool(counters[12])
    core.slope.control.age = counters[13]
    core.replay.clear()
    replayed = part(state, "replay.")
    if replayed:
        core.replay.add(*(replayed[key].to(core.device) for key in sorted(replayed)))
    core.experience.loaded = True
    core.sync.agreed = False


def _shapes(core: "MeasuredCore", state: dict[str, Tensor]) -> Shapes:
    """The shapes of what does not depend on the forms."""
    shapes: Shapes = {
        "version": (),
        "counters": (len(COUNTERS) + 10,),
        "random": tuple(core.random.get_state().shape),
        "figures": (len(FIGURES),),
        "quality": tuple(core.quality.figures.shape),
        "history": (ANY, len(core.history.names)),
    }
    counters, figures = (
        state.get(key, torch.zeros(0, device="cpu")) for key in ("counters", "figures")
    )
    measured = figures.shape == shapes["figures"] and not figures[1].isnan()
    counted = counters.shape == shapes["counters"]
    followed, readings = (counted and int(counters[i]) for i in (7, 8))
    if "outputs" in state or measured:
        shapes["outputs"] = (ANY,)
    if "vectors" in state or readings:
        shapes["vectors"] = (4, ANY)
    if "moments" in state or followed:
        dims = state["moments"].ndim if "moments" in state else 1
        shapes["moments"] = (4, *[ANY] * (dims - 1))
    made = any(key in MADE or key.startswith(("form.", "adam.")) for key in state)
    # Without a surrogate there are no updates, but of one that has been given up.
    if made or (counted and int(counters[1]) and not int(counters[12])):
        forms = state.get("forms", torch.zeros((), device="cpu"))
        count = len(forms) if forms.ndim == 1 else ANY
        shapes |= {"forms": (ANY,), "scale": (), "sums": (count, 3), "z_shape": (ANY,)}
        shapes |= {"target_shape": (ANY,)}
    return shapes


def _impossible(state: dict[str, Tensor]) -> list[str]:
    """Errors for values that no state has."""
    errors = not_finite(state, FINITE)
    counts = ("counters", "outputs", "z_shape", "target_shape")
    errors += [
        f"{key} must not be negative" for key in counts if key in state and (state[key] < 0).any()
    ]
    history = state.get("history")
    # Its first row says how it goes on.
    if history is not None and history[:1, :2].isfinite().sum() != 2:
        errors.append("history must begin with two numbers")
    if "moments" in state and (state["moments"][1::2] < 0).any():
        errors.append("moments must have variances of 0 or more")
    try:
        torch.Generator().set_state(state["random"].cpu())
    except (KeyError, RuntimeError) as error:
        errors.append(f"random is the state of no random stream: {error}")
    return errors


def _slope(core: "MeasuredCore", state: dict[str, Tensor]) -> Slope:
    """Forms as the state names them, their weights yet to be loaded."""
    numbers = state["forms"].tolist()
    if not all(0 <= number <= GIVEN for number in numbers):
        raise ValueError(f"forms are {numbers}")
    names = [NAMES[number] if number < GIVEN else "given" for number in numbers]
    given, best = core.slope.given, int(state["counters"][10])
    wanted = ["given"] if isinstance(given, nn.Module) else [given]
    if given != "auto" and names != wanted:
        raise ValueError(f"forms are {', '.join(names)}; surrogate= asks for {wanted[0]}")
    if not 0 <= best < len(names):
        raise ValueError(f"counters say that number {best} of {len(names)} forms is the best")
    shapes = torch.Size(state["z_shape"].tolist()), torch.Size(state["target_shape"].tolist())
    slope = core.slope.afresh()
    # What is in the state is held against the forms before there is memory for them.
    held = {key: tuple(tensor.shape) for key, tensor in part(state, "form.").items()}
    expected = slope.shapes_of(names, shapes)
    for key in sorted(held.keys() & expected.keys()):
        if held[key] != expected[key]:
            raise ValueError(f"form.{key} must have shape {expected[key]}; it has {held[key]}")
    slope.rebuild(names, shapes)
    return slope


def named(slope: Slope) -> dict[str, nn.Parameter]:
    """The forms' parameters by their names in the state."""
    return {
        f"{number}.{name}": parameter
        for number, form in enumerate(slope.forms)
        for name, parameter in form.named_parameters()
    }
