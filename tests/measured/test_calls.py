"""What a call costs and gives: metric calls, the value, the base loss, errors."""

import warnings
from pathlib import Path

import pytest
import torch
from conftest import assert_identical, l1, make_arguments, make_loss, snapshot, step, train
from torch import nn
from within import core_of, slope_of

from learned_surrogates import LearnedSurrogateLoss, Tensors
from learned_surrogates._evaluation.measurement import Measurement


class Counting:
    """Remembers of each call of the metric how many samples it was asked for, and its values."""

    def __init__(self, metric=l1):
        self.metric, self.sizes, self.values = metric, [], []

    def __call__(self, prediction, target):
        value = self.metric(prediction, target)
        self.sizes.append(len(target))
        self.values.append(value)
        return value

    def clear(self):
        self.sizes, self.values = [], []


def silent(prediction, target):
    return 1.0 + 0 * prediction.sum(-1)


@pytest.mark.parametrize("draws", [2, 4, 8])
def test_a_call_asks_for_as_many_values_as_there_are_draws_and_an_update_for_none(draws):
    metric = Counting()
    criterion = make_loss("measured", metric, draws=draws, batched=True, higher_is_better=False)
    for seed in range(4):
        metric.clear()
        loss, _ = step(criterion, make_arguments(seed=seed))
        assert metric.sizes == [4] * draws
        torch.testing.assert_close(loss, torch.stack(metric.values).mean(), check_dtype=False)
    assert criterion.stats["updates"] > 100


@pytest.mark.parametrize("learning", [True, False])
def test_without_a_gradient_the_prediction_itself_is_measured_once(learning):
    metric = Counting()
    criterion = make_loss("measured", metric, batched=True).train(learning)
    prediction, target = make_arguments()
    with torch.no_grad():
        value = criterion(prediction, target)
    assert metric.sizes == [4]
    assert_identical(value, l1(prediction.detach(), target).mean())


def test_a_gradient_in_evaluation_mode_is_measured_as_ever():
    metric = Counting()
    criterion = make_loss("measured", metric, batched=True).eval()
    _, gradient = step(criterion, make_arguments())
    assert metric.sizes == [4, 4]
    assert gradient.abs().sum() > 0


def test_calls_that_learn_and_no_others_tell_how_wide_the_noise_is():
    criterion = make_loss("measured")
    for seed in range(3):
        step(criterion, make_arguments(seed=seed))
    with torch.no_grad():
        criterion(*make_arguments())
    step(criterion.eval(), make_arguments())
    assert core_of(criterion).estimator.smoothing.calls == 3


def test_values_of_metrics_where_higher_is_better_are_told_as_they_are():
    options = {"higher_is_better": True, "best": 5.0}
    metric = Counting(lambda z, y: 5 - l1(z, y))
    criterion = make_loss("measured", metric, batched=True, **options)
    loss, _ = step(criterion, make_arguments())
    mean = torch.stack(metric.values).mean().item()
    assert criterion.stats["metric/mean"] == pytest.approx(mean, rel=1e-5)
    assert loss.item() == pytest.approx(5 - mean, rel=1e-5)


@pytest.mark.parametrize("batches", [3, 12])
def test_a_warm_up_measures_batches_and_fits_the_surrogate_at_every_step(batches):
    metric = Counting()
    criterion = make_loss("measured", metric, batched=True)
    read = [make_arguments(seed=seed) for seed in range(batches)]
    stats = criterion.warm_up(read, updates=8)
    assert metric.sizes == [4] * 2 * min(batches, 8)
    assert (stats["calls"], stats["replay/size"]) == (0, 8)
    before = [p.detach().clone() for p in slope_of(criterion).forms[0].parameters()]
    assert slope_of(criterion).weight > 0 or stats["surrogate/r2"] <= 0
    train(criterion, "measured", [50])
    after = list(slope_of(criterion).forms[0].parameters())
    # Not the last bias, which the slope does not depend on.
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_a_warm_up_without_batches_is_refused():
    criterion = make_loss("measured")
    with pytest.raises(ValueError, match="warm_up needs batches"):
        criterion.warm_up(updates=3)


def base_gradient(arguments):
    (gradient,) = torch.autograd.grad(nn.MSELoss()(*arguments), arguments[0])
    return gradient


def test_the_base_loss_leads_from_the_first_call_where_draws_carry_no_signal():
    criterion = make_loss("measured", silent, base_loss=nn.MSELoss())
    for seed in range(5):
        arguments = make_arguments(seed=seed)
        torch.testing.assert_close(step(criterion, arguments)[1], base_gradient(arguments))
    assert criterion.stats["base_loss/share"] == 1


