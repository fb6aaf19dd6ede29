"""The state of a loss that measures, as flat tensors, and back."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._state_tensors import ANY, VERSION, Faults, Shapes, as_tensor, check_shapes, wrong_version

if TYPE_CHECKING:
    from .core import MeasuredCore

COUNTERS = ("calls", "silent_calls", "skipped", "leading")
FIGURES = ("signal", "metric_mean")


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
    shapes = _shapes(core, state)
    own = {key: value for key, value in state.items() if key in shapes}
    rest = {key: state[key] for key in state if key not in shapes}
    faults, of_rest = check_shapes(own, shapes), core.estimator.faults(rest)
    faults.missing += of_rest.missing
    faults.unexpected += of_rest.unexpected
    faults.errors += of_rest.errors
    if faults:
        return faults
    random = core.random.get_state()
    try:
        core.random.set_state(state["random"].cpu())
    except (RuntimeError, TypeError) as error:
        return Faults(errors=[f"random is no state of a generator: {error}"])
    faults = core.estimator.load(rest)
    if faults:
        core.random.set_state(random)
        return faults
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
