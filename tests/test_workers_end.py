"""Workers end: with the script, with the loss, when they take too long, after Ctrl-C."""

import functools
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import weakref
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor

import pytest
from conftest import make_arguments, make_loss, step
from executors import AtOnce, ByHand, processes
from test_workers import assert_replayed, wait_until
from within import core_of

from learned_surrogates import MetricError, Workers
from learned_surrogates._evaluation import executor as executor_room
from learned_surrogates._evaluation.executor import START, Made

HEAD = """
import functools
import gc
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import torch
from learned_surrogates import LearnedSurrogateLoss, Workers

# What a shell starts in the background ignores Ctrl-C, and so does what that starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["learned_surrogates"])


def metric(prediction, target):
    time.sleep(SECONDS)
    return (prediction - target).abs().sum(-1)


def loss(**options):
    workers = Workers(functools.partial(ProcessPoolExecutor, 1, mp_context=CONTEXT), **options)
    return LearnedSurrogateLoss(
        metric, executor=workers, batched=True, higher_is_better=False
    )


def call(criterion):
    prediction = torch.randn(8, 3, requires_grad=True)
    criterion(prediction, torch.randn(8, 3)).backward()


def process_of(criterion):
    made = criterion._core.oracle.queue.pool._made[0].executor
    return next(iter(made._processes.values()))


def wait_for_the_end_of(process):
    for _ in range(3000):
        if not process.is_alive():
            return
        time.sleep(0.05)
    raise AssertionError("it goes on")

"""
HANGING = """
SECONDS = 600

if __name__ == "__main__":
    timed, deleted, left = loss(timeout=900), loss(), loss()
    for criterion in (timed, deleted, left):
        call(criterion)
    process, made = process_of(timed), timed._core.oracle.queue.pool._made[0]
    while made.start in made.under_way:  # the time of what waits counts anew from when it is done
        time.sleep(0.05)
    made.under_way = dict.fromkeys(made.under_way, 0.0)  # the time is up
    wait_for_the_end_of(process)
    process = process_of(deleted)
    del deleted, criterion
    gc.collect()
    wait_for_the_end_of(process)
    assert process_of(left).is_alive()
    print("the last line")
"""
INTERRUPTED = """
SECONDS = 0.2

if __name__ == "__main__":
    criterion = loss(lag=2)
    for _ in range(3):
        call(criterion)
    caught = threading.Event()

    def interrupt():
        os.killpg(0, signal.SIGINT)
        if not caught.wait(2):  # one that meets a finaliser is ignored by Python, and nobody's
            os.killpg(0, signal.SIGINT)

    threading.Timer(0.1, interrupt).start()
    try:
        for _ in range(20):
            call(criterion)
    except KeyboardInterrupt:
        caught.set()
        calls = criterion._core.record.calls
        for _ in range(3):
            call(criterion)
        assert criterion._core.record.calls == calls + 3
        assert criterion.stats["metric/lost"] == 0
        print("went on")
"""


