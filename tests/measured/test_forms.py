"""Which surrogate's slope is fitted: recognised from shapes, types and values."""

import math

import numpy as np
import pytest
import torch
from conftest import assert_identical, l1, snapshot
from within import replay_of, slope_of

from learned_surrogates import LearnedSurrogateLoss, Replay
from learned_surrogates._measured.forms import NAMES, build, suited
from learned_surrogates._measured.forms.classes import PACE
from learned_surrogates._measured.forms.elements import _ranks
from learned_surrogates._measured.forms.pair import Pair

BATCH = 64
RANDOM = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(BATCH, *shape, generator=RANDOM)


def integers(most, *shape):
    return torch.randint(0, most, (BATCH, *shape), generator=RANDOM)


def some_255(classes):
    return classes.where(torch.rand(classes.shape, generator=RANDOM) > 0.1, 255)


def degrees():
    angle = 360 * torch.rand(BATCH, generator=RANDOM)
    return normal(2), angle


def grades():
    """0 to 4, the highest among them, of which there are four cumulative logits."""
    return torch.arange(BATCH) % 5


def assigned(last):
    """As many tokens as classes, whose true ones have larger logits."""
    y = torch.rand(BATCH, 5, generator=RANDOM).argsort(1)
    z = normal(5, 5) + 2 * torch.nn.functional.one_hot(y, 5)
    return (z if last else z.transpose(1, 2)), y


RECOGNISED = {
    "numbers": (normal(3), normal(3), ("pair", "elements", "lists")),
    "one number": (normal(1), normal(1), ("pair",)),
    "many numbers": (normal(100), normal(100), ("elements", "lists")),
    "classes": (normal(5), integers(5), ("classes",)),
    "classes with none to ignore": (normal(5), integers(6) - 1, ("classes",)),
    "tokens, classes last": (normal(7, 5), integers(5, 7), ("classes",)),
    "tokens, classes first": (normal(5, 7), integers(5, 7), ("classes",)),
    "a map of classes": (normal(5, 8, 8), integers(5, 8, 8), ("classes",)),
    "a map with 255 for none": (normal(5, 8, 8), some_255(integers(5, 8, 8)), ("classes",)),
    "an assignment, classes last": (*assigned(last=True), ("classes-last",)),
    "an assignment, classes first": (*assigned(last=False), ("classes",)),
    "too many numbers": (normal(2**15 + 1), normal(2**15 + 1), ()),
    "grades of cumulative logits": (normal(4), grades(), ("pair", "cyclic")),
    "labels": (normal(100), integers(2, 100), ("counts", "elements", "lists")),
    "labels of bool": (normal(100), integers(2, 100).bool(), ("counts", "elements", "lists")),
    "few labels": (normal(9), integers(2, 9).float(), ("counts", "elements", "lists", "pair")),
    "labels of signs": (normal(100), 2 * integers(2, 100) - 1, ("counts", "elements", "lists")),
    "masks": (normal(1, 8, 8), integers(2, 1, 8, 8), ("counts", "elements", "maps")),
    "maps": (normal(1, 8, 8), normal(1, 8, 8), ("maps",)),
    "points": (normal(17, 2), normal(17, 2), ("elements",)),
    "few points": (normal(4, 2), normal(4, 2), ("pair", "elements")),
    "ratings": (normal(5), integers(9) + 1, ("pair", "cyclic")),
    "sine and cosine against degrees": (*degrees(), ("pair", "cyclic")),
    "another size": (normal(3), normal(2), ("pair", "cyclic")),
    "another size, of more numbers": (normal(3), normal(5), ("pair",)),
    "another size, and large": (normal(100), normal(60), ()),
}


@pytest.mark.parametrize("what", RECOGNISED)
def test_what_is_handed_over_is_recognised(what):
    z, y, forms = RECOGNISED[what]
    assert suited(z, y) == forms
    for name in forms:
        surrogate = build(name, z, y)
        value = surrogate(z, y)
        assert value.shape == (BATCH,)
        assert value.isfinite().all()


def error_of(z, y):
    """Of whatever shapes: a step a number, so that nothing but draws gives a gradient."""
    return (z > 0).double().flatten(1).mean(1)


