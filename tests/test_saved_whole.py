"""What a module says of a state that it cannot take, and when it is saved and loaded."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import l1, make_arguments, make_loss, step
from torch import nn, ones

from learned_surrogates._state.packed import KEY, unpack


def model(**options):
    return nn.ModuleDict({"head": nn.Linear(2, 3), "criterion": make_loss(**options)})


def test_what_is_missing_is_named_within_the_model():
    head = {"head.weight": ones(3, 2), "head.bias": ones(3)}
    assert model().load_state_dict(head, strict=False).missing_keys == [f"criterion.{KEY}"]


def test_what_is_too_much_is_named_within_the_model():
    restored = model()
    state = restored.state_dict() | {"criterion.momentum": ones(3)}
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"criterion\.momentum"'):
        restored.load_state_dict(state)


@pytest.mark.parametrize("saving", [True, False])
def test_a_state_is_of_before_a_call_or_of_after_it(saving):
    """Another thread saves or loads while the metric is at work."""
    entered, may_go_on = threading.Event(), threading.Event()

    def metric(prediction, target):
        entered.set()
        assert may_go_on.wait(20)
        return l1(prediction, target)

    criterion, other = (make_loss(metric=metric, batched=True) for _ in range(2))
    state = other.state_dict()
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(step, criterion, make_arguments())
        assert entered.wait(20)
        action = criterion.state_dict if saving else lambda: criterion.load_state_dict(state)
        done = pool.submit(action)
        with pytest.raises(TimeoutError):
            done.result(timeout=0.2)
        may_go_on.set()
        call.result(20)
        result = done.result(20)
    if saving:
        assert unpack(result[KEY])["counters"][:2].tolist() == [1, 1]
    else:
        assert criterion.stats["calls"] == 0
