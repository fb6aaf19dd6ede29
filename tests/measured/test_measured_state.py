"""A run that was saved and loaded at any point goes on as one that was not."""

import copy
import functools
import pickle
import re

import pytest
import torch
from conftest import (
    assert_identical,
    figures,
    l1,
    make_arguments,
    make_loss,
    packed,
    snapshot,
    step,
    train,
)
from test_state import ROUTES, assert_goes_on_alike
from torch import nn
from within import core_of, slope_of

from learned_surrogates import Tensors

SLOPE = "learned_surrogates._measured.slope"
FIRST_STEPS = "learned_surrogates._measured.experience.FIRST_STEPS"
# Forms are made at call 4 of batches of four, tried until call 7, and fitted eagerly until call 11.
SHORT = {"TRIAL": 4, "EAGER": 8, "REST": 3, "LEAST_R2": -9.0}
SMALL = {"surrogate": "auto", "capacity": 16, "every": 2}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """What takes hundreds of calls or steps, in a few."""
    for name, value in SHORT.items():
        monkeypatch.setattr(f"{SLOPE}.{name}", value)
    monkeypatch.setattr(FIRST_STEPS, 3)
    return monkeypatch


def assert_resumes_anywhere(make, calls, tmp_path):
    """Over the calls; returns what the surrogate was at each."""
    whole, phases = make(), []
    for call in range(calls):
        restored = make()
        state = ROUTES["safetensors"](dict(whole.state_dict()), tmp_path)
        assert list(restored.load_state_dict(state, strict=True)) == [[], []]
        assert_identical(snapshot(restored), snapshot(whole))
        assert figures(restored) == pytest.approx(
            {k: v for k, v in core_of(whole).stats().items() if not k.endswith("/seconds")},
            nan_ok=True,
        )
        slope = slope_of(whole)
        phases.append((tuple(slope.names), slope.resting))
        following = range(call, call + 3)
        assert_identical(
            train(restored, "measured", following),
            train(copy.deepcopy(whole), "measured", following),
        )
        train(whole, "measured", [call])
    return phases


def test_before_forms_are_made_in_their_trial_and_after_it(tmp_path):
    make = functools.partial(make_loss, "measured", **SMALL)
    phases = [names for names, _ in assert_resumes_anywhere(make, 14, tmp_path)]
    assert phases[:4] == [()] * 4
    assert phases[4] == ("pair", "elements", "lists")
    assert len(phases[-1]) == 1
    assert phases[-1][0] in phases[4]


def test_while_no_form_is_worth_its_cost(short, tmp_path):
    short.setattr(f"{SLOPE}.LEAST_R2", 2.0)
    make = functools.partial(make_loss, "measured", **SMALL)
    phases = assert_resumes_anywhere(make, 14, tmp_path)
    resting = [rests for _, rests in phases]
    assert resting.count(True) >= 4
    # Tried, given up, and tried again.
    first = resting.index(True)
    assert any(names for names, _ in phases[:first])
    assert any(names for names, _ in phases[first:])


def test_a_trial_that_was_decided_within_a_copy():
    criterion = make_loss("measured", **SMALL)
    train(criterion, "measured", range(6))
    for twin in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        slope = slope_of(twin)
        moved = [id(p) for p in slope.optimizer.param_groups[0]["params"]]
        assert moved == [id(p) for form in slope.forms for p in form.parameters()]
        assert slope.sync is core_of(twin).sync
        assert_identical(
            train(twin, "measured", range(6, 12)),
            train(copy.deepcopy(criterion), "measured", range(6, 12)),
        )


def saved_state(**options):
    criterion = make_loss("measured", **options)
    train(criterion, "measured", range(3))
    return snapshot(criterion)


KEYS = sorted(key for key in saved_state() if not re.search(r"net\.[2-9]\.", key))


def loaded_with_fault(state, fault, **options):
    """Asserts that the loss works on as if nothing had been loaded."""
    criterion, undisturbed = (make_loss("measured", seed=8, **options) for _ in range(2))
    for loss in (criterion, undisturbed):
        train(loss, "measured", range(30, 33))
    with pytest.raises(RuntimeError, match=re.escape(fault)):
        criterion.load_state_dict(packed(state))
    assert_goes_on_alike(criterion, undisturbed, "measured")


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(key):
    state = saved_state()
    del state[key]
    loaded_with_fault(state, "replay" if key.startswith("replay") else key)


