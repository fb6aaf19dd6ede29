"""The state of a loss that measures, as named tensors, and back."""

import torch
from torch import Tensor

from .._evaluation.queue import Queue
from .._state.tensors import (
    ANY,
    VERSION,
    Faults,
    Shapes,
    as_tensor,
    check_shapes,
    impossible,
    not_finite,
    wrong_version,
)
from .record import Record

COUNTERS = ("calls", "silent_calls", "skipped", "leading")
FIGURES = ("signal", "metric_mean")
# What is never anything else, whatever has been measured.
FINITE = ("quality", "vectors")


def save(
    record: Record, queue: Queue, random: torch.Generator, *, with_replay: bool
) -> dict[str, Tensor]:
    """The state: counters, random stream, figures, and what the estimator has learned."""
    quality = record.quality
    counters = [int(getattr(record, name)) for name in COUNTERS]
    counters += [queue.lost, queue.unmeasured, quality.readings]
    figures = [getattr(record, name) for name in FIGURES]
    state = {
        "version": as_tensor(VERSION),
        "counters": as_tensor(counters),
        "random": random.get_state(),
        "figures": torch.tensor(figures, dtype=torch.float64, device="cpu"),
        "quality": quality.figures,
        "history": record.history.save(),
    }
    if quality.vectors is not None:
        state["vectors"] = quality.vectors
    return state | record.estimator.save(with_replay=with_replay)


def load(state: dict[str, Tensor], record: Record, queue: Queue, random: torch.Generator) -> Faults:
    """Takes a saved state, unless it has faults: then all is left as it was."""
    if faults := wrong_version(state):
        return faults
    estimator = record.estimator
    shapes = _shapes(record, random, state)
    own = {key: value for key, value in state.items() if key in shapes}
    rest = {key: state[key] for key in state if key not in shapes}
    faults = check_shapes(own, shapes) + not_finite(state, FINITE) + impossible(state)
    faults = faults + estimator.faults(rest) or estimator.load(rest)
    if not faults:
        random.set_state(state["random"].cpu())
        _take(state, record, queue)
    return faults


def _take(state: dict[str, Tensor], record: Record, queue: Queue) -> None:
    counters = state["counters"].tolist()
    queue.cancel_all()
    queue.lost, queue.unmeasured, record.quality.readings = counters[-3:]
    record.calls, record.silent_calls, record.skipped = counters[:3]
    record.leading = bool(counters[3])
    record.quality.figures = state["quality"].cpu().double()
    record.signal, record.metric_mean = state["figures"].tolist()
    record.history.load(state["history"])
    vectors = state.get("vectors")
    record.quality.vectors = None if vectors is None else vectors.clone()


def _shapes(record: Record, random: torch.Generator, state: dict[str, Tensor]) -> Shapes:
    shapes: Shapes = {
        "version": (),
        "counters": (len(COUNTERS) + 3,),
        "random": tuple(random.get_state().shape),
        "figures": (len(FIGURES),),
        "quality": tuple(record.quality.figures.shape),
        "history": (ANY, len(record.history.names)),
    }
    counters = state.get("counters", torch.zeros(0, device="cpu"))
    read = counters.shape == shapes["counters"] and int(counters[-1])
    if "vectors" in state or read:
        shapes["vectors"] = (4, ANY)
    return shapes
