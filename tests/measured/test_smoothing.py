"""The width of the noise follows what predictions and errors vary by."""

import math

import pytest
import torch
from within import core_of

from learned_surrogates import LearnedSurrogateLoss, Tensors
from learned_surrogates._measured.smoothing import SHARE, Smoothing
from learned_surrogates._support.moderate import fill_values


def width(z, target, calls=1):
    smoothing = Smoothing(None)
    for _ in range(calls):
        smoothing.follow(z, target)
    return smoothing.width(z)


def test_a_share_of_the_outputs_spread_where_targets_differ_in_kind():
    z = 3 * torch.randn(4000, 5) + 100
    found = width(z, torch.randint(0, 5, (4000,)))
    assert len(found.unique()) == 1
    assert found.mean().item() == pytest.approx(3 * SHARE, rel=0.05)


def test_a_share_of_the_errors_where_these_are_smaller():
    target = 3 * torch.randn(4000, 5)
    found = width(target + 0.2 * torch.randn(4000, 5), target)
    assert found.mean().item() == pytest.approx(0.2 * SHARE, rel=0.05)


@pytest.mark.parametrize(
    ("of_sample", "meant"),
    [
        ((), lambda y: y[:, None]),
        ((1,), lambda y: y.squeeze(1)),
        ((2,), lambda y: y[:, 0]),  # both ends of an interval
        ((2,), lambda y: (100 * y[:, 0]).long()),  # of counts
        ((7, 2), lambda y: torch.cat([y, torch.ones(len(y), 7, 1)], 2)),  # seen or not
        ((5,), lambda y: (100 * y).long()),  # counts
    ],
)
def test_the_errors_are_those_of_what_goes_with_each_number(of_sample, meant):
    target = 3 * torch.randn(4000, *of_sample)
    if of_sample == (2,):
        target = target[:, :1].expand(-1, 2)
    scale = 1 if meant(target).is_floating_point() else 100
    z = target + 0.2 * torch.randn(4000, *of_sample)
    if of_sample == (2,):
        z = z + torch.tensor([-4.0, 4.0])  # the ends are apart, and vary by no more for that
    found = width(scale * z, meant(target))
    assert found.mean().item() == pytest.approx(0.2 * scale * SHARE, rel=0.05)


def test_classes_are_nothing_that_an_output_could_equal():
    z = torch.randn(4000, 5)
    classes = (10 * z[:, 0]).long()
    torch.testing.assert_close(width(z, classes), width(z, None))


@pytest.mark.parametrize(
    ("of_sample", "target"),
    [
        ((2,), lambda z: torch.cat([z[:, :1].sign(), 1000 * torch.rand(4000, 2)], 1)),  # and costs
        ((2,), lambda z: torch.stack([z[:, 0] > 0, torch.randint(0, 10**6, (4000,))], 1)),  # an id
        ((2,), lambda z: z[:, 0] + 5 * torch.randn(4000)),  # of a mean and a width, say
        ((24,), lambda z: torch.where(torch.rand(4000, 24) < 0.5, -100, (z > 0).long())),  # padding
    ],
)
def test_what_no_output_follows_does_not_count(of_sample, target):
    z = torch.randn(4000, *of_sample)
    torch.testing.assert_close(width(z, target(z)), width(z, None))


def test_times_in_seconds_have_the_width_of_their_errors():
    """Of 1.7e9, float32 has room for every 128th."""
    target = 1.7e9 + 3 * torch.randn(4000, 5, dtype=torch.float64)
    prediction = target + 0.2 * torch.randn(4000, 5, dtype=torch.float64)
    assert width(prediction, target).mean().item() == pytest.approx(0.2 * SHARE, rel=0.05)
    criterion = LearnedSurrogateLoss(lambda p, t: (p - t).abs().sum(-1))
    loss = criterion(prediction.requires_grad_(), target)
    expected = 5 * 0.2 * (2 * (1 + SHARE**2) / torch.pi) ** 0.5  # noise on noise
    assert loss.item() == pytest.approx(expected, rel=0.05)
    loss.backward()
    cosine = torch.cosine_similarity(prediction.grad, (prediction - target).detach().sign(), 1)
    assert cosine.mean() > 0.2


def test_outputs_that_differ_in_scale_have_widths_of_their_own():
    scales = torch.tensor([1.0, 50.0, 0.1])
    z = scales * torch.randn(4000, 3)
    torch.testing.assert_close(width(z, None), SHARE * scales, rtol=0.1, atol=0)


def test_points_differ_by_coordinate_not_by_point():
    scales = torch.tensor([1.0, 30.0])
    found = width(scales * torch.randn(1000, 7, 2), None)
    assert found.shape == (1, 2)
    torch.testing.assert_close(found[0], SHARE * scales, rtol=0.1, atol=0)


def test_many_outputs_are_taken_as_alike():
    z = torch.linspace(0.01, 1, 100) * torch.randn(500, 100)
    assert len(width(z, None).unique()) == 1


