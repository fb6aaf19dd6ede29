"""The metric in an executor: when its values are taken in, and what becomes of lost ones."""

import copy
import functools
import gc
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from conftest import (
    CASES,
    MEASURED,
    assert_identical,
    figures,
    l1,
    learned,
    make_arguments,
    make_loss,
    snapshot,
    step,
    train,
)
from executors import (
    AtOnce,
    ByHand,
    Counting,
    Delayed,
    Hanging,
    Pickling,
    Stubborn,
    deadly,
    processes,
    sleepy,
    stubborn,
)
from test_sync import assert_same, own_seeds, together
from within import core_of, replay_of

from learned_surrogates import FitValues, LearnedSurrogateLoss, MetricError, Workers, text
from learned_surrogates._evaluation.portion import Portion, measure
from learned_surrogates._metric.metric import Metric

ODD = 77.0


def with_odd_sample(seed=0, sample=0):
    """A batch with a sample at which the metrics of `executors` do what they do."""
    prediction, target = make_arguments(seed=seed)
    prediction.data[sample, 0] = ODD
    return prediction, target


def replayed(criterion):
    """z and errors in the replay buffer, oldest first."""
    fields = replay_of(criterion).oldest_first()
    return (fields[0], fields[2]) if fields else (torch.zeros(0, 3), torch.zeros(0))


def assert_replayed(criterion, batches):
    """That exactly these have been taken in, with their own errors."""
    z, errors = replayed(criterion)
    expected = [pair[0].detach() for pair in batches]
    assert_identical(z, torch.cat(expected) if expected else torch.zeros(0, 3))
    true = [l1(prediction.detach(), target) for prediction, target in batches]
    assert_identical(errors, torch.cat(true) if true else torch.zeros(0))


