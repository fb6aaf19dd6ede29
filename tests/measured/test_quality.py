"""What the loss says of its gradient, read in the last layer's weights."""

import math

import pytest
import torch
from conftest import assert_identical, make_loss, train
from torch import Tensor, nn
from within import core_of

from learned_surrogates import Batch, Fit, LearnedSurrogateLoss, Tensors
from learned_surrogates._measured.quality import Quality
from learned_surrogates._measured.weights import in_weights, last_layer

WIDTH = 0.4


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.Linear(5, 3), (4, 5)),
        (nn.Linear(5, 3), (4, 7, 5)),
        (nn.Conv2d(2, 3, 3), (4, 2, 8, 8)),
        (nn.Conv1d(2, 3, 3), (4, 2, 8)),
    ],
)
def test_the_last_layer_is_found(layer, shape):
    body = nn.Conv1d(shape[1], shape[1], 1) if len(shape) == 3 else nn.Identity()
    out = layer(torch.relu(body(torch.randn(shape))))
    for prediction in (out, 2 * out.flatten(1).log_softmax(-1)):
        found = last_layer(prediction)
        assert {id(part) for part in found} == {id(layer.weight), id(layer.bias)}


def test_without_a_bias_its_weights_are_the_layer():
    layer = nn.Linear(5, 3, bias=False)
    out = layer(torch.relu(nn.Linear(5, 5)(torch.randn(4, 5))))
    assert [id(part) for part in last_layer(out)] == [id(layer.weight)]


def test_there_is_none_without_a_graph_or_behind_what_is_not_pytorchs():
    assert last_layer(torch.randn(4, 3, requires_grad=True)) == []
    assert last_layer(torch.randn(4, 3)) == []
    assert last_layer(Twice.apply(nn.Linear(5, 3)(torch.randn(4, 5)))) == []


def test_gradients_in_its_weights_are_autograds():
    layer = nn.Linear(5, 3)
    out, gradient = layer(torch.randn(8, 5)), torch.randn(8, 3)
    (found,) = in_weights(
        Batch(prediction=out, target=torch.zeros(len(out))), [gradient], [layer.weight, layer.bias]
    )
    out.backward(gradient)
    expected = torch.cat([layer.weight.grad.flatten(), layer.bias.grad])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(8,), (8, 3), (8, 2, 4)])
def test_a_virtual_layer_stands_in(shape):
    z, gradient = torch.randn(shape), torch.randn(shape)
    (found,) = in_weights(Batch(prediction=z, target=torch.zeros(len(z))), [gradient], [])
    flat = z.reshape(8, -1)
    a = torch.eye(flat.shape[1], requires_grad=True)
    b = torch.zeros(flat.shape[1], requires_grad=True)
    (flat @ a.T + b).backward(gradient.reshape(8, -1))
    torch.testing.assert_close(found, torch.cat([a.grad.flatten(), b.grad]))


def above(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction > target).double().mean(-1)


def run(base_loss=None, calls: int = 500, batch: int = 64):
    """A model that stands still, called with fresh batches; its loss and what is true of it."""
    random = torch.Generator().manual_seed(0)
    model = nn.Linear(6, 4)
    with torch.no_grad():
        model.weight.copy_(torch.randn(4, 6, generator=random) / 3)
        model.bias.zero_()
    criterion = LearnedSurrogateLoss(
        above, task=Tensors(smoothing=WIDTH), surrogate="none", base_loss=base_loss
    )
    steps = []
    for _ in range(calls):
        x = torch.randn(batch, 6, generator=random) + 0.5
        y = torch.randn(batch, 4, generator=random)
        model.zero_grad()
        criterion(model(x), y).backward()
        steps.append(torch.cat([part.grad.flatten() for part in model.parameters()]))
    x, y = (
        torch.randn(200_000, 6, generator=random) + 0.5,
        torch.randn(200_000, 4, generator=random),
    )
    z, layer = model(x), list(model.parameters())
    density = (-((z - y) / WIDTH).square() / 2).exp() / (math.sqrt(2 * math.pi) * WIDTH) / 4
    each = [(density.detach() * z).sum() / len(x)]
    each += [] if base_loss is None else [base_loss(z, y)]
    truth, *of_base = (
        torch.cat([part.flatten() for part in torch.autograd.grad(loss, layer, retain_graph=True)])
        for loss in each
    )
    if base_loss is None:
        return criterion.stats, torch.stack(steps), truth
    return criterion.stats, torch.cosine_similarity(truth, *of_base, dim=0).item()


@pytest.mark.parametrize(
    "base_loss",
    [
        lambda z, y: z.mean(),
        lambda z, y: -z.mean(),
        lambda z, y: (z - y).square().mean(),
        lambda z, y: (z[:, 0] - 2 * z[:, 1]).mean(),
    ],
    ids=["the same way", "the other way", "squares", "another way"],
)
def test_the_base_losses_cosine(base_loss):
    stats, cosine = run(base_loss)
    assert stats["base_loss/cosine_error"] < 0.2
    assert stats["base_loss/cosine"] == pytest.approx(
        cosine, abs=3 * stats["base_loss/cosine_error"] + 0.05
    )