@pytest.mark.parametrize("what", RECOGNISED)
def test_the_loss_goes_on_with_it_and_says_which_it_is(what):
    z, y, forms = RECOGNISED[what]
    criterion = LearnedSurrogateLoss(
        error_of, higher_is_better=False, replay=Replay(capacity=BATCH)
    )
    for _ in range(3):
        prediction = z.clone().requires_grad_()
        criterion(prediction, y).backward()
        assert prediction.grad.isfinite().all()
        assert prediction.grad.abs().sum() > 0
    told = repr(criterion)
    if not forms:
        assert "no form fits these predictions and targets, measured only" in told
    else:
        assert f"surrogate: {', '.join(forms)}" in told
    assert tuple(slope_of(criterion).names) == forms


class Length:
    """Something of which a metric alone knows what it is."""

    def __init__(self, length):
        self.length = length


OPAQUE = {
    "lists": [[1.0] * (1 + i % 3) for i in range(BATCH)],
    "texts": ["ab"] * BATCH,
    "array of texts": np.array(["ab"] * BATCH),
    "objects": [Length(i) for i in range(BATCH)],
    "dicts": [{"boxes": [[1.0]], "labels": torch.zeros(1)}] * BATCH,
}


@pytest.mark.parametrize("kind", OPAQUE)
def test_targets_that_no_net_can_see_are_measured_only_and_it_says_so(kind):
    seen = []

    def metric(prediction, target):
        seen.append(target)
        return error_of(prediction, None)

    criterion = LearnedSurrogateLoss(
        metric, higher_is_better=False, batched=True, replay=Replay(capacity=BATCH)
    )
    for _ in range(3):
        prediction = normal(3).requires_grad_()
        criterion(prediction, OPAQUE[kind]).backward()
        assert prediction.grad.abs().sum() > 0
    assert type(seen[0]) is list
    assert "measured only" in repr(criterion)
    assert criterion.stats["replay/size"] == 0
    twin = LearnedSurrogateLoss(metric, higher_is_better=False, batched=True)
    twin.load_state_dict(criterion.state_dict())
    assert "measured only" in repr(twin)


def test_an_array_is_what_a_tensor_is():
    losses = []
    for target in (np.ones((BATCH, 3), np.float32), torch.ones(BATCH, 3)):
        criterion = LearnedSurrogateLoss(l1, higher_is_better=False, replay=Replay(capacity=BATCH))
        prediction = torch.zeros(BATCH, 3, requires_grad=True)
        losses.append([criterion(prediction, target).item() for _ in range(3)])
        assert slope_of(criterion).names
    assert losses[0] == losses[1]


def test_an_array_that_may_not_be_written_to_is_only_read():
    target = np.ones((BATCH, 3), np.float32)
    target.flags.writeable = False
    criterion = LearnedSurrogateLoss(l1, higher_is_better=False)
    assert criterion(normal(3).requires_grad_(), target).isfinite()


def test_a_metric_with_outputs_that_the_target_has_not_is_measured_only():
    criterion = LearnedSurrogateLoss(
        lambda z, y: (z > 0).double(), higher_is_better=False, replay=Replay(capacity=BATCH)
    )
    for _ in range(3):
        criterion(normal(3).requires_grad_(), normal(1)).backward()
    assert "measured only" in repr(criterion)


@pytest.mark.parametrize("name", NAMES)
def test_a_form_that_was_asked_for_and_does_not_fit_is_refused_at_the_first_call(name):
    z, y = normal(3), normal(2, 2)
    if name in ("pair", "cyclic", "embedding"):  # which take everything that is a tensor
        y = [[1.0]] * BATCH
    criterion = LearnedSurrogateLoss(error_of, higher_is_better=False, surrogate=name)
    before = snapshot(criterion)
    with pytest.raises(ValueError, match="surrogate="):
        criterion(z.requires_grad_(), y)
    assert_identical(snapshot(criterion), before)


def test_as_many_tokens_as_classes_are_taken_as_by_cross_entropy():
    """The classes are in dimension 1: moving those that are not the true one moves all tokens."""
    z, y = normal(5, 5), torch.zeros(BATCH, 5, dtype=torch.int64)
    surrogate = build("classes", z, y)
    slopes = torch.autograd.grad(surrogate(z.requires_grad_(), y).sum(), z)[0]
    # Of one token's softmax, logits that all rise by the same change nothing.
    torch.testing.assert_close(slopes.sum(1), torch.zeros(BATCH, 5), atol=1e-6, rtol=0)
    assert slopes.sum(2).abs().max() > 1e-3


