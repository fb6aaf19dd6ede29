"""An executor that was made for a loss: what it has under way, and how it ends."""

import atexit
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any

# Seconds between looks at what takes too long while no call of the loss looks.
INTERVAL = 0.25
# Seconds that processes may take to start: each imports what the metric needs.
START = 120.0


class Made:
    """An executor that was made for a loss, and is ended without waiting for it.

    With the loss, or at the end of the script, nobody awaits what is under way any more: processes
    that are at work are killed, as one that hangs would keep the interpreter from its end. So they
    are when one of them takes too long, whether or not the loss is called again. Threads cannot be.

    A pool of processes calls running what waits for a worker to be free, or to start. So its first
    worker is asked whether it is there; and what was given after something that is done is taken
    to have been taken up just then: it may have waited until then.

    Args:
        executor: what was made.
        timeout: seconds that what it is given may take; infinite is as long as it takes.
    """

    def __init__(self, executor: Executor, timeout: float):
        self.executor = executor
        self.timeout = timeout
        #: By when what it was given must be done, in the order in which it was.
        self.under_way: dict[Future[Any], float] = {}
        #: Since when it works, or by when it must at the latest.
        self.up = time.monotonic()
        #: What its first worker answers; None where nobody is asked.
        self.start: Future[Any] | None = None
        #: Whether its processes were killed, through no fault of all but the one that hung.
        self.killed = False
        self._process = os.getpid()
        self._changing = threading.Lock()
        _made.add(self)
        _end_before(type(executor))
        if timeout < math.inf:
            if has_processes(executor):
                self.up += START
                with suppress(RuntimeError):  # it is broken, as the first job will be told
                    self.start = self.submit(os.getpid)
            _watch(self)

    @property
    def foreign(self) -> bool:
        """Whether this is a fork of the process that made it, in which it does not work."""
        return os.getpid() != self._process

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Gives it something to do."""
        future = self.executor.submit(function, *args)
        with self._changing:
            self.under_way[future] = self.deadline(time.monotonic())
        future.add_done_callback(self._is_done)
        return future

    def deadline(self, sent: float) -> float:
        """By when what was sent at this time must be done, if nothing was before it."""
        return max(sent, self.up) + self.timeout

    @property
    def hangs(self) -> bool:
        """Whether what one of its workers does takes too long."""
        now = time.monotonic()
        with self._changing:
            under_way = list(self.under_way.items())
        return any(now > limit and future.running() for future, limit in under_way)

    def expire(self) -> None:
        """Kills its processes if one of them hangs."""
        if self.hangs:
            self.kill()

    def _is_done(self, future: Future[Any]) -> None:
        now, later = time.monotonic(), False
        with self._changing:
            if future is self.start:
                self.up = now
            for other in self.under_way:
                if later:
                    self.under_way[other] = now + self.timeout
                later |= other is future
            self.under_way.pop(future, None)

    def kill(self) -> None:
        """Kills its processes; public in `concurrent.futures` only from Python 3.14 on."""
        for process in dict(getattr(self.executor, "_processes", None) or {}).values():
            self.killed = True
            try:
                process.kill()
            except AttributeError:  # loky's processes know no other end
                process.terminate()

    def end(self, wait: bool = False) -> None:
        """Ends it, at once.

        Args:
            wait: until it has ended. The interpreter, at its end, would else speak to a pool while
                that closes its pipes.
        """
        if self.foreign:
            return
        if self.under_way:
            self.kill()
        shutdown: Callable[..., Any] = self.executor.shutdown
        try:
            # Before Python 3.12, a pool with a cancelled job does not survive a dead worker.
            shutdown(wait=wait, cancel_futures=not self.killed)
        except TypeError:  # loky's has no cancel_futures
            shutdown(wait=wait)


def has_processes(executor: Executor) -> bool:
    """Whether it is Python's own pool of processes."""
    from concurrent.futures.process import ProcessPoolExecutor

    return isinstance(executor, ProcessPoolExecutor)


_made: weakref.WeakSet[Made] = weakref.WeakSet()
_watched: weakref.WeakSet[Made] = weakref.WeakSet()
_lock = threading.Lock()
_watcher: threading.Thread | None = None
_kinds: set[type[Executor]] = set()


def _end_before(kind: type[Executor]) -> None:
    """Has all that was made ended before executors of a kind are waited for.

    At the end of a script, `concurrent.futures` waits for its threads in callbacks of `threading`,
    which are called before those of `atexit`, and the latest first: so ours comes after those of
    the executor's module.
    """
    if kind not in _kinds:
        _kinds.add(kind)
        getattr(threading, "_register_atexit", atexit.register)(_end_all)


def _watch(made: Made) -> None:
    """Has a thread look at it, for as long as it lives."""
    global _watcher
    with _lock:
        _watched.add(made)
        if _watcher is None:
            _watcher = threading.Thread(target=_look, name="learned_surrogates", daemon=True)
            _watcher.start()


def _look() -> None:
    global _watcher
    while True:
        with _lock:
            # Copied within, as another thread may add to it meanwhile.
            watched = list(_watched)
            if not watched:
                _watcher = None
                return
        while watched:
            watched.pop().expire()  # and keeps none alive
        time.sleep(INTERVAL)


def _end_all() -> None:
    for made in list(_made):
        made.end(wait=True)


def _forget() -> None:
    """In a fork, which has none of the threads, and must leave the processes alone."""
    global _made, _watched, _lock, _watcher
    _made, _watched = weakref.WeakSet(), weakref.WeakSet()
    _lock, _watcher = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
