"""Sends evaluations to an executor, and survives what becomes of its workers."""

import math
import pickle
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from typing import Any, Self

from ._evaluation import Outcome, Parcel, Portion, evaluate, measure
from ._metric import Metric, MetricError
from ._warnings import warn
from ._workers import Workers

# An evaluation that was alone in an executor that broke, and had been in one before, broke it.
MOST_STRIKES = 2

LOST = (
    "metric {name!r}: the values of {samples} samples are lost, as {why}. With "
    "on_metric_error='skip' such samples are left out and counted in stats['lost']"
)
TIMED_OUT = "they did not come within timeout={timeout:g} seconds of being sent"
DIED = (
    "their worker died, and died again when they were sent once more, alone. If all evaluations "
    "end so, the workers cannot start: a metric must be importable there, and a script that starts "
    "processes needs `if __name__ == '__main__':`"
)
BROKEN = (
    "the executor cannot be used any more ({error!r}). Give a callable that makes one, such as "
    "executor=functools.partial(ProcessPoolExecutor, 8), and it is replaced when that happens"
)
UNSENDABLE = (
    "metric {!r} cannot be sent to the executor's workers ({!r}): define it at the top "
    "level of a module, not within a function nor as a lambda, or give it threads, "
    "executor=ThreadPoolExecutor"
)


class Task:
    """A portion on its way: done when it has an outcome or is lost.

    Args:
        metric: learns its calling form from the first outcome that knows it.
        portion: what it is called with.
    """

    def __init__(self, metric: Metric, portion: Portion):
        self.metric = metric
        self.portion = portion
        self.outcome: Outcome | None = None
        self.failure: MetricError | None = None
        #: Whether the failure is of the set-up, which no `on_metric_error` passes over.
        self.fatal = False
        self.wanted = True
        self.strikes = 0
        self.future: Future[Parcel[Outcome]] | None = None
        self.deadline = math.inf

    @property
    def done(self) -> bool:
        return self.outcome is not None or self.failure is not None

    def take(self, outcome: Outcome) -> None:
        self.outcome, self.failure = outcome, outcome.failure
        if self.metric.batched is None:
            self.metric.batched = outcome.batched

    def refuse(self, cause: BaseException) -> None:
        """It cannot be sent."""
        self.failure, self.fatal = MetricError(UNSENDABLE.format(self.metric.name, cause)), True
        self.failure.__cause__ = cause

    def lose(self, why: str, cause: BaseException | None = None) -> None:
        samples = len(self.portion.positions)
        self.failure = MetricError(LOST.format(name=self.metric.name, samples=samples, why=why))
        self.failure.__cause__ = cause


class Inline:
    """No executor: a task is done when it has been sent."""

    def send(self, task: Task) -> None:
        task.take(measure(task.metric, task.portion))

    def advance(self) -> None:
        pass

    def wait(self, tasks: Iterable[Task]) -> None:
        pass

    def drop(self, tasks: Iterable[Task]) -> None:
        pass


