"""Memory does not grow with the number of calls."""

import gc
import resource
import sys
import tracemalloc

import pytest
import torch
from conftest import make_arguments, make_loss
from torch import Tensor
from within import core_of

from learned_surrogates._learning.history import MOST_ROWS

pytestmark = pytest.mark.filterwarnings("ignore:the surrogate has not been trusted")
FORMS = ("tensors", "measured", "ctc-auto", "ctc", "characters-auto")
# Of Python's own objects, a call: less than the smallest that could be kept. Its allocator takes
# some hundreds of calls to settle.
BYTES_A_CALL = 8
SETTLING_BYTES = 20_000
# PyTorch's allocations are not Python's; a call's graph would take several kilobytes. The C library
# keeps some megabytes of what was freed.
RESIDENT_BYTES_A_CALL = 500
SETTLING_RESIDENT_BYTES = 8 * 2**20


def live_tensors() -> int:
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except FileNotFoundError:  # the most so far, in kilobytes, but for macOS
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


def used(criterion) -> tuple[int, int, int]:
    """Live tensors, bytes of Python's objects, resident bytes; without the rows of the history."""
    assert len(core_of(criterion).history.rows) <= MOST_ROWS
    core_of(criterion).history.rows.clear()
    gc.collect()
    return live_tensors(), tracemalloc.get_traced_memory()[0], resident_bytes()


def assert_flat(case: str, settling: int, calls: int, *, traced: bool) -> None:
    criterion = make_loss(case, capacity=40, every=4, base_loss=base)
    batches = [make_arguments(case, seed, batch=4, length=9 + seed % 3) for seed in range(20)]

    def call(number: int) -> None:
        prediction, *rest = batches[number % len(batches)]
        criterion.train(number % 10 != 9)
        criterion(prediction, *rest).backward()
        prediction.grad = None

    if traced:  # which takes as long again
        tracemalloc.start()
    try:
        for number in range(settling):
            call(number)
        before = used(criterion)
        for number in range(calls):
            call(number)
        after = used(criterion)
    finally:
        tracemalloc.stop()
    assert criterion.stats["updates"] > calls / 5
    assert after[0] <= before[0]
    assert after[1] - before[1] < BYTES_A_CALL * calls + SETTLING_BYTES
    assert after[2] - before[2] < RESIDENT_BYTES_A_CALL * calls + SETTLING_RESIDENT_BYTES


def base(prediction: Tensor, *rest: object) -> Tensor:
    return prediction.square().mean()


@pytest.mark.parametrize("case", FORMS)
def test_hundreds_of_calls_take_no_memory(case):
    assert_flat(case, 100, 200, traced=False)


@pytest.mark.long
@pytest.mark.parametrize("case", FORMS)
def test_ten_thousand_calls_take_no_memory(case):
    assert_flat(case, 1000, 10_000, traced=True)


def test_calls_that_raise_keep_nothing():
    criterion = make_loss("ctc-auto")
    good = make_arguments("ctc")
    criterion(*good)

    def refused() -> None:
        for wrong in (
            (good[0], None),
            (good[0], good[1] + 7, *good[2:]),
            (good[0][:, :1], *good[1:]),
        ):
            with pytest.raises((TypeError, ValueError)):
                criterion(*wrong)

    refused()
    gc.collect()
    before = live_tensors()
    for _ in range(50):
        refused()
    gc.collect()
    assert live_tensors() <= before


def test_calls_without_gradients_keep_nothing():
    criterion, arguments = make_loss(), make_arguments()
    criterion(*arguments)
    gc.collect()
    before = live_tensors()
    with torch.no_grad():
        for _ in range(50):
            criterion(*arguments)
    gc.collect()
    assert live_tensors() <= before
