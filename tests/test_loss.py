import copy
import gc
import random

import numpy as np
import pytest
import torch
from conftest import (
    CASES,
    MEASURED,
    assert_identical,
    figures,
    l1,
    make_arguments,
    make_loss,
    snapshot,
    step,
    train,
    with_input_grad,
)
from torch import nn
from torch.utils.checkpoint import checkpoint
from within import core_of, replay_of

from learned_surrogates import EmbeddingDistance, LearnedSurrogateLoss, Tensors

PASSIVE = {
    "eval": lambda criterion, arguments: criterion.eval()(*arguments),
    "no_grad": torch.no_grad()(lambda criterion, arguments: criterion(*arguments)),
    "inference_mode": torch.inference_mode()(lambda criterion, arguments: criterion(*arguments)),
    "no grad wanted": lambda criterion, arguments: criterion(*with_input_grad(arguments, False)),
}


@pytest.mark.parametrize("passive", PASSIVE)
@pytest.mark.parametrize("case", CASES)
def test_it_does_not_learn_outside_of_training(case, passive):
    criterion = make_loss(case)
    train(criterion, case, range(2))
    before, stats, arguments = snapshot(criterion), dict(criterion.stats), make_arguments(case, 7)
    value = PASSIVE[passive](criterion, arguments)
    again = PASSIVE[passive](criterion, arguments)
    criterion.train()
    assert_identical(snapshot(criterion), before)
    assert criterion.stats == stats
    # A gradient that is asked for is of other draws each time.
    if passive != "eval" or case not in MEASURED:
        assert_identical(again, value)
    # Where draws are measured, the mean of theirs is near the prediction's own: of tensors; random
    # readings of such a model may be any.
    tolerance = {"measured": 0.1}.get(case, 1.0 if case in MEASURED else 0)
    torch.testing.assert_close(
        criterion(*arguments).detach(), value.clone().detach(), rtol=tolerance, atol=0
    )
    assert criterion.stats["calls"] == 3


@pytest.mark.parametrize("case", ["ctc", "characters"])
def test_longer_samples_outside_of_training_change_nothing(case):
    criterion = make_loss(case)
    train(criterion, case, range(2))
    before = snapshot(criterion)
    criterion.eval()(*make_arguments(case, 7, length=15))
    assert_identical(snapshot(criterion), before)


@pytest.mark.parametrize("passive", PASSIVE)
@pytest.mark.parametrize("case", CASES)
def test_the_first_call_may_be_outside_of_training(case, passive):
    criterion = make_loss(case)
    value = PASSIVE[passive](criterion, make_arguments(case))
    assert value.shape == ()
    assert value.isfinite()
    assert value.dtype == torch.float32
    core = core_of(criterion.train())
    assert [core.stats()[name] for name in ("calls", "updates", "replay/size")] == [0, 0, 0]
    if case not in MEASURED:
        assert core.pairs.unseen.size == 0
    for loss, gradient in train(criterion, case, range(3)):
        assert loss.isfinite()
        assert gradient.abs().sum() > 0
    assert criterion.stats["calls"] == 3
    assert criterion.stats["updates"] >= 3
    if core.replay is not None:
        assert not any(field.is_inference() for field in core.replay.fields)


def test_the_metric_is_not_called_outside_of_training():
    def forbidden(prediction, target):
        raise AssertionError("called")

    criterion = make_loss(metric=forbidden)
    for passive in PASSIVE.values():
        passive(criterion.train(), make_arguments())


@pytest.mark.parametrize("case", CASES)
def test_a_prediction_in_eval_mode_still_gets_its_gradient(case):
    criterion = make_loss(case)
    train(criterion, case, range(2))
    arguments = make_arguments(case, 7)
    passive, twin = step(criterion.eval(), arguments), step(copy.deepcopy(criterion), arguments)
    assert passive[1].any()
    if case in MEASURED:
        assert not torch.equal(passive[1], twin[1])
    else:
        assert_identical(passive, step(criterion.train(), arguments))


@pytest.mark.parametrize("case", CASES)
def test_recompute_of_activation_checkpointing_learns_once(case):
    plain, checkpointed = make_loss(case), make_loss(case)
    for seed in range(3):
        prediction, *rest = make_arguments(case, seed)
        scale = torch.ones((), requires_grad=True)
        criterion_of = lambda s, p=prediction, r=rest: checkpointed(p * s, *r)  # noqa: E731
        checkpoint(criterion_of, scale, use_reentrant=False).backward()
        step(plain, (prediction * torch.ones((), requires_grad=True), *rest))
        assert scale.grad.isfinite()
    assert_identical(snapshot(checkpointed), snapshot(plain))
    assert figures(checkpointed) == pytest.approx(figures(plain), nan_ok=True)


