"""States that were fitted to something else, saved in half precision, or spoilt."""

import functools
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import (
    OF_VALUES,
    assert_identical,
    l1,
    make_arguments,
    make_loss,
    packed,
    snapshot,
    step,
    train,
)
from within import core_of

from learned_surrogates import LearnedSurrogateLoss, Tensors, text
from learned_surrogates._metric.metric import Metric
from learned_surrogates._state.identity import as_bytes, differences, from_bytes, identity


@functools.cache
def saved(surrogate="pair"):
    return snapshot(trained(surrogate=surrogate))


def trained(calls=3, **options):
    criterion = make_loss("measured", **options)
    train(criterion, "measured", range(calls))
    return criterion


def assert_refused(state, fault, **options):
    """And that nothing has changed."""
    criterion = trained(calls=1, seed=8, **options)
    before = snapshot(criterion)
    with pytest.raises(RuntimeError, match=re.escape(fault)):
        criterion.load_state_dict(packed(state))
    assert_identical(snapshot(criterion), before)
    step(criterion, make_arguments(seed=50))


# What it was fitted to


def share(prediction, target):
    return (prediction - target).abs().mean(-1)


def percentage(prediction, target):
    return 100 * share(prediction, target)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"metric": share}, "metric was l1, and is share"),
        ({"best": 0.5, "metric": lambda p, t: 0.5 + l1(p, t)}, "best was 0, and is 0.5"),
        ({"task": Tensors(smoothing=0.2)}, "task.smoothing was not set, and is 0.2"),
    ],
)
def test_what_differs_is_named(other, named):
    state = trained(calls=1).state_dict()
    criterion = make_loss("measured", **other)
    with pytest.warns(UserWarning, match=named):
        criterion.load_state_dict(state)


def costly(cost, prediction, target, power=1):
    return (cost * (prediction - target).abs() ** power).mean(-1)


def expected(rate, y_true, y_pred):
    return rate * l1(y_pred, y_true)


@pytest.mark.parametrize(
    ("metric", "other", "named"),
    [
        (
            functools.partial(costly, 1.0, power=1),
            functools.partial(costly, 1.0, power=2),
            ["metric.power was 1, and is 2"],
        ),
        (
            functools.partial(costly, torch.tensor([1.0, 2, 3])),
            functools.partial(costly, torch.tensor([1.0, 2, 4])),
            ["metric.0 was [1.0, 2.0, 3.0], and is [1.0, 2.0, 4.0]"],
        ),
        (
            functools.partial(expected, 2),
            functools.partial(expected, 3),
            ["metric.0 was 2, and is 3"],
        ),
        (functools.partial(costly, 1.0), functools.partial(costly, 1.0), []),
    ],
)
@pytest.mark.filterwarnings("ignore:.*the target comes first:UserWarning")
def test_a_metric_is_known_by_what_it_is_given(metric, other, named):
    found = (identity(Metric(f, None, None, None, "raise"), Tensors()) for f in (metric, other))
    assert differences(*found) == named


@pytest.mark.parametrize(
    "table",
    [
        torch.eye(3).to_sparse(),
        torch.eye(3, device="meta"),
    ],
)
def test_tensors_whose_numbers_cannot_be_listed_are_left_out(table):
    task = Tensors()
    task.table = table
    metric = Metric(functools.partial(costly, table), None, None, None, "raise")
    assert not any("table" in key or key == "metric.0" for key in identity(metric, task))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.complex64])
def test_a_table_is_known_by_a_digest(dtype):
    table, other = torch.zeros(2, 200, 100).to(dtype)
    other[-1, -1] = 1
    found = []
    for each in (table, table.T.contiguous().T, other):
        metric = Metric(functools.partial(costly, each), None, None, None, "raise")
        found.append(identity(metric, Tensors()))
    assert found[0] == found[1] != found[2]
    assert found[0]["metric.0"].startswith("'(200, 100) ")


def test_a_task_is_known_by_its_class_and_settings():
    metric = Metric(text.edit_distance, None, None, None, "raise")
    one = identity(metric, text.CTC("abc"))
    assert differences(one, identity(metric, text.CTC("abc"))) == []
    other = "; ".join(differences(one, identity(metric, text.CTC("abd"))))
    assert "task.alphabet.characters was ['a', 'b', 'c'], and is ['a', 'b', 'd']" in other
    assert any("task was CTC" in each for each in differences(one, identity(metric, Tensors())))
    blank = "; ".join(differences(one, identity(metric, text.CTC("abc", blank=3))))
    assert "task.alphabet" in blank