def wait_until(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


# In the call itself


@pytest.mark.parametrize("kind", ["threads", "pickled"])
@pytest.mark.parametrize("case", CASES)
def test_with_lag_0_all_is_as_without_an_executor(case, kind):
    executor = ThreadPoolExecutor(2) if kind == "threads" else Pickling()
    options = {"metric_budget": 3, "every": 2}
    plain = make_loss(case, **options)
    parallel = make_loss(case, executor=Workers(executor, lag=0, chunk_size=2), **options)
    for criterion in (plain, parallel):
        criterion.warm_up([make_arguments(case, seed) for seed in range(50, 54)], updates=6)
    assert_identical(train(parallel, case, range(8)), train(plain, case, range(8)))
    assert_identical(snapshot(parallel), snapshot(plain))
    assert figures(parallel) == pytest.approx(figures(plain), nan_ok=True, rel=0, abs=0)
    executor.shutdown()


def test_in_processes_too():
    plain = make_loss("ctc-auto")
    parallel = make_loss("ctc-auto", executor=Workers(functools.partial(processes, 2), lag=0))
    assert_identical(train(parallel, "ctc", range(4)), train(plain, "ctc", range(4)))


def test_with_lag_0_samples_are_spread_over_workers():
    both = threading.Barrier(2, timeout=30)  # broken, if there are not two at once

    def metric(prediction, target):
        both.wait()
        return l1(prediction, target)

    workers = Workers(ThreadPoolExecutor(2), lag=0, chunk_size=2)
    criterion = make_loss(metric=metric, batched=True, executor=workers)
    batches = [make_arguments(seed=seed) for seed in range(2)]
    for batch in batches:
        step(criterion, batch)
    assert_replayed(criterion, batches)


def test_a_filter_with_lag_0_drops_samples_that_were_lost():
    by_hand = ByHand()
    criterion = make_loss(
        filter=1e6,
        batched=True,
        executor=Workers(by_hand, lag=0, chunk_size=2, timeout=0.01),
        on_metric_error="skip",
    )
    submit = by_hand.submit

    def submit_and_run_first(*arguments):
        future = submit(*arguments)
        by_hand.run(0)
        return future

    by_hand.submit = submit_and_run_first
    _, gradient = step(criterion, make_arguments())
    assert gradient.any(1).tolist() == [True, True, False, False]
    assert criterion.stats["metric/lost"] == 2
    assert criterion.stats["metric/skipped"] == 0


# Some calls later


@pytest.mark.parametrize("lag", [1, 2, 5])
def test_with_a_lag_values_are_taken_in_so_many_calls_later(lag):
    criterion = make_loss(executor=Workers(AtOnce(), lag=lag))
    batches = [make_arguments(seed=seed) for seed in range(7)]
    for call, batch in enumerate(batches, 1):
        step(criterion, batch)
        assert_replayed(criterion, batches[: max(0, call - lag)])


@pytest.mark.parametrize("case", ["tensors", "measured", "ctc-auto", "boxes"])
@pytest.mark.parametrize("lag", [1, 3])
def test_with_a_lag_a_run_follows_from_its_seed(case, lag):
    """However long the workers take; with draws, and with a generator's pairs."""
    losses = [make_loss(case, executor=Workers(AtOnce(), lag=lag))]
    for seed in range(2):
        inner = core_of(losses[0]).oracle.metric.function
        delayed = Delayed(seed)

        @functools.wraps(inner)
        def metric(predictions, targets, inner=inner, delayed=delayed):
            time.sleep(delayed.random.random() / 50)
            return inner(predictions, targets)

        executor = ThreadPoolExecutor(3)
        losses.append(make_loss(case, metric, executor=Workers(executor, lag=lag)))
    outcomes = [(train(loss, case, range(8)), snapshot(loss)) for loss in losses]
    assert_identical(outcomes[1], outcomes[0])
    assert_identical(outcomes[2], outcomes[0])


def test_the_surrogates_value_is_that_of_the_call():
    """What `unseen` compares is from before any fit, as without an executor."""
    late = make_loss(executor=Workers(AtOnce(), lag=2), every=100)
    plain = make_loss(every=100)
    for criterion in (late, plain):
        train(criterion, "tensors", range(6))
    values, errors, _ = core_of(plain).pairs.unseen.oldest_first()
    ours = core_of(late).pairs.unseen.oldest_first()
    assert_identical(ours[:2], (values[:16], errors[:16]))


# Whenever they are there


def test_asynchronously_no_call_waits():
    by_hand = ByHand()
    criterion = make_loss(executor=by_hand)
    batches = [make_arguments(seed=seed) for seed in range(7)]
    for batch in batches[:4]:
        loss, gradient = step(criterion, batch)
        assert loss.isfinite()
        assert gradient.isfinite().all()
    assert len(by_hand.given) == 4
    assert (criterion.stats["metric/pending"], criterion.stats["replay/size"]) == (16, 0)
    assert criterion.stats["updates"] == 0
    by_hand.run(2)
    by_hand.run(1)
    step(criterion, batches[4])
    assert_replayed(criterion, batches[1:3])
    by_hand.run(0, 4)
    step(criterion, batches[5])
    assert_replayed(criterion, [batches[i] for i in (1, 2, 0, 4)])
    assert criterion.stats["updates"] == 2
    assert criterion.stats["metric/pending"] == 8


def test_what_is_awaited_is_not_changed_by_the_user():
    by_hand = ByHand()
    criterion = make_loss(executor=by_hand)
    first, second = make_arguments(seed=0), make_arguments(seed=1)
    kept = copy.deepcopy(first)
    criterion(*first)
    first[0].data.zero_()
    first[1].zero_()
    by_hand.run()
    step(criterion, second)
    assert_replayed(criterion, [kept])


def test_calls_beyond_the_backlog_are_not_measured_and_counted():
    by_hand = ByHand()
    criterion = make_loss(executor=Workers(by_hand, max_pending=2))
    batches = [make_arguments(seed=seed) for seed in range(6)]
    for batch in batches[:4]:
        step(criterion, batch)
    assert len(by_hand.given) == 2
    assert (criterion.stats["metric/pending"], criterion.stats["metric/unmeasured"]) == (8, 8)
    by_hand.run()
    for batch in batches[4:]:
        step(criterion, batch)
    assert len(by_hand.given) == 4
    assert_replayed(criterion, batches[:2])
    assert criterion.stats["metric/unmeasured"] == 8


def test_the_calling_form_is_found_out_once_and_known_here():
    calls = []

    def metric(prediction, target):
        calls.append(prediction.ndim)
        return float((prediction - target).abs().sum()) if prediction.ndim == 1 else None

    by_hand = ByHand()
    criterion = make_loss(metric=metric, executor=by_hand)
    step(criterion, make_arguments())
    by_hand.run()
    step(criterion, make_arguments(seed=1))
    assert core_of(criterion).oracle.metric.batched is False
    calls.clear()
    by_hand.run()
    assert calls == [1] * 4


# Errors of the metric


def failing(prediction, target):
    if (prediction[..., 0] == ODD).any():
        raise KeyError("polygon")
    return l1(prediction, target)


@pytest.mark.parametrize("executor", [Pickling, AtOnce])
def test_with_lag_0_an_error_leaves_the_loss_as_it_was(executor):
    workers = Workers(executor(), lag=0, chunk_size=1)
    criterion = make_loss("tensors", failing, executor=workers)
    train(criterion, "tensors", range(2))
    before = snapshot(criterion)
    with pytest.raises(MetricError, match=r"'failing'.*sample 2 of 4.*\(3,\) float32") as caught:
        criterion(*with_odd_sample(5, sample=2))
    assert isinstance(caught.value.__cause__, KeyError)
    assert_identical(snapshot(criterion), before)
    plain = make_loss()
    train(plain, "tensors", range(2))
    assert_identical(train(criterion, "tensors", [7]), train(plain, "tensors", [7]))


@pytest.mark.parametrize("executor", [Pickling, AtOnce])
@pytest.mark.parametrize("lag", [None, 2])
def test_an_error_surfaces_when_the_values_are_taken_in(executor, lag):
    criterion = make_loss("tensors", failing, executor=Workers(executor(), lag=lag))
    batches = [make_arguments(seed=seed) for seed in range(5)]
    step(criterion, batches[0])
    step(criterion, with_odd_sample(5, sample=3))
    if lag:
        step(criterion, batches[1])
    before = snapshot(criterion)
    with pytest.raises(MetricError, match=r"sample 3 of 4.*earlier call") as caught:
        criterion(*batches[2])
    assert isinstance(caught.value.__cause__, KeyError)
    assert_identical(snapshot(criterion), before)
    # What failed is dropped, and will not be counted as a call without a value.
    assert not any(each.settled for each in core_of(criterion).oracle.queue.pending)
    for batch in batches[2:]:
        step(criterion, batch)
    if lag:
        assert_replayed(criterion, batches[:3])
    else:
        assert_replayed(criterion, [batches[0], batches[2], batches[3]])


def test_the_workers_traceback_comes_along():
    criterion = make_loss("tensors", failing, executor=Workers(Pickling(), lag=0))
    with pytest.raises(MetricError) as caught:
        criterion(*with_odd_sample())
    assert "in failing" in "".join(caught.value.__cause__.__notes__)


def test_an_exception_that_cannot_be_unpickled_comes_back_as_text():
    criterion = make_loss("tensors", stubborn, executor=Workers(Pickling(), lag=0))
    with pytest.raises(MetricError, match="this and that") as caught:
        criterion(*with_odd_sample())
    assert not isinstance(caught.value.__cause__, Stubborn)
    assert "Stubborn" in str(caught.value.__cause__)


@pytest.mark.parametrize("executor", [Pickling, AtOnce])
def test_skipped_samples_are_left_out_and_counted(executor):
    workers = Workers(executor(), lag=1)
    criterion = make_loss("tensors", failing, executor=workers, on_metric_error="skip")
    odd, other = with_odd_sample(0, sample=1), make_arguments(seed=1)
    step(criterion, odd)
    step(criterion, other)
    kept = [0, 2, 3]
    assert_replayed(criterion, [(odd[0][kept], odd[1][kept])])
    assert (criterion.stats["metric/skipped"], criterion.stats["metric/lost"]) == (1, 0)


def test_a_metric_that_cannot_be_sent_is_named():
    options = {"executor": functools.partial(processes, 1), "on_metric_error": "skip"}
    criterion = make_loss(metric=lambda p, t: l1(p, t), **options)

    def call_until_it_is_known():
        for seed in range(3000):
            criterion(*make_arguments(seed=seed))
            time.sleep(0.01)

    with pytest.raises(MetricError, match=r"'<lambda>' cannot be sent.*top level"):
        call_until_it_is_known()


UNSENDABLE_IN_HASTE = """
import functools
import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import torch
from learned_surrogates import LearnedSurrogateLoss, MetricError, Workers, text

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["learned_surrogates"])
    make = functools.partial(ProcessPoolExecutor, 1, mp_context=context)
    for _ in range(15):
        workers = Workers(make, chunk_size=1, max_pending=50)
        criterion = LearnedSurrogateLoss(lambda p, t: (p - t).abs().sum(-1), executor=workers)
        try:
            for _ in range(100):
                criterion(torch.randn(64, 3, requires_grad=True), torch.randn(64, 3))
        except MetricError as error:
            assert "cannot be sent" in str(error), error
        else:
            raise AssertionError("it was sent")
        del criterion
        gc.collect()
"""


def test_a_metric_that_cannot_be_sent_does_not_keep_the_interpreter_from_its_end(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNSENDABLE_IN_HASTE)
    subprocess.run([sys.executable, str(script)], check=True, timeout=60)


# Workers that die, hang, or break


@pytest.mark.parametrize("lag", [0, 3])
def test_a_worker_that_dies_loses_its_own_samples_alone(lag):
    criterion = make_loss(
        metric=deadly,
        batched=True,
        on_metric_error="skip",
        executor=Workers(functools.partial(processes, 2), lag=lag, chunk_size=2),
    )
    batches = [with_odd_sample(0, sample=2), *(make_arguments(seed=seed) for seed in range(1, 7))]
    for batch in batches:
        step(criterion, batch)
    prediction, target = batches[0]
    assert_replayed(criterion, [(prediction[:2], target[:2]), *batches[1 : 7 - lag]])
    assert (criterion.stats["metric/lost"], criterion.stats["metric/skipped"]) == (2, 0)


def test_a_worker_that_dies_is_an_error_if_errors_are_to_be_raised():
    workers = Workers(functools.partial(processes, 1), lag=0, chunk_size=4)
    criterion = make_loss(metric=deadly, batched=True, executor=workers)
    with pytest.raises(MetricError, match=r"4 samples are lost.*worker died"):
        criterion(*with_odd_sample())
    step(criterion, make_arguments())
    # The call has not been made.
    assert criterion.stats["metric/lost"] == 0
    assert_replayed(criterion, [make_arguments()])


def test_suspects_are_sent_alone_and_others_wait():
    made = []

    def make():
        made.append(ByHand())
        return made[-1]

    criterion = make_loss(executor=make, on_metric_error="skip")
    batches = [make_arguments(seed=seed) for seed in range(9)]
    for batch in batches[:3]:
        step(criterion, batch)
    made[0].break_down()
    step(criterion, batches[3])
    assert len(made) == 2
    assert len(made[1].given) == 1  # the first suspect
    step(criterion, batches[4])
    assert len(made[1].given) == 1
    made[1].break_down()  # a second strike
    step(criterion, batches[5])
    assert criterion.stats["metric/lost"] == 4
    for sent, batch in enumerate(batches[6:8], 1):  # the two other suspects
        assert len(made[2].given) == sent
        made[2].run()
        step(criterion, batch)
    assert len(made[2].given) == 7
    made[2].run()
    step(criterion, batches[8])
    assert_replayed(criterion, batches[1:8])


def test_what_was_not_in_an_executor_that_broke_is_no_suspect():
    made = []

    def make():
        made.append(ByHand())
        return made[-1]

    criterion = make_loss(executor=make)
    batches = [make_arguments(seed=seed) for seed in range(4)]
    step(criterion, batches[0])
    made[0].run()
    for idle in range(2):  # once for each strike
        made[idle].broken = True
        step(criterion, batches[1 + idle])
        assert len(made) == 2 + idle
        made[1 + idle].run()
    step(criterion, batches[3])
    assert_replayed(criterion, batches[:3])


def test_what_nobody_awaits_any_more_is_not_sent_again():
    made = []

    def make():
        made.append(ByHand())
        return made[-1]

    criterion = make_loss(executor=make)
    batches = [make_arguments(seed=seed) for seed in range(4)]
    for batch in batches[:2]:
        step(criterion, batch)
    criterion.load_state_dict(make_loss().state_dict())
    made[0].break_down()
    step(criterion, batches[2])
    made[1].run()
    step(criterion, batches[3])
    assert_replayed(criterion, batches[2:3])
    assert len(made[1].given) == 2


def test_an_executor_that_never_takes_anything_is_given_up():
    def make():
        executor = ByHand()
        executor.broken = True
        return executor

    with pytest.raises(MetricError, match="the workers cannot start"):
        make_loss(executor=Workers(make, lag=0))(*make_arguments())


@pytest.mark.parametrize("lag", [0, 1, None])
def test_a_given_executor_that_breaks_is_an_error_that_says_what_to_do(lag):
    by_hand = ByHand()
    criterion = make_loss(executor=Workers(by_hand, lag=lag))
    if lag != 0:
        step(criterion, make_arguments())
    by_hand.break_down()
    with pytest.raises(MetricError, match=r"cannot be used any more.*callable"):
        criterion(*make_arguments(seed=1))


def test_a_given_executor_that_breaks_loses_samples_if_they_are_to_be_skipped():
    by_hand = ByHand()
    criterion = make_loss(executor=by_hand, on_metric_error="skip")
    step(criterion, make_arguments())
    by_hand.break_down()
    with pytest.warns(UserWarning, match="cannot be used any more"):
        step(criterion, make_arguments(seed=1))
    step(criterion, make_arguments(seed=2))  # warns no more
    step(criterion, make_arguments(seed=3))
    assert criterion.stats["metric/lost"] == 12


def test_an_executor_that_was_shut_down_is_named():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(MetricError, match="cannot schedule new futures after shutdown"):
        make_loss(executor=Workers(executor, lag=0))(*make_arguments())


@pytest.mark.parametrize("on_metric_error", ["raise", "skip"])
@pytest.mark.parametrize("lag", [0, 1])
def test_a_thread_that_hangs_is_given_up(lag, on_metric_error):
    metric = Hanging()
    workers = Workers(ThreadPoolExecutor(2), lag=lag, timeout=0.3, chunk_size=4)
    criterion = make_loss(
        metric=metric, batched=True, executor=workers, on_metric_error=on_metric_error
    )
    try:
        if lag:
            step(criterion, with_odd_sample())
        last = make_arguments(seed=1) if lag else with_odd_sample()
        if on_metric_error == "raise":
            with pytest.raises(MetricError, match=r"timeout=0.3 seconds"):
                criterion(*last)
        else:
            step(criterion, last)
        lost = 4 if on_metric_error == "skip" else 0
        others = [make_arguments(seed=seed) for seed in range(2, 5)]
        for batch in others:  # the other thread goes on
            step(criterion, batch)
        assert criterion.stats["metric/lost"] == lost
        taken = [last] if lag and on_metric_error == "skip" else []
        assert_replayed(criterion, [*taken, *others[: 3 - lag]])
    finally:
        metric.release.set()


def test_asynchronously_a_thread_that_hangs_holds_nothing_up():
    by_hand = ByHand()
    criterion = make_loss(executor=Workers(by_hand, timeout=0.01), on_metric_error="skip")
    step(criterion, make_arguments())
    by_hand.start(0)
    time.sleep(0.05)
    step(criterion, make_arguments(seed=1))
    assert criterion.stats["metric/lost"] == 4


def test_a_process_that_hangs_is_killed_and_others_go_on():
    workers = Workers(functools.partial(processes, 1), lag=0, timeout=20, chunk_size=2)
    options = {"metric": sleepy, "batched": True, "on_metric_error": "skip"}
    criterion = make_loss(executor=workers, **options)
    step(criterion, make_arguments())  # by now there is a process
    (made,) = core_of(criterion).oracle.queue.pool._made
    (hung,) = made.executor._processes.values()
    made.timeout = 1
    odd, other = with_odd_sample(1, sample=0), make_arguments(seed=2)
    step(criterion, odd)
    step(criterion, other)
    wait_until(lambda: not hung.is_alive())
    assert criterion.stats["metric/lost"] in (2, 4)  # the other half was in the queue
    assert_identical(replayed(criterion)[0][-4:], other[0].detach())


# What the loss owns


def test_processes_that_it_made_end_with_it():
    criterion = make_loss(executor=Workers(functools.partial(processes, 2), lag=0))
    train(criterion, "tensors", range(2))
    made = core_of(criterion).oracle.queue.pool._made[0].executor
    running = list(made._processes.values())
    del criterion, made
    gc.collect()
    wait_until(lambda: not any(process.is_alive() for process in running))


def test_threads_that_it_made_end_with_it():
    criterion = make_loss(executor=functools.partial(ThreadPoolExecutor, 2, "of-the-loss"))
    train(criterion, "tensors", range(3))

    def threads():
        return [thread for thread in threading.enumerate() if "of-the-loss" in thread.name]

    assert threads()
    del criterion
    gc.collect()
    wait_until(lambda: not threads())


def test_an_executor_that_was_given_is_left_alone():
    by_hand = ByHand()
    criterion = make_loss(executor=by_hand)
    train(criterion, "tensors", range(2))
    del criterion
    gc.collect()
    assert not by_hand.ended


def test_construction_makes_nothing():
    def make():
        raise AssertionError("called")

    make_loss(executor=make)


def test_a_callable_that_makes_something_else_is_named():
    with pytest.raises(TypeError, match=r"must return a concurrent\.futures\.Executor"):
        make_loss(executor=dict)(*make_arguments())


@pytest.mark.parametrize("given", [True, False])
def test_a_copy_uses_the_same_workers_and_awaits_nothing(given):
    by_hand = ByHand()
    criterion = make_loss(executor=by_hand if given else lambda: by_hand)
    train(criterion, "tensors", range(2))
    twin = copy.deepcopy(criterion)
    assert (core_of(twin).oracle.queue.samples_pending, len(by_hand.given)) == (0, 2)
    step(twin, make_arguments(seed=2))
    by_hand.run()
    step(twin, make_arguments(seed=3))
    assert_replayed(twin, [make_arguments(seed=2)])
    step(criterion, make_arguments(seed=4))
    assert_replayed(criterion, [make_arguments(seed=seed) for seed in range(2)])


def test_a_loss_whose_executor_is_made_can_be_pickled():
    criterion = make_loss(executor=AtOnce)
    train(criterion, "tensors", range(2))
    twin = pickle.loads(pickle.dumps(criterion))
    step(twin, make_arguments(seed=2))
    step(twin, make_arguments(seed=3))
    assert_replayed(twin, [make_arguments(seed=seed) for seed in (0, 2)])


# State


def test_with_lag_0_a_resumed_run_is_the_uninterrupted_one():
    workers = Workers(AtOnce(), lag=0, chunk_size=3)
    criterion, restored = (make_loss("ctc-auto", executor=workers) for _ in range(2))
    train(criterion, "ctc", range(4))
    restored.load_state_dict(criterion.state_dict())
    assert_identical(train(restored, "ctc", range(4, 8)), train(criterion, "ctc", range(4, 8)))
    assert_identical(snapshot(restored), snapshot(criterion))


def test_what_is_on_its_way_is_not_part_of_the_state():
    by_hand = ByHand()
    criterion = make_loss(executor=Workers(by_hand, max_pending=3), on_metric_error="skip")
    train(criterion, "tensors", range(4))
    by_hand.run(0, 1)
    criterion.load_state_dict(criterion.state_dict())
    assert criterion.stats["metric/pending"] == 0
    assert criterion.stats["metric/unmeasured"] == 4
    by_hand.run()
    step(criterion, make_arguments(seed=8))
    by_hand.run()
    step(criterion, make_arguments(seed=9))
    assert_replayed(criterion, [make_arguments(seed=8)])


def test_the_counters_are_part_of_the_state():
    criterion, restored = make_loss(metric_budget=1), make_loss()
    train(criterion, "tensors", range(3))
    core_of(criterion).oracle.queue.lost = 5
    restored.load_state_dict(criterion.state_dict())
    assert (restored.stats["metric/unmeasured"], restored.stats["metric/lost"]) == (9, 5)


# The generator's pairs, and warm-up


def test_asynchronously_steps_without_the_generators_pairs_take_local_ones_alone():
    by_hand = ByHand()
    criterion = make_loss("boxes", data="local-global", executor=by_hand)
    drawn = []
    pairs = core_of(criterion).pairs
    draw = pairs.draw
    pairs.draw = lambda: drawn.append(draw()) or drawn[-1]
    step(criterion, make_arguments("boxes"))
    assert drawn[-1] is None  # nothing has arrived
    by_hand.run(0)
    step(criterion, make_arguments("boxes", seed=1))
    assert len(drawn[-1][0]) == 8
    by_hand.run(1)
    step(criterion, make_arguments("boxes", seed=2))
    assert len(drawn[-1][0]) == 16


def test_after_a_piece_is_lost_errors_belong_to_their_own_generated_pairs():
    def generator(count, rng):
        return torch.from_numpy(rng.normal(size=(2, count, 3))).unbind()

    by_hand = ByHand()
    submit = by_hand.submit

    def submit_and_run_all_but_the_second(*arguments):
        future = submit(*arguments)
        if len(by_hand.given) != 2:
            by_hand.run(len(by_hand.given) - 1)
        return future

    by_hand.submit = submit_and_run_all_but_the_second
    workers = Workers(by_hand, lag=0, chunk_size=2, timeout=0.01)
    criterion = make_loss(
        generator=generator, batched=True, executor=workers, on_metric_error="skip"
    )
    z, target, errors = core_of(criterion).pairs.generate(8)
    assert len(z) == len(target) == 6
    assert_identical(errors, l1(z, target).to(errors))


@pytest.mark.parametrize("lag", [None, 2])
def test_warm_up_is_the_same_and_in_parallel(lag):
    """Without draws, which would be drawn ahead."""
    both = threading.Barrier(2, timeout=30)
    at_once = [True]

    def metric(prediction, target):
        if at_once[0]:
            both.wait()
        return l1(prediction, target)

    workers = Workers(ThreadPoolExecutor(2), lag=lag)
    parallel, plain = make_loss(metric=metric, batched=True, executor=workers), make_loss()
    batches = [make_arguments(seed=seed) for seed in range(6)]
    stats = parallel.warm_up(batches, updates=10)
    assert stats["metric/pending"] == 0
    plain.warm_up(batches, updates=10)
    assert_identical(learned(parallel), learned(plain))


def test_warm_up_reads_no_more_batches_than_it_makes_updates():
    read = []

    def batches():
        for seed in range(100):
            read.append(seed)
            yield make_arguments(seed=seed)

    make_loss(executor=AtOnce()).warm_up(batches(), updates=5)
    assert len(read) == 5


def test_warm_up_takes_in_what_earlier_calls_await():
    executor = ThreadPoolExecutor(1)
    criterion = make_loss(metric=Delayed(0), batched=True, executor=executor)
    batches = [make_arguments(seed=seed) for seed in range(5)]
    for batch in batches[:3]:
        criterion(*batch)
    stats = criterion.warm_up(batches[3:], updates=2)
    assert (stats["metric/pending"], stats["replay/size"]) == (0, 20)
    executor.shutdown()


def test_warm_up_on_the_generator_alone():
    options = {"data": "global", "seed": 3}
    plain = make_loss("boxes", **options)
    parallel = make_loss("boxes", executor=ThreadPoolExecutor(2), **options)
    for criterion in (plain, parallel):
        stats = criterion.warm_up(updates=12)
        assert stats["updates"] == 12
        assert stats["surrogate/mae"] > 0
    assert_identical(
        core_of(parallel).net.module.state_dict(), core_of(plain).net.module.state_dict()
    )


# The budget


def plain_choice(samples, most, random):
    return sorted(torch.randperm(samples, generator=random)[:most].tolist())


@pytest.mark.parametrize(
    ("budget", "measured"), [(0.5, 2), (0.6, 2), (0.01, 1), (1, 1), (3, 3), (1.0, 4), (99, 4)]
)
@pytest.mark.parametrize("executor", [None, Workers(AtOnce(), lag=1)])
def test_a_budget_measures_so_many_samples(budget, measured, executor):
    seen = []

    def metric(prediction, target):
        seen.append(prediction)
        return l1(prediction, target)

    criterion = make_loss(
        metric=metric,
        batched=True,
        metric_budget=budget,
        executor=executor,
        every=100,
        higher_is_better=False,
    )
    random = torch.Generator().manual_seed(0)
    batches = [make_arguments(seed=seed) for seed in range(4)]
    chosen = []
    for prediction, target in batches:
        criterion(prediction, target)
        which = plain_choice(4, measured, random) if measured < 4 else [0, 1, 2, 3]
        chosen.append((prediction[which], target[which]))
        assert_identical(seen[-1], prediction[which].detach())
    assert_replayed(criterion, chosen if executor is None else chosen[:-1])
    assert core_of(criterion).stats()["metric/unmeasured"] == 4 * (4 - measured)


@pytest.mark.parametrize("budget", [1.0, 4, 100])
def test_a_whole_budget_is_none_at_all(budget):
    plain, whole = make_loss(), make_loss(metric_budget=budget)
    assert_identical(train(whole, "tensors", range(4)), train(plain, "tensors", range(4)))
    assert_identical(snapshot(whole), snapshot(plain))


@pytest.mark.parametrize("case", CASES)
def test_with_a_budget_a_run_follows_from_its_seed(case):
    first, second = (make_loss(case, metric_budget=0.5) for _ in range(2))
    assert_identical(train(first, case, range(5)), train(second, case, range(5)))
    other = make_loss(case, metric_budget=0.5, seed=1)
    train(other, case, range(5))
    key = "replay.0" if case not in MEASURED[1:] else "normal"
    assert not torch.equal(snapshot(other)[key], snapshot(first)[key])


# Several processes that fit one surrogate


def fit_with_workers(lag, failing_on=None, case="tensors"):
    """Values arrive at other times in each process, or fail in one of them."""
    rank = dist.get_rank()
    metric = failing if rank == failing_on else Delayed(rank)
    executor = ThreadPoolExecutor(2)
    criterion = make_loss(case, metric, batched=True, executor=Workers(executor, lag=lag))
    errors = []
    for call, seed in enumerate(own_seeds(10)):
        arguments = with_odd_sample() if call == 3 else make_arguments(seed=seed)
        try:
            step(criterion, arguments)
        except MetricError as error:
            errors.append((call, str(error)))
    executor.shutdown()
    return together(criterion), errors


@pytest.mark.parametrize("case", ["tensors", "measured"])
@pytest.mark.parametrize("lag", [None, 0, 2])
def test_processes_stay_in_step_whenever_values_arrive(ranks, lag, case):
    states, errors = zip(*ranks(fit_with_workers, lag, None, case), strict=True)
    assert_same(states)
    assert states[0]["counters"][0] == 10
    assert errors == ([], [])


@pytest.mark.parametrize("lag", [None, 2])
def test_an_error_in_one_process_is_one_in_all_at_the_same_call(ranks, lag):
    states, errors = zip(*ranks(fit_with_workers, lag, 1), strict=True)
    assert_same(states)
    (ours,), (theirs,) = errors
    assert ours[0] == theirs[0]
    assert lag is None or ours[0] == 3 + lag
    assert "1 of 2 processes" in ours[1]
    assert "polygon" in theirs[1]


# Arguments


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"executor": 3}, TypeError, "executor"),
        ({"metric_budget": 0}, ValueError, "metric_budget"),
        ({"metric_budget": 0.0}, ValueError, "metric_budget"),
        ({"metric_budget": 1.5}, ValueError, "metric_budget"),
        ({"metric_budget": True}, TypeError, "metric_budget"),
        ({"metric_budget": "half"}, TypeError, "metric_budget"),
        ({"metric_budget": 0.5, "fit": FitValues(filter=1.0)}, ValueError, "filter="),
        ({"executor": AtOnce(), "fit": FitValues(filter=1.0)}, ValueError, "filter="),
        (
            {"executor": Workers(AtOnce(), lag=1), "fit": FitValues(filter=1.0)},
            ValueError,
            "filter=",
        ),
    ],
)
def test_a_wrong_argument_is_named(options, error, name):
    with pytest.raises(error, match=name):
        LearnedSurrogateLoss(l1, **options)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("lag", -1, ValueError),
        ("lag", 0.5, TypeError),
        ("timeout", -1, ValueError),
        ("timeout", "long", TypeError),
        ("chunk_size", 0, ValueError),
        ("max_pending", 0, ValueError),
        ("max_pending", None, TypeError),
    ],
)
def test_a_wrong_field_is_named(name, value, error):
    with pytest.raises(error, match=name):
        Workers(AtOnce(), **{name: value})