def test_the_signal_over_the_noise():
    stats, steps, truth = run()
    noise = (steps - truth).square().sum(1).mean().sqrt()
    expected = (truth.norm() / noise).item()
    assert stats["gradient/signal_to_noise"] == pytest.approx(expected, rel=0.25)


def test_without_a_base_loss_there_is_no_cosine():
    criterion = LearnedSurrogateLoss(above, task=Tensors(smoothing=WIDTH))
    for _ in range(60):
        criterion(torch.randn(16, 3, requires_grad=True), torch.randn(16, 3)).backward()
    assert math.isnan(criterion.stats["base_loss/cosine"])
    assert criterion.stats["gradient/signal_to_noise"] > 0


def test_the_users_graph_and_gradients_are_left_alone():
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    fired = []
    model[2].weight.register_post_accumulate_grad_hook(lambda p: fired.append(p))
    criterion = LearnedSurrogateLoss(above, fit=Fit(every=1), base_loss=nn.MSELoss())
    for call in range(3):
        loss = criterion(model(torch.randn(8, 3)), torch.randn(8, 2))
        assert len(fired) == call
        loss.backward()
        assert len(fired) == call + 1


@pytest.mark.parametrize(("weight", "told"), [(0.0, True), (0.5, False)])
def test_a_base_loss_with_a_share_is_not_blamed_for_balancing_the_metric(weight, told, monkeypatch):
    pytest.importorskip("matplotlib")
    from learned_surrogates._diagnosis.measured_pictures import verdict

    monkeypatch.setattr(Quality, "cosine", (-0.9, 0.05))
    criterion = make_loss("measured", base_loss=nn.MSELoss(), base_weight=weight)
    train(criterion, "measured", range(2))
    core_of(criterion).record.leading = False
    assert ("leads away from the metric" in verdict(core_of(criterion))) == told


def test_one_reading_by_hand():
    """Products are of different halves: noise that both gradients share is none of their cosine."""
    weights, ones = torch.ones(1, 2, requires_grad=True), torch.ones(2, 1)
    g, h = torch.tensor([[1.0, 0.0], [1.0, 2.0]])  # of the first sample and the second
    b, c = torch.tensor([[3.0, 0.0], [2.0, 5.0]])
    quality = Quality()
    batch = Batch(prediction=ones @ weights, target=ones)
    quality.read(batch, torch.stack([g, h]), torch.stack([b, c]))
    lengths = [2**2 + 2**2, 5**2 + 5**2]
    products = [g @ c + h @ b, b @ h + c @ g, g @ h]
    expected = torch.tensor([*lengths, *products, *(p**2 for p in products)]).double()
    assert_identical(quality.figures, expected)


def test_a_gradient_that_is_always_the_same_has_no_noise():
    quality = Quality()
    batch = Batch(prediction=torch.ones(16, 3), target=torch.zeros(16, 3))
    for _ in range(20):
        quality.read(batch, torch.full((16, 3), 0.25), None)
    noise = 1 / quality.signal_to_noise
    assert math.isnan(noise) or noise < 0.01


def reading(quality, gradient):
    quality.read(Batch(prediction=torch.ones(len(gradient), 3), target=gradient), gradient, None)


def test_a_wild_reading_counts_as_one_of_ten_times_the_usual_length():
    quality, usual = Quality(), torch.full((16, 3), 0.25)
    for _ in range(100):
        reading(quality, usual)
    before = quality.figures[0].item()
    reading(quality, 1e6 * usual)
    assert quality.figures[0].item() == pytest.approx(before * (1 + 0.02 * 99), rel=1e-3)
    reading(quality, torch.full((16, 3), torch.nan))
    assert quality.figures.isfinite().all() and quality.readings == 101


def test_a_wild_reading_among_the_first_is_bounded_too():
    quality, usual = Quality(), torch.full((16, 3), 0.25)
    for count in range(100):
        reading(quality, 1e12 * usual if count == 7 else usual)
    assert quality.figures[0].item() < 10 * 4**2 * 0.25**2 * 16**2


def test_the_order_of_a_batch_tells_nothing():
    """As of a sampler that takes a yes and a no in turns: odd and even samples are opposed."""
    found = []
    for order in (torch.arange(64), torch.arange(64).view(2, 32).T.flatten()):
        quality, random = Quality(), torch.Generator().manual_seed(0)
        signs = torch.ones(64, 1).index_fill(0, torch.arange(32), -1.0)
        for _ in range(200):
            gradient = 0.3 + signs + 0.3 * torch.randn(64, 3, generator=random)
            reading(quality, gradient[order])
        found.append(quality.signal_to_noise)
    assert found[0] > 1.5 and found[0] == pytest.approx(found[1], rel=0.25)


