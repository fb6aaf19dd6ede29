"""The gradient that is handed back is that of the metric's mean under the noise."""

import math
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from within import slope_of

from learned_surrogates import LearnedSurrogateLoss, Tensors, Workers
from learned_surrogates._measured.draws import as_samples
from learned_surrogates._measured.score_function import estimate
from learned_surrogates._measured.waves import Margins, waves_of

WIDTH = 0.5


def above(prediction: Tensor, target: Tensor) -> Tensor:
    """A step: whether a number is above its target; the mean over a sample's numbers."""
    return (prediction > target).double().mean(-1)


def slope_of_above(z: Tensor, target: Tensor, width: float = WIDTH) -> Tensor:
    """d/dz of the step's mean under noise, the normal density, over the numbers of a sample."""
    x = (z - target) / width
    return (-x.square() / 2).exp() / (math.sqrt(2 * math.pi) * width) / z.shape[-1]


class Wrong(nn.Module):
    """A surrogate that rewards what the metric punishes, and far too much."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(-3.0))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.factor * (z - y).square().sum(1) + z.sum(1)


def mean_gradient(
    criterion: LearnedSurrogateLoss, z: Tensor, target: Tensor, calls: int
) -> tuple[Tensor, Tensor]:
    """Mean over calls of the gradient at z `(numbers,)`, and its standard error."""
    found = []
    batch = 500
    for _ in range(calls):
        prediction = z.expand(batch, -1).clone().requires_grad_()
        criterion(prediction, target.expand(batch, -1)).backward()
        found.append(prediction.grad * batch)
    found = torch.cat(found).double()
    return found.mean(0), found.std(0) / math.sqrt(len(found))


def assert_within(mean: Tensor, error: Tensor, truth: Tensor, times: float = 4) -> None:
    assert ((mean - truth).abs() <= times * error).all(), (mean, truth, error)
    # A test that could not tell the truth from nothing would prove nothing.
    assert (truth.abs() > times * error).any()


POINTS = torch.tensor([0.1, -0.3, 0.6]), torch.tensor([0.0, 0.2, 0.4])


@pytest.mark.parametrize("draws", [2, 8])
@pytest.mark.parametrize("surrogate", ["none", "pair", Wrong])
def test_whatever_the_surrogate(draws, surrogate):
    given = surrogate() if isinstance(surrogate, type) else surrogate
    criterion = LearnedSurrogateLoss(
        above, task=Tensors(smoothing=WIDTH), draws=draws, surrogate=given
    )
    z, target = POINTS
    mean, error = mean_gradient(criterion, z, target, 20)
    assert_within(mean, error, slope_of_above(z, target))
    assert (surrogate == "none") == math.isnan(criterion.stats["surrogate/r2"])


@pytest.mark.parametrize("waves", [0.0, 3.0])
def test_wrong_slopes_and_wrong_waves(waves):
    """Over 100,000 samples of the estimator itself, with what no regression would choose."""
    random = torch.Generator().manual_seed(0)
    z, target = POINTS
    noise = torch.randn(1, 100_000, 1, 3, generator=random)
    up, down = (above(z + sign * WIDTH * noise[0, :, 0], target) for sign in (1, -1))
    slope = torch.tensor([5.0, -7.0, 2.0])
    expansion = torch.stack([slope * WIDTH, *waves * torch.tensor([[1.0, 2, -1], [0, -1, 1]])])
    told, correction = estimate(
        ((up - down) / 2).float()[None, :, None],
        noise,
        torch.full((1, 3), WIDTH),
        (
            slope.expand(100_000, 1, 3),
            (expansion[:, None, None, None] * torch.stack([noise, *waves_of(noise)])).sum((0, -1)),
        ),
    )
    found = (told + correction)[:, 0].double()
    error = found.std(0) / 100_000**0.5
    assert_within(found.mean(0), error, slope_of_above(z, target))


def test_a_perfect_slope_leaves_no_noise():
    """The metric is linear, and so is told exactly."""
    slope = torch.tensor([1.0, -2.0, 0.5])
    noise = torch.randn(2, 50, 1, 3)
    differences = (WIDTH * noise * slope).sum(-1)
    told, correction = estimate(
        differences,
        noise,
        torch.full((1, 3), WIDTH),
        (slope.expand(50, 1, 3), differences),
    )
    torch.testing.assert_close(told[0, 0], slope)
    torch.testing.assert_close(correction, torch.zeros_like(correction), atol=1e-5, rtol=0)


def test_one_value_an_output():
    def by_number(prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction > target).double()

    z, target = POINTS
    options = {"task": Tensors(smoothing=WIDTH), "surrogate": "none"}
    mean, error = mean_gradient(LearnedSurrogateLoss(by_number, **options), z, target, 20)
    assert_within(mean, error, slope_of_above(z, target))
    _, of_mean = mean_gradient(LearnedSurrogateLoss(above, **options), z, target, 20)
    # Each output is credited with its own value alone: the others' are no noise to it.
    assert (error < 0.8 * of_mean).all()


def test_one_value_an_output_with_a_surrogate():
    def by_number(prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction > target).double()

    criterion = LearnedSurrogateLoss(by_number, task=Tensors(smoothing=WIDTH), surrogate="pair")
    z, target = POINTS
    mean, error = mean_gradient(criterion, z, target, 40)
    assert_within(mean, error, slope_of_above(z, target))
    assert criterion.stats["surrogate/weight"] > 0.3


@pytest.mark.parametrize("classes_last", [True, False])
def test_class_logits_whose_waves_are_wrong(classes_last):
    """Two tokens of two classes: a margin's noise is normal, and so is its threshold known."""

    def wrong(prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction.argmax(-1 if classes_last else 1) != target).double().mean(1)

    z = torch.tensor([[0.1, -0.3], [0.2, 0.5]])
    criterion = LearnedSurrogateLoss(wrong, task=Tensors(smoothing=WIDTH))
    found = []
    for call in range(60):
        prediction = (z if classes_last else z.T).expand(500, 2, 2).clone().requires_grad_()
        criterion(prediction, torch.tensor([0, 1]).expand(500, 2)).backward()
        found.append(500 * (prediction.grad if classes_last else prediction.grad.mT))
        if call == 5:
            (expansion,) = slope_of(criterion).forms
            assert isinstance(expansion.waves, Margins)
            expansion.waves.shares.last.bias.data += 3
    found = torch.cat(found).double()
    of_true = slope_of_above(torch.tensor([0.4, 0.3]), torch.zeros(2), WIDTH * 2**0.5)
    truth = torch.stack([-of_true, of_true])
    truth = torch.stack([truth[:, 0], truth[:, 1].flip(0)])
    assert_within(found.mean(0), found.std(0) / math.sqrt(len(found)), truth)


