"""The state of a loss that measures, as flat tensors, and back."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._state.tensors import (
    ANY,
    VERSION,
    Faults,
    Shapes,
    as_tensor,
    check_shapes,
    not_finite,
    typed,
    wrong_version,
)

if TYPE_CHECKING:
    from .core import MeasuredCore

COUNTERS = ("calls", "silent_calls", "skipped", "leading")
FIGURES = ("signal", "metric_mean")
TYPES = {
    **dict.fromkeys(("version", "counters"), torch.int64),
    **dict.fromkeys(("figures", "quality", "history"), torch.float64),
    "vectors": torch.float32,
    "random": torch.uint8,
}
# What is never anything else, whatever has been measured.
FINITE = ("quality", "vectors")


def save(core: "MeasuredCore", *, with_replay: bool) -> dict[str, Tensor]:
    """The state: counters, random stream, figures, and what the estimator has learned."""
    evaluations, quality = core.evaluations, core.quality
    counters = [int(getattr(core, name)) for name in COUNTERS]
    counters += [evaluations.lost, evaluations.unmeasured, quality.readings]
    figures = [getattr(core, name) for name in FIGURES]
    state = {
        "version": as_tensor(VERSION),
        "counters": as_tensor(counters),
        "random": core.random.get_state(),
        "figures": torch.tensor(figures, dtype=torch.float64, device="cpu"),
        "quality": quality.figures,
        "history": core.history.save(),
    }
    if quality.vectors is not None:
        state["vectors"] = quality.vectors
    return state | core.estimator.save(with_replay=with_replay)


def load(core: "MeasuredCore", state: dict[str, Tensor]) -> Faults:
    """Takes a saved state, unless it has faults: then all is left as it was."""
    faults = wrong_version(state)
    if faults is not None:
        return faults
    state, errors = typed(state, TYPES | core.estimator.types)
    if errors:
        return Faults(errors=errors)
    shapes = _shapes(core, state)
    own = {key: value for key, value in state.items() if key in shapes}
    rest = {key: state[key] for key in state if key not in shapes}
    faults, of_rest = check_shapes(own, shapes), core.estimator.faults(rest)
    faults.missing += of_rest.missing
    faults.unexpected += of_rest.unexpected
    faults.errors += _impossible(state) + of_rest.errors
    if faults:
        return faults
    faults = core.estimator.load(rest)
    if faults:
        return faults
    core.random.set_state(state["random"].cpu())
    _take(core, state)
    return Faults()


def _take(core: "MeasuredCore", state: dict[str, Tensor]) -> None:
    counters = state["counters"].tolist()
    core.evaluations.clear()
    core.evaluations.lost, core.evaluations.unmeasured, core.quality.readings = counters[-3:]
    core.calls, core.silent_calls, core.skipped = counters[:3]
    core.leading = bool(counters[3])
    core.quality.figures = state["quality"].cpu().double()
    core.signal, core.metric_mean = state["figures"].tolist()
    core.history.load(state["history"])
    vectors = state.get("vectors")
    core.quality.vectors = None if vectors is None else vectors.to(core.device, copy=True)
    core.sync.agreed = False


def _shapes(core: "MeasuredCore", state: dict[str, Tensor]) -> Shapes:
    shapes: Shapes = {
        "version": (),
        "counters": (len(COUNTERS) + 3,),
        "random": tuple(core.random.get_state().shape),
        "figures": (len(FIGURES),),
        "quality": tuple(core.quality.figures.shape),
        "history": (ANY, len(core.history.names)),
    }
    counters = state.get("counters", torch.zeros(0, device="cpu"))
    read = counters.shape == shapes["counters"] and int(counters[-1])
    if "vectors" in state or read:
        shapes["vectors"] = (4, ANY)
    return shapes


def _impossible(state: dict[str, Tensor]) -> list[str]:
    """Errors for values that no state has."""
    errors = not_finite(state, FINITE)
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