def test_base_weight_is_the_base_losss_share():
    options = {"task": Tensors(smoothing=0.3), "surrogate": "none"}
    alone = make_loss("measured", **options)
    shared = make_loss("measured", base_loss=nn.MSELoss(), base_weight=0.25, **options)
    core_of(shared).record.leading = False
    arguments = make_arguments()
    expected = 0.75 * step(alone, arguments)[1] + 0.25 * base_gradient(arguments)
    torch.testing.assert_close(step(shared, arguments)[1], expected)


@pytest.mark.parametrize("base_loss", [None, nn.MSELoss()])
@pytest.mark.parametrize("fails", [False, True])
def test_a_hundred_calls_without_any_difference_are_a_warning(base_loss, fails):
    """Also where the metric fails on a sample of every batch, which says nothing either."""

    def metric(prediction, target):
        value = silent(prediction, target)
        if fails:
            value[0] = torch.nan
        return value

    criterion = LearnedSurrogateLoss(
        metric, base_loss=base_loss, batched=True, on_metric_error="skip"
    )
    arguments = make_arguments()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(99):
            step(criterion, arguments)
        for _ in range(3):  # which tells nothing about training
            step(criterion.eval(), arguments)
        criterion.train()
    words = "Meanwhile the base loss trains" if base_loss else "Give base_loss="
    with pytest.warns(UserWarning, match=f"for 100 calls the metric of all draws.*{words}") as seen:
        step(criterion, arguments)
    assert Path(seen[0].filename).name == "conftest.py"  # where the loss is called
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            step(criterion, arguments)


@pytest.mark.parametrize("case", ["tensors", "measured"])
def test_second_derivatives_are_refused_and_not_zero_in_silence(case):
    """As of a penalty on the gradient of the loss."""
    criterion = make_loss(case)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    prediction, target = make_arguments()
    inputs = prediction.detach().requires_grad_()
    loss = criterion(model(inputs), target)
    (gradient,) = torch.autograd.grad(loss, inputs, create_graph=True)
    penalty, weights = gradient.square().sum(), list(model.parameters())
    for differentiate in (
        lambda: (loss + penalty).backward(retain_graph=True),
        lambda: penalty.backward(inputs=weights, retain_graph=True),
        lambda: torch.autograd.grad(penalty, weights, allow_unused=True),
        lambda: torch.autograd.functional.hvp(
            lambda x: criterion(x, target), inputs.detach(), torch.ones_like(inputs)
        ),
    ):
        with pytest.raises(RuntimeError, match="has no second derivative"):
            differentiate()


@pytest.mark.parametrize("case", ["tensors", "measured"])
def test_a_derivative_in_one_direction_is_that_of_the_gradient(case):
    """`jvp` differentiates the gradient by what comes from above, and that is linear."""
    arguments = make_arguments()
    direction = torch.randn(arguments[0].shape)
    twins = make_loss(case), make_loss(case)
    _, found = torch.autograd.functional.jvp(
        lambda x: twins[0](x, arguments[1]), arguments[0].detach(), direction
    )
    expected = (step(twins[1], arguments)[1] * direction).sum()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("case", ["measured", "characters-auto"])
def test_a_share_of_the_correction_is_a_share_of_the_way_to_the_measured_gradient(case):
    metric = l1 if case == "measured" else lambda read, meant: float(read[:2] != meant[:2])
    options = {"batched": case == "measured", "higher_is_better": False}
    if case == "measured":
        options["capacity"] = 256
    losses = [make_loss(case, metric, correction=share, **options) for share in (0.0, 0.25, 1.0)]
    for seed in range(40):
        step(losses[2], make_arguments(case, seed))
    for criterion in losses[:2]:
        criterion.load_state_dict(losses[2].state_dict())
    known, between, measured = (step(each, make_arguments(case, 50))[1] for each in losses)
    assert (known - measured).norm() > 0.01 * measured.norm()
    torch.testing.assert_close(between, torch.lerp(known, measured, 0.25))


def test_a_graph_of_the_gradient_alone_does_no_harm():
    plain, twin = make_loss("measured"), make_loss("measured")
    prediction, target = make_arguments()
    (gradient,) = torch.autograd.grad(twin(prediction, target), prediction, create_graph=True)
    assert_identical(gradient.detach(), step(plain, (prediction, target))[1])


