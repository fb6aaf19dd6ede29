"""One loss in several threads, and in processes that are started with it."""

import copy
import functools
import multiprocessing
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import assert_identical, l1, make_arguments, make_loss, step, train
from executors import CONTEXT

from learned_surrogates import LearnedSurrogateLoss, Workers
from learned_surrogates._support.processes import Lock, Stream


def in_threads(count, function):
    failures = []

    def run():
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - to be raised where it is seen
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_calls_of_several_threads_come_one_after_the_other():
    inside, most = [], []

    def metric(prediction, target):
        inside.append(None)
        most.append(len(inside))
        value = l1(prediction, target)
        inside.pop()
        return value

    criterion = make_loss("measured", metric, capacity=300, batched=True)
    # As nn.DataParallel has it: a replica a thread, with all attributes those of the original.
    replicas = [copy.copy(criterion) for _ in range(3)]

    def work():
        replica = replicas.pop()
        for seed in range(25):
            _, gradient = step(replica, make_arguments(seed=seed, batch=4 + seed % 3))
            assert gradient.isfinite().all()
            replica.state_dict()

    in_threads(3, work)
    assert "calls: 75," in repr(criterion)
    assert max(most) == 1


def test_copies_in_threads_of_their_own_share_an_executor():
    before = sys.getswitchinterval()
    criterion = LearnedSurrogateLoss(
        l1,
        batched=True,
        higher_is_better=False,
        surrogate="none",
        executor=Workers(functools.partial(ThreadPoolExecutor, 2), chunk_size=2),
    )
    copies = iter([criterion, copy.deepcopy(criterion), copy.deepcopy(criterion)])

    def run():
        own = next(copies)
        for seed in range(60):
            step(own, make_arguments("tensors", seed, batch=8))

    sys.setswitchinterval(1e-5)
    try:
        in_threads(3, run)
    finally:
        sys.setswitchinterval(before)


def test_a_metric_may_call_the_loss_that_asks_it():
    losses = []

    def metric(prediction, target):
        with torch.no_grad():
            losses[0].state_dict()
        return l1(prediction, target)

    losses.append(make_loss("measured", metric))
    step(losses[0], make_arguments())


def test_a_copy_of_a_lock_is_open_and_so_is_that_of_a_fork(monkeypatch):
    lock, taken = Lock(), []
    with lock:
        for other in (copy.deepcopy(lock), pickle.loads(pickle.dumps(lock))):
            assert other is not lock
            in_threads(1, lambda other=other: taken.append(other.__enter__()))
    assert len(taken) == 2
    release = threading.Event()
    held = threading.Thread(target=lambda: (lock.__enter__(), release.wait(10)))
    held.start()
    monkeypatch.setattr("os.getpid", lambda: -1)
    with lock:
        release.set()
    held.join()


STARTED = ("measured", "boxes", "ctc", "ctc-auto")


def trained_there(criteria, outcome):
    for case, criterion in criteria.items():
        train(criterion, case, range(3, 6))
    outcome.put(numbers(criteria))


def numbers(criteria):
    """States as numbers: a tensor's memory would go with its process. NaN is itself as a word."""
    states = {case: criterion.state_dict() for case, criterion in criteria.items()}
    return {case: {k: str(v.tolist()) for k, v in state.items()} for case, state in states.items()}


def test_a_process_that_is_started_with_a_loss_has_one_of_its_own():
    criteria = {case: make_loss(case) for case in STARTED}
    for case, criterion in criteria.items():
        train(criterion, case, range(3))
    before = numbers(criteria)
    outcome = CONTEXT.Queue()
    process = CONTEXT.Process(target=trained_there, args=(criteria, outcome))
    process.start()
    there = outcome.get(timeout=60)
    process.join()
    assert numbers(criteria) == before  # nothing is shared
    for case, criterion in criteria.items():
        train(criterion, case, range(3, 6))
    assert numbers(criteria) == there


def test_a_random_stream_goes_on_where_it_arrives():
    stream = Stream()
    stream.manual_seed(5)
    torch.randn(3, generator=stream)
    arrived = [
        pickle.loads(multiprocessing.reduction.ForkingPickler.dumps(stream)),
        copy.deepcopy(stream),
    ]
    expected = torch.randn(5, generator=stream)
    for other in arrived:
        assert_identical(torch.randn(5, generator=other), expected)


@pytest.mark.parametrize("poisoned", [[2], [0, 3]])
@pytest.mark.parametrize("metric", ["finite", "nan", "raises"])
def test_a_prediction_that_is_not_finite_is_not_the_metrics_fault(poisoned, metric):
    def measure(prediction, target):
        if metric == "raises" and not prediction.isfinite().all():
            raise ValueError("Input contains NaN")
        value = l1(prediction, target)
        return value.nan_to_num(0.5) if metric == "finite" else value

    criterion = LearnedSurrogateLoss(measure, batched=True, reduction="none")
    for seed in range(30):
        arguments = make_arguments(seed=seed)
        if seed == 0:
            arguments[0].data[poisoned, 1] = float("nan")
        loss, gradient = step(criterion, arguments)
        spoilt = [seed == 0 and sample in poisoned for sample in range(4)]
        assert loss.isnan().tolist() == spoilt
        assert gradient.isfinite().all(1).tolist() == [not each for each in spoilt]
    assert criterion.stats["metric/skipped"] == len(poisoned)


def test_what_a_metric_does_to_its_lists_of_dicts_is_undone_for_the_retry():
    seen = []

    def metric(predictions, targets):
        seen.append([target["y"].tolist() for target in targets])
        for target in targets:
            target["y"] -= 100
        if (predictions[:, 0] > 50).any():
            raise ValueError("off the page")
        return (predictions - torch.stack([target["y"] for target in targets])).abs().sum(-1)

    prediction, target = make_arguments()
    prediction.data[1, 0] = 77.0
    criterion = LearnedSurrogateLoss(
        metric, batched=True, higher_is_better=False, on_metric_error="skip"
    )
    criterion(prediction, [{"y": row.clone()} for row in target])
    assert criterion.stats["metric/skipped"] == 1
    true = target.tolist()
    assert all(part in (true, *[[row] for row in true]) for part in seen)