class Pool:
    """An executor's tasks, and the executor itself if it was not given.

    Starts no threads: it looks at what has become of its tasks whenever it is called.

    Args:
        workers: the executor, or what makes one, and how long a task may take.
    """

    def __init__(self, workers: Workers):
        self.workers = workers
        self._made: list[Executor] = []
        self._running: list[Task] = []
        self._queue: deque[Task] = deque()
        self._warned = False
        self._looked_at = False
        self._unsendable: BaseException | None = None
        weakref.finalize(self, _end, self._made)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[Workers]]:
        return type(self), (self.workers,)

    def send(self, task: Task) -> None:
        """Gives a task to the executor, now or as soon as may be."""
        self._queue.append(task)
        self._send()

    def advance(self) -> None:
        """Takes what has come back, and gives up what has timed out. Never waits."""
        now, hung, broken = time.monotonic(), False, None
        for task in list(self._running):
            assert task.future is not None
            if task.future.done():
                error = _error(task.future)
                if isinstance(error, BrokenExecutor):
                    broken = error
                    continue
                self._running.remove(task)
                self._settle(task, error)
            elif now > task.deadline:
                # Not cancelled: a process pool with a cancelled task does not survive a dead
                # worker, before Python 3.12.
                hung |= task.future.running()
                self._running.remove(task)
                task.lose(TIMED_OUT.format(timeout=self.workers.timeout))
        if broken is not None:
            self._replace(broken)
        elif hung and self._made:
            _end(self._made, kill=True)
            self._send_again(self._running)
        self._send()

    def wait(self, tasks: Iterable[Task]) -> None:
        """Waits until the tasks are done."""
        tasks = list(tasks)
        self.advance()
        while not all(task.done for task in tasks):
            patience = min(task.deadline for task in self._running) - time.monotonic()
            futures = [task.future for task in self._running if task.future is not None]
            # A task that has timed out is found to have a moment later.
            wait(
                futures,
                None if math.isinf(patience) else max(0.0, patience) + 1e-3,
                FIRST_COMPLETED,
            )
            self.advance()

    def drop(self, tasks: Iterable[Task]) -> None:
        """Forgets tasks; those that have been sent are not sent again."""
        for task in tasks:
            task.wanted = False
        self._queue = deque(task for task in self._queue if task.wanted)

    def _send(self) -> None:
        while self._queue:
            # Alone, so that if the executor breaks once more, it is known by which task.
            suspects = [task.strikes > 0 for task in (self._queue[0], *self._running[:1])]
            if self._running and any(suspects):
                return
            used, executor = bool(self._made), self._executor()
            task = self._queue.popleft()
            refusal = self._refusal(executor, task.metric)
            if refusal is not None:
                task.refuse(refusal)
                continue
            try:
                task.future = executor.submit(evaluate, task.metric, Parcel(task.portion))
            except RuntimeError as error:  # broken, or shut down
                # It was not in there, and so is no suspect, unless a new executor refuses it.
                (self._queue if used else self._running).insert(0, task)
                self._replace(error)
                continue
            self._running.append(task)
            if self.workers.timeout is not None:
                task.deadline = time.monotonic() + self.workers.timeout

    def _refusal(self, executor: Executor, metric: Metric) -> BaseException | None:
        """Why the metric cannot be sent to processes; looked at once.

        A pool of processes that is ended while it finds out by itself never ends, nor then does the
        interpreter.
        """
        if not self._looked_at:
            from concurrent.futures.process import ProcessPoolExecutor

            self._looked_at = True
            if isinstance(executor, ProcessPoolExecutor):
                self._unsendable = _pickling_error(metric)
        return self._unsendable

    def _executor(self) -> Executor:
        if isinstance(self.workers.executor, Executor):
            return self.workers.executor
        if not self._made:
            made: object = self.workers.executor()
            if not isinstance(made, Executor):
                raise TypeError(
                    "executor= was given a callable, which must return a concurrent.futures."
                    f"Executor; it returned {made!r}"
                )
            self._made.append(made)
        return self._made[0]

    def _settle(self, task: Task, error: BaseException | None) -> None:
        assert task.future is not None
        if error is None:
            try:
                return task.take(task.future.result().open())
            except Exception as unreadable:  # noqa: BLE001 - whatever unpickling may raise
                error = unreadable
        # What the metric raises comes back as an outcome: this is of the executor.
        if "pickle" in str(error) and _pickling_error(task.metric) is not None:
            task.refuse(error)
        else:
            task.lose(f"the executor failed with {type(error).__name__}: {error}", error)

    def _replace(self, error: BaseException) -> None:
        """Ends an executor that broke; its tasks go to a new one, if there may be one."""
        suspects = self._running
        if isinstance(self.workers.executor, Executor):
            self._running, why = [], BROKEN.format(error=error)
            for task in suspects:
                task.lose(why, error)
            if not self._warned and any(task.metric.on_error == "skip" for task in suspects):
                self._warned = True
                warn(f"all further samples are lost, as {why}")
            return
        _end(self._made)
        for task in suspects:
            task.strikes += 1
            if task.strikes == MOST_STRIKES:
                task.lose(DIED, error)
        self._send_again(suspects)

    def _send_again(self, tasks: list[Task]) -> None:
        self._running = []
        kept = [task for task in tasks if task.wanted and not task.done]
        for task in kept:
            task.future, task.deadline = None, math.inf
        self._queue.extendleft(reversed(kept))


def _pickling_error(metric: Metric) -> BaseException | None:
    try:
        pickle.dumps(metric)
    except Exception as error:  # noqa: BLE001 - there is no one class of them
        return error
    return None


def _error(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:  # by the user, who has shut the executor down
        return error


def _end(made: list[Executor], kill: bool = False) -> None:
    """Ends the executor that was made, without waiting for it.

    Args:
        made: holds it, and does not any more.
        kill: its processes, one of which hangs; public only from Python 3.14 on.
    """
    while made:
        executor = made.pop()
        processes: dict[Any, Any] = (
            dict(getattr(executor, "_processes", None) or {}) if kill else {}
        )
        for process in processes.values():
            process.kill()
        shutdown: Callable[..., Any] = executor.shutdown
        try:
            shutdown(wait=False, cancel_futures=not processes)
        except TypeError:  # loky's has no cancel_futures
            shutdown(wait=False)