def test_noise_is_not_what_the_users_own_seed_gives():
    """Else draws would lie on the line through zero, and cross no threshold there."""
    seen = []

    def metric(prediction, target):
        seen.append(prediction)
        return l1(prediction, target)

    torch.manual_seed(0)
    prediction = torch.randn(64, 3, requires_grad=True)
    LearnedSurrogateLoss(metric, batched=True, seed=0)(prediction, torch.zeros(64, 3))
    noise = (seen[0] - prediction.detach()).flatten()
    both = torch.stack([noise, prediction.detach().flatten()])
    assert both.corrcoef()[0, 1].abs() < 0.3


@pytest.mark.parametrize(
    "laid", [lambda y: y, lambda y: y[::-1], lambda y: y[:, ::-1], lambda y: y.astype(">f4")]
)
def test_targets_may_be_arrays_however_they_lie_in_memory(laid):
    prediction, target = make_arguments("measured")
    array = laid(target.numpy())
    plain = torch.from_numpy(array.astype("f4", order="C").copy())
    expected = step(make_loss("measured"), (prediction, plain))
    assert_identical(step(make_loss("measured"), (prediction, array)), expected)


def test_one_number_a_sample_leaves_no_graph_behind():
    """The gradient's quality is read from the prediction, whose graph is not to be kept."""
    criterion = make_loss("measured", lambda z, y: (z - y).abs())
    for seed in range(12):
        target = torch.randn(8, generator=torch.Generator().manual_seed(seed))
        criterion((target / 2).requires_grad_(), target).backward()
    state = snapshot(criterion)
    assert {"quality.figures", "quality.vectors"} <= state.keys()
    assert not any(tensor.requires_grad for tensor in state.values())
    assert criterion.stats["gradient/signal_to_noise"] > 0


def test_a_scaled_loss_scales_its_gradient():
    criterion, twin = make_loss("measured"), make_loss("measured")
    arguments = make_arguments()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    scaler.scale(criterion(*arguments)).backward()
    torch.testing.assert_close(arguments[0].grad / 2**12, step(twin, make_arguments())[1])


@pytest.mark.parametrize("smoothing", [0.3, None])
def test_more_draws_are_as_much_quieter(smoothing):
    """Errors of the gradient are independent: four times the draws, half of the deviation."""
    prediction = torch.zeros(4000, 3)
    target = torch.randn(4000, 3, generator=torch.Generator().manual_seed(1))
    spread = []
    for draws in (2, 8):
        criterion = LearnedSurrogateLoss(
            lambda z, y: (z > y).double().mean(-1),
            task=Tensors(smoothing=smoothing),
            draws=draws,
            surrogate="none",
        )
        found = []
        for _ in range(2):
            leaf = (prediction + 0.01 * target).requires_grad_()
            criterion(leaf, target).backward()
            found.append(leaf.grad)
        spread.append((found[1] - found[0]).std().item())
    assert spread[0] / spread[1] == pytest.approx(2, rel=0.1)


def test_of_a_part_of_a_batch_each_has_its_own_value_and_the_others_the_mean():
    nan = float("nan")
    measured = Measurement(
        values=torch.tensor([[9.0, 2.0, nan, 1.0, nan], [9.0, 4.0, nan, 3.0, nan]]),
        usable=torch.tensor([False, True, False, True, False]),
        arrived=torch.tensor([True, True, False, True, False]),
        stands_for=5 / 3,
    )
    assert measured.failed == 1
    assert measured.over_batch(measured.mean).tolist() == [2.5, 3.0, 2.5, 2.0, 2.5]


def test_a_gradient_that_is_checked_has_draws_of_its_own():
    found = []
    for seed in (1, 2):
        criterion = make_loss("measured", seed=seed, surrogate="none")
        criterion(*make_arguments("measured", seed=7))
        batch = criterion.task.read(*make_arguments("measured"))
        found.append(core_of(criterion).gradient(batch, 4))
    assert found[0].any() and torch.equal(*found)


def test_a_gradient_in_evaluation_mode_is_of_other_draws_each_time_and_of_that_the_user_hears():
    def off_by_one(z, y):
        return ((z - y).abs() > 1).float().mean(-1)

    criterion = LearnedSurrogateLoss(off_by_one, surrogate="none").eval()
    z, y = torch.randn(2, 4, 20, generator=torch.Generator().manual_seed(0)).unbind()
    gradients = []
    with pytest.warns(UserWarning, match="10 calls have asked for a gradient in evaluation mode"):
        for _ in range(400):
            prediction = z.clone().requires_grad_()
            criterion(prediction, y).backward()
            gradients.append(prediction.grad)
    assert criterion.stats["calls"] == 0
    halves = torch.stack(gradients).view(2, 200, -1).mean(1)
    assert torch.cosine_similarity(*halves, dim=0) > 0.6
