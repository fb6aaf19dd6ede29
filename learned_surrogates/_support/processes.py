"""What a loss needs where it is used by several threads, or sent to another process."""

import functools
import multiprocessing.context
import os
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import numpy as np
import torch

Owner = TypeVar("Owner")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Lock:
    """Lets one thread at a time in, and that one again; a copy is another lock, and open."""

    def __init__(self) -> None:
        self._lock, self._process = threading.RLock(), os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():  # a thread that has not come along may have had it
            self._lock, self._process = threading.RLock(), os.getpid()
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


def one_at_a_time(
    method: Callable[Concatenate[Owner, Arguments], Result],
) -> Callable[Concatenate[Owner, Arguments], Result]:
    """A method that waits for what other threads do with its object, which has a `_lock`."""

    @functools.wraps(method)
    def call(self: Owner, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        lock: Lock = self._lock  # type: ignore[attr-defined]
        with lock:
            return method(self, *args, **kwargs)

    return call


class Stream(torch.Generator):
    """A random stream that can be sent to another process, where PyTorch's own fails to arrive."""

    def __reduce__(self) -> Any:
        return _stream, (self.get_state().numpy().tobytes(),)


def _stream(state: bytes) -> Stream:
    stream = Stream()
    stream.set_state(torch.from_numpy(np.frombuffer(state, dtype=np.uint8).copy()))
    return stream


def starts_a_process() -> bool:
    """Whether what is pickled now is for a process that is being started."""
    try:
        multiprocessing.context.assert_spawning(None)
    except RuntimeError:
        return False
    return True
