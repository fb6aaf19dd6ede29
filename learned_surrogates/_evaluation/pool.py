"""Sends evaluations to an executor, and survives what becomes of its workers."""

import math
import os
import time
import weakref
from collections import deque
from collections.abc import Iterable
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from typing import Any, Self

from .._metric.metric import Metric
from .._support.processes import Lock, one_at_a_time
from .._support.warnings import warn
from .executor import Made, has_processes
from .job import Job, pickling_error
from .portion import Parcel, evaluate, measure
from .workers import Workers

# An evaluation that was alone in an executor that broke, and had been in one before, broke it.
MOST_STRIKES = 2

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


class Inline:
    """No executor: a job is done when it has been sent."""

    def send(self, job: Job) -> None:
        job.take(measure(job.metric, job.portion))

    def advance(self) -> None:
        pass

    def wait(self, jobs: Iterable[Job]) -> None:
        pass

    def drop(self, jobs: Iterable[Job]) -> None:
        pass


class Pool:
    """An executor's jobs, and the executor itself if it was not given.

    It looks at what has become of its jobs whenever it is called; in between, an executor that it
    made looks after itself.

    Args:
        workers: the executor, or what makes one, and how long a job may take.
    """

    def __init__(self, workers: Workers):
        self.workers = workers
        #: The executor, in a list that is shared with what ends it.
        self._made: list[Made] = []
        self._running: list[Job] = []
        self._queue: deque[Job] = deque()
        self._warned = False
        self._looked_at = False
        self._unsendable: BaseException | None = None
        # Copies of a loss share it, and may run in threads of their own.
        self._lock = Lock()
        weakref.finalize(self, _end, self._made)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[Workers]]:
        return type(self), (self.workers,)

    @one_at_a_time
    def send(self, job: Job) -> None:
        """Gives a job to the executor, now or as soon as may be."""
        self._queue.append(job)
        self._send()

    @one_at_a_time
    def advance(self) -> None:
        """Takes what has come back, and gives up what has timed out. Never waits."""
        self._leave_the_parents()
        now, broken = time.monotonic(), None
        hung = bool(self._made) and self._made[0].hangs
        for job in list(self._running):
            assert job.future is not None
            error = _error(job.future) if job.future.done() else None
            if job.future.done() and not isinstance(error, BrokenExecutor):
                self._running.remove(job)
                self._settle(job, error)
            elif now > self._deadline(job):
                # Not cancelled: a process pool with a cancelled job does not survive a dead
                # worker, before Python 3.12.
                self._running.remove(job)
                job.lose(TIMED_OUT.format(timeout=self.workers.timeout))
            elif error is not None:
                broken = error
        if self._made and (hung or (broken is not None and self._made[0].killed)):
            self._made[0].kill()
            _end(self._made)
            self._send_again(self._running)
        elif broken is not None:
            self._replace(broken)
        self._send()

    def wait(self, jobs: Iterable[Job]) -> None:
        """Waits until the jobs are done."""
        jobs = list(jobs)
        self.advance()
        while not all(job.done for job in jobs):
            with self._lock:
                deadline = min(map(self._deadline, self._running), default=-math.inf)
                futures = [job.future for job in self._running if job.future is not None]
                start = self._made[0].start if self._made else None
            patience = deadline - time.monotonic()
            if start is not None and not start.done():
                futures.append(start)
            # A job that has timed out is found to have a moment later.
            wait(
                futures,
                None if math.isinf(patience) else max(0.0, patience) + 1e-3,
                FIRST_COMPLETED,
            )
            self.advance()

    @one_at_a_time
    def drop(self, jobs: Iterable[Job]) -> None:
        """Forgets jobs; those that have been sent are not sent again."""
        for job in jobs:
            job.wanted = False
            # A pool of processes does not survive a dead worker then, before Python 3.12.
            if job.future is not None and not has_processes(self._executor()):
                job.future.cancel()
        self._queue = deque(job for job in self._queue if job.wanted)

    def _send(self) -> None:
        while self._queue:
            # Alone, so that if the executor breaks once more, it is known by which job.
            suspects = [job.failures > 0 for job in (self._queue[0], *self._running[:1])]
            if self._running and any(suspects):
                return
            used, executor = bool(self._made), self._executor()
            made = self._made[0] if self._made else None
            job = self._queue.popleft()
            refusal = self._refusal(executor, job.metric)
            if refusal is not None:
                job.refuse(refusal)
                continue
            sent, metric, parcel = time.monotonic(), job.metric, Parcel(job.portion)
            try:
                job.future = (
                    executor.submit(evaluate, metric, parcel)
                    if made is None
                    else made.submit(evaluate, metric, parcel, os.getpid())
                )
            except RuntimeError as error:  # broken, or shut down
                # It was not in there, and so is no suspect, unless a new executor refuses it.
                (self._queue if used else self._running).insert(0, job)
                self._replace(error)
                continue
            job.sent = sent
            self._running.append(job)

    @property
    def _timeout(self) -> float:
        return math.inf if self.workers.timeout is None else self.workers.timeout

    def _deadline(self, job: Job) -> float:
        """When a job that was sent is given up."""
        return self._made[0].deadline(job.sent) if self._made else job.sent + self._timeout

    def _refusal(self, executor: Executor, metric: Metric) -> BaseException | None:
        """Why the metric cannot be sent to processes; looked at once.

        A pool of processes that is ended while it finds out by itself never ends, nor then does the
        interpreter.
        """
        if not self._looked_at:
            self._looked_at = True
            if has_processes(executor):
                self._unsendable = pickling_error(metric)
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
            self._made.append(Made(made, self._timeout))
        return self._made[0].executor

    def _settle(self, job: Job, error: BaseException | None) -> None:
        assert job.future is not None
        if error is None:
            try:
                return job.take(job.future.result().open())
            except Exception as unreadable:  # noqa: BLE001 - whatever unpickling may raise
                error = unreadable
        if isinstance(error, KeyboardInterrupt) and self._strike(job):
            # Ctrl-C reaches the workers, too, and what the user ended was the call, not this.
            return self._send_again([job])
        # What the metric raises comes back as an outcome: this is of the executor.
        if "pickle" in str(error) and pickling_error(job.metric) is not None:
            job.refuse(error)
        else:
            job.lose(f"the executor failed with {type(error).__name__}: {error}", error)

    def _replace(self, error: BaseException) -> None:
        """Ends an executor that broke; its jobs go to a new one, if there may be one."""
        suspects = self._running
        if isinstance(self.workers.executor, Executor):
            self._running, why = [], BROKEN.format(error=error)
            for job in suspects:
                job.lose(why, error)
            if not self._warned and any(job.metric.on_error == "skip" for job in suspects):
                self._warned = True
                warn(f"all further samples are lost, as {why}")
            return
        _end(self._made)
        for job in suspects:
            if not self._strike(job):
                job.lose(DIED, error)
        self._send_again(suspects)

    def _strike(self, job: Job) -> bool:
        """Whether a job that a worker did not survive may be sent once more."""
        job.failures += 1
        return job.failures < MOST_STRIKES

    def _leave_the_parents(self) -> None:
        """Has a fork of the process send what it awaits to an executor of its own."""
        if self._made and self._made[0].foreign:
            self._made.clear()
            self._send_again(self._running)

    def _send_again(self, jobs: list[Job]) -> None:
        self._running = [job for job in self._running if job not in jobs]
        kept = [job for job in jobs if job.wanted and not job.done]
        for job in kept:
            job.future, job.sent = None, math.inf
        self._queue.extendleft(reversed(kept))


def _error(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:  # by the user, who has shut the executor down
        return error


def _end(made: list[Made]) -> None:
    """Ends the executor that was made, without waiting for it."""
    while made:
        made.pop().end()