def test_checkpointed_gradient_is_the_plain_one_when_no_update_falls_between():
    plain, checkpointed = make_loss(every=2), make_loss(every=2)
    for criterion in (plain, checkpointed):
        train(criterion, "tensors", range(2))
    prediction, target = make_arguments(seed=5)
    checkpoint(lambda p: checkpointed(p, target), prediction, use_reentrant=False).backward()
    assert_identical(prediction.grad, step(plain, (prediction, target))[1])


@pytest.mark.parametrize("case", CASES)
def test_nothing_of_the_surrogate_is_registered(case):
    criterion = make_loss(case)
    train(criterion, case, range(2))
    assert list(criterion.parameters()) == []
    assert list(criterion.buffers()) == []
    assert list(criterion.modules()) == [criterion]


def test_the_users_optimizer_cannot_move_the_surrogate():
    model, criterion = nn.Linear(3, 3), make_loss(every=1000)
    _, target = make_arguments()
    criterion(model(torch.randn(4, 3)), target)
    parameters = [*model.parameters(), *criterion.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.5)
    before = [p.detach().clone() for p in core_of(criterion).net.module.parameters()]
    for _ in range(3):
        optimizer.zero_grad()
        criterion(model(torch.randn(4, 3)), target).backward()
        optimizer.step()
    assert_identical([p.detach() for p in core_of(criterion).net.module.parameters()], before)


def random_states():
    return torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()


@pytest.mark.parametrize("case", CASES)
def test_global_random_streams_are_left_alone(case):
    arguments = [make_arguments(case, seed) for seed in range(3)]
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = random_states()
    criterion = make_loss(case, warm_up=3)
    for passive in PASSIVE.values():
        passive(criterion.train(), arguments[0])
    for some in arguments:
        step(criterion.train(), some)
    criterion.warm_up(arguments[:2], updates=3)
    if "data: local-global," in repr(criterion):
        criterion.warm_up(updates=1)
    after = random_states()
    assert torch.equal(after[0], before[0])
    assert after[1:] == before[1:]


@pytest.mark.parametrize("case", CASES)
def test_what_is_learned_follows_from_the_seed_alone(case):
    torch.manual_seed(1)
    first, second = make_loss(case, seed=3), make_loss(case, seed=3)
    other = make_loss(case, seed=4)
    results = train(first, case, range(4))
    torch.manual_seed(2)
    assert_identical(train(second, case, range(4)), results)
    assert_identical(snapshot(second), snapshot(first))
    # The first call of a surrogate that comes fitted has nothing of the seed.
    assert train(other, case, range(4))[-1][0] != results[-1][0]


@pytest.mark.parametrize("case", CASES)
def test_reductions_agree(case):
    arguments = make_arguments(case, 7)
    criterion = make_loss(case)
    train(criterion, case, range(2))
    criterion.eval()
    each = {}
    for reduction in ("none", "mean", "sum"):
        same_draws = copy.deepcopy(criterion)
        same_draws.reduction = reduction
        each[reduction] = same_draws(*arguments).detach()
    assert each["none"].shape == (4,)
    torch.testing.assert_close(each["mean"], each["none"].mean())
    torch.testing.assert_close(each["sum"], each["none"].sum())


def without_draws(criterion):
    """What it says of predictions alone; with a gradient to make no difference."""

    def call(prediction, *rest):
        with torch.no_grad():
            value = criterion(prediction, *rest)
        return value + 0 * prediction.sum()

    return call


