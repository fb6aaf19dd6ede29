"""Loops in plain PyTorch: mixed precision, checkpointed activations, averaged and copied models."""

import copy
import io

import pytest
import torch
from conftest import assert_identical, figures, make_arguments, make_loss, snapshot, step, train
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint
from within import core_of

from learned_surrogates import classification, retrieval, text


class WithLoss(nn.Module):
    """A model that holds its loss and returns it."""

    def __init__(self, criterion):
        super().__init__()
        torch.manual_seed(3)
        self.head, self.criterion = nn.Linear(2, 3), criterion

    def forward(self, inputs, target):
        return self.criterion(self.head(inputs), target)


def batches(count):
    random = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield torch.randn(4, 2, generator=random), torch.randn(4, 3, generator=random)


def fit(model, accumulate=1, forward=None):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    forward = forward or model
    for index, batch in enumerate(batches(6)):
        (forward(*batch) / accumulate).backward()
        if (index + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
    return model


def test_accumulated_gradients_do_not_change_what_is_learned():
    """The surrogate is fitted between the parts of a step: the model's gradients are safe."""
    frozen, accumulated = WithLoss(make_loss()), WithLoss(make_loss())
    fit(accumulated, accumulate=3)
    assert not torch.equal(accumulated.head.weight, frozen.head.weight)
    assert accumulated.criterion.stats["updates"] == 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_with_a_gradient_scaler(dtype):
    """A scale under which float16 gradients are not zero, and none overflows in the loss."""
    model = WithLoss(make_loss())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs, target in batches(4):
        before = model.head.weight.detach().clone()
        with torch.autocast("cpu", dtype=dtype):
            loss = model(inputs, target)
        assert loss.dtype == torch.float32
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        gradient = model.head.weight.grad.clone()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        torch.testing.assert_close(model.head.weight, before - 0.1 * gradient)
    assert scaler.get_scale() == 2.0**12
    assert all(p.dtype == torch.float32 for p in core_of(model.criterion).net.module.parameters())


def checkpointed(model, reentrant):
    def forward(inputs, target):
        return checkpoint(model, inputs.requires_grad_(), target, use_reentrant=reentrant)

    return forward


def test_the_loss_inside_activation_checkpointing():
    plain, saving = WithLoss(make_loss(every=7)), WithLoss(make_loss(every=7))
    fit(plain)
    fit(saving, forward=checkpointed(saving, reentrant=False))
    assert_identical(snapshot(saving.criterion), snapshot(plain.criterion))
    assert_identical(saving.head.weight, plain.head.weight)


def test_the_loss_inside_reentrant_checkpointing_gives_its_gradient_and_learns_nothing():
    """The documented limit: the only forward pass with gradients there is a recompute."""
    model = WithLoss(make_loss())
    fit(model)
    before = snapshot(model.criterion)
    weight = model.head.weight.detach().clone()
    fit(model, forward=checkpointed(model, reentrant=True))
    assert_identical(snapshot(model.criterion), before)
    assert not torch.equal(model.head.weight, weight)


@pytest.mark.parametrize("reentrant", [True, False])
def test_the_loss_outside_activation_checkpointing(reentrant):
    plain, saving = WithLoss(make_loss()), WithLoss(make_loss())

    def forward(inputs, target):
        inputs.requires_grad_()
        return saving.criterion(checkpoint(saving.head, inputs, use_reentrant=reentrant), target)

    fit(plain)
    fit(saving, forward=forward)
    assert_identical(snapshot(saving), snapshot(plain))


def test_no_tensor_of_the_loss_is_packed_by_the_users_hooks():
    packed = []

    def pack(tensor):
        packed.append(tuple(tensor.shape))
        return tensor

    criterion = make_loss()
    for _ in range(2):
        packed.clear()
        prediction, target = make_arguments()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            criterion(prediction, target)
    assert packed == [prediction.shape]


def test_images_in_channels_last():
    def metric(prediction, target):
        return (prediction - target).abs().flatten(1).mean(1)

    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        criterion = make_loss(metric=metric)
        random = torch.Generator().manual_seed(0)
        for _ in range(3):
            prediction, target = torch.randn(2, 4, 3, 8, 8, generator=random)
            prediction = prediction.to(memory_format=memory_format).requires_grad_()
            loss, gradient = step(criterion, (prediction, target.to(memory_format=memory_format)))
        results.append((loss, gradient))
        assert gradient.shape == prediction.shape
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("case", ["tensors", "ctc", "characters-auto"])
def test_deterministic_algorithms(case):
    expected = train(make_loss(case), case, range(3))
    torch.use_deterministic_algorithms(True)
    try:
        assert_identical(train(make_loss(case), case, range(3)), expected)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_moving_average_of_a_model_that_holds_the_loss():
    model = fit(WithLoss(make_loss()))
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    before = snapshot(averaged.module.criterion)
    assert_identical(before, snapshot(model.criterion))
    for _ in range(2):
        fit(model)
        averaged.update_parameters(model)
    # The average is the model's; the copied surrogate stays that of the time of the copy.
    assert_identical(snapshot(averaged.module.criterion), before)
    assert not torch.equal(averaged.module.head.weight, model.head.weight)
    with torch.no_grad():
        assert averaged(*next(batches(1))).isfinite()
    restored = AveragedModel(WithLoss(make_loss()))
    restored.load_state_dict(averaged.state_dict())
    assert_identical(snapshot(restored), snapshot(averaged))


def test_within_data_parallel_it_says_where_to_be_called():
    model = fit(WithLoss(make_loss()))
    before = snapshot(model.criterion)
    # As for each of several devices, which a CPU is not.
    replica = model.criterion._replicate_for_data_parallel()
    with pytest.raises(RuntimeError, match=r"within DataParallel.*call it outside"):
        replica(*make_arguments())
    assert_identical(snapshot(model.criterion), before)
    fit(model)


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev, torch.vmap])
def test_within_torch_func_it_says_what_to_call(transform):
    criterion = make_loss()
    prediction, target = (part.detach() for part in make_arguments())
    before = snapshot(criterion)
    with pytest.raises(RuntimeError, match=r"torch\.func.*call loss\.backward\(\)"):
        transform(lambda z: criterion(z, target))(prediction)
    assert_identical(snapshot(criterion), before)


