import copy
import io
import pickle
import re

import pytest
import safetensors.torch
import torch
from conftest import (
    CASES,
    MEASURED,
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
from test_loss import Weighted
from torch import nn
from within import core_of

from learned_surrogates import LearnedSurrogateLoss
from learned_surrogates._state.packed import KEY


def through_torch(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def through_safetensors(state, folder):
    safetensors.torch.save_file(state, folder / "state.safetensors")
    return safetensors.torch.load_file(folder / "state.safetensors")


ROUTES = {
    "memory": lambda state, folder: copy.deepcopy(state),
    "torch": lambda state, folder: through_torch(state),
    "safetensors": through_safetensors,
}


def assert_goes_on_alike(actual, expected, case):
    assert_identical(snapshot(actual), snapshot(expected))
    assert_identical(train(actual, case, range(10, 14)), train(expected, case, range(10, 14)))
    assert_identical(snapshot(actual), snapshot(expected))
    assert figures(actual) == pytest.approx(figures(expected), nan_ok=True, rel=0, abs=0)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("case", CASES)
def test_training_goes_on_bit_for_bit(case, route, tmp_path):
    options = {"every": 2}
    if case not in MEASURED:
        options |= {"penalty_every": 2, "penalty_weight": 0.1}
    criterion, restored = make_loss(case, **options), make_loss(case, **options)
    # More than the 32 pairs that replay keeps: its ring has wrapped around.
    train(criterion, case, range(9))
    state = ROUTES[route](dict(criterion.state_dict()), tmp_path)
    assert list(restored.load_state_dict(state, strict=True)) == [[], []]
    assert_goes_on_alike(restored, criterion, case)


@pytest.mark.parametrize("case", CASES)
def test_a_loss_that_has_learned_other_things_can_be_loaded_into(case):
    criterion, restored = make_loss(case), make_loss(case, seed=8)
    train(criterion, case, range(3))
    train(restored, case, range(20, 22))
    restored.load_state_dict(criterion.state_dict())
    assert_goes_on_alike(restored, criterion, case)


@pytest.mark.parametrize("case", CASES)
def test_what_is_loaded_in_inference_mode_is_fitted_afterwards(case):
    original, loaded = make_loss(case), make_loss(case)
    train(original, case, range(10))
    with torch.inference_mode():
        loaded.load_state_dict(original.state_dict())
    assert_goes_on_alike(loaded, original, case)


def test_stats_are_there_right_after_loading():
    criterion, restored = make_loss(), make_loss()
    train(criterion, "tensors", range(3))
    restored.load_state_dict(criterion.state_dict())
    assert figures(restored) == pytest.approx(figures(criterion), nan_ok=True)


def test_replay_with_ragged_lengths_is_restored():
    criterion, restored = make_loss("ctc"), make_loss("ctc")
    for length in (7, 12, 9):
        step(criterion, make_arguments("ctc", seed=length, length=length))
    restored.load_state_dict(criterion.state_dict())
    assert_goes_on_alike(restored, criterion, "ctc")


def test_state_in_the_middle_of_the_warm_up():
    criterion, restored = make_loss(warm_up=10), make_loss(warm_up=10)
    train(criterion, "tensors", range(4))
    restored.load_state_dict(criterion.state_dict())
    assert restored.stats["surrogate/warming_up"]
    assert_identical(train(restored, "tensors", range(9)), train(criterion, "tensors", range(9)))
    assert not restored.stats["surrogate/warming_up"]


@pytest.mark.parametrize("case", CASES)
def test_the_state_has_one_key_whatever_was_called(case):
    criterion, first = make_loss(case), 2 if case in MEASURED else 1
    for calls in range(4):
        ((key, state),) = criterion.state_dict().items()
        assert (key, type(state), state.dtype) == (KEY, torch.Tensor, torch.uint8)
        assert ("scale" in snapshot(criterion)) == (calls >= first) or case.endswith("auto")
        train(criterion, case, [calls])


class LossFirst(nn.Module):
    """Its loss comes before its layers, in `state_dict()` too."""

    def __init__(self):
        super().__init__()
        self.criterion = make_loss("measured")
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)


def test_a_moving_average_by_order_never_averages_layers_with_the_loss():
    """As timm's are made, entry by entry of both states."""
    model = LossFirst()
    average = copy.deepcopy(model)
    train(model.criterion, "measured", range(3))
    states = [each.state_dict() for each in (average, model)]
    assert list(states[0]) == list(states[1])
    with pytest.raises(RuntimeError, match="must match the size"):
        for own, other in zip(*(state.values() for state in states)):
            own.copy_(0.9 * own + 0.1 * other)
    assert_identical(average.first.weight, model.first.weight)


def test_a_moving_average_by_name_averages_the_layers():
    """As YOLO's are made, of floating-point entries."""
    model = LossFirst()
    average = copy.deepcopy(model)
    train(model.criterion, "measured", range(3))
    before = model.second.weight.detach().clone()
    nn.init.ones_(model.second.weight)
    other = model.state_dict()
    for key, own in average.state_dict().items():
        if own.is_floating_point():
            own.mul_(0.9).add_(0.1 * other[key])
    torch.testing.assert_close(average.second.weight, 0.9 * before + 0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_checkpoint_that_was_cast_is_as_good(dtype):
    criterion, restored = make_loss(), make_loss()
    train(criterion, "tensors", range(3))
    cast = {key: tensor.to(dtype) for key, tensor in criterion.state_dict().items()}
    restored.load_state_dict(cast)
    assert_goes_on_alike(restored, criterion, "tensors")


@pytest.mark.parametrize(
    "spoil", [lambda t: t[:100], lambda t: t[:0], lambda t: t // 2, lambda t: t[None, :9]]
)
def test_bytes_that_were_cut_off_or_averaged_are_refused(spoil):
    criterion = make_loss()
    train(criterion, "tensors", range(3))
    state = {key: spoil(tensor) for key, tensor in criterion.state_dict().items()}
    loaded_with_fault(state, "not hold the bytes that were saved")


def test_what_is_no_tensor_is_refused():
    loaded_with_fault({"_extra_state": None}, "must be a tensor of bytes; it is of type NoneType")


def test_a_surrogate_whose_weights_share_storage_is_saved():
    class Tied(Weighted):
        def __init__(self):
            super().__init__()
            self.same = next(self.parameters())

    criterion, restored = make_loss(surrogate=Tied()), make_loss(surrogate=Tied())
    train(criterion, "tensors", range(3))
    restored.load_state_dict(criterion.state_dict())
    assert_identical(snapshot(restored), snapshot(criterion))


@pytest.mark.parametrize("route", ROUTES)
def test_as_a_child_of_a_model(route, tmp_path):
    def make_model():
        model = nn.Module()
        model.head, model.criterion = nn.Linear(2, 3), make_loss()
        return model

    model, restored = make_model(), make_model()
    train(model.criterion, "tensors", range(3))
    state = ROUTES[route](dict(model.state_dict()), tmp_path)
    assert {key.split(".")[0] for key in state} == {"head", "criterion"}
    restored.load_state_dict(state, strict=True)
    assert_identical(restored.head.weight, model.head.weight)
    assert_goes_on_alike(restored.criterion, model.criterion, "tensors")


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_state_from_before_any_call(case, called):
    saved = make_loss(case)
    state = ROUTES["torch"](saved.state_dict(), None)
    restored = make_loss(case)
    if called:
        train(restored, case, range(3))
    restored.load_state_dict(state, strict=True)
    assert_goes_on_alike(restored, saved, case)


def test_figures_from_before_a_load_are_forgotten():
    criterion, fresh = make_loss(penalty_weight=0.1, filter=1.0), make_loss(filter=1.0)
    train(criterion, "tensors", range(3))
    criterion.load_state_dict(fresh.state_dict())
    assert figures(criterion) == pytest.approx(figures(fresh), nan_ok=True)


def test_without_replay_the_surrogate_is_restored_and_goes_on():
    criterion = make_loss(save=False)
    train(criterion, "tensors", range(3))
    assert not any(key.startswith("replay") for key in snapshot(criterion))
    restored = make_loss(save=False)
    restored.load_state_dict(criterion.state_dict(), strict=True)
    assert restored.stats["replay/size"] == 0
    arguments = make_arguments(seed=7)
    assert_identical(step(restored.eval(), arguments), step(criterion.eval(), arguments))
    train(restored.train(), "tensors", range(3))
    assert restored.stats["updates"] == 6


def test_a_given_surrogate_is_restored():
    criterion, restored = make_loss(surrogate=Weighted()), make_loss(surrogate=Weighted())
    train(criterion, "tensors", range(3))
    restored.load_state_dict(criterion.state_dict(), strict=True)
    assert_goes_on_alike(restored, criterion, "tensors")


def loaded_with_fault(state, fault):
    """The message of the error; asserts that the loss works on as if nothing had been loaded."""
    criterion, undisturbed = make_loss("tensors", seed=8), make_loss("tensors", seed=8)
    for loss in (criterion, undisturbed):
        train(loss, "tensors", range(30, 32))
    with pytest.raises(RuntimeError, match=re.escape(fault)) as caught:
        criterion.load_state_dict(state)
    assert_goes_on_alike(criterion, undisturbed, "tensors")
    return str(caught.value)


def saved_state():
    criterion = make_loss()
    train(criterion, "tensors", range(3))
    return snapshot(criterion)


# The embedding net has the same parts in each layer: the first stands for the others.
KEYS = sorted(key for key in saved_state() if not re.search(r"net\.(3|5|7|9)\.", key))


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(key):
    state = saved_state()
    del state[key]
    loaded_with_fault(packed(state), key)


@pytest.mark.parametrize("key", [key for key in KEYS if key != "version"])
def test_a_wrong_shape_is_named(key):
    state = saved_state()
    state[key] = torch.cat([state[key].reshape(-1)] * 2)[:-1].reshape(1, 1, -1)
    loaded_with_fault(packed(state), key)


@pytest.mark.parametrize("called", [True, False])
def test_an_unknown_key_is_named(called):
    state = saved_state() if called else snapshot(make_loss())
    state["momentum"] = torch.ones(3)
    loaded_with_fault(packed(state), "momentum is unknown")


def test_another_version_is_named():
    state = saved_state()
    state["version"] = torch.tensor(99)
    assert "99" in loaded_with_fault(packed(state), "version")
    del state["figures"]  # whose keys may be others
    assert "99" in loaded_with_fault(packed(state), "version")


def test_the_state_of_another_task_is_refused():
    criterion = make_loss("ctc")
    train(criterion, "ctc", range(2))
    fault = "it is of a loss for CTC, this one is for Tensors\n"
    loaded_with_fault(criterion.state_dict(), fault)


def test_a_state_with_unknown_keys_is_never_left_out_in_silence():
    criterion = make_loss()
    before = snapshot(criterion)
    with pytest.raises(RuntimeError, match="momentum is unknown"):
        criterion.load_state_dict(packed({**saved_state(), "momentum": torch.ones(3)}), False)
    assert_identical(snapshot(criterion), before)


def test_a_checkpoint_from_before_the_loss_was_added_loads_when_not_strict():
    model = nn.ModuleDict({"head": nn.Linear(2, 3), "criterion": make_loss()})
    train(model["criterion"], "tensors", range(2))
    before = snapshot(model["criterion"])
    model.load_state_dict({"head.bias": torch.ones(3)}, strict=False)
    assert_identical(snapshot(model["criterion"]), before)
    assert model["head"].bias.tolist() == [1, 1, 1]


def test_a_loaded_state_is_not_shared():
    criterion, restored = make_loss(), make_loss()
    train(criterion, "tensors", range(3))
    live = criterion.state_dict()
    restored.load_state_dict(live)
    before = snapshot(criterion)
    train(restored, "tensors", range(3))
    assert_identical(snapshot(criterion), before)


def pickled(criterion):
    return pickle.loads(pickle.dumps(criterion))


@pytest.mark.parametrize("calls", [0, 3])
@pytest.mark.parametrize("make_copy", [copy.deepcopy, pickled])
@pytest.mark.parametrize("case", CASES)
def test_a_copy_goes_on_alike_and_on_its_own(case, make_copy, calls):
    criterion = make_loss(case)
    train(criterion, case, range(calls))
    twin = make_copy(criterion)
    before = snapshot(criterion)
    train(twin, case, range(20, 22))
    assert_identical(snapshot(criterion), before)
    assert_goes_on_alike(make_copy(criterion), criterion, case)


def test_a_copied_surrogate_is_the_one_its_optimizer_moves():
    criterion = make_loss()
    train(criterion, "tensors", range(2))
    net = core_of(copy.deepcopy(criterion)).net
    moved = net.optimizer.param_groups[0]["params"]
    assert [id(p) for p in moved] == [id(p) for p in net.module.parameters()]


def test_the_metric_is_not_part_of_the_state():
    criterion = make_loss(metric=lambda p, t: l1(p, t))
    train(criterion, "tensors", range(2))
    with pytest.warns(UserWarning, match=r"metric was <lambda>, and is l1"):  # but its name
        make_loss().load_state_dict(through_torch(criterion.state_dict()))


def test_a_subclass_with_modules_and_tensors_of_its_own_is_restored():
    class WithWeight(LearnedSurrogateLoss):
        def __init__(self):
            super().__init__(l1)
            self.head = nn.Linear(2, 2)
            self.weight = nn.Parameter(torch.randn(2))
            self.register_buffer("offset", torch.randn(2))

    saved, restored = WithWeight(), WithWeight()
    train(saved, "tensors", range(2))
    restored.load_state_dict(saved.state_dict())
    assert_identical(restored.state_dict(), saved.state_dict())
