"""What is told beside a slope: waves that change nothing of the gradient but its noise."""

import pytest
import torch
from conftest import step
from torch import nn
from within import slope_of

from learned_surrogates import LearnedSurrogateLoss
from learned_surrogates._measured.expansion import Expansion
from learned_surrogates._measured.forms.classes import Classes
from learned_surrogates._measured.waves import FREQUENCIES, STEP, Margins, Waves, of_jumps, waves_of

ALL = 1 + len(FREQUENCIES)


def test_waves_are_odd_of_mean_square_1_and_correlate_with_no_noise():
    """By integrals over the normal density."""
    e = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    density = (-e.square() / 2).exp()
    density /= density.sum()
    functions = torch.stack([e, *waves_of(e)])
    torch.testing.assert_close(functions.flip(1), -functions)
    moments = functions @ (density * functions).T
    torch.testing.assert_close(moments.diagonal(), torch.ones(ALL, dtype=torch.float64))
    assert moments[0, 1:].abs().max() < 1e-12


def test_without_waves_there_is_the_noise_alone():
    z = torch.randn(5, 3)
    expansion = Expansion(nn.Identity(), z, torch.randn(5))
    torch.testing.assert_close(expansion.basis(z, z, z), z[None])


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
    assert expansion.waves.shares.last.weight.any()


# Of class logits


def logits(shape, dim):
    """Logits and class indices; the noise of some is wider."""
    random = torch.Generator().manual_seed(0)
    z, width = torch.randn(shape, generator=random), 0.5 + torch.rand(shape, generator=random)
    y = torch.randint(shape[dim], shape[:dim] + shape[dim + 1 :], generator=random)
    return z, y, width


def sees(margins, figure):
    """Margins whose net answers with one of the figures that it sees, bounded."""
    for parameter in margins.shares.parameters():
        nn.init.zeros_(parameter)
    margins.shares.first.weight.data[:, figure] = 0.2
    nn.init.ones_(margins.shares.last.weight)
    return margins


@pytest.mark.parametrize(("shape", "dim"), [((4, 6), 1), ((4, 3, 5), 1), ((4, 5, 3), 2)])
def test_margins_have_standard_normal_noise(shape, dim):
    z, y, width = logits(shape, dim)
    margins = Margins(z, dim)
    noise = torch.randn(20_000, *shape, generator=torch.Generator().manual_seed(1))
    along = margins.along(noise, y, width)
    moved = z + width * noise
    true = y.unsqueeze(dim).expand(20_000, *y.unsqueeze(dim).shape)
    margin = moved - moved.gather(dim + 1, true)
    torch.testing.assert_close(along.mean(0), torch.zeros(shape), atol=0.03, rtol=0)
    others = torch.ones(shape).scatter(dim, y.unsqueeze(dim), 0.0)
    torch.testing.assert_close(along.std(0), others, atol=0.03, rtol=0)
    unit = margin.std(0).where(others > 0, 1.0)
    torch.testing.assert_close(along, (margin - margin.mean(0)) / unit, atol=0.1, rtol=0.05)


def test_waves_of_margins_correlate_with_no_noise():
    z, y, width = logits((1, 5), 1)
    expansion = Expansion(Classes(z, y), z, y)
    noise = torch.randn(400_000, 1, 5, generator=torch.Generator().manual_seed(1))
    _, *waves = expansion.basis(noise, y, width)
    for wave in waves:
        products = wave.flatten(1).T @ noise.flatten(1) / 400_000
        assert products.abs().max() < 5 / 400_000**0.5


def test_labels_that_are_none_have_waves_as_well():
    z, _, width = logits((3, 5), 1)
    margins = Margins(z)
    for none in (-100, 255):
        y = torch.tensor([1, none, 2])
        assert margins.along(width * z, y, width).isfinite().all()
        assert margins(z, y, width).isfinite().all()


def test_logits_that_are_no_numbers_spoil_no_other_sample():
    z, y, width = logits((3, 5), 1)
    margins = Margins(z)
    before = margins(z, y, width)
    z[0], z[1, y[1] - 1] = torch.nan, -torch.inf
    after = margins(z, y, width)
    torch.testing.assert_close(after[:, 2], before[:, 2])
    assert after[:, 1].isfinite().all()


def test_classes_that_are_masked_leave_the_others_their_waves():
    z, y, width = logits((3, 5), 1)
    y = torch.zeros(3, dtype=torch.int64)
    margins = Margins(z)
    nn.init.ones_(margins.shares.last.weight)
    z[:, 4] = -10.0
    before = margins(z, y, width)
    z[:, 4] = torch.finfo(torch.float32).min
    after = margins(z, y, width)
    torch.testing.assert_close(after[:, :, :4], before[:, :, :4])
    assert after.isfinite().all()
    # Of what is infinite, a weight has no gradient.
    after.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in margins.parameters())


def test_of_few_classes_each_may_be_of_its_own_kind():
    z, y = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)
    margins = Margins(z)
    nn.init.ones_(margins.shares.last.weight)
    margins.shares.offsets.data[1] = 1.0
    _, one, other = margins(z, y, torch.ones_like(z)).unbind(2)
    assert not torch.isclose(one, other).any()
    assert Margins(torch.zeros(4, 33)).shares.offsets is None