def test_groups_of_numbers_with_a_value_each():
    """Points in the plane, a value each: the gradient is that of their mean."""

    def far(prediction: Tensor, target: Tensor) -> Tensor:
        return ((prediction - target).norm(dim=-1) > 1).double()

    z = torch.tensor([[0.8, 0.3], [0.1, 0.2]])
    criterion = LearnedSurrogateLoss(far, task=Tensors(smoothing=WIDTH), surrogate="none")
    means = LearnedSurrogateLoss(
        lambda p, t: far(p, t).mean(-1), task=Tensors(smoothing=WIDTH), surrogate="none"
    )
    found = []
    for each in (criterion, means):
        prediction = z.expand(20_000, -1, -1).clone().requires_grad_()
        each(prediction, torch.zeros_like(prediction)).backward()
        gradient = prediction.grad.double() * len(prediction)
        found.append((gradient.mean(0), gradient.std(0) / math.sqrt(len(prediction))))
    (mean, error), (other, of_other) = found
    assert ((mean - other).abs() <= 4 * (error.square() + of_other.square()).sqrt()).all()
    assert (mean.abs() > 4 * error).any()


@pytest.mark.parametrize("budget", [0.1, 50])
def test_a_budget_of_one_in_ten(budget):
    criterion = LearnedSurrogateLoss(
        above, task=Tensors(smoothing=WIDTH), surrogate="pair", metric_budget=budget
    )
    z, target = POINTS
    mean, error = mean_gradient(criterion, z, target, 40)
    assert_within(mean, error, slope_of_above(z, target))


