"""Trust: whose gradient is followed, the surrogate's or the base loss's."""

import math
import warnings
from pathlib import Path

import pytest
import torch
from conftest import assert_identical, l1, make_arguments, make_loss, snapshot, step, train
from torch import nn

from learned_surrogates import LearnedSurrogateLoss, Tensors, text
from learned_surrogates._trust import PATIENCE, Trust


class Ruler(nn.Module):
    """The L1 distance, times a factor: right about `l1` with 1, useless far from it."""

    def __init__(self, factor: float = 1.0):
        super().__init__()
        self.factor = factor

    def forward(self, z, y):
        return self.factor * (z - y).abs().sum(-1)


def base_l2(prediction, target):
    return (prediction - target).square().mean()


def known_loss(factor=1.0, **options) -> LearnedSurrogateLoss:
    options = {"task": Tensors(smoothing=0), "base_loss": base_l2, "update_every": 1, **options}
    return LearnedSurrogateLoss(l1, surrogate=Ruler(factor), **options)


def base_gradient(arguments):
    (gradient,) = torch.autograd.grad(base_l2(*arguments), arguments[0])
    return gradient


@pytest.mark.parametrize(
    ("error", "level"), [(0.0, 1.0), (0.3, 1.0), (0.45, 0.5), (0.6, 0.0), (9.0, 0.0)]
)
def test_the_level_falls_from_one_to_zero_between_the_two_errors(error, level):
    trust = Trust(0.3, 0.6)
    trust.judge(error)
    assert trust.level == pytest.approx(level)


def test_trust_may_be_endless():
    trust = Trust(0.3, math.inf)
    trust.judge(9.0)
    assert trust.level == 1


def test_an_unknown_error_changes_nothing():
    trust = Trust(0.3, 0.6)
    trust.judge(0.45)
    trust.judge(math.nan)
    assert trust.level == pytest.approx(0.5)


def test_while_warming_up_the_gradient_is_the_base_losses():
    criterion = make_loss(warm_up_updates=20, base_loss=base_l2)
    for seed in range(10):
        arguments = make_arguments(seed=seed)
        _, gradient = step(criterion, arguments)
        torch.testing.assert_close(gradient, base_gradient(arguments))


def test_a_surrogate_that_is_wrong_is_not_followed():
    criterion = known_loss(factor=50.0)
    for seed in range(6):
        arguments = make_arguments(seed=seed, batch=16)
        _, gradient = step(criterion, arguments)
        torch.testing.assert_close(gradient, base_gradient(arguments))
    assert criterion.stats["trust"] == 0


def test_a_surrogate_that_is_right_is_followed_at_the_base_losses_size():
    criterion = known_loss()
    for seed in range(4):
        arguments = make_arguments(seed=seed, batch=32)
        loss, gradient = step(criterion, arguments)
    assert criterion.stats["trust"] == 1
    own = (arguments[0] - arguments[1]).detach().sign() / len(arguments[0])
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), own.flatten(), 0) > 0.9999
    assert gradient.norm() == pytest.approx(base_gradient(arguments).norm().item(), rel=0.2)
    assert loss == pytest.approx(l1(*arguments).mean().item(), rel=1e-5)
    assert criterion.stats["balance"] == pytest.approx(
        (base_gradient(arguments).norm() / own.norm()).item(), rel=0.2
    )


def test_a_right_surrogate_is_followed_from_the_first_call():
    criterion = known_loss(warm_up_updates=100)
    arguments = make_arguments(batch=64)
    _, gradient = step(criterion, arguments)
    assert criterion.stats == {} or not criterion._core.learner.warm_up_left
    own = (arguments[0] - arguments[1]).detach().sign()
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), own.flatten(), 0) > 0.9999


def test_between_the_two_both_have_a_say():
    trust = Trust(0.3, 0.6)
    surrogate, base = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 6.0])
    trust.follow(surrogate, base)
    trust.judge(0.45)
    torch.testing.assert_close(trust.blend(surrogate, base, trust.level), torch.tensor([3.0, 3.0]))


def test_the_base_weight_remains_however_good_the_surrogate():
    criterion = known_loss(base_weight=0.25)
    step(criterion, make_arguments(batch=32))
    assert criterion.stats["trust"] == 1
    assert criterion._core.learner.weight == 0.75
    surrogate, base = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    trust = Trust(0.3, 0.6)
    trust.follow(surrogate, base)
    torch.testing.assert_close(trust.blend(surrogate, base, 0.75), torch.tensor([0.75, 0.25]))


def by_hand(prediction: str, target: str) -> float:
    return float(text.edit_distance([prediction], [target])[0])