@pytest.mark.parametrize("case", CASES)
def test_samples_do_not_see_each_other(case):
    criterion = make_loss(case, reduction="none")
    train(criterion, case, range(2))
    criterion.eval()
    if case in MEASURED:  # the draws around one differ with the others'
        criterion = without_draws(criterion)
    prediction, *rest = make_arguments(case, 7, batch=5)
    together, gradient = step(criterion, (prediction, *rest))
    dim = 1 if case.startswith("ctc") else 0
    for sample in range(5):
        alone = prediction.detach().narrow(dim, sample, 1).requires_grad_()
        loss, own = step(criterion, (alone, *(part[sample : sample + 1] for part in rest)))
        torch.testing.assert_close(loss, together[sample : sample + 1])
        torch.testing.assert_close(own, gradient.narrow(dim, sample, 1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_an_empty_batch_neither_learns_nor_fails(case):
    for criterion in (make_loss(case), make_loss(case)):
        arguments = make_arguments(case)
        dim = 1 if case.startswith("ctc") else 0
        prediction = arguments[0].detach().narrow(dim, 0, 0).requires_grad_()
        empty = (prediction, *(part[:0] for part in arguments[1:]))
        step(criterion, arguments)
        before = snapshot(criterion)
        criterion.reduction = "sum"
        loss, gradient = step(criterion, empty)
        assert loss == 0
        assert gradient.shape == prediction.shape
        assert_identical(snapshot(criterion), before)


@pytest.mark.parametrize("case", CASES)
def test_an_empty_batch_may_come_first(case):
    criterion = make_loss(case, reduction="sum")
    arguments = make_arguments(case)
    prediction = (
        arguments[0].detach().narrow(1 if case.startswith("ctc") else 0, 0, 0).requires_grad_()
    )
    assert criterion(prediction, *(part[:0] for part in arguments[1:])) == 0
    assert "calls: 0," in repr(criterion)
    for loss, gradient in train(criterion, case, range(3)):
        assert loss.isfinite()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("case", CASES)
def test_a_batch_of_one_may_come_first(case):
    criterion = make_loss(case)
    arguments = make_arguments(case, batch=1)
    for _ in range(3):
        loss, gradient = step(criterion, arguments)
        assert loss.isfinite()
        assert gradient.isfinite().all()
    assert criterion.stats["calls"] == 3


def zero(prediction, target):
    return torch.zeros(len(prediction))


def test_a_prediction_that_is_not_finite_shows_in_its_own_loss_alone():
    criterion = make_loss(metric=zero, reduction="none")
    train(criterion, "tensors", range(2))
    prediction, target = make_arguments(seed=7)
    with torch.no_grad():
        prediction[1, 0] = torch.nan
    loss, gradient = step(criterion, (prediction, target))
    assert loss.isnan().tolist() == [False, True, False, False]
    assert gradient[[0, 2, 3]].isfinite().all()
    assert replay_of(criterion).oldest_first()[0].isfinite().all()
    assert criterion.stats["metric/skipped"] == 1


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_a_first_batch_that_is_not_finite_does_not_spoil_the_surrogate(poison):
    criterion = make_loss(metric=zero)
    prediction, target = make_arguments()
    with torch.no_grad():
        prediction[1, 0] = poison
    criterion(prediction, target)
    assert all(tensor.abs().max() < 1e3 for tensor in core_of(criterion).net.module.buffers())
    for loss, gradient in train(criterion, "tensors", range(3)):
        assert loss.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("shape", [(), (4,), (2, 9), (2, 8, 8)])
def test_default_surrogates_for_tensors_of_every_dimension(shape):
    def metric(prediction, target):
        return (prediction - target).abs().reshape(len(target), -1).sum(1)

    criterion = make_loss(metric=metric, penalty_weight=0.1)
    for _ in range(3):
        prediction = torch.randn(5, *shape, requires_grad=True)
        loss, gradient = step(criterion, (prediction, torch.randn(5, *shape)))
        assert loss.isfinite()
        assert gradient.shape == prediction.shape
        assert gradient.abs().sum() > 0


def test_a_tensor_without_a_default_surrogate_says_so():
    with pytest.raises(ValueError, match="surrogate=EmbeddingDistance"):
        criterion = make_loss(metric=zero, higher_is_better=False)
        criterion(torch.zeros(2, 1, 2, 2, 2, requires_grad=True), torch.zeros(2))


def test_targets_of_another_shape_get_a_net_of_their_own():
    criterion = make_loss(metric=lambda p, t: (p.argmax(-1) != t).float())
    for _ in range(3):
        prediction = torch.randn(5, 4, requires_grad=True)
        loss, gradient = step(criterion, (prediction, torch.randint(0, 4, (5,))))
        assert loss.isfinite()
        assert gradient.abs().sum() > 0
    assert core_of(criterion).net.module.target_net is not None


def test_samples_must_keep_their_shape():
    criterion = make_loss()
    step(criterion, make_arguments())
    before = snapshot(criterion)
    with pytest.raises(ValueError, match=r"shape of the first call.*\(3,\).*\(5,\)"):
        criterion(torch.zeros(2, 5, requires_grad=True), torch.zeros(2, 5))
    assert_identical(snapshot(criterion), before)
    step(criterion, make_arguments())


class Weighted(nn.Module):
    """A surrogate with a weight that it uses and one that it does not."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, z, y):
        return ((z - y).square() * self.weight).sum(-1)


def test_a_given_surrogate_is_fitted():
    surrogate = Weighted()
    criterion = make_loss(surrogate=surrogate)
    prediction, target = make_arguments()
    expected = (prediction - target).square().sum(-1).mean()
    torch.testing.assert_close(criterion(prediction, target), expected)
    assert not torch.equal(surrogate.weight, torch.ones(3))
    assert torch.equal(surrogate.unused, torch.ones(2))
    assert list(criterion.parameters()) == []
    assert "Weighted, 5 parameters" in repr(criterion)


def test_the_scale_of_the_surrogate_is_that_of_the_first_errors_it_is_fitted_to():
    scales = []
    for unit in (1, 1000):
        criterion = make_loss(metric=lambda p, t, unit=unit: l1(p, t) * 0 + 2 * unit)
        train(criterion, "tensors", range(2))
        scales.append(float(core_of(criterion).net.scale))
    assert scales == [2, 2000]


def test_a_given_embedding_distance():
    surrogate = EmbeddingDistance(nn.Linear(3, 4))
    criterion = make_loss(surrogate=surrogate)
    train(criterion, "tensors", range(2))
    assert core_of(criterion).net.module is surrogate


class SquaredError(nn.Module):
    def forward(self, z, y):
        return (z - y).square().sum(-1)


def test_a_surrogate_with_nothing_to_fit_hands_back_its_gradient():
    criterion = make_loss(surrogate=SquaredError(), warm_up=10)
    prediction, target = make_arguments()
    for _ in range(12):
        _, gradient = step(criterion, (prediction, target))
    torch.testing.assert_close(gradient, 2 * (prediction - target).detach() / 4)


def test_a_surrogate_that_returns_a_wrong_shape_is_named():
    class PerFeature(nn.Module):
        def forward(self, z, y):
            return (z - y).square()

    with pytest.raises(ValueError, match=r"surrogate must return one value a sample.*\(4, 3\)"):
        make_loss(surrogate=PerFeature())(*make_arguments())


@pytest.mark.parametrize("case", ["tensors", "measured"])
def test_a_surrogate_without_a_gradient_is_named(case):
    class Detached(nn.Module):
        def forward(self, z, y):
            return (z - y).abs().sum(-1).detach()

    criterion = make_loss(case, surrogate=Detached())
    with pytest.raises(ValueError, match="values have no gradient with respect to z"):
        train(criterion, case, range(100))


def test_repr_tells_metric_task_and_replay():
    criterion = make_loss("ctc", capacity=50)
    before = repr(criterion)
    for part in ("edit_distance", "CTC(6 characters", "0 of 50 pairs", "not built"):
        assert part in before
    train(criterion, "ctc", range(2))
    after = repr(criterion)
    for part in ("8 of 50 pairs", "prediction (7, 9) float32", "target (9,)", "calls: 2"):
        assert part in after
    assert "lower is better" in after
    for task in (Tensors(), Tensors(smoothing=0)):
        better = LearnedSurrogateLoss(l1, task=task, higher_is_better=True, best=1)
        assert "higher is better, best 1" in repr(better)
    assert "warming up" in repr(better)


def live_tensors():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def test_memory_stays_constant():
    criterion = make_loss(capacity=40, every=5)
    train(criterion, "tensors", range(20))
    tensors = live_tensors()
    storage = replay_of(criterion).fields[0].data_ptr()
    for seed in range(300):
        criterion(*make_arguments(seed=seed)).backward()
        assert replay_of(criterion).size <= 40
    assert live_tensors() <= tensors
    assert replay_of(criterion).fields[0].data_ptr() == storage
    assert core_of(criterion).pairs.unseen.size <= 1024
    assert criterion.stats["replay/size"] == 40


def test_stats_are_a_plain_dict_of_plain_values():
    criterion = make_loss()
    train(criterion, "tensors", range(2))
    assert type(criterion.stats) is dict
    assert {type(value) for value in criterion.stats.values()} <= {int, float, bool}
    assert criterion.stats["metric/seconds"] > 0
    assert criterion.stats["surrogate/seconds"] > 0


def test_stats_are_refreshed_at_the_first_call_and_at_updates_only():
    criterion = make_loss(every=3)
    seen = []
    for seed in range(6):
        step(criterion, make_arguments(seed=seed))
        seen.append((criterion.stats["calls"], criterion.stats["updates"]))
    assert seen == [(1, 0), (1, 0), (3, 1), (3, 1), (3, 1), (6, 2)]


def test_the_surrogates_error_is_that_of_pairs_before_they_were_fitted_to():
    criterion = make_loss()
    values, errors = [], []
    for seed in range(3):
        prediction, target = make_arguments(seed=seed)
        criterion.reduction = "none"
        values.append(step(criterion, (prediction, target))[0])
        errors.append(l1(prediction, target).detach())
    expected = (torch.cat(values) - torch.cat(errors)).abs().mean().item()
    assert criterion.stats["surrogate/mae"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("data", ["local", "global", "local-global"])
def test_data_decides_what_the_surrogate_is_fitted_to(data):
    drawn = []

    def generator(count, rng):
        drawn.append(count)
        return ["ab"] * count, ["cd"] * count

    criterion = make_loss("characters", data=data, generator=generator)
    train(criterion, "characters", range(2))
    assert drawn == ([] if data == "local" else [8, 8])
    assert criterion.stats["replay/size"] == (0 if data == "global" else 8)
    assert criterion.stats["updates"] == 2


def test_tensors_with_a_generator():
    def generator(count, rng):
        return torch.from_numpy(rng.normal(size=(count, 3))), torch.zeros(count, 3)

    criterion = make_loss(generator=generator, penalty_weight=0.1)
    assert "local-global" in repr(criterion)
    for loss, gradient in train(criterion, "tensors", range(3)):
        assert loss.isfinite()
        assert gradient.isfinite().all()
    assert criterion.stats["surrogate/penalty"] >= 0


@pytest.mark.parametrize("case", CASES)
def test_the_default_device_does_not_matter(case):
    criterion, plain = make_loss(case), make_loss(case)
    arguments = [make_arguments(case, seed) for seed in range(3)]
    with torch.device("meta"):
        results = [step(criterion, some) for some in arguments]
    assert_identical(results, [step(plain, some) for some in arguments])


# Errors and wild numbers


def assert_unchanged_by(criterion, error, match, arguments):
    twin = copy.deepcopy(criterion)
    with pytest.raises(error, match=match):
        criterion(*arguments)
    assert_identical(snapshot(criterion), snapshot(twin))
    for seed in range(2):
        good = make_arguments(seed=seed)
        assert_identical(step(criterion, good), step(twin, good))


@pytest.mark.parametrize("case", ["tensors", "measured"])
@pytest.mark.parametrize("called", [True, False])
def test_a_base_loss_that_raises_leaves_the_loss_as_it_was(called, case):
    def base(prediction, target):
        if (target == 7).any():
            raise ZeroDivisionError("no such target")
        return (prediction - target).square().mean()

    criterion = make_loss(case, base_loss=base, base_weight=0.5, warm_up=3)
    train(criterion, "tensors", range(2 * called))
    assert_unchanged_by(
        criterion, ZeroDivisionError, "no such target", (make_arguments()[0], torch.full((4, 3), 7))
    )


def test_a_shape_that_is_refused_leaves_the_draws_as_they_were():
    criterion = make_loss("measured", task=Tensors(smoothing=torch.tensor([0.1, 0.2, 0.3])))
    train(criterion, "measured", range(2))
    wrong = torch.zeros(2, 5, requires_grad=True), torch.zeros(2, 5)
    message = r"smoothing, of shape \(3,\), does not go with samples of shape \(5,\)"
    assert_unchanged_by(criterion, ValueError, message, wrong)


def test_targets_that_are_not_finite_do_not_spoil_a_new_surrogate():
    criterion = make_loss()
    prediction, target = make_arguments()
    target[1] = torch.nan
    criterion.reduction = "none"
    loss = criterion.eval()(prediction, target)
    assert loss[1] == loss[[0, 2, 3]].mean()
    for loss, gradient in train(criterion.train(), "tensors", range(3)):
        assert loss.isfinite().all()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("size", [1e15, 1e30])
def test_a_wild_prediction_does_not_spoil_the_surrogate_for_good(size, called):
    criterion = make_loss(metric=zero)
    train(criterion, "tensors", range(2 * called))
    prediction, target = make_arguments(seed=7)
    with torch.no_grad():
        prediction[1, 0] = size
    criterion(prediction, target)
    for loss, gradient in train(criterion, "tensors", range(20)):
        assert loss.isfinite()
        assert gradient.isfinite().all()
    net = core_of(criterion).net
    weights = [p.detach().clone() for p in net.module.parameters()]
    fitted = {k: v for k, v in snapshot(criterion).items() if k.startswith(("surrogate.", "adam."))}
    assert all(tensor.isfinite().all() for tensor in fitted.values())
    train(criterion, "tensors", range(20, 22))
    moved = [not torch.equal(a, b) for a, b in zip(weights, net.module.parameters())]
    assert any(moved)  # not the last bias, which cancels in a distance