def run(script, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(HEAD + script)
    return subprocess.run(
        [sys.executable, str(path)],
        check=True,
        timeout=300,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ).stdout


def test_a_metric_that_hangs_outlives_neither_timeout_nor_loss_nor_script(tmp_path):
    assert run(HANGING, tmp_path) == "the last line\n"


def test_after_ctrl_c_the_next_calls_are_as_if_there_had_been_none(tmp_path):
    assert run(INTERRUPTED, tmp_path) == "went on\n"


class LikeLokys(ByHand):
    """Has processes without `kill`, and a `shutdown` without `cancel_futures`."""

    class Process:
        ended = False

        def terminate(self):
            self.ended = True

    def __init__(self):
        super().__init__()
        self._processes = {1: self.Process()}

    def shutdown(self, wait=True):
        self.ended = True


def test_processes_that_cannot_be_killed_are_terminated():
    made = []

    def make():
        made.append(LikeLokys())
        return made[-1]

    criterion = make_loss(executor=Workers(make, timeout=0.01), on_metric_error="skip")
    step(criterion, make_arguments())
    made[0].start(0)
    time.sleep(0.03)
    step(criterion, make_arguments(seed=1))
    assert criterion.stats["metric/lost"] == 4
    assert made[0]._processes[1].ended
    assert made[0].ended
    assert len(made[1].given) == 1


def test_what_only_waits_in_a_busy_pool_does_not_have_it_killed():
    made = LikeLokys()
    criterion = make_loss(executor=Workers(lambda: made, timeout=0.01), on_metric_error="skip")
    step(criterion, make_arguments())
    time.sleep(0.03)  # it has not been taken up
    step(criterion, make_arguments(seed=1))
    assert criterion.stats["metric/lost"] == 4
    assert not made.ended
    assert not made._processes[1].ended


def test_what_a_killed_pool_had_not_done_is_sent_again_and_is_no_suspect():
    made = []

    def make():
        made.append(LikeLokys())
        return made[-1]

    criterion = make_loss(executor=Workers(make, timeout=60), on_metric_error="skip")
    batches = [make_arguments(seed=seed) for seed in range(4)]
    for batch in batches[:3]:
        step(criterion, batch)
    pool = core_of(criterion).oracle.queue.pool
    hung = pool._running[0]
    made[0].start(0)
    pool._made[0].under_way[hung.future] = time.monotonic()
    hung.sent = pool._made[0].up = -math.inf
    wait_until(lambda: made[0]._processes[1].ended)  # without a call
    made[0].break_down()
    step(criterion, batches[3])
    assert criterion.stats["metric/lost"] == 4
    assert len(made[1].given) == 3  # at once, not alone
    made[1].run()
    step(criterion, make_arguments(seed=9))
    assert_replayed(criterion, batches[1:])


def test_a_cancelled_evaluation_frees_its_place():
    by_hand = ByHand()
    criterion = make_loss(executor=Workers(by_hand, max_pending=1), on_metric_error="skip")
    step(criterion, make_arguments())
    by_hand.given[0][0].cancel()
    step(criterion, make_arguments(seed=1))
    assert (criterion.stats["metric/lost"], criterion.stats["metric/unmeasured"]) == (4, 0)
    assert len(by_hand.given) == 2


class Interrupted(Executor):
    """Ctrl-C reaches its worker at the first evaluations."""

    def __init__(self, times):
        self.left = times

    def submit(self, function, /, *arguments):
        future = Future()
        self.left -= 1
        if self.left >= 0:
            future.set_exception(KeyboardInterrupt())
        else:
            future.set_result(function(*arguments))
        return future


@pytest.mark.parametrize("lag", [0, 1])
def test_an_evaluation_that_ctrl_c_ended_is_made_once_more(lag):
    criterion = make_loss(executor=Workers(Interrupted(1), lag=lag, chunk_size=4))
    batches = [make_arguments(seed=seed) for seed in range(3)]
    for batch in batches:
        step(criterion, batch)
    assert_replayed(criterion, batches[: 3 - lag])
    with pytest.raises(MetricError, match="KeyboardInterrupt"):
        make_loss(executor=Workers(Interrupted(2), lag=0, chunk_size=4))(*make_arguments())


def test_a_fork_leaves_the_workers_alone_and_has_its_own():
    executor = functools.partial(
        ProcessPoolExecutor, 1, mp_context=multiprocessing.get_context("forkserver")
    )
    made = Made(executor(), timeout=900.0)
    awaited = made.submit(time.sleep, 0.3)
    child = os.fork() if hasattr(os, "fork") else pytest.skip("there are no forks here")
    if not child:
        made.end()
        os._exit(0 if made.foreign and not made.killed else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert awaited.result(timeout=300) is None
    made.end(wait=True)


def test_what_the_parent_awaits_is_sent_anew_in_a_fork(monkeypatch):
    made = []

    def make():
        made.append(ByHand())
        return made[-1]

    criterion = make_loss(executor=make)
    batches = [make_arguments(seed=seed) for seed in range(3)]
    step(criterion, batches[0])
    process = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: process + 1)
    step(criterion, batches[1])
    assert [len(each.given) for each in made] == [1, 2]
    made[1].run()
    step(criterion, batches[2])
    assert_replayed(criterion, batches[:2])


def test_only_workers_of_ones_own_ignore_ctrl_c():
    # What a shell starts in the background ignores it anyhow.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    by_hand, given = ByHand(), ByHand()
    criterion = make_loss(executor=lambda: by_hand)
    other = make_loss(executor=given)
    for each, executor in ((criterion, by_hand), (other, given)):
        step(each, make_arguments())
        executor.run()
        step(each, make_arguments(seed=1))
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert given.given[0][2][2:] == ()


def test_results_keep_the_order_of_their_samples():
    by_hand = ByHand()
    criterion = make_loss(executor=Workers(by_hand, chunk_size=1, lag=None))
    first = make_arguments()
    step(criterion, first)
    by_hand.run(2, 0, 3, 1)
    step(criterion, make_arguments(seed=1))
    assert_replayed(criterion, [first])


def test_a_job_that_an_executor_refused_to_take_is_no_suspect():
    """Once refused and once lost with a worker, it is sent a third time; only deaths count."""
    refuses, dies = "refuses", "dies"
    scripts = [[None, refuses], [dies], [None] * 9]

    class Scripted(AtOnce):
        def __init__(self):
            self.script = scripts.pop(0)

        def submit(self, function, /, *arguments):
            what = self.script.pop(0)
            if what == refuses:
                raise BrokenExecutor("broken while nobody looked")
            if what == dies:
                future = Future()
                future.set_exception(BrokenExecutor("a worker died"))
                return future
            return super().submit(function, *arguments)

    criterion = make_loss("tensors", executor=Workers(Scripted, lag=0, chunk_size=8))
    for seed in range(3):
        step(criterion, make_arguments(seed=seed))
    assert not scripts
    assert criterion.stats["metric/lost"] == 0


def test_what_ctrl_c_ended_is_awaited_beside_what_still_runs():
    by_hand = ByHand()
    criterion = make_loss(executor=Workers(by_hand, chunk_size=1, lag=None))
    batches = [make_arguments(seed=seed) for seed in range(5)]
    step(criterion, batches[0])
    by_hand.given[0][0].set_exception(KeyboardInterrupt())
    step(criterion, batches[1])
    for batch in batches[2:]:
        by_hand.run()  # at first those that were there, then the ended one alone, then others
        step(criterion, batch)
    assert_replayed(criterion, batches[:4])


def test_idle_workers_are_not_killed_but_leave():
    made = Made(processes(), math.inf)
    assert made.submit(abs, -1).result(timeout=300) == 1
    wait_until(lambda: not made.under_way)
    made.end(wait=True)
    assert not made.killed


def test_what_waits_beyond_its_deadline_has_nothing_killed_until_it_is_taken_up():
    likes = LikeLokys()
    made = Made(likes, 0.0)
    made.submit(abs, -1)
    time.sleep(0.01)
    made.expire()
    assert not likes._processes[1].ended
    likes.start(0)
    made.expire()
    assert likes._processes[1].ended


def test_time_counts_from_when_what_was_before_it_is_done():
    """A pool of processes calls running what waits for a worker to be free."""
    likes = LikeLokys()
    made = Made(likes, math.inf)
    made.timeout = 0.2
    for _ in range(3):
        made.submit(abs, -1)
    likes.start(1, 2)
    time.sleep(0.3)
    assert made.hangs
    likes.run(0)
    assert not made.hangs
    time.sleep(0.3)
    assert made.hangs


class StartsByHand(ByHand, ProcessPoolExecutor):
    """A pool of processes whose worker is there when it is told to be."""


def test_time_counts_from_when_a_worker_is_there():
    by_hand = StartsByHand()
    criterion = make_loss(executor=Workers(lambda: by_hand, timeout=0.2), on_metric_error="skip")
    step(criterion, make_arguments())
    start, job = range(2)
    by_hand.start(job)
    (made,) = core_of(criterion).oracle.queue.pool._made
    time.sleep(0.3)
    step(criterion, make_arguments(seed=1))
    assert criterion.stats["metric/lost"] == 0 and not made.hangs
    by_hand.run(start)
    assert not made.hangs
    time.sleep(0.3)
    assert made.hangs
    made.up -= START + 1
    assert made.deadline(0.0) < time.monotonic()


def test_what_is_watched_is_listed_while_no_other_thread_adds_to_it(monkeypatch):
    listed = []

    class Watched(weakref.WeakSet):
        def __iter__(self):
            listed.append(executor_room._lock.locked())
            return super().__iter__()

    monkeypatch.setattr(executor_room, "_watched", Watched())
    made = Made(ByHand(), 60.0)
    wait_until(lambda: listed)
    assert all(listed)
    made.end()