def test_repr_tells_how_values_are_taken_in():
    assert "executor: asynchronous, 0 waiting" in repr(make_loss(executor=AtOnce()))
    assert "executor: lag 2" in repr(make_loss(executor=Workers(AtOnce(), lag=2)))
    assert "executor" not in repr(make_loss())


@pytest.mark.parametrize("lag", [None, 0, 2])
@pytest.mark.parametrize("case", ["tensors", "measured", "characters-auto"])
def test_a_check_with_workers_is_one_without(case, lag):
    counting = Counting()
    workers = Workers(counting, lag=lag, chunk_size=3)
    criterion = make_loss(case, seed=1, executor=workers)
    alone = make_loss(case, seed=1)
    arguments = make_arguments(case, 7)
    assert str(criterion.check([arguments], draws=4)) == str(alone.check([arguments], draws=4))
    assert counting.count > 8


def test_a_check_leaves_out_what_is_lost():
    criterion = LearnedSurrogateLoss(
        deadly,
        batched=True,
        executor=Workers(processes, chunk_size=2),
        on_metric_error="skip",
    )
    check = criterion.check([with_odd_sample(sample=2)], draws=2)
    assert (check.samples, check.left_out) == (2, 2)
    assert "2 more samples are left out" in str(check)
    assert criterion.stats["metric/lost"] == 0