@pytest.mark.parametrize("unit", [1e-25, 1e-12, 1e12, 1e25])
def test_figures_have_no_unit(unit):
    """Squares, and products of four, that float32 has no room for."""
    found = []
    for scale in (1.0, unit):
        quality, random = Quality(), torch.Generator().manual_seed(0)
        for _ in range(30):
            gradient, base = torch.randn(2, 16, 3, generator=random) + 0.5
            batch = Batch(prediction=torch.ones(16, 3), target=gradient)
            quality.read(batch, scale * gradient, base)
        assert quality.figures.isfinite().all()
        found.append([*quality.cosine, quality.signal_to_noise, quality.sure_signal_to_noise])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_the_cosines_error_is_that_of_its_means():
    """Over many runs, cosines differ by what each says its error is."""
    random = torch.Generator().manual_seed(0)
    found = []
    for _ in range(60):
        quality = Quality()
        for _ in range(60):
            parts = torch.randn(2, 16, 3, generator=random)
            both = [part / 4 + torch.tensor([0.25, 0.0, 0.0]) for part in parts]
            batch = Batch(prediction=torch.ones(16, 3), target=both[0])
            quality.read(batch, both[0], 0.5 * both[1] + both[0].roll(1, 1))
        found.append(quality.cosine)
    cosines, errors = torch.tensor(found).nanmedian(0).values, torch.tensor(found)[:, 1]
    spread = torch.tensor(found)[:, 0].std()
    assert 0.2 < cosines[0] < 0.8
    assert errors.nanmedian() == pytest.approx(spread.item(), rel=0.4)


def test_hooks_of_the_user_hear_of_the_backward_pass_alone():
    layer, heard = nn.Linear(4, 3), []
    layer.weight.register_hook(heard.append)
    criterion = LearnedSurrogateLoss(lambda z, y: ((z - y).abs() > 1).float().mean(-1))
    for _ in range(8):
        prediction = layer(torch.randn(16, 4))
        prediction.retain_grad()
        prediction.register_hook(heard.append)
        loss = criterion(prediction, torch.randn(16, 3))
        assert prediction.grad is None
        loss.backward()
        assert prediction.grad is not None
    assert core_of(criterion).record.quality.readings == 2
    assert len(heard) == 16


def test_samples_one_by_one_tell_what_a_batch_does():
    """A base loss that leads the same way, another, and one that leads away."""
    torch.manual_seed(0)
    weight, base = torch.randn(3), torch.randn(3)
    for sign, other in ((1, 0.0), (0, 1.0), (-1, 0.0)):
        quality = Quality()
        for _ in range(400):
            x, noise = torch.randn(()), 0.5 * torch.randn(2, 1, 3)
            # Of which the virtual layer has the products.
            prediction = torch.ones(1, 3) + 0.1 * x
            measured = weight + noise[0]
            of_base = sign * weight + other * base + noise[1]
            quality.read(Batch(prediction=prediction, target=torch.zeros(1)), measured, of_base)
        true = torch.cosine_similarity(weight, sign * weight + other * base, dim=0).item()
        cosine, error = quality.cosine
        assert error < 0.1
        assert cosine == pytest.approx(true, abs=0.15)
        expected = weight.norm() / (0.5 * math.sqrt(3))
        assert quality.signal_to_noise == pytest.approx(expected.item(), rel=0.3)


def test_without_a_layer_samples_are_those_of_their_dimension():
    """Twice the same reading, the batch first and second."""
    z, measured, base = 1 + 0.2 * torch.randn(3, 6, 4)
    found = []
    for dim in (0, 1):
        quality = Quality()
        for _ in range(12):
            turned = [each.movedim(0, dim) for each in (z, measured, base)]
            batch = Batch(prediction=turned[0], target=torch.zeros(6), batch_dim=dim)
            quality.read(batch, *turned[1:])
        found.append((quality.signal_to_noise, *quality.cosine))
    assert found[0] == pytest.approx(found[1], nan_ok=True)
    assert found[0][0] > 0


def test_the_same_sample_again_and_again_is_both_halves():
    quality, gradient = Quality(), torch.tensor([[3.0, 4.0]])
    for _ in range(12):
        batch = Batch(prediction=torch.zeros(1, 2), target=torch.zeros(1))
        quality.read(batch, gradient, 2 * gradient)
    # A virtual layer's offsets, as its products with zeros are none; halves have half.
    halves = quality.vectors[:, -2:]
    torch.testing.assert_close(halves, torch.tensor([[1.5, 2]] * 2 + [[3, 4]] * 2))
    # The first of 12 readings has nothing to be held against; with half batches, 25 and 50 / 2.
    products = quality.figures[2:5]
    torch.testing.assert_close(products, torch.tensor([25, 25, 6.25]).double() * 11 / 12)
