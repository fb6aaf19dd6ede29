"""What the surrogate's slope is worth: measured, followed, and dropped where it earns nothing."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import assert_identical, l1, make_arguments, make_loss, train
from torch import nn
from within import core_of, slope_of

from learned_surrogates import Fit, LearnedSurrogateLoss, Tensors
from learned_surrogates._measured import control_variate
from learned_surrogates._measured.control_variate import MOMENTUM, ControlVariate
from learned_surrogates._measured.draws import draw, half_differences
from learned_surrogates._measured.waves import waves_of

SLOPE = "learned_surrogates._measured.slope"
CPU = torch.device("cpu")


def related(calls, samples=200, slope=0.4, noise=0.5, seed=0):
    """Differences of calls, and what two slopes make of them: one that tells some, one nothing."""
    random = np.random.default_rng(seed)
    h = random.normal(size=(calls, 2, samples)).astype(np.float32)
    d = slope * h[:, 0] + noise * random.normal(size=(calls, samples)).astype(np.float32)
    return d, h


def test_the_coefficient_is_that_of_a_weighted_regression():
    d, h = related(60)
    control = ControlVariate(2, CPU)
    for one, two in zip(d, h, strict=True):
        control.take(torch.from_numpy(one), torch.from_numpy(two))
    weights = (1 - MOMENTUM) ** np.arange(60)[::-1]
    products = (weights[:, None] * (h * d[:, None]).mean(2)).sum(0)
    squares = (weights[:, None] * (h * h).mean(2)).sum(0)
    of_d = (weights * (d * d).mean(1)).sum()
    expected = products / squares
    np.testing.assert_allclose(control.weights[0], expected.clip(0, 1), rtol=1e-4)
    r2 = np.sign(products) * products**2 / (squares * of_d)
    np.testing.assert_allclose(control.r2, r2, rtol=1e-4)
    assert control.weights[0, 0] == pytest.approx(0.4, abs=0.02)
    assert control.r2[0] == pytest.approx(0.16 / 0.41, abs=0.02)


@pytest.mark.parametrize(
    ("slope", "weight", "r2"), [(-0.7, 0, -1), (1.0, 1, 1), (3.0, 1, 1 - (2 / 3) ** 2)]
)
def test_a_slope_that_opposes_has_no_weight_and_none_has_more_than_its_own(slope, weight, r2):
    control = ControlVariate(1, CPU)
    for d, h in zip(*related(60, slope=slope, noise=0.01), strict=True):
        control.take(torch.from_numpy(d), torch.from_numpy(h[:1]))
    assert control.weights[0].item() == pytest.approx(weight, abs=0.02)
    assert control.r2.item() == pytest.approx(r2, abs=0.02)


def test_without_evidence_the_coefficient_falls_and_comes_back_with_it():
    control = ControlVariate(1, CPU)
    d, h = (torch.from_numpy(part) for part in related(1, slope=0.8, noise=0.01))
    control.take(d[0], h[0, :1])
    known = control.weights[0].item()
    assert known == pytest.approx(0.8, abs=0.02)
    seen = []
    for control.age in (0, control_variate.PATIENCE, control_variate.PATIENCE + 50, 1000):
        seen.append(control.weights[0].item())
    assert seen[0] == seen[1] == known
    assert seen[2] == pytest.approx(known * (1 - MOMENTUM) ** 50, rel=1e-4)
    assert seen[3] < 1e-6
    control.take(d[0], h[0, :1])
    assert control.weights[0].item() == pytest.approx(known, rel=1e-4)


@pytest.mark.parametrize("wild", [torch.nan, torch.inf, 1e30])
def test_one_wild_sample_does_not_spoil_what_was_known(wild):
    control = ControlVariate(1, CPU)
    d, h = (torch.from_numpy(part) for part in related(2, slope=0.8, noise=0.01))
    control.take(d[0], h[0, :1])
    before = control.weights[0].item()
    d[1, 3] = wild
    control.take(d[1], h[1, :1])
    assert control.sums.isfinite().all()
    assert control.weights[0].item() == pytest.approx(before, abs=0.02)


def off(prediction, target):
    """How many numbers are off by more than a half."""
    return ((prediction - target).abs() > 0.5).double().mean(-1)


def batches(count, size=64, numbers=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    for _ in range(count):
        target = torch.randn(size, numbers, generator=random)
        noise = 0.7 * torch.randn(size, numbers, generator=random)
        yield (target + noise).requires_grad_(), target


def test_r2_is_what_fresh_draws_say_of_the_slope():
    """Against 10,000 draws that neither the fit nor the running figures have seen.

    These tell of some 50 calls with 64 draws each, in which the fit goes on: a standard error of
    about .02, and as much of drift; the tolerance is three times both.
    """
    criterion = LearnedSurrogateLoss(off, surrogate="pair", fit=Fit(every=1), seed=3)
    for prediction, target in batches(300):
        criterion(prediction, target).backward()
    core = core_of(criterion)
    slope = core.estimator.slope
    assert slope.r2 > 0.3
    predicted, measured = [], []
    for prediction, target in batches(20, size=500, seed=1):
        batch = criterion.task.read(prediction, target)
        draws = draw(
            core.task,
            batch,
            core.estimator._width(batch),
            2,
            torch.Generator().manual_seed(7),
        )
        width = draws.width.expand_as(draws.z)
        values = torch.stack([off(*pair) for pair in draws.pairs])
        measured.append(half_differences(values)[0].float())
        told = slope.tell(draws.z, target, draws.noise, width, float("inf"))
        predicted.append(told.predicted[:, 0, 0].sum(0))
    d, h = torch.cat(measured), torch.cat(predicted)
    direct = (d @ h).square() / (d @ d) / (h @ h)
    assert slope.r2 == pytest.approx(direct.item(), abs=0.12)
    assert slope.weight.item() == pytest.approx((d @ h / (h @ h)).item(), abs=0.2)
    assert criterion.stats["gradient/effective_draws"] == pytest.approx(
        2 / (1 - slope.r2), rel=0.05
    )


def test_the_gradient_is_quieter_by_what_r2_says():
    criterion = LearnedSurrogateLoss(off, surrogate="pair", fit=Fit(every=1), seed=3)
    for prediction, target in batches(300):
        criterion(prediction, target).backward()
    alone = LearnedSurrogateLoss(
        off, surrogate="none", task=Tensors(smoothing=criterion.stats["gradient/smoothing"])
    )
    noise = []
    for loss in (criterion, alone):
        loss.eval()
        found = []
        for seed in (8, 9):
            core_of(loss).random.manual_seed(seed)
            prediction, target = next(batches(1, size=2000, seed=5))
            loss(prediction, target).backward()
            found.append(prediction.grad)
        noise.append((found[0] - found[1]).square().mean().item())
    # A share R2 of the differences is told; of three numbers, each one's own share is as large.
    assert noise[0] / noise[1] == pytest.approx(1 - slope_of(criterion).r2, abs=0.15)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(f"{SLOPE}.TRIAL", 20)
    monkeypatch.setattr(f"{SLOPE}.REST", 15)
    return monkeypatch


def test_the_trial_keeps_the_form_that_tells_most(short):
    criterion = LearnedSurrogateLoss(off, fit=Fit(every=1))
    slope = slope_of(criterion)
    before = None
    for prediction, target in batches(40):
        r2 = dict(zip(slope.names, slope.control.r2.tolist(), strict=True))
        before = r2 if len(r2) > 1 else before
        criterion(prediction, target).backward()
    assert set(before) == {"pair", "elements", "lists"}
    assert len(slope.forms) == 1
    assert before[slope.name] >= max(before.values()) - 0.05
    assert repr(criterion).count(slope.name) == 1
    assert slope.r2 > 0.2


def test_what_a_trial_ends_with_is_the_best_by_then(short):
    criterion = LearnedSurrogateLoss(off, fit=Fit(every=1))
    slope = slope_of(criterion)
    for prediction, target in batches(19):
        criterion(prediction, target).backward()
    other = (slope.best + 1) % len(slope.names)
    name = slope.names[other]
    slope.control.numbers = math.inf
    slope.control.sums = torch.tensor([0.5, 1.0] * 2 + [0.0] * 3 + [1.0]).repeat(
        len(slope.names), 1
    )
    slope.control.sums[other, [0, 2]] = 0.9
    slope.calls = 19
    slope.select()
    assert slope.names == [name]
    assert slope.r2 == pytest.approx(0.9**2)


def chance(prediction, target):
    """What no net can tell: a number that the prediction's last digits decide."""
    return (prediction.double().sum(-1) * 1e5) % 1