def some_cost_more(predictions, targets):
    return text.WeightedEditDistance(characters={"abc": 20})(predictions, targets)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (text.edit_distance, 0.5),
        (text.normalized_edit_distance, 0.5),
        (by_hand, 0.5),  # as the surrogate, which knows no names, is right about it
        (some_cost_more, 0.0),
    ],
)
def test_the_proxy_has_a_part_where_it_leads_to_the_metric(metric, expected):
    criterion = LearnedSurrogateLoss(
        metric,
        task=text.Characters("abcdefghijk"),
        base_loss=nn.CrossEntropyLoss(),
        warm_up_updates=10,
    )
    for seed in range(10):
        step(criterion, readings(64, seed))
    assert criterion.stats["base_weight"] == expected
    assert criterion._core.learner.weight == (1 - expected) * criterion.stats["trust"]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_small_batches_leave_a_surrogate_that_comes_fitted_as_it_is(batch):
    criterion = LearnedSurrogateLoss(
        text.edit_distance, task=text.Characters("abcdefghijk"), base_loss=nn.CrossEntropyLoss()
    )
    for seed in range(50):
        step(criterion, readings(batch, seed))
    assert criterion._core.learner.came_fitted
    assert criterion.stats["trust"] == 1
    assert criterion.stats["updates"] <= 13


def test_small_batches_warm_up_a_surrogate_that_is_wrong_once_there_are_enough():
    criterion = LearnedSurrogateLoss(
        some_cost_more,
        task=text.Characters("abcdefghijk"),
        base_loss=nn.CrossEntropyLoss(),
        warm_up_updates=100,
    )
    for seed in range(15):
        step(criterion, readings(8, seed))
    assert criterion._core.learner.waits
    assert not criterion.stats["updates"]
    for seed in range(15, 30):
        step(criterion, readings(8, seed))
    assert criterion.stats["updates"] >= 100
    assert not criterion.stats["warming_up"]


def test_a_surrogate_that_seemed_right_is_warmed_up_after_all():
    """No "a" in the first batch, which costs 20 times as much as others."""
    criterion = LearnedSurrogateLoss(
        some_cost_more,
        task=text.Characters("abcdefghijk"),
        base_loss=nn.CrossEntropyLoss(),
        warm_up_updates=100,
    )
    step(criterion, readings(64, least=4))
    assert criterion._core.learner.came_fitted
    assert not criterion._core.learner.warm_up_left
    for seed in range(1, 10):
        step(criterion, readings(64, seed))
    before = criterion.stats
    assert before["warming_up"]
    assert before["base_weight"] == 0
    for seed in range(10, 30):
        step(criterion, readings(64, seed))
    assert not criterion.stats["warming_up"]
    assert criterion.stats["updates"] >= 100
    assert criterion.stats["relative_error"] < 0.9 * before["relative_error"]


def test_without_a_base_loss_the_surrogates_gradient_is_as_it_is():
    criterion = known_loss(base_loss=None)
    arguments = make_arguments(batch=32)
    _, gradient = step(criterion, arguments)
    torch.testing.assert_close(gradient, (arguments[0] - arguments[1]).detach().sign() / 32)
    assert criterion.stats["trust"] == 1


def test_norms_that_are_not_finite_or_zero_are_left_out():
    trust = Trust(0.3, 0.6)
    trust.follow(torch.ones(4), torch.ones(4) * 3)
    for bad in (torch.zeros(4), torch.full((4,), torch.nan), torch.full((4,), torch.inf)):
        trust.follow(torch.ones(4), bad)
        trust.follow(bad, torch.ones(4))
    assert trust.balance == 3


def test_a_base_loss_of_one_value_a_sample_is_the_same():
    whole = make_loss(warm_up_updates=20, base_loss=nn.MSELoss())
    single = make_loss(
        warm_up_updates=20, base_loss=lambda z, y: (z - y).square().mean(-1), reduction="none"
    )
    arguments = make_arguments()
    _, gradient = step(whole, arguments)
    losses = single(*arguments)
    (own,) = torch.autograd.grad(losses.mean(), arguments[0])
    torch.testing.assert_close(own, gradient)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_reduction_is_the_base_losses_too(reduction):
    criterion = make_loss(
        warm_up_updates=20, base_loss=nn.MSELoss(reduction=reduction), reduction=reduction
    )
    arguments = make_arguments()
    _, gradient = step(criterion, arguments)
    (own,) = torch.autograd.grad(nn.MSELoss(reduction=reduction)(*arguments), arguments[0])
    torch.testing.assert_close(gradient, own)