def test_single_samples_tell_over_the_calls():
    smoothing, random = Smoothing(None), torch.Generator().manual_seed(0)
    for _ in range(300):
        z = 2 * torch.randn(1, 4, generator=random)
        smoothing.follow(z, None)
    assert smoothing.width(z).mean().item() == pytest.approx(2 * SHARE, rel=0.3)


@pytest.mark.parametrize(
    "z, target",
    [
        (torch.zeros(8, 3), torch.zeros(8, 3)),
        (torch.full((8, 3), 5.0), torch.full((8, 3), 5.0)),
        (torch.ones(1, 3), torch.zeros(1, 3)),
        (torch.ones(1, 3), None),
        (torch.full((4, 2), torch.nan), None),
    ],
)
def test_what_does_not_vary_has_an_answer(z, target):
    found = width(z, target)
    assert found.isfinite().all() and (found > 0).all()


@pytest.mark.parametrize(("scale", "size"), [(1e30, "large"), (1e-30, "small")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_float32_cannot_square_is_named_once(scale, size, dtype):
    criterion = LearnedSurrogateLoss(lambda p, t: ((p - t).abs() / scale).clamp(max=9).sum(-1))
    target = scale * torch.randn(8, 3, dtype=dtype)
    prediction = (scale * torch.randn(8, 3, dtype=dtype)).requires_grad_()
    with pytest.warns(UserWarning, match=f"as {size} as .e[+-](30|29).*Scale them") as caught:
        criterion(prediction, target)
        criterion(prediction, target)
    assert len(caught) == 1


@pytest.mark.parametrize("scale", [1e17, 1e-17])
def test_what_it_can_square_is_followed(scale):
    assert width(scale * torch.randn(4000, 5), None).mean() == pytest.approx(
        scale * SHARE, rel=0.05
    )


def test_wild_samples_are_left_out():
    z = torch.randn(500, 3)
    clean = width(z, None)
    z[7], z[8] = torch.nan, torch.inf
    torch.testing.assert_close(width(z, None), clean, rtol=0.05, atol=0)


def test_followed_slowly():
    smoothing = Smoothing(None)
    z = torch.randn(500, 3)
    for _ in range(100):
        smoothing.follow(z, None)
    before = smoothing.width(z).mean()
    for _ in range(4):
        smoothing.follow(100 * z, None)
    # Variances are averaged: four calls in fifty, ten thousand times as large.
    assert before < smoothing.width(z).mean() < 30 * before


@pytest.mark.parametrize("scale", [1.0, 1e-3, 100.0])
def test_missing_labels_are_no_errors(scale):
    """One of ten in each row is missing, and later an output of which there never was one."""
    z, target = scale * torch.randn(512, 10), scale * torch.randn(512, 10)
    complete = width(z, target)
    missing = torch.arange(512)[:, None] % 10 == torch.arange(10)
    torch.testing.assert_close(
        width(z, target.masked_fill(missing, torch.nan)), complete, rtol=0.1, atol=0
    )
    near = target + 0.2 * scale * torch.randn(512, 10)
    most = torch.arange(512)[:, None] % 10 != torch.arange(10)
    found = width(near, target.masked_fill(most, torch.nan))
    torch.testing.assert_close(found, width(near, target), rtol=0.2, atol=0)
    target[:, 3] = torch.inf
    torch.testing.assert_close(width(z, target), complete, rtol=0.1, atol=0)
    torch.testing.assert_close(width(z, torch.full_like(z, torch.nan)), width(z, None))


def test_a_call_that_learns_nothing_takes_samples_of_another_size():
    """As validation does, and a check before the first call."""
    criterion = LearnedSurrogateLoss(lambda p, t: (p - t).abs().sum(-1))
    for size in (5, 7, 5):
        criterion(torch.randn(16, size, requires_grad=True), torch.randn(16, size)).backward()
    before = criterion.state_dict()
    criterion.eval()(torch.randn(16, 7, requires_grad=True), torch.randn(16, 7)).backward()
    for key, tensor in criterion.state_dict().items():
        torch.testing.assert_close(tensor, before[key])
    fresh = LearnedSurrogateLoss(lambda p, t: (p - t).abs().sum(-1))
    fresh.check([(torch.randn(16, size), torch.randn(16, size)) for size in (7, 5)], draws=16)


def test_an_output_whose_labels_come_late_has_their_spread_at_once():
    smoothing, z = Smoothing(None), torch.randn(512, 4)
    late = torch.randn(512, 4) * 10 + z
    for _ in range(20):
        smoothing.follow(z, torch.full_like(z, torch.nan))
    smoothing.follow(z, late)
    assert smoothing.moments[3].sqrt().mean().item() == pytest.approx(10, rel=0.1)


def test_maps_may_change_their_size():
    smoothing = Smoothing(None)
    for _ in range(60):
        smoothing.follow(torch.randn(64, 2, 8, 8), None)
    z = 10 * torch.randn(64, 2, 12, 6)
    smoothing.follow(z, None)
    # What they had in common counts on: one call in fifty, a hundred times the variance.
    expected = SHARE * (0.98 + 0.02 * 100) ** 0.5
    assert smoothing.width(z).mean().item() == pytest.approx(expected, rel=0.1)


def test_as_given():
    smoothing = torch.tensor([0.5, 5.0])
    criterion = LearnedSurrogateLoss(
        lambda z, y: (z - y).abs().sum(-1),
        task=Tensors(smoothing=smoothing),
        higher_is_better=False,
    )
    seen = []
    core_of(criterion).oracle.metric.function = lambda z, y: (
        seen.append(z - y),
        (z - y).abs().sum(-1),
    )[1]
    criterion(torch.zeros(5000, 2, requires_grad=True), torch.zeros(5000, 2)).backward()
    torch.testing.assert_close(torch.cat(seen[-2:]).std(0), smoothing, rtol=0.05, atol=0)
    assert "smoothing 2.75" in repr(criterion)


@pytest.mark.parametrize("smoothing, error", [(-1, ValueError), ("wide", TypeError)])
def test_what_is_no_width(smoothing, error):
    with pytest.raises(error, match="smoothing must be"):
        Tensors(smoothing=smoothing)
    with pytest.raises(ValueError, match="smoothing must be positive"):
        Tensors(smoothing=torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("mark", [-30.0, -1e4, -1e9, torch.finfo().min, -math.inf, 1e9])
def test_masked_logits_widen_nothing(mark):
    """Where a mask is filled in, at random, a logit would vary by as much as the mask is large."""
    random = torch.Generator().manual_seed(0)
    masked, plain = Smoothing(None), Smoothing(None)
    for _ in range(20):
        z = torch.randn(64, 40, generator=random)
        plain.follow(z, None)
        masked.follow(z.masked_fill(torch.rand(z.shape, generator=random) < 0.3, mark), None)
    assert masked.mean_width == pytest.approx(plain.mean_width, rel=0.03)
    assert masked.width(z).isfinite().all()


def test_one_masked_logit_in_the_first_call_widens_nothing():
    """Nothing is known by then of what the others vary by."""
    random = torch.Generator().manual_seed(0)
    masked, plain = Smoothing(None), Smoothing(None)
    z = torch.randn(64, 10, generator=random)
    plain.follow(z, None)
    z[3, 2] = -1e9
    masked.follow(z, None)
    assert masked.mean_width == pytest.approx(plain.mean_width, rel=0.01)


@pytest.mark.parametrize(
    "z",
    [
        torch.tensor([[0.0, 0, 0], [0, 5, 5.1]]),  # as of a ReLU
        torch.tensor([[0.0, 0, 1], [0, 1, 0]]),
        torch.tensor([[-3.0, -3, 3], [3, 1, 0.5]]),  # clamped
        torch.tensor([[0.1, -0.2, 0.3], [0.1, -0.1, 1e6]]),  # once, among a few
        torch.linspace(-1, 1, 64).index_fill(0, torch.tensor([5]), 12.0)[None],  # one sure class
        torch.full((2, 3), -1e9),
        torch.zeros(0, 3),
    ],
)
def test_equal_numbers_are_no_marks_for_that(z):
    assert not fill_values(z).any()


@pytest.mark.parametrize("spread, alike", [(1e-5, True), (1e-6, False), (2e-2, True)])
def test_an_output_that_hardly_varies_is_no_other_scale(spread, alike):
    """By what the others vary by or, where there are errors, by these."""
    z, target = torch.randn(2, 256, 3, generator=torch.Generator().manual_seed(0))
    z[:, 1] = 1 + spread * z[:, 1]
    smoothing = Smoothing(None)
    smoothing.follow(z, target if alike else torch.zeros(256).long())
    width = smoothing.width(z)
    assert (width > 0.1).all()
    assert width.numel() == 1 or width.max() == width.min()


def test_wavelengths_beside_degrees_are_another_scale():
    scales = torch.tensor([5e-7, 60.0])
    z, target = scales * torch.randn(2, 256, 2, generator=torch.Generator().manual_seed(0))
    smoothing = Smoothing(None)
    smoothing.follow(z, target)
    width = smoothing.width(z) / scales
    assert ((width > 0.2) & (width < 0.5)).all()


@pytest.mark.parametrize("amount", [1.0, 100.0, 5000.0])
def test_a_target_in_other_units_widens_nothing(amount):
    """As an amount of money beside a class, both of which are held against two logits."""
    random = torch.Generator().manual_seed(0)
    z = torch.randn(128, 2, generator=random)
    chance, size = torch.rand(2, 128, generator=random)
    target = torch.stack([(chance < 0.2).float(), amount * size], 1)
    smoothing = Smoothing(None)
    smoothing.follow(z, target)
    assert smoothing.mean_width == pytest.approx(SHARE, rel=0.1)