def test_a_surrogate_that_earns_nothing_is_switched_off_and_tried_again(short):
    criterion = LearnedSurrogateLoss(chance, fit=Fit(every=1))
    slope, phases = slope_of(criterion), []
    for prediction, target in batches(80):
        criterion(prediction, target).backward()
        phases.append(bool(slope.forms))
        if not slope.forms and slope.resting:
            assert slope.weight == 0
            assert "none earned its cost, measured only for now" in repr(criterion)
    changes = [b for a, b in itertools.pairwise(phases) if a != b]
    assert changes[:4] == [True, False, True, False]


def test_a_module_without_parameters_serves_as_it_is():
    class Ruler(nn.Module):
        def forward(self, z, y):
            return (z - y).abs().sum(-1)

    criterion = LearnedSurrogateLoss(l1, surrogate=Ruler())
    for prediction, target in batches(20):
        criterion(prediction, target).backward()
    assert criterion.stats["surrogate/r2"] > 0.8
    assert criterion.stats["surrogate/weight"] > 0.7


class Normed(nn.Module):
    """With layers that do something else when they are trained."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))

    def forward(self, z, y):
        return self.net(self.norm(torch.cat([z, y], 1))).squeeze(1)


def test_a_module_learns_when_it_is_fitted_and_not_when_it_is_asked():
    criterion = LearnedSurrogateLoss(l1, surrogate=Normed())
    random = torch.Generator().manual_seed(0)

    def call():
        prediction, target = torch.randn(2, 32, 2, generator=random)
        return prediction, target, criterion(prediction.requires_grad_(), target).backward()

    for _ in range(30):
        call()
    before, chance = criterion.state_dict(), torch.get_rng_state()
    criterion.eval()
    call()
    assert_identical(criterion.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), chance)
    criterion.train()
    prediction, target, _ = call()
    assert not torch.equal(criterion.state_dict()["_extra_state"], before["_extra_state"])
    with torch.no_grad():
        prediction[0] = math.nan
    criterion(prediction.detach().requires_grad_(), target).backward()
    twin = LearnedSurrogateLoss(l1, surrogate=Normed())
    twin.load_state_dict(criterion.state_dict())  # refused, if there is what is not finite


def test_a_warm_up_leaves_predictions_out_that_are_not_finite():
    def metric(prediction, target):
        return (prediction.nan_to_num(50.0) - target).abs().sum(-1)

    batches = [tuple(torch.randn(2, 32, 2)) for _ in range(5)]
    for prediction, _ in batches:
        prediction[:16] = math.nan
    criterion = LearnedSurrogateLoss(metric, higher_is_better=False)
    stats = criterion.warm_up(batches, updates=5)
    assert stats["metric/skipped"] == 80
    assert stats["metric/mean"] < 10


@pytest.mark.parametrize("waves", [0.0, 0.2])
@pytest.mark.parametrize("numbers", [1, 3])
def test_the_coefficient_leaves_least_noise_in_the_gradient(numbers, waves):
    """Of a step's gradient, whose noise is measured for many coefficients; so is the share R2.

    With one number, the regression of d on h would take half of that noise away, not four fifths.
    """
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(200_000, numbers, generator=random)
    z, slope = torch.full((numbers,), 0.2), torch.full((1, numbers), 0.4)
    d = ((z + noise > 0).float() - (z - noise > 0).float()).sum(1) / 2
    line = noise @ slope.T
    wave = waves * waves_of(noise).sum((0, 2))[:, None]
    control = ControlVariate(1, CPU, numbers)
    control.take(d, line.T, noise.square().mean(1), wave.T)

    def left(c, u):
        rest = d[:, None] - c * line - u * wave
        return (c * slope + rest * noise).var(0).sum().item()

    found = control.weights[:, 0].tolist()
    least = left(*found)
    assert (found[1] > 0.1) == (waves > 0)
    if not waves:
        alone = np.linspace(0, 1, 201)
        best = alone[np.argmin([left(float(c), 0.0) for c in alone])]
        assert found[0] == pytest.approx(best, abs=0.01)
    for c, u in itertools.product((-0.05, 0.0, 0.05), repeat=2):
        tried = [min(max(weight + step, 0.0), 1.0) for weight, step in zip(found, (c, u))]
        assert left(*tried) >= least * (1 - 1e-3)
    assert control.r2.item() == pytest.approx(1 - least / left(0.0, 0.0), abs=0.01)
    regression = (d @ line[:, 0]) / (line[:, 0] @ line[:, 0])
    assert control.confirmed.item() == pytest.approx(regression.item(), abs=1e-3)


def weighed(c, u, *, of_slope=1.0, of_waves=1.0, together=0.0):
    """A control whose noise is least at these weights, and what others take of all noise."""
    squares = torch.tensor([[of_slope, together], [together, of_waves]])
    products = squares @ torch.tensor([c, u])
    control = ControlVariate(1, CPU)
    dl, dv = products
    control.sums[0, 2:] = torch.tensor([dl, of_slope, dv, of_waves, together, 20.0])

    def taken(*weights):
        tried = torch.tensor(weights)
        return ((2 * products - squares @ tried) @ tried).item() / 20

    return control, taken


@pytest.mark.parametrize(
    ("c", "u", "others"),
    [
        (1.0, 70.0, {"of_waves": 1e-4}),
        (9.0, 0.5, {"together": 0.3, "of_slope": 0.1}),
        (1.2, 0.8, {"together": -0.6}),
        (0.9, 1.3, {"together": 0.6}),
        (2.1, 2.9, {"together": -0.9}),
        (0.1, 2.0, {"together": 0.9}),
    ],
)
def test_weights_at_their_bounds_are_the_best_within_them(c, u, others):
    """Too small a wave, whose coefficient would be 70, takes nothing from slope or R2."""
    control, taken = weighed(c, u, **others)
    found = taken(*control.weights[:, 0].tolist())
    steps = [step / 20 for step in range(21)]
    assert found >= max(itertools.starmap(taken, itertools.product(steps, steps))) - 1e-6
    assert control.r2.item() == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize("unit", [1e-30, 1e19, 1e30])
def test_weights_have_no_unit(unit):
    control, _ = weighed(0.9, 0.7, together=0.2)
    weights, r2 = control.weights, control.r2
    control.sums *= unit
    torch.testing.assert_close(control.weights, weights)
    torch.testing.assert_close(control.r2, r2)


def test_waves_that_oppose_have_no_weight():
    control, taken = weighed(0.6, -0.5, together=0.2)
    assert control.weights[:, 0].tolist() == pytest.approx([0.5, 0.0])
    assert control.r2.item() == pytest.approx(taken(0.5, 0.0), rel=1e-4)


def test_a_slope_four_times_too_steep_has_a_weight_of_a_quarter():
    random = torch.Generator().manual_seed(0)
    criterion = make_loss("measured", surrogate="pair")
    train(criterion, "measured", range(8))
    slope = slope_of(criterion)
    assert slope.forms
    slope.control = ControlVariate(1, torch.device("cpu"), numbers=3)
    for _ in range(100):
        noise, pull = torch.randn(2, 64, 3, generator=random)
        line = (pull * noise).sum(1)
        slope.take(line / 4, noise, torch.stack([line, 0 * line])[:, None])
    assert slope.control.weights[0, 0].item() == pytest.approx(0.25, abs=1e-3)
    assert slope.control.r2[0].item() == pytest.approx(1, abs=1e-3)


def test_at_first_a_surrogate_is_fitted_at_every_call():
    criterion = make_loss("measured", surrogate="pair", fit=Fit(every=1000))
    train(criterion, "measured", range(12))
    updates = core_of(criterion).estimator.updates
    train(criterion, "measured", range(12, 15))
    assert updates > 0 and core_of(criterion).estimator.updates == updates + 3


def test_the_unit_of_a_metric_is_the_unit_of_its_gradient():
    """What is learned of a metric in thousandths is what is learned of it."""
    found = []
    for unit in (1.0, 1000.0):
        criterion = make_loss("measured", lambda p, t, unit=unit: unit * l1(p, t), surrogate="pair")
        for seed in range(30):
            prediction, target = make_arguments("measured", seed=seed)
            prediction.grad = None
            criterion(prediction, target).backward()
        found.append(prediction.grad / unit)
        assert criterion.stats["surrogate/weight"] > 0.2
    torch.testing.assert_close(*found, rtol=0.01, atol=0.01 * found[0].abs().max().item())
