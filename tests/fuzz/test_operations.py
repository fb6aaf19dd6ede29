"""Operations in random order: a run is the straight run of its good calls, bit for bit."""

import copy
import io
import os
import pickle

import pytest
import torch
from conftest import assert_identical, l1, make_arguments, make_loss, packed, snapshot, step
from executors import Pickling
from within import surrogates

from learned_surrogates import MetricError, Workers
from learned_surrogates._state.packed import unpack

ODD, INTERRUPTED = 77.0, 99.0


def metric(prediction, target):
    """The L1 distance, but of samples on which something happens."""
    # Noise of a few standard deviations lies around them.
    if ((prediction[:, 0] - ODD).abs() < 9).any():
        raise KeyError("polygon")
    if ((prediction[:, 0] - INTERRUPTED).abs() < 9).any():
        raise KeyboardInterrupt
    return l1(prediction, target)


class Run:
    """A loss to which things happen, beside one to which only the good calls do."""

    def __init__(self, seed, executor, case):
        self.case, self.options = case, {"metric": metric, "batched": True, "every": 2}
        self.straight = make_loss(case, **self.options)
        if executor is not None:
            self.options["executor"] = Workers(executor, lag=0, chunk_size=2)
        self.criterion = make_loss(case, **self.options)
        self.random = torch.Generator().manual_seed(seed)
        self.calls = 0

    def draw(self, count):
        return int(torch.randint(count, (), generator=self.random))

    def batch(self, odd=None):
        prediction, target = make_arguments(seed=self.calls, batch=3 + self.draw(3))
        if odd is not None:
            prediction.data[self.draw(len(prediction)), 0] = odd
        return prediction, target

    def call(self):
        self.calls += 1
        prediction, target = self.batch()
        arguments = [(prediction.detach().clone().requires_grad_(), target) for _ in range(2)]
        found, expected = map(step, (self.criterion, self.straight), arguments)
        assert_identical(found, expected)

    def fail(self):
        with pytest.raises(MetricError):
            self.criterion(*self.batch(ODD))

    def interrupt(self):
        # From a worker it comes as an error, once it has come again.
        with pytest.raises((KeyboardInterrupt, MetricError)):
            self.criterion(*self.batch(INTERRUPTED))

    def refuse(self):
        prediction, target = self.batch()
        with pytest.raises(ValueError, match="batch size"):
            self.criterion(prediction, target[1:])

    def evaluate(self):
        with torch.no_grad():
            assert self.criterion(*self.batch()).isfinite()
        self.criterion.eval()
        assert self.criterion(*self.batch()).isfinite()
        self.criterion.train()

    def resume(self):
        file = io.BytesIO()
        torch.save(self.criterion.state_dict(), file)
        file.seek(0)
        self.criterion = make_loss(self.case, seed=self.draw(9), **self.options)
        if self.draw(2):
            self.criterion(*self.batch())
        self.criterion.load_state_dict(torch.load(file, weights_only=True))

    def resume_badly(self):
        state = self.criterion.state_dict()
        state = unpack(state["_extra_state"])
        keys = [key for key in state if key != "version"]
        del state[sorted(keys)[self.draw(len(keys))]]
        with pytest.raises(RuntimeError, match="nothing was loaded"):
            self.criterion.load_state_dict(packed(state))

    def copied(self):
        self.criterion = copy.deepcopy(self.criterion)

    def pickled(self):
        self.criterion = pickle.loads(pickle.dumps(self.criterion))

    def fork(self):
        child = os.fork()
        if not child:
            status = 1
            try:
                self.call()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


GOOD = ("call",) * 6
OTHERS = (
    "fail",
    "interrupt",
    "refuse",
    "evaluate",
    "resume",
    "resume_badly",
    "copied",
    "pickled",
)


def operate(seed, count, executor, case, others=OTHERS):
    run = Run(seed, executor, case)
    for _ in range(count):
        operations = GOOD + others
        getattr(run, operations[run.draw(len(operations))])()
    assert_identical(snapshot(run.criterion), snapshot(run.straight))
    return run


EXECUTORS = pytest.mark.parametrize("executor", [None, Pickling()], ids=["inline", "pickled"])
# A gradient that is measured, and a surrogate that is fitted to values.
CASES = pytest.mark.parametrize("case", ["measured", "tensors"])


@EXECUTORS
@CASES
def test_whatever_happens_between_calls(executor, case):
    run = operate(0, 40, executor, case)
    assert surrogates(run.straight)


@pytest.mark.long
@EXECUTORS
@CASES
@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_operations(executor, case, seed):
    others = (*OTHERS, "fork") if hasattr(os, "fork") else OTHERS
    operate(10 + seed, 300, executor, case, others)