def test_how_far_the_true_class_is_from_the_lead_is_seen():
    z = torch.tensor([[0.0, 1.0, -3.0], [0.0, 1.0, 3.0]])
    y, width = torch.tensor([0, 0]), torch.ones(2, 3)
    margins = sees(Margins(z), 2)
    shares = margins(z, y, width)[:, :, 1]
    assert (shares[:, 0] - shares[:, 1]).abs().max() > 1


def test_a_class_that_leads_is_seen_by_how_far_the_next_one_is():
    z = torch.tensor([[3.0, 0.0, -1.0], [3.0, 0.0, 2.9]])
    y, width = torch.tensor([1, 1]), torch.ones(2, 3)
    margins = sees(Margins(z), 1)
    shares = margins(z, y, width)[:, :, 0]
    assert (shares[:, 0] - shares[:, 1]).abs().max() > 1


def test_one_class_alone_has_no_margins():
    z, y = torch.randn(4, 1), torch.zeros(4, dtype=torch.int64)
    expansion = Expansion(Classes(z, y), z, y)
    assert isinstance(expansion.waves, Waves)
    told = expansion(z.requires_grad_(), y, torch.ones_like(z), torch.tensor(1.0))
    assert told.isfinite().all()


@pytest.mark.parametrize("distance", [0.0, 0.4, 1.3, 2.5, 5.0])
def test_what_a_jump_has_of_each_wave(distance):
    """By sampling: a difference of 1 beyond the distance, to either side."""
    e = torch.randn(4_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    beyond = e[e.abs() > distance]
    if len(beyond) < 100:
        e = torch.linspace(distance, 12, 100_001, dtype=torch.float64)
        products = (e.sign() * torch.stack([e, *waves_of(e)])) @ (-e.square() / 2).exp()
    else:
        products = (beyond.sign() * torch.stack([beyond, *waves_of(beyond)])).sum(1)
    found = of_jumps(torch.tensor([distance]))[:, 0].double()
    torch.testing.assert_close(found, products[1:] / products[0], atol=0.02, rtol=0.01)


def test_a_jump_further_than_was_integrated_is_as_the_furthest():
    far = of_jumps(torch.tensor([6.0 - STEP, 7.0, 1e9, torch.inf]))
    torch.testing.assert_close(far, far[:, :1].expand_as(far))


def wrong(prediction, target):
    return (prediction.argmax(1) != target).float()


def test_of_two_classes_the_waves_are_right_before_anything_is_learned():
    """A difference of 1 wherever the margin changes its sign."""
    z = torch.tensor([[0.7, 0.0]])
    y, width = torch.tensor([0]), torch.full((1, 2), 0.6)
    expansion = Expansion(Classes(z, y), z, y)
    noise = torch.randn(500_000, 1, 2, generator=torch.Generator().manual_seed(0))
    functions = expansion.basis(noise, y, width).flatten(2)
    repeated = y.expand(500_000)
    up, down = (wrong((z + sign * width * noise)[:, 0], repeated) for sign in (1, -1))
    measured = (functions * ((up - down) / 2)[:, None]).mean(1)
    pull = measured[0]
    told = expansion.waves(z, y, width)[:, 0] * pull
    torch.testing.assert_close(told[:, 1], measured[1:, 1], atol=0.005, rtol=0.02)
    assert not told[:, 0].any()


def test_of_class_logits_waves_tell_what_no_slope_can():
    random = torch.Generator().manual_seed(0)
    r2 = {}
    for waves in (True, False):
        criterion = LearnedSurrogateLoss(wrong)
        for _ in range(80):
            target = torch.randint(5, (64,), generator=random)
            prediction = torch.randn(64, 5, generator=random)
            prediction += 2 * nn.functional.one_hot(target, 5)
            step(criterion, (prediction.requires_grad_(), target))
            if not waves and slope_of(criterion).forms:
                slope_of(criterion).forms[0].waves = None
        r2[waves] = criterion.stats["surrogate/r2"]
    assert r2[True] > r2[False] + 0.05
    assert r2[True] > 0.7


# Of the user's own nets


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
    nn.init.ones_(waves.shares.last.weight)
    waves.shares.offsets.data[1] = 1.0
    one, other, third = waves(z, y, torch.ones_like(z)).unbind(2)
    torch.testing.assert_close(one, third)
    assert not torch.isclose(one, other).any()
    assert Waves(*torch.zeros(2, 4, 33)).shares.offsets is None


@pytest.mark.parametrize(("count", "share"), [(1, 0.5**0.5), (ALL, 0.89)])
def test_how_much_there_is_to_tell_of_a_threshold_that_may_lie_anywhere(count, share):
    """By integrals over noise and thresholds, as docs/how-it-works.md has it."""
    e = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = (-e.square() / 2).exp()
    density /= density.sum()
    functions = torch.stack([e, *waves_of(e)])[:count]
    thresholds = torch.linspace(0, 6, 601, dtype=torch.float64)
    jumps = e.sign() * (e.abs() > thresholds[:, None])
    products = jumps @ (density * functions).T
    squares = functions @ (density * functions).T
    told = (products @ torch.linalg.inv(squares) * products).sum()
    assert told / (density * jumps.square()).sum() == pytest.approx(share, abs=0.005)
