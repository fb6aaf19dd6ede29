"""Executors whose timing is the test's own, and metrics that can be sent to processes."""

import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from random import Random

from conftest import l1

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["learned_surrogates"])


def processes(count=1):
    return ProcessPoolExecutor(count, mp_context=CONTEXT)


class ByHand(Executor):
    """Runs what it was given when it is told to, in any order."""

    def __init__(self):
        self.given = []
        self.broken = self.ended = False

    def submit(self, function, /, *arguments):
        if self.broken:
            raise BrokenExecutor("broken")
        future = Future()
        self.given.append((future, function, arguments))
        return future

    def run(self, *which):
        """Those of these numbers; all that are left, without any."""
        for number in which or range(len(self.given)):
            future, function, arguments = self.given[number]
            if not future.done() and future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*arguments))
                except BaseException as error:  # noqa: BLE001 - as an executor does
                    future.set_exception(error)

    def start(self, *which):
        """A worker takes these up, and never comes back."""
        for number in which:
            self.given[number][0].set_running_or_notify_cancel()

    def break_down(self):
        self.broken = True
        for future, *_ in self.given:
            if not future.done():
                future.set_exception(BrokenExecutor("broken"))

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.ended = True


class AtOnce(Executor):
    """Runs what it is given before `submit` returns."""

    def submit(self, function, /, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
        return future


class Counting(AtOnce):
    """Counts what it is given."""

    def __init__(self):
        self.count = 0

    def submit(self, function, /, *arguments):
        self.count += 1
        return super().submit(function, *arguments)


class Pickling(AtOnce):
    """As one of processes: everything goes through pickle, there and back."""

    def submit(self, function, /, *arguments):
        def call():
            there, given = pickle.loads(pickle.dumps((function, arguments)))
            return pickle.loads(pickle.dumps(there(*given)))

        return super().submit(call)


class Delayed:
    """The L1 distance, after a while that differs."""

    def __init__(self, seed):
        self.random = Random(seed)

    def __call__(self, prediction, target):
        time.sleep(self.random.random() / 50)
        return l1(prediction, target)


class Hanging:
    """The L1 distance, which hangs at samples that start with more than 50 until released."""

    def __init__(self):
        self.release = threading.Event()

    def __call__(self, prediction, target):
        if prediction[0, 0] > 50:
            self.release.wait(60)
        return l1(prediction, target)


def deadly(prediction, target):
    """The L1 distance, which ends its process at samples that start with more than 50."""
    if prediction[0, 0] > 50:
        os._exit(1)
    return l1(prediction, target)


def sleepy(prediction, target):
    """The L1 distance, which sleeps for minutes at samples that start with more than 50."""
    if prediction[0, 0] > 50:
        time.sleep(600)
    return l1(prediction, target)


class Stubborn(Exception):
    """Can be pickled, but not unpickled."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def stubborn(prediction, target):
    if prediction[..., 0].max() > 50:
        raise Stubborn("this", "that")
    return l1(prediction, target)