def test_a_check_of_which_all_is_lost_says_so():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    options = {"executor": executor, "on_metric_error": "skip", "batched": True}
    criterion = LearnedSurrogateLoss(l1, **options)
    with (
        pytest.warns(UserWarning, match="all further samples are lost"),
        pytest.raises(
            ValueError, match="4 samples are left out: the metric failed on them, their values"
        ),
    ):
        criterion.check([make_arguments()])


def test_draws_of_a_check_are_evaluated_side_by_side():
    at_once = threading.Barrier(2, timeout=30)

    def metric(predictions, targets):
        if predictions != targets:  # which it is called with alone
            at_once.wait()
        return text.edit_distance(predictions, targets)

    workers = Workers(functools.partial(ThreadPoolExecutor, 2), chunk_size=100)
    criterion = make_loss("characters", metric=metric, batched=True, executor=workers)
    criterion.check([make_arguments("characters", 7)], draws=4)


def test_what_cannot_be_sent_is_not_sent_later():
    failures = [OSError("no processes left")]

    def make():
        if failures:
            raise failures.pop()
        return counting

    counting = Counting()
    criterion = LearnedSurrogateLoss(l1, batched=True, higher_is_better=False, executor=make)
    with pytest.raises(OSError, match="no processes left"):
        step(criterion, make_arguments(seed=1))
    step(criterion, make_arguments(seed=2))
    assert counting.count == 1