@pytest.mark.parametrize("case", ["ctc", "characters"])
@pytest.mark.parametrize("form", ["positional", "named"])
def test_it_is_called_as_the_loss_is(case, form):
    names = {
        "ctc": ("log_probs", "targets", "input_lengths", "target_lengths"),
        "characters": ("input", "target"),
    }
    proxy = {"ctc": nn.CTCLoss(zero_infinity=True), "characters": nn.CrossEntropyLoss()}[case]
    criterion = make_loss(case, warm_up_updates=20, base_loss=proxy)
    arguments = make_arguments(case)
    if form == "positional":
        loss, own = criterion(*arguments), proxy(*arguments)
    else:
        named = dict(zip(names[case], arguments, strict=True))
        loss, own = criterion(**named), proxy(**named)
    (gradient,) = torch.autograd.grad(loss, arguments[0])
    (expected,) = torch.autograd.grad(own, arguments[0])
    torch.testing.assert_close(gradient, expected)


def test_a_half_precision_prediction_gets_a_half_precision_gradient():
    criterion = make_loss(warm_up_updates=20, base_loss=base_l2)
    prediction, target = make_arguments()
    half = prediction.detach().to(torch.bfloat16).requires_grad_()
    _, gradient = step(criterion, (half, target))
    assert gradient.dtype == torch.bfloat16
    expected = base_gradient((half.detach().float().requires_grad_(), target))
    torch.testing.assert_close(gradient, expected.to(torch.bfloat16))


@pytest.mark.parametrize("case", ["ctc", "characters", "tensors"])
def test_an_empty_batch_is_nothing_to_the_base_loss(case):
    """`nn.CTCLoss` refuses one."""
    proxy = {"ctc": nn.CTCLoss(), "characters": nn.CrossEntropyLoss()}.get(case, nn.MSELoss())
    criterion = make_loss(case, warm_up_updates=20, base_loss=proxy, reduction="sum")
    arguments = make_arguments(case)
    empty = [part[:0] for part in arguments[1:]]
    batch_dim = 1 if case == "ctc" else 0
    prediction = arguments[0].detach().narrow(batch_dim, 0, 0).requires_grad_()
    loss, gradient = step(criterion, (prediction, *empty))
    assert loss == 0
    assert gradient.shape == prediction.shape


def weighted_l1(pred, target, weight=None, reduction_override="none"):
    loss = (pred - target).abs().sum(1) * weight
    return {"none": loss, "mean": loss.mean(), "sum": loss.sum()}[reduction_override]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("override", ["none", "mean", "sum"])
def test_weights_of_samples_count_once(reduction, override):
    criterion = make_loss("boxes", base_loss=weighted_l1, warm_up_updates=20, reduction=reduction)
    prediction, target = make_arguments("boxes")
    named = {"weight": torch.tensor([1.0, 2.0, 0.0, 0.5]), "reduction_override": override}
    _, gradient = step(lambda *given: criterion(*given, **named), (prediction, target))
    own = weighted_l1(prediction, target, **named).sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(own, prediction)[0])


def test_without_a_base_loss_a_loaded_state_does_not_scale_the_gradient():
    taught, alone = known_loss(), known_loss(base_loss=None)
    arguments = make_arguments(batch=32)
    step(taught, arguments)
    alone.load_state_dict(snapshot(taught))
    _, gradient = step(alone, arguments)
    torch.testing.assert_close(gradient, (arguments[0] - arguments[1]).detach().sign() / 32)


@pytest.mark.parametrize(
    ("base_loss", "error", "words"),
    [
        (lambda z, y: 3.0, TypeError, "depends on the prediction"),
        (lambda z, y: z.detach().mean(), TypeError, "depends on the prediction"),
        (lambda z, y: (z - y).abs(), ValueError, "one value a sample"),
    ],
)
def test_a_wrong_base_loss_is_named_and_changes_nothing(base_loss, error, words):
    criterion = make_loss(base_loss=base_loss, warm_up_updates=20)
    before = snapshot(criterion)
    with pytest.raises(error, match=words):
        criterion(*make_arguments())
    after = snapshot(criterion)
    assert_identical(after["counters"], before["counters"])
    assert criterion._core.learner.pairs.replay.size == 0


def test_one_number_where_one_a_sample_is_needed_is_refused():
    criterion = make_loss(base_loss=base_l2, warm_up_updates=20, reduction="none")
    with pytest.raises(ValueError, match="reduction='none' too"):
        criterion(*make_arguments())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"base_loss": 3}, TypeError),
        ({"base_weight": 1.5}, ValueError),
        ({"base_weight": -0.1}, ValueError),
        ({"trusted": (0.6, 0.3)}, ValueError),
        ({"trusted": (-0.1, 0.3)}, ValueError),
    ],
)
def test_wrong_arguments_are_named(options, error):
    with pytest.raises(error, match=next(iter(options))):
        LearnedSurrogateLoss(l1, **options)


