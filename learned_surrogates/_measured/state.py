"""The state of a loss that measures, as named tensors, and back."""

import torch
from torch import Tensor

from .._evaluation.queue import Queue
from .._state.tensors import (
    ANY,
    VERSION,
    Faults,
    as_tensor,
    check_shapes,
    impossible,
    negative,
    not_finite,
    wrong_version,
)
from .record import Record

COUNTERS = ("calls", "silent_calls", "skipped", "leading")
FIGURES = ("signal", "metric_mean")


def save(
    record: Record, queue: Queue, random: torch.Generator, *, with_replay: bool
) -> dict[str, Tensor]:
    """The state: counters, random stream, figures, and what the estimator has learned."""
    counters = [int(getattr(record, name)) for name in COUNTERS]
    counters += [queue.lost, queue.unmeasured]
    figures = [getattr(record, name) for name in FIGURES]
    state = {
        "version": as_tensor(VERSION),
        "counters": as_tensor(counters),
        "random": random.get_state(),
        "figures": torch.tensor(figures, dtype=torch.float64, device="cpu"),
        "history": record.history.save(),
    }
    return state | record.quality.save("quality") | record.estimator.save(with_replay=with_replay)


def load(
    state: dict[str, Tensor],
    record: Record,
    queue: Queue,
    random: torch.Generator,
    device: torch.device,
) -> Faults:
    """Takes a saved state, unless it has faults: then all is left as it was."""
    if faults := wrong_version(state):
        return faults
    estimator = record.estimator
    of_quality = record.quality.shapes("quality")
    shapes = of_quality | {
        "version": (),
        "counters": (len(COUNTERS) + 2,),
        "random": tuple(random.get_state().shape),
        "figures": (len(FIGURES),),
        "history": (ANY, len(record.history.names)),
    }
    own = {key: value for key, value in state.items() if key in shapes}
    rest = {key: state[key] for key in state if key not in shapes}
    faults = check_shapes(own, shapes) + negative(own, shapes) + not_finite(own, of_quality)
    faults += impossible(own) + estimator.faults(rest)
    faults = faults or estimator.load(rest)
    if not faults:
        random.set_state(state["random"].cpu())
        record.quality.load(state, "quality", device)
        _take(state, record, queue)
    return faults


def _take(state: dict[str, Tensor], record: Record, queue: Queue) -> None:
    counters = state["counters"].tolist()
    queue.cancel_all()
    queue.lost, queue.unmeasured = counters[-2:]
    record.calls, record.silent_calls, record.skipped = counters[:3]
    record.leading = bool(counters[3])
    record.signal, record.metric_mean = state["figures"].tolist()
    record.history.load(state["history"])
