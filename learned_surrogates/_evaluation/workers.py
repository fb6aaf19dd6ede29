"""Where the metric is evaluated, if not in the call itself."""

import inspect
import pickle
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Self

from .._support.checks import check_number

# The least value of each field that may be None.
LEAST = {"lag": 0, "chunk_size": 1}


@dataclass(frozen=True)
class Workers:
    """Evaluates the metric in an executor, and says when its values are taken in.

    The metric, and what it is called with, on the CPU, go to the executor's workers; the surrogate
    stays. An executor that was given is yours to shut down; one that was made from a callable ends
    with the loss or the script, processes at work killed, and is replaced when it breaks.

    Args:
        executor: any `concurrent.futures.Executor`, or a callable without arguments that makes one:
            `ThreadPoolExecutor`, `functools.partial(ProcessPoolExecutor, 8)`.
        lag: learning calls after which the values of a call are taken in, waiting for them if need
            be, so that a run follows from its seed however fast the workers are. 0 waits for them
            in the call: the same as without an executor, bit for bit. None never waits: values are
            taken in at the first learning call that finds them there.
        timeout: seconds since it was sent (of a pool of processes that was made, since its first
            worker was there) after which an evaluation is given up, its samples counted in
            `stats["metric/lost"]`; with `on_metric_error="raise"`, an error. What waits for a
            worker counts, too. An executor that was made from a callable is replaced, its processes
            killed, when what one of them does takes so long, whether or not the loss is called
            again; a thread cannot be, and keeps the interpreter from its end. None waits forever,
            though no call of the loss does with `lag=None`.
        chunk_size: samples that travel together. None takes all of a call's or, with `lag=0`, a
            share for each of this machine's processors.
        max_pending: the most calls that wait for values, with `lag=None`; samples of further calls
            are not measured, and counted in `stats["metric/unmeasured"]`. Also the most draws of a
            batch that `check` has evaluated side by side; it waits for them at any lag.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or value.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from learned_surrogates import LearnedSurrogateLoss, Workers, text
        >>> workers = Workers(ThreadPoolExecutor, lag=2)
        >>> criterion = LearnedSurrogateLoss(
        ...     text.edit_distance, task=text.CTC("abc"), executor=workers
        ... )
    """

    executor: Executor | Callable[[], Executor]
    lag: int | None = None
    timeout: float | None = None
    chunk_size: int | None = None
    max_pending: int = 32

    def __post_init__(self) -> None:
        _check_executor("Workers.executor", self.executor, "")
        for name, least in LEAST.items():
            if getattr(self, name) is not None:
                check_number(f"Workers.{name}", getattr(self, name), least)
        if self.timeout is not None:
            check_number("Workers.timeout", self.timeout, 0, integer=False)
        check_number("Workers.max_pending", self.max_pending, 1)

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self.executor, Executor):
            try:
                pickle.dumps(self.executor)
            except Exception as error:
                raise TypeError(
                    f"an executor that was given, {type(self.executor).__name__}, cannot travel to "
                    "another process or into a file: give a callable that makes one, such as "
                    "executor=ThreadPoolExecutor"
                ) from error
        return vars(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Threads and processes cannot be copied; a copy of the loss uses the same ones.
        return self

    @property
    def waits(self) -> str:
        """When values are taken in, in words."""
        return "asynchronous" if self.lag is None else f"lag {self.lag}"


def as_workers(given: Executor | Callable[[], Executor] | Workers | None) -> Workers | None:
    """The loss's argument `executor`, in its full form."""
    if given is None or isinstance(given, Workers):
        return given
    _check_executor("executor", given, ", or Workers(...)")
    return Workers(given)


def _check_executor(name: str, given: object, others: str) -> None:
    if not (isinstance(given, Executor) or (callable(given) and _takes_nothing(given))):
        raise TypeError(
            f"{name} must be a concurrent.futures.Executor, or a callable without arguments that "
            f"makes one{others}; got {given!r}"
        )


def _takes_nothing(function: Callable[..., Any]) -> bool:
    """Whether a function can be called without arguments, as far as that can be seen."""
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    except ValueError:  # it has no signature
        return True
    return True