def test_a_metric_where_higher_is_better():
    criterion = LearnedSurrogateLoss(
        above, task=Tensors(smoothing=WIDTH), higher_is_better=True, best=1.0
    )
    z, target = POINTS
    mean, error = mean_gradient(criterion, z, target, 20)
    assert_within(mean, error, -slope_of_above(z, target))


def test_of_what_draws_correct_by_a_share_is_taken_where_a_surrogate_tells_something():
    z, target = POINTS
    losses = [
        LearnedSurrogateLoss(above, task=Tensors(smoothing=WIDTH), surrogate="pair", **options)
        for options in ({}, {"correction": 0.25})
    ]
    # Before there is a surrogate, the draws alone are followed, and in full.
    first, full = (mean_gradient(each, z, target, 1)[0] for each in losses)
    torch.testing.assert_close(first, full)
    (whole, of_whole), (mean, error) = (mean_gradient(each, z, target, 20) for each in losses)
    assert [each.stats["gradient/correction"] for each in losses] == [1.0, 0.25]
    # The noise is less, and the mean still leads the metric's way.
    assert error.norm() < 0.7 * of_whole.norm()
    assert torch.cosine_similarity(mean, slope_of_above(z, target), 0) > 0.9
    assert_within(whole, of_whole, slope_of_above(z, target))


def test_a_surrogate_that_is_worth_nothing_leaves_the_draws_as_they_are():
    class Fixed(nn.Module):
        def forward(self, z: Tensor, y: Tensor) -> Tensor:
            return -z.sum(1) + 0 * y.sum(1)

    z, target = POINTS
    criterion = LearnedSurrogateLoss(
        above, task=Tensors(smoothing=WIDTH), surrogate=Fixed(), correction=0.25
    )
    mean, error = mean_gradient(criterion, z, target, 20)
    assert criterion.stats["gradient/correction"] == 1
    assert_within(mean, error, slope_of_above(z, target))


def test_a_sample_that_fails_is_left_out():
    def fails(prediction: Tensor, target: Tensor) -> float:
        if target[0] > 10:
            raise RuntimeError("no value")
        return float((prediction > target).double().mean())

    criterion = LearnedSurrogateLoss(
        fails, task=Tensors(smoothing=WIDTH), on_metric_error="skip", surrogate="none"
    )
    prediction = torch.zeros(4, 2, requires_grad=True)
    target = torch.zeros(4, 2)
    target[1] = 20
    loss = criterion(prediction, target)
    loss.backward()
    assert loss.isfinite()
    assert not prediction.grad[1].any()
    assert prediction.grad[[0, 2, 3]].any()
    assert criterion.stats["metric/skipped"] == 1


@pytest.mark.parametrize("executor", [None, Workers(ThreadPoolExecutor, lag=2)])
def test_a_prediction_that_is_not_finite_is_left_out_whatever_the_metric_says(executor):
    """Comparisons with NaN are false, and so are finite values. It shows in its own gradient."""
    criterion = LearnedSurrogateLoss(
        above, task=Tensors(smoothing=WIDTH), higher_is_better=False, executor=executor
    )
    for _ in range(8):
        prediction = torch.full((4, 3), 10.0)
        prediction[1, 0] = torch.nan
        criterion(prediction.requires_grad_(), torch.zeros(4, 3)).backward()
        assert prediction.grad.isnan().all(1).tolist() == [False, True, False, False]
    taken_in = 8 if executor is None else 6
    assert criterion.stats["metric/skipped"] == taken_in
    assert criterion.stats["metric/mean"] == 1