@pytest.mark.parametrize("base_loss", [None, base_l2])
def test_no_trust_for_long_is_a_warning_with_causes(base_loss):
    criterion = known_loss(factor=50.0, base_loss=base_loss)
    arguments = make_arguments(batch=32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(PATIENCE - 1):
            step(criterion, arguments)
    words = "base loss trains" if base_loss else "give base_loss="
    with pytest.warns(UserWarning, match=f"not been trusted.*Likely causes.*{words}") as caught:
        step(criterion, arguments)
    assert Path(caught[0].filename).name == "conftest.py"  # where the loss is called
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(criterion, "tensors", range(3))


def test_a_metric_that_never_varies_is_named_in_the_warning():
    criterion = make_loss(metric=lambda z, y: 0 * l1(z, y))
    arguments = make_arguments(batch=32)
    with pytest.warns(UserWarning, match="not known, as the metric does not vary"):
        for _ in range(PATIENCE):
            step(criterion, arguments)


def test_a_resumed_run_goes_on_with_the_same_trust():
    whole, resumed = (make_loss(base_loss=base_l2, batch_size=16) for _ in range(2))
    for seed in range(12):
        step(whole, make_arguments(seed=seed, batch=16))
    resumed.load_state_dict(snapshot(whole))
    for seed in range(12, 20):
        arguments = make_arguments(seed=seed, batch=16)
        assert_identical(step(resumed, arguments), step(whole, arguments))
    assert_identical(snapshot(resumed), snapshot(whole))


def test_a_base_loss_with_weights_moves_and_saves_with_the_loss():
    weights = torch.rand(7)
    criterion = make_loss(
        "characters", base_loss=nn.CrossEntropyLoss(weight=weights), warm_up_updates=0
    )
    step(criterion, make_arguments("characters"))
    state = snapshot(criterion)
    assert_identical(state["base_loss.weight"], weights)
    other = make_loss("characters", base_loss=nn.CrossEntropyLoss(weight=torch.ones(7)))
    other.load_state_dict(state)
    assert_identical(other.base_loss.weight, weights)


def test_nothing_is_followed_outside_of_training_but_the_value():
    criterion = make_loss(warm_up_updates=20, base_loss=base_l2)
    with torch.no_grad():
        assert not criterion(*make_arguments()).requires_grad
    assert criterion.stats["calls"] == 0


def readings(count: int, seed: int = 0, least: int = 1):
    """Logits for texts over 11 characters, some easy to read and some hard, and the targets."""
    random = torch.Generator().manual_seed(seed)
    target = torch.randint(least, 12, (count, 9), generator=random)
    lengths = torch.randint(2, 9, (count, 1), generator=random)
    target = target.where(torch.arange(9) < lengths, 0)
    sure = 2 + 6 * torch.rand(count, 1, 1, generator=random)
    logits = torch.randn(count, 12, 9, generator=random)
    logits.scatter_add_(1, target[:, None], sure.expand(-1, 1, 9))
    return logits.requires_grad_(), target


def test_as_many_pairs_tell_the_error_of_a_surrogate_in_double_precision():
    for dtype in (torch.float32, torch.float64):
        criterion = known_loss()
        criterion._core.learner.surrogate.factor = torch.nn.Parameter(torch.ones((), dtype=dtype))
        criterion(*make_arguments(batch=1024))
        assert criterion._core.learner.pairs.unseen.size == 1024


def test_text_is_trusted_from_the_first_call():
    """The net that comes with the package knows edit distance, of any alphabet."""
    criterion = LearnedSurrogateLoss(
        text.edit_distance,
        task=text.Characters("abcdefghijk"),
        base_loss=nn.CrossEntropyLoss(),
    )
    _, gradient = step(criterion, readings(64))
    assert not criterion._core.learner.warm_up_left
    assert criterion._core.learner.trust.level == 1
    assert criterion._core.learner.updates == 0
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("batch", [5, 16])
def test_small_batches_are_collected_before_text_is_judged(batch):
    """Nothing is fitted meanwhile, and the base loss trains the model."""
    criterion = LearnedSurrogateLoss(
        text.edit_distance, task=text.Characters("abcdefghijk"), base_loss=nn.CrossEntropyLoss()
    )
    for seed in range(-(-32 // batch)):
        assert criterion._core.learner.warm_up_left
        step(criterion, readings(batch, seed))
        assert criterion._core.learner.updates == 0
    assert not criterion._core.learner.warm_up_left


def test_a_metric_that_never_varies_does_not_hold_up_the_warm_up():
    criterion = LearnedSurrogateLoss(
        lambda readings, targets: [0.0] * len(targets),
        task=text.Characters("abcdef"),
        batched=True,
        warm_up_updates=20,
    )
    for seed in range(42):
        step(criterion, make_arguments("characters", seed))
    assert criterion.stats["updates"] >= 20
    assert not criterion.stats["warming_up"]
