"""An executor that was made for a loss: what it has under way, and how it ends."""

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

# Seconds between looks at what takes too long while no call of the loss looks.
INTERVAL = 0.25


class Made:
    """An executor that was made for a loss, and is ended without waiting for it.

    With the loss, or at the end of the script, nobody awaits what is under way any more: processes
    that are at work are killed, as one that hangs would keep the interpreter from its end. So they
    are when one of them takes too long, whether or not the loss is called again. Threads cannot be.

    Args:
        executor: what was made.
        timeout: whether what it is given may have deadlines.
    """

    def __init__(self, executor: Executor, timeout: bool):
        self.executor = executor
        #: Deadlines of what it was given and has not done.
        self.under_way: dict[Future[Any], float] = {}
        #: Whether its processes were killed, through no fault of all but the one that hung.
        self.killed = False
        self._process = os.getpid()
        _made.add(self)
        _end_before(type(executor))
        if timeout:
            _watch(self)

    @property
    def foreign(self) -> bool:
        """Whether this is a fork of the process that made it, in which it does not work."""
        return os.getpid() != self._process

    def submit(self, deadline: float, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Gives it something to do, which takes too long after this time."""
        future = self.executor.submit(function, *args)
        self.under_way[future] = deadline
        future.add_done_callback(lambda done: self.under_way.pop(done, None))
        return future

    def expire(self) -> None:
        """Kills its processes if what one of them does takes too long."""
        now = time.monotonic()
        if any(now > deadline and f.running() for f, deadline in list(self.under_way.items())):
            self.kill()

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
            if not _watched:
                _watcher = None
                return
        for made in list(_watched):
            made.expire()
            del made
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