@pytest.mark.parametrize("executor", [None, Workers(ThreadPoolExecutor, lag=2)])
def test_where_the_base_loss_leads_its_gradient_stays_what_it_is(executor):
    """With a class that is masked by minus infinity, cross-entropy has a gradient."""

    def wrong(logits, classes):
        return (logits.argmax(1) != classes).float()

    options = {"base_loss": nn.CrossEntropyLoss(), "base_weight": 1.0, "on_metric_error": "skip"}
    criterion = LearnedSurrogateLoss(wrong, higher_is_better=False, executor=executor, **options)
    logits = torch.randn(6, 4)
    logits[0, 3] = -torch.inf
    criterion(logits.requires_grad_(), torch.arange(6) % 3).backward()
    assert logits.grad.isfinite().all()


def test_where_the_metric_never_had_a_value_the_loss_is_none():
    """Zero would look like the best there is."""

    def failing(prediction, target):
        raise RuntimeError

    options = {"higher_is_better": False, "on_metric_error": "skip"}
    prediction = torch.randn(4, 3, requires_grad=True)
    loss = LearnedSurrogateLoss(failing, **options)(prediction, torch.zeros(4, 3))
    loss.backward()
    assert loss.isnan()
    assert not prediction.grad.any()


def test_values_that_come_later_are_not_waited_for():
    criterion = LearnedSurrogateLoss(
        above,
        higher_is_better=False,
        task=Tensors(smoothing=WIDTH),
        executor=Workers(ThreadPoolExecutor, lag=2),
        base_loss=nn.MSELoss(),
    )
    z, target = torch.randn(64, 3), torch.randn(64, 3)
    expected = 2 * (z - target) / z.numel()
    for call in range(30):
        prediction = z.clone().requires_grad_()
        criterion(prediction, target).backward()
        if call < 2:  # nothing is known: the base loss alone
            torch.testing.assert_close(prediction.grad, expected)
    stats = criterion.stats
    assert stats["surrogate/weight"] > 0
    assert stats["metric/mean"] == pytest.approx(above(z, target).mean().item(), abs=0.1)
    learned = prediction.grad - (1 - stats["surrogate/weight"]) * expected
    assert learned.abs().max() > 0


def test_what_is_told_is_taken_from_what_draws_correct():
    random = torch.Generator().manual_seed(0)
    differences, noise = torch.randn(3, 4, 2), torch.randn(3, 4, 2, 5, generator=random)
    slope, width = torch.randn(4, 2, 5, generator=random), torch.full((2, 5), 0.5)
    predicted = torch.randn(3, 4, 2, generator=random)
    told, rest = estimate(differences, noise, width, (slope, predicted))
    torch.testing.assert_close(told, slope)
    left = differences - predicted
    torch.testing.assert_close(rest, (left[..., None] * noise / 0.5).mean(0))


def test_each_output_with_its_target_is_a_sample_of_the_surrogate():
    z, target = torch.arange(24.0).view(4, 3, 2), torch.arange(12).view(4, 3)
    samples, targets = as_samples(z, target, torch.Size([3]))
    assert samples.shape == (12, 2) and targets.tolist() == list(range(12))
    assert as_samples(z, torch.arange(12).view(3, 4), torch.Size([3]))[1] is None
    assert as_samples(z, ["a", "b", "c", "d"], torch.Size([3]))[1] is None


def test_samples_that_are_lost_are_left_out():
    """Always the same ones: the others stand for themselves alone."""

    class Flaky(Executor):
        def submit(self, function, *args, **kwargs):
            future = Future()
            self.asked = not getattr(self, "asked", False)
            if self.asked:
                future.set_exception(OSError("node is gone"))
            else:
                future.set_result(function(*args, **kwargs))
            return future

    def squared(z, y):
        return (z - y).square()[:, 0]

    criterion = LearnedSurrogateLoss(
        squared,
        task=Tensors(smoothing=0.3),
        surrogate="none",
        batched=True,
        higher_is_better=False,
        reduction="sum",
        on_metric_error="skip",
        executor=Workers(Flaky(), lag=0, chunk_size=2),
    )
    total = torch.zeros(4, 1)
    for _ in range(1000):
        z = torch.ones(4, 1, requires_grad=True)
        criterion(z, torch.zeros(4, 1)).backward()
        total += z.grad
    assert not total[:2].any()
    torch.testing.assert_close(total[2:] / 1000, torch.full((2, 1), 2.0), atol=0.4, rtol=0)