def test_a_task_may_hold_what_holds_it_and_objects_that_have_no_names():
    class Part:
        weight = 3

    def make():
        task = Tensors()
        task.part, task.parts = Part(), [Part(), Part()]
        task.part.owner, task.part.size = task, 3
        return identity(Metric(l1, None, None, None, "raise"), task)

    assert make() == make()
    assert make()["task.part.size"] == "3"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((None, 1), (None, 2)),
        ([b"x"], [b"y"]),
        ([torch.float32], [torch.int8]),
        ([np.float32(1)], [np.float32(2)]),
        ([[1], [2]], [[1], [3]]),
    ],
)
def test_lists_of_whatever_looks_the_same_everywhere_are_compared(one, other):
    found = []
    for setting in (one, other):
        task = Tensors()
        task.setting = setting
        found.append(identity(Metric(l1, None, None, None, "raise"), task))
    assert differences(*found) == [f"task.setting was {one!r}, and is {other!r}"]


def test_a_task_may_hold_modules_and_objects_that_all_know_each_other():
    """Each is gone through once: of ways from one to another there are millions."""
    parts = [SimpleNamespace(number=number) for number in range(20)]
    for part in parts:
        part.others = SimpleNamespace(**{f"part{other.number}": other for other in parts})
    task = Tensors()
    task.first, task.library = parts[0], np
    found = identity(Metric(l1, None, None, None, "raise"), task)
    assert len([key for key in found if key.endswith(".number")]) == 20
    assert not any(key.startswith("task.library") for key in found)


def test_long_settings_are_told_apart_and_take_little_room():
    metric = Metric(text.edit_distance, None, None, None, "raise")
    many = [chr(0x4E00 + i) for i in range(5000)]
    one, other = (identity(metric, text.CTC(a)) for a in (many, [*many[:-1], "z"]))
    assert differences(one, other)
    assert len(as_bytes(one)) == 1024 == len(as_bytes(other))
    assert from_bytes(as_bytes(one)) == one


def test_a_state_without_it_or_with_something_else_in_its_place_is_refused():
    state = dict(saved())
    assert_refused({**state, "fitted_to": torch.zeros(3)}, "fitted_to must be bytes")
    assert_refused(
        {**state, "fitted_to": torch.zeros(3, dtype=torch.uint8)}, "fitted_to cannot be read"
    )
    del state["fitted_to"]
    assert_refused(state, "fitted_to is missing")