@pytest.mark.parametrize("key", [key for key in KEYS if key != "version"])
def test_a_wrong_shape_is_named(key):
    state = saved_state()
    state[key] = torch.cat([state[key].reshape(-1)] * 2)[:-1].reshape(1, 1, -1)
    loaded_with_fault(state, "replay" if key.startswith("replay") else key)


@pytest.mark.parametrize("shape", [(5,), (2, 2)])
def test_remembered_slopes_have_the_shape_of_what_they_are_of(shape):
    state = saved_state()
    state["replay.2"] = torch.ones(len(state["replay.0"]), *shape)
    loaded_with_fault(state, "replay.2 and replay.3 must have the shape of replay.0")


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("forms", torch.tensor([99]), "surrogate"),
        ("forms", torch.tensor([-1]), "forms must not be negative"),
        ("forms", torch.tensor([1]), "surrogate= asks for pair"),
        ("z_shape", torch.tensor([-3]), "z_shape must not be negative"),
        ("z_shape", torch.tensor([4]), "replay must have"),
        ("target_shape", torch.tensor([2, 2]), "replay must have"),
        ("momentum", torch.ones(3), "momentum"),
    ],
)
def test_a_value_that_cannot_be_is_refused(key, value, fault):
    loaded_with_fault({**saved_state(), key: value}, fault)


def test_a_form_that_is_not_there_cannot_be_the_best():
    state = saved_state()
    state["slope"][1] = 7
    loaded_with_fault(state, "number 7 of 1 forms")


def test_the_state_of_another_surrogate_is_refused():
    loaded_with_fault(saved_state(surrogate="elements"), "surrogate= asks for pair")
    loaded_with_fault(saved_state(), "surrogate= asks for none", surrogate="none")


def test_the_state_of_a_fit_to_values_is_refused_and_the_other_way_round():
    criterion = make_loss("tensors")
    train(criterion, "tensors", range(2))
    loaded_with_fault(snapshot(criterion), "it is of a loss for Tensors(")
    before = snapshot(criterion)
    with pytest.raises(RuntimeError, match="it is of a loss for Tensors"):
        criterion.load_state_dict(packed(saved_state()))
    assert_identical(snapshot(criterion), before)


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, z, y):
        return ((z - y).square() * self.weight).sum(-1)


def test_a_given_surrogate_is_fitted_and_restored():
    surrogate = Weighted()
    criterion = make_loss("measured", surrogate=surrogate)
    train(criterion, "measured", range(4))
    assert not torch.equal(surrogate.weight, torch.ones(3))
    assert torch.equal(surrogate.unused, torch.ones(2))
    restored = make_loss("measured", surrogate=Weighted())
    restored.load_state_dict(criterion.state_dict(), strict=True)
    assert_goes_on_alike(restored, criterion, "measured")


def test_without_replay_what_was_learned_is_restored_and_goes_on():
    criterion = make_loss("measured", save=False)
    train(criterion, "measured", range(3))
    restored = make_loss("measured", save=False)
    restored.load_state_dict(criterion.state_dict(), strict=True)
    assert restored.stats["replay/size"] == 0
    arguments = make_arguments("measured", 7)
    assert_identical(step(restored.eval(), arguments), step(criterion.eval(), arguments))
    train(restored.train(), "measured", range(3))
    assert restored.stats["replay/size"] == 8


def test_the_width_and_what_is_told_go_on_where_they_were():
    options = {"metric": lambda z, y: l1(z, y).round(), "task": Tensors()}
    criterion, restored = (make_loss("measured", **options) for _ in range(2))
    train(criterion, "measured", range(5))
    restored.load_state_dict(criterion.state_dict())
    for name in (
        "gradient/smoothing",
        "gradient/signal",
        "surrogate/r2",
        "surrogate/weight",
        "metric/mean",
    ):
        assert restored.stats[name] == criterion.stats[name]
        assert restored.stats[name] == restored.stats[name]


def test_what_a_loss_was_before_a_load_does_not_show_in_an_evaluation():
    state, found = saved_state(), []
    for calls in (0, 3):
        criterion = make_loss("measured", seed=8, surrogate="auto")
        for seed in range(40, 40 + calls):
            prediction, target = make_arguments("measured", seed=seed)
            criterion(9 * prediction, target).backward()
        criterion.load_state_dict(packed(state))
        criterion.eval()
        found.append(step(criterion, make_arguments("measured")))
    assert_identical(*found)
