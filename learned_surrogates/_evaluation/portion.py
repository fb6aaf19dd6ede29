"""What travels to a worker, what is done there, and what comes back."""

import copy
import os
import pickle
import signal
import threading
import traceback
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

from .._metric.calling_form import Form
from .._metric.error import MetricError
from .._metric.metric import Metric
from .._metric.values import same_outputs
from .._support.isolated import isolated

Content = TypeVar("Content")

VARYING = (
    "returned values of shape {} for a batch and of {} for another of as many samples: always "
    "return one number a sample, or always one an output"
)


class Parcel(Generic[Content]):
    """Is pickled only where it leaves the process, and unpickled only when it is opened.

    PyTorch teaches multiprocessing's pickler to share memory, by file descriptors that run out; in
    here, tensors are plain bytes. And what cannot be unpickled fails in `open`, not in a thread of
    the executor, which would break with it.
    """

    def __init__(self, content: Content | None, packed: bytes | None = None):
        self._content = content
        self._packed = packed

    def open(self) -> Content:
        content = self._content if self._packed is None else pickle.loads(self._packed)
        assert content is not None
        return content

    def __reduce__(self) -> tuple[type[Self], tuple[None, bytes]]:
        return type(self), (None, self._packed or pickle.dumps(self._content))


@dataclass(frozen=True, kw_only=True)
class Portion:
    """Samples of one batch, as the metric takes them.

    Attributes:
        pairs: predictions and targets: as decoded, and of each draw.
        positions: which samples of the batch they are.
        batch: how many samples that has.
    """

    pairs: list[tuple[Any, Any]]
    positions: list[int]
    batch: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the metric said of a portion.

    Attributes:
        errors: `(pairs, samples)`.
        usable: which samples have all of them, `(samples,)`.
        form: how the metric is called, if it is known by now.
        word: what the user is to be told of that.
        trouble: what happened to a sample that was skipped.
        failure: what `on_metric_error="raise"` is to raise; then there is nothing else.
    """

    errors: Tensor
    usable: Tensor
    form: Form | None
    word: str | None = None
    trouble: str | None = None
    failure: MetricError | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Pickled, an exception loses its cause.
        cause = None if self.failure is None else self.failure.__cause__
        return vars(self) | {"cause": cause and _portable(cause)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        cause = state.pop("cause")
        vars(self).update(state)
        if self.failure is not None:
            self.failure.__cause__ = cause


def evaluate(metric: Metric, parcel: Parcel[Portion], owner: int | None = None) -> Parcel[Outcome]:
    """Evaluates the metric on a portion: what an executor is given to do.

    Args:
        metric: the metric.
        parcel: what it is called with.
        owner: the process whose own worker this is; None if the worker is the user's.
    """
    if owner not in (None, os.getpid()) and threading.current_thread() is threading.main_thread():
        # Ctrl-C reaches all processes of a terminal, and is the owner's to answer.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with isolated(torch.device("cpu")):
        return Parcel(measure(metric, parcel.open()))


def measure(metric: Metric, portion: Portion) -> Outcome:
    """Evaluates the metric on a portion, here and now."""
    # Threads must not find out the calling form on one object.
    metric = copy.copy(metric)
    errors, usable = [], torch.ones(len(portion.positions), dtype=torch.bool, device="cpu")
    failure = None
    try:
        for predictions, targets in portion.pairs:
            error, fine = metric(predictions, targets, portion.positions, portion.batch)
            errors.append(error)
            usable = usable & fine
        shapes = {tuple(error.shape) for error in errors}
        if len(shapes) > 1:  # of a draw on which it failed, none is known
            shapes = {tuple(error.shape) for error in errors if not error.isnan().all()}
        if len(shapes) > 1:
            metric.trouble = VARYING.format(*sorted(shapes))
            if metric.on_error == "raise":
                raise MetricError(f"metric {metric.name!r} {metric.trouble}")
            # No sample's values go together.
            usable = torch.zeros_like(usable)
            errors = [torch.full_like(usable, torch.nan, dtype=torch.float64)] * len(errors)
    except MetricError as error:
        errors, failure = [], error
    return Outcome(
        errors=torch.stack(same_outputs(errors)) if errors else torch.zeros(0, device="cpu"),
        usable=usable,
        form=metric.form,
        word=metric.word,
        trouble=metric.trouble,
        failure=failure,
    )


def _portable(error: BaseException) -> BaseException:
    """A copy that can be unpickled, with a note of where it was raised."""
    try:
        portable = pickle.loads(pickle.dumps(error))
        portable.add_note("In the worker:\n" + "".join(traceback.format_exception(error)))
    except Exception:  # noqa: BLE001 - an exception may take what cannot travel
        portable = RuntimeError("".join(traceback.format_exception(error)))
    return portable