def test_a_check_says_what_a_worker_raised():
    criterion = LearnedSurrogateLoss(
        stubborn,
        batched=True,
        higher_is_better=False,
        executor=Workers(ThreadPoolExecutor, chunk_size=1),
    )
    with pytest.raises(MetricError, match=r"this and that.*sample 3 of 4"):
        criterion.check([with_odd_sample(sample=3)])


def test_what_a_worker_finds_out_of_a_metric_stays_with_it():
    """Threads have one object between them."""
    metric = Metric(l1, None, None, None, "raise")
    prediction, target = (each.detach() for each in make_arguments())
    outcome = measure(
        metric, Portion(pairs=[(prediction, target)], positions=[0, 1, 2, 3], batch=4)
    )
    assert outcome.usable.all()
    assert metric.form is None


def test_a_sample_that_fails_at_one_draw_is_left_out_of_all():
    def distance(prediction, target):
        return (prediction - target).abs().mean(1).where(prediction[:, 0] < 9, torch.nan)

    metric = Metric(distance, None, None, True, "skip")
    target, good = torch.zeros(4, 3), torch.ones(4, 3)
    bad = good.clone()
    bad[1] = 9.5
    portion = Portion(pairs=[(bad, target), (good, target)], positions=[0, 1, 2, 3], batch=4)
    assert measure(metric, portion).usable.tolist() == [True, False, True, True]
