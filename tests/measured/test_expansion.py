"""What is told beside a slope: waves that change nothing of the gradient but its noise."""

import pytest
import torch
from conftest import step
from torch import nn
from within import slope_of

from learned_surrogates import LearnedSurrogateLoss
from learned_surrogates._measured.expansion import FREQUENCIES, Expansion, Waves, basis

ALL = 1 + len(FREQUENCIES)


def test_waves_are_odd_of_mean_square_1_and_correlate_with_no_noise():
    """By integrals over the normal density."""
    e = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    density = (-e.square() / 2).exp()
    density /= density.sum()
    functions = basis(e, ALL)
    torch.testing.assert_close(functions.flip(1), -functions)
    moments = functions @ (density * functions).T
    torch.testing.assert_close(moments.diagonal(), torch.ones(ALL, dtype=torch.float64))
    assert moments[0, 1:].abs().max() < 1e-12


def test_fewer_functions_are_the_first_ones():
    noise = torch.randn(5, 3)
    torch.testing.assert_close(basis(noise, 1), noise[None])
    torch.testing.assert_close(basis(noise, 2), basis(noise, ALL)[:2])


@pytest.mark.parametrize("shape", [(1,), (7,), (40,), (5, 2), (3, 6), (2, 4, 4)])
def test_a_slope_and_as_many_waves_for_each_number(shape):
    z, y = torch.randn(2, 4, *shape)
    form = nn.Sequential(nn.Flatten(), nn.Linear(z[0].numel(), 1), nn.Flatten(0))

    def linear(z, y):
        return form(z)

    class Form(nn.Module):
        def __init__(self):
            super().__init__()
            self.form = form

        forward = staticmethod(linear)

    expansion = Expansion(Form(), z, y)
    width = torch.rand(z.shape) + 0.1
    told = expansion(z.clone().requires_grad_(), y, width, torch.tensor(2.0))
    assert told.shape == (ALL, 4, *shape)
    slope = form[1].weight.view(1, *shape).expand_as(z)
    torch.testing.assert_close(told[0], 2 * slope * width)
    # Before the fit there are none.
    assert not told[1:].any()


def test_the_coordinates_of_a_point_answer_together():
    z, y = torch.randn(2, 4, 5, 2)
    assert Waves(z, y).numbers == 2
    assert Waves(z.flatten(1), y.flatten(1)).numbers == 1


@pytest.mark.parametrize("of_target", [(), (3,)])
def test_targets_of_another_size_leave_the_slope_alone(of_target):
    z, y = torch.randn(8, 5), torch.randn(8, *of_target)
    assert Expansion(nn.Identity(), z, y).waves is None
    assert Expansion(nn.Identity(), z[:, :1], torch.randn(8)).waves is not None


def test_large_samples_have_a_slope_alone():
    z = torch.randn(2, 65, 64)
    assert Expansion(nn.Identity(), z, z).waves is None
    assert Expansion(nn.Identity(), z[:, :64], z[:, :64]).waves is not None


def misses(prediction, target):
    """How many numbers are off by more than one."""
    return ((prediction - target).abs() > 1).float().mean(1)


def test_of_thresholds_waves_tell_what_no_slope_can():
    """The best of slopes would take 0.71 of the noise away."""
    random = torch.Generator().manual_seed(0)
    criterion = LearnedSurrogateLoss(misses, surrogate="elements")
    for _ in range(250):
        target = torch.randn(64, 8, generator=random)
        prediction = target + torch.randn(64, 8, generator=random)
        step(criterion, (prediction.requires_grad_(), target))
    assert criterion.stats["surrogate/r2"] > 0.75


def test_waves_are_learned_with_the_user_s_own_net():
    class Distance(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, z, y):
            return self.scale * (z - y).abs().mean(1)

    random = torch.Generator().manual_seed(0)
    own = Distance()
    criterion = LearnedSurrogateLoss(misses, surrogate=own)
    for _ in range(60):
        z, y = torch.randn(2, 32, 4, generator=random)
        step(criterion, (z.requires_grad_(), y))
    (expansion,) = slope_of(criterion).forms
    assert expansion.form is own
    assert expansion.waves.last.weight.any()


class Ruler(nn.Module):
    """The distance in thousandths of itself, with nothing to learn."""

    def __init__(self):
        super().__init__()
        self.unit = nn.Parameter(torch.tensor(0.001), requires_grad=False)

    def forward(self, z, y):
        return self.unit * (z - y).square().sum(1)


def test_a_net_of_the_user_s_without_anything_to_learn_is_in_the_metric_s_units():
    random = torch.Generator().manual_seed(0)

    def metric(prediction, target):
        return 0.001 * (prediction - target).square().sum(1)

    criterion = LearnedSurrogateLoss(metric, surrogate=Ruler())
    for _ in range(20):
        z, y = torch.randn(2, 64, 4, generator=random)
        step(criterion, (z.requires_grad_(), y))
    assert criterion.stats["surrogate/weight"] > 0.95
    assert criterion.stats["surrogate/r2"] > 0.95
    slope = slope_of(criterion)
    told = slope.expansions(z.detach(), y, torch.ones_like(z))[0, 0]
    torch.testing.assert_close(told, 0.002 * (z - y).detach())


def test_of_few_outputs_each_may_be_of_its_own_kind():
    z, y = torch.zeros(2, 4, 3)
    waves = Waves(z, y)
    nn.init.ones_(waves.last.weight)
    waves.offsets.data[1] = 1.0
    one, other, third = waves(z, y, torch.ones_like(z)).unbind(2)
    torch.testing.assert_close(one, third)
    assert not torch.isclose(one, other).any()
    assert Waves(*torch.zeros(2, 4, 33)).offsets is None


@pytest.mark.parametrize(("count", "share"), [(1, 0.5**0.5), (ALL, 0.89)])
def test_how_much_there_is_to_tell_of_a_threshold_that_may_lie_anywhere(count, share):
    """By integrals over noise and thresholds, as docs/how-it-works.md has it."""
    e = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = (-e.square() / 2).exp()
    density /= density.sum()
    functions = basis(e, count)
    thresholds = torch.linspace(0, 6, 601, dtype=torch.float64)
    jumps = e.sign() * (e.abs() > thresholds[:, None])
    products = jumps @ (density * functions).T
    squares = functions @ (density * functions).T
    told = (products @ torch.linalg.inv(squares) * products).sum()
    assert told / (density * jumps.square()).sum() == pytest.approx(share, abs=0.005)