def test_a_deep_copy_is_evaluated_and_trained_apart():
    model = fit(WithLoss(make_loss()))
    twin = copy.deepcopy(model)
    expected = snapshot(model)
    fit(twin)
    assert_identical(snapshot(model), expected)
    assert figures(twin.criterion)["updates"] == 12


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is (deprecated|not supported):DeprecationWarning")
def test_a_scripted_model_may_hold_the_loss():
    """As exporters script what Lightning's modules are."""

    class Recogniser(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.criterion = make_loss()

        def forward(self, features):
            return self.layer(features)

        @torch.jit.unused
        def training_step(self, features, target):
            return self.criterion(self(features), target)

    model, features = Recogniser(), torch.randn(4, 3)
    model.training_step(features, features).backward()
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    assert_identical(torch.jit.load(file)(features), model(features))
    model.training_step(features, features).backward()
    assert model.criterion.stats["calls"] == 2


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is (deprecated|not supported):DeprecationWarning")
@pytest.mark.parametrize(
    "loss",
    [
        lambda: text.ExpectedEditDistance(text.CTC("abc")),
        lambda: text.VariationalCTC(3, 4),
        classification.SupCon,
        lambda: classification.ESupCon(4, 3),
        classification.SPCE,
        lambda: classification.Tightness(4, 3),
        retrieval.RecallAtK,
    ],
)
def test_a_scripted_model_may_hold_any_loss(loss):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.criterion = nn.Linear(3, 3), loss()

        def forward(self, features):
            return self.layer(features)

    model, features = Model(), torch.randn(4, 3)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    assert_identical(torch.jit.load(file)(features), model(features))