@pytest.mark.parametrize(("power", "least"), [(0, 0.7), (1, 0.59), (2, 0.37)])
def test_costs_by_the_distance_of_grades_are_learned_within_some_calls(power, least):
    """Wrong or not, distances, and their squares: class by class, R2 is 0.76, 0.58 and 0.33."""
    random = torch.Generator().manual_seed(0)

    def distance(prediction, target):
        apart = (prediction.argmax(1) - target).abs().float()
        return (apart > 0).float() if power == 0 else apart**power

    criterion = LearnedSurrogateLoss(distance)
    for _ in range(40):
        target = torch.randint(8, (BATCH,), generator=random)
        near = -(torch.arange(8) - target[:, None]).abs().float()
        prediction = near + torch.randn(BATCH, 8, generator=random)
        criterion(prediction.requires_grad_(), target).backward()
    assert criterion.stats["surrogate/r2"] > least


@pytest.mark.parametrize("width", [0.1, 3.0])
def test_marks_are_counted_as_sharply_as_the_noise_has_it(width):
    """Before any fit: how often the noise lifts a logit above zero."""
    z, y = normal(9), integers(2, 9)
    sharpness = build("counts", z, y, torch.full_like(z, width)).log_sharpness.exp()[0]
    normal_one = 0.5 * (1 + torch.erf(z / (width * 2**0.5)))
    torch.testing.assert_close((sharpness * z).sigmoid(), normal_one, atol=0.02, rtol=0)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_costs_by_order_are_of_shares_of_the_way_between_the_farthest(number):
    z, y = normal(5), integers(5)
    form = build("classes", z, y)
    before = form(z, y)
    form.by_order.data[number] = 1 / PACE
    apart = (torch.arange(5) - y[:, None]).abs() / 4
    costs = (apart.sign(), apart, apart.square())[number]
    q = (z / form.scale * form.log_sharpness.exp()).softmax(1)
    torch.testing.assert_close(form(z, y) - before, (q * costs).sum(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("width", [0.1, 0.35, 3.0])
def test_the_class_that_wins_is_told_as_sharply_as_the_noise_has_it(width):
    """Before any fit: of two logits, how often the noise makes one the larger."""
    z, y = normal(2), integers(2)
    noise = torch.full_like(z, width)
    form = build("classes", z, y, noise)
    sharpness = form.log_sharpness.exp() / form.scale
    margin = z[:, 0] - z[:, 1]
    normal_one = 0.5 * (1 + torch.erf(margin / (2 * width)))
    torch.testing.assert_close((sharpness * margin).sigmoid(), normal_one, atol=0.01, rtol=0)


def test_class_logits_where_float64_is_the_default():
    torch.set_default_dtype(torch.float64)
    try:
        criterion = LearnedSurrogateLoss(error_of, higher_is_better=False)
        for _ in range(8):
            prediction = normal(5).float().requires_grad_()
            criterion(prediction, integers(5)).backward()
        assert slope_of(criterion).names == ["classes"]
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("ignored", [-100, 255])
def test_class_indices_that_are_none_may_come_after_the_surrogate_was_made(ignored):
    """As the border of a segmentation's objects, of which the first batch has none."""
    criterion = LearnedSurrogateLoss(
        error_of, higher_is_better=False, replay=Replay(capacity=BATCH)
    )
    target = integers(5)
    for call in range(4):
        prediction = normal(5).requires_grad_()
        if call >= 2:
            target[3] = ignored
        criterion(prediction, target).backward()
        assert prediction.grad.isfinite().all()
    assert slope_of(criterion).names == ["classes"]


def test_samples_of_another_size_are_measured_only_and_those_of_before_go_on():
    criterion = LearnedSurrogateLoss(
        error_of, higher_is_better=False, replay=Replay(capacity=BATCH)
    )
    for size in (6, 6, 9, 6):
        prediction = normal(size).requires_grad_()
        criterion(prediction, normal(size)).backward()
        assert prediction.grad.isfinite().all()
        assert prediction.grad.abs().sum() > 0
    assert replay_of(criterion).fields[0].shape[1:] == (6,)
    assert slope_of(criterion).names


@pytest.mark.parametrize("shape", [(6, 1), (6,)])
def test_a_number_is_seen_beside_its_difference_to_the_target(shape):
    """One value an output: predictions (n, 1), targets (n,)."""
    z, y = torch.randn(6, 1), torch.randn(shape)
    seen = Pair(z, y)._inputs(z, y)
    torch.testing.assert_close(seen, torch.stack([z[:, 0], y.flatten(), z[:, 0] - y.flatten()], 1))


def test_one_number_is_seen_beside_its_difference_to_each_of_the_prediction():
    """Such as quantiles of it."""
    z, y = torch.randn(6, 3), torch.randn(6)
    seen = Pair(z, y)._inputs(z, y)
    torch.testing.assert_close(seen, torch.cat([z, y[:, None], z - y[:, None]], 1))


@pytest.mark.parametrize("period", [360.0, 24.0])
def test_sines_and_cosines_of_what_goes_round_are_held_against_it(period):
    """A plain net of both takes a tenth of the noise away in as many calls."""
    random = torch.Generator().manual_seed(0)

    def far(prediction, target):
        angle = torch.atan2(prediction[:, 0], prediction[:, 1]) * period / (2 * torch.pi)
        apart = (angle - target + period / 2) % period - period / 2
        return (apart.abs() > period / 16).float()

    criterion = LearnedSurrogateLoss(far, higher_is_better=False)
    for _ in range(110):
        target = period * torch.rand(BATCH, generator=random)
        angle = 2 * torch.pi * target / period + 0.5 * torch.randn(BATCH, generator=random)
        vector = torch.stack([angle.sin(), angle.cos()], 1)
        vector += 0.3 * torch.randn(BATCH, 2, generator=random)
        criterion(vector.requires_grad_(), target).backward()
    assert slope_of(criterion).names == ["cyclic"]
    assert criterion.stats["surrogate/r2"] > 0.4


def first_three(scores, gains):
    """One minus NDCG@3."""
    discounts = 1 / torch.arange(2.0, 5.0).log2()
    found = gains.gather(1, scores.topk(3).indices)
    return 1 - (found @ discounts) / (gains.topk(3).values @ discounts)


def last_two(scores, gains):
    return gains.gather(1, (-scores).topk(2).indices).mean(1)


def precision(scores, gains):
    """One minus the average precision of the gains above a half."""
    marks = (gains.gather(1, scores.argsort(1, descending=True)) > 0.5).float()
    precisions = marks.cumsum(1) / torch.arange(1, 21)
    return 1 - (precisions * marks).sum(1) / marks.sum(1).clamp(min=1)


@pytest.mark.parametrize(
    ("metric", "least"), [(first_three, 0.5), (last_two, 0.42), (precision, 0.56)]
)
def test_what_counts_at_the_ends_of_lists_is_learned_within_some_calls(metric, least):
    """By the share of items below each alone, R2 is 0.38, 0.37 and 0.53."""
    random = torch.Generator().manual_seed(1)
    criterion = LearnedSurrogateLoss(metric, higher_is_better=False)
    for _ in range(40):
        gains = torch.rand(64, 20, generator=random).square()
        scores = 3 * gains + torch.randn(64, 20, generator=random)
        criterion(scores.requires_grad_(), gains).backward()
    assert criterion.stats["surrogate/r2"] > least


@pytest.mark.parametrize("width", [0.2, 0.7])
def test_soft_ranks_are_expected_ranks_under_the_noise(width):
    z, y = normal(12), normal(12)
    form = build("lists", z, y, torch.full_like(z, width))
    random = torch.Generator().manual_seed(2)
    noisy = z + width * torch.randn(2000, *z.shape, generator=random)
    below = (noisy[:, :, :, None] > noisy[:, :, None]).float().mean((0, 3))
    found = _ranks(z[..., None] * form.sharpness)
    torch.testing.assert_close(found[..., 0] / 12**0.5 + 0.5, below + 0.5 / 12, atol=0.02, rtol=0)
    for column, others in ((1, below), (2, 1 - 1 / 12 - below)):
        logarithms = (12 * others).log1p() / math.log(13)
        torch.testing.assert_close(
            found[..., column] / 12**0.5 + 0.5, logarithms, atol=0.06, rtol=0
        )