@pytest.mark.parametrize("batch", [4, 16])
def test_values_that_disagree_with_the_states_are_found_out_at_the_first_calls(batch):
    def in_hundredths(prediction, target):
        return 100 * share(prediction, target)

    in_hundredths.__name__ = "share"
    losses = [
        LearnedSurrogateLoss(metric, batched=True, surrogate="pair")
        for metric in (share, in_hundredths, share)
    ]
    for seed in range(18):
        step(losses[0], make_arguments(seed=seed, batch=16))
    for criterion in losses[1:]:
        criterion.load_state_dict(losses[0].state_dict())
    for call in range(16 // batch):
        arguments = make_arguments(seed=40 + call, batch=batch)
        if call == 16 // batch - 1:
            with pytest.warns(UserWarning, match=r"differences are 9\d|differences are 1\d\d"):
                step(losses[1], arguments)
        else:
            step(losses[1], arguments)
        step(losses[2], arguments)
    fresh, same = core_of(losses[1]), core_of(losses[2])
    assert not fresh.estimator.slope.forms
    assert fresh.replay.size == batch
    assert not fresh.estimator.slope.resting
    assert same.estimator.slope.forms
    assert not same.estimator.experience.loaded
    assert same.replay.size == 18 * 16 + 16


def test_so_are_values_that_are_a_hundredth_of_those():
    def of_hundred(prediction, target):
        return share(prediction, target) / 100

    of_hundred.__name__ = "share"
    learned, other = (
        LearnedSurrogateLoss(metric, batched=True, surrogate="pair")
        for metric in (share, of_hundred)
    )
    for seed in range(4):
        step(learned, make_arguments(seed=seed, batch=16))
    other.load_state_dict(learned.state_dict())
    with pytest.warns(UserWarning, match=r"differences are 0\.0[01]"):
        step(other, make_arguments(seed=40, batch=16))


# Spoilt ones


@pytest.mark.parametrize(
    ("key", "spoil", "fault"),
    [
        ("random", lambda v: torch.full_like(v, 255), "random is the state of no random stream"),
        ("counters", lambda v: v - 1000, "counters must not be negative"),
        ("outputs", lambda v: torch.tensor([-3]), "outputs must not be negative"),
        (
            "quality.figures",
            lambda v: v * torch.nan,
            "quality.figures has numbers that are not",
        ),
        ("sums", lambda v: v * torch.inf, "sums has numbers that are not finite"),
        ("scale", lambda v: v * torch.nan, "scale has numbers that are not finite"),
        ("moments", lambda v: -v, "moments must have variances of 0 or more"),
        ("history", lambda v: v * torch.nan, "history must begin with two numbers"),
    ],
)
def test_all_is_checked_before_anything_is_taken(key, spoil, fault):
    state = dict(saved())
    assert_refused({**state, key: spoil(state[key])}, fault)


@pytest.mark.parametrize("case", OF_VALUES)
def test_of_a_surrogate_of_values_all_is_checked_too(case):
    criterion = make_loss(case)
    train(criterion, case, range(2))
    state = snapshot(criterion)
    huge = torch.full_like(state["target_shape"], 250 * 10**9)
    for key, spoilt, fault in (
        ("random", torch.full_like(state["random"], 255), "random is the state of no random"),
        ("counters", state["counters"] - 1000, "counters must not be negative"),
        ("history", state["history"] * torch.nan, "history must begin with two numbers"),
        ("scale", state["scale"] * torch.nan, "scale has numbers that are not finite"),
        ("target_shape", huge, "replay.1 must have shape"),
        ("z_shape", -state["z_shape"], "LearnedSurrogateLoss cannot take this state"),
    ):
        with pytest.raises(RuntimeError, match=re.escape(fault)):
            criterion.load_state_dict(packed({**state, key: spoilt}))
        assert_identical(snapshot(criterion), state)


def test_a_surrogate_of_values_is_not_made_before_its_size_is_known_to_be_true(monkeypatch):
    criterion = make_loss("tensors")
    train(criterion, "tensors", range(2))
    state, made = snapshot(criterion), []
    state = {name: value for name, value in state.items() if not name.startswith("replay.")}
    build = Tensors.build_surrogate
    monkeypatch.setattr(
        Tensors, "build_surrogate", lambda *given: made.append(build(*given)) or made[-1]
    )
    fresh = make_loss("tensors")
    with pytest.raises(RuntimeError, match=r"surrogate\..* must have shape"):
        fresh.load_state_dict(packed({**state, "z_shape": torch.tensor([250 * 10**9])}))
    assert [{p.device.type for p in net.parameters()} for net in made] == [{"meta"}]
    fresh.load_state_dict(packed(state))
    assert {p.device.type for p in made[-1].parameters()} == {"cpu"}


@pytest.mark.parametrize("size", [-3, 2**62])
@pytest.mark.parametrize("key", ["z_shape", "target_shape"])
@pytest.mark.parametrize("case", ["tensors", "ctc"])
def test_a_size_of_which_there_is_no_surrogate_is_refused(case, key, size):
    """PyTorch has its own errors for it, which name neither the loss nor that nothing changed."""
    criterion, fresh = make_loss(case), make_loss(case)
    train(criterion, case, range(2))
    state, before = snapshot(criterion), snapshot(fresh)
    with pytest.raises(RuntimeError, match=r"cannot be made: \S.*\n.*nothing was"):
        fresh.load_state_dict(packed({**state, key: torch.full_like(state[key], size)}))
    assert_identical(snapshot(fresh), before)


@pytest.mark.parametrize("key", ["z_shape", "target_shape"])
@pytest.mark.parametrize("surrogate", ["pair", "elements"])
def test_a_size_is_believed_only_where_the_rest_of_the_state_has_it(key, surrogate, monkeypatch):
    """A thousand times a gigabyte is not even asked for."""
    state = saved(surrogate)
    state = {name: value for name, value in state.items() if not name.startswith("replay.")}
    state[key] = torch.tensor([250 * 10**9])
    assert_refused(state, "surrogate", surrogate=surrogate)


def test_a_state_of_a_size_that_no_weight_shows_takes_no_memory():
    """Of more than 4,096 outputs; of fewer, waves show it."""
    few, many = (make_loss("measured", surrogate="elements") for _ in range(2))
    train(few, "measured", range(12))
    for _ in range(12):
        step(many, (torch.randn(4, 5000, requires_grad=True), torch.randn(4, 5000)))
    states = [snapshot(criterion) for criterion in (few, many)]
    for state in states:
        for name in [name for name in state if name.startswith("replay.")]:
            del state[name]
        state["z_shape"] = state["target_shape"] = torch.tensor([250 * 10**9])
    criterion = make_loss("measured", surrogate="elements")
    with pytest.raises(RuntimeError, match=r"form\.0\.waves"):
        criterion.load_state_dict(packed(states[0]))
    criterion.load_state_dict(packed(states[1]))
    loss, gradient = step(criterion, make_arguments(seed=9))  # for which there is no surrogate
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("case", "other", "said"),
    [
        ("measured", "ctc", "a loss for CTC, this one is for Tensors\n"),
        ("measured", "tensors", r"a loss for Tensors\(.*smoothing=0.*this one is for Tensors\(\)"),
    ],
)
def test_a_state_of_another_task_says_so_and_lists_no_keys(case, other, said):
    saved = make_loss(other)
    train(saved, other, range(2))
    with pytest.raises(RuntimeError, match=said) as error:
        make_loss(case).load_state_dict(saved.state_dict())
    assert "missing" not in str(error.value)
    assert "nothing was loaded" in str(error.value)
