"""What is known of sets is exact, and with it the gradient stays that of the metric's mean."""

import copy
import functools
import math
import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import assert_identical, figures, snapshot, step
from executors import ByHand
from plain_sets import (
    chance_of_highest,
    expected_of_marks,
    mean_gradient,
    random_labels,
    random_lists,
    random_masks,
)
from scipy.stats import norm
from within import core_of

from learned_surrogates import (
    LearnedSurrogateLoss,
    MetricError,
    classification,
    ranking,
    segmentation,
)
from learned_surrogates._sets.distances import Distances
from learned_surrogates._sets.hits import Hits, chances_of_highest
from learned_surrogates._sets.known import Known
from learned_surrogates.ranking._rank_parts import RankParts

BETTER = {"higher_is_better": True, "best": 1.0}


def f1(said, true):
    return 2 * (said & true).sum() / max(1, said.sum() + true.sum())


def first_is_relevant(scores, targets):
    return float(targets[scores.argmax()])


# The means


def test_the_chance_of_the_highest_is_the_integral_s():
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(1, 5, 4, generator=random, dtype=torch.float64)
    logits[0, :, 0] = torch.tensor([0.0, 0.0, 0.0, -40.0, -40.0])
    logits[0, :, 1] = torch.tensor([9.0, 0.0, -1.0, 0.0, 0.0])  # certain
    found = chances_of_highest(logits, torch.tensor(0.7, dtype=torch.float64))
    expected = [
        [[chance_of_highest(row.tolist(), 0.7, c) for row in one.T] for c in range(5)]
        for one in logits
    ]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_the_chance_of_the_highest_has_the_right_gradient():
    logits = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    width = torch.tensor(0.8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: chances_of_highest(z, width), logits)


def test_expected_ranks_are_the_sum_of_the_pairs_chances():
    scores, marks, mask = random_lists(dtype=torch.float64)
    width = torch.full((len(scores), 1), 0.4, dtype=torch.float64)
    found = RankParts(marks, mask, width).means(scores)
    for row, z in enumerate(scores.detach().numpy()):
        for half, chosen in enumerate((mask[row], marks[row] & mask[row])):
            items = chosen.nonzero()[:, 0].tolist()
            for i in range(len(z)):
                above = sum(norm.cdf((z[j] - z[i]) / 0.4 / 2**0.5) for j in items if j != i)
                expected = 1 + above if i in items else 0.0
                assert found[row, half * len(z) + i].item() == pytest.approx(expected, abs=1e-9)


def test_hits_and_claims_are_counted_and_expected_by_zone_and_class():
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 7, generator=random, dtype=torch.float64)
    marked = torch.rand(2, 3, 7, generator=random) < 0.5
    zones = torch.rand(2, 2, 7, generator=random) < 0.6
    hits = Hits(lambda z: z, marked, zones, torch.tensor(0.5, dtype=torch.float64), 0.3)
    counted = hits.of(logits).view(2, 3, 2, 3)
    expected = hits.means(logits).view(2, 3, 2, 3)
    for s, zone, c in np.ndindex(2, 2, 3):
        chosen = zones[s, zone]
        for what, items in enumerate((chosen & marked[s, c], chosen)):
            z = logits[s, c][items].numpy()
            assert counted[s, what, zone, c] == (z > 0.3).sum()
            chance = norm.cdf((z - 0.3) / 0.5).sum()
            assert expected[s, what, zone, c].item() == pytest.approx(chance)
        none = norm.sf((logits[s, c][chosen].numpy() - 0.3) / 0.5).prod()
        assert expected[s, 2, zone, c].item() == pytest.approx(none, rel=1e-4)
        said = (logits[s, c][chosen] > 0.3).any().item()
        assert counted[s, 2, zone, c].item() == pytest.approx(float(not said), abs=1e-5)


@pytest.mark.parametrize("threshold", [0.3, None])
def test_what_is_expected_is_the_mean_of_draws(threshold):
    """Else what they correct by would be of something else than what they correct."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, generator=random, dtype=torch.float64)
    marked = torch.zeros(2, 3, 4, dtype=torch.bool)
    marked[0, 0, 1] = marked[1, 2, :3] = True
    zones = torch.rand(2, 2, 4, generator=random) < 0.7
    parts = Distances(lambda z: z, marked, zones, torch.tensor(0.8, dtype=torch.float64), threshold)
    expected = parts.means(logits)
    noise = torch.randn(4000, *logits.shape, generator=random, dtype=torch.float64)
    drawn = torch.stack([parts.of(logits + 0.8 * each) for each in noise])
    error = drawn.std(0) / len(drawn) ** 0.5
    assert ((drawn.mean(0) - expected).abs() <= 5 * error + 1e-5).all()
    assert (error > 0).float().mean() > 0.5


def test_the_chance_of_an_iou_above_one_half_is_that_of_draws():
    random = torch.Generator().manual_seed(0)
    marked = torch.arange(300)[None, None] < 120
    logits = torch.randn(1, 1, 300, generator=random, dtype=torch.float64) + 1.5 * marked - 0.8
    hits = Hits(
        lambda z: z, marked, marked >= 0, torch.tensor(0.7, dtype=torch.float64), threshold=0.1
    )
    mean, found = hits.scores(hits.means(logits))[0, 4:6]
    drawn = logits + 0.7 * torch.randn(20_000, 1, 300, generator=random, dtype=torch.float64)
    said, marked = drawn[:, 0] > 0.1, marked[0, 0]
    iou = (said & marked).sum(1) / (said | marked).sum(1)
    assert 0.15 < found < 0.85
    assert found.item() == pytest.approx((iou > 0.5).float().mean().item(), abs=0.03)
    deviation = (mean - 0.5) / torch.special.ndtri(found)
    assert deviation.item() == pytest.approx(iou.std().item(), rel=0.04)


def test_the_columns_mean_has_the_known_gradient():
    """By many draws: to first order and in the mean, columns differ as the gradient says."""
    draws = 20_000
    scores, marks, mask = random_lists(count=1, n=6, dtype=torch.float64)
    z, marks, mask = (part.detach().repeat(draws, 1) for part in (scores, marks, mask))
    z, width = z.where(mask, 0.0), torch.full((draws, 1), 0.5, dtype=torch.float64)
    known = Known(RankParts(marks, mask, width), z)
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(z.shape, generator=random, dtype=torch.float64).where(mask, 0.0)
    weights = torch.linspace(-1, 1, RankParts.columns, dtype=torch.float64)
    columns = known.columns([z + width * noise, z - width * noise])[0]
    rows = (columns @ weights)[:, None] * noise / width
    error = 4.5 * rows.std(0) / math.sqrt(draws) + 1e-12
    exact = known.gradient(weights)[0]
    assert ((rows.mean(0) - exact).abs() <= error).all()
    assert (exact.abs() > error).any()


# The gradient


@pytest.mark.parametrize("how", ["draws alone", "learned", "wrong weights", "some measured"])
def test_the_gradient_is_that_of_the_mean_f1(how):
    z, true = torch.tensor([0.6, -0.4, 0.2, -0.1]), torch.tensor([1, 0, 1, 0])
    options = {"some measured": {"metric_budget": 0.5}, "draws alone": {"surrogate": "none"}}
    sets, task = 250, classification.Sets(size=4, noise=0.8)
    options = options.get(how, {})
    criterion = LearnedSurrogateLoss(f1, task=task, draws=2, correction=1.0, **BETTER, **options)
    if how == "wrong weights":
        core = core_of(criterion).estimator
        core.regression.solve = lambda: core.regression.weights.copy_(
            torch.linspace(-1, 1, task.columns)
        )
        core.control.take = lambda *_: None
        core.control.sums = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]])
    arguments = z.repeat(sets), true.repeat(sets)
    mean, error = mean_gradient(criterion, arguments, sets, calls=20)
    exact = z.double().requires_grad_()
    # All sets are alike, so that their common width moves with each as with one.
    width = 0.8 * exact.std(correction=0)
    (-expected_of_marks(exact, width, lambda said: f1(said, true))).backward()
    assert ((mean - exact.grad).abs() <= 4 * error).all()
    assert (exact.grad.abs() > 4 * error).any()
    assert (criterion.stats["surrogate/weight"] > 0) == (how != "draws alone")


def test_the_gradient_of_a_list_of_three_is_the_chance_s():
    """That the first is the highest, under noise of a width that moves with the scores."""
    sets, z = 500, torch.tensor([0.2, -0.3, 0.6])
    task = ranking.Lists(noise=1.5)
    criterion = LearnedSurrogateLoss(first_is_relevant, task=task, correction=1.0, **BETTER)
    targets = torch.tensor([1, 0, 0]).expand(sets, -1)
    mean, error = mean_gradient(criterion, (z.expand(sets, -1), targets), sets, calls=4)

    def chance(z):
        return chance_of_highest(z.tolist(), 1.5 * z.std(), 0)

    steps = 1e-3 * np.eye(3)
    z = z.double().numpy()
    exact = torch.tensor([(chance(z - step) - chance(z + step)) / 2e-3 for step in steps])
    assert ((mean - exact).abs() <= 4 * error).all()
    assert (error < 0.2 * exact.abs()).all()


def truth(criterion, arguments, metric, draws=3000):
    """The gradient of a metric of batches' mean, by draws alone."""
    estimator = core_of(criterion).estimator
    batch = criterion.task.read(*arguments)
    z, spread, width = estimator._around(batch)
    noise = torch.randn(draws, *z.shape, generator=torch.Generator().manual_seed(1))
    values = [torch.stack([metric(z + s * width * e) for e in noise]) for s in (1, -1)]
    half = (values[0] - values[1]).float() / 2
    return spread.moving(torch.einsum("ps,ps...->s...", half, noise / width) / draws)


def iou_of(masks):
    return lambda z: -segmentation.iou(z, masks)


def precision_of(marks):
    def metric(z):
        order = marks.gather(1, z.argsort(1, descending=True)).float()
        return -(order * order.cumsum(1) / torch.arange(1, 101)).sum(1) / order.sum(1)

    return metric


@pytest.mark.parametrize("kind", ["lists of 100", "masks of 16 x 16", "sets of 64"])
def test_what_is_known_points_where_the_metric_s_mean_does(kind):
    """Cosine of a set, the mean over sets; at least .95 (measured: .97 to .99)."""
    if kind == "lists of 100":
        make = functools.partial(random_lists, 4, 100)
        task, of, metric = ranking.Lists(), precision_of, ranking.average_precision
    elif kind == "masks of 16 x 16":
        make = functools.partial(random_masks, 8, 16)
        task, of, metric = segmentation.Masks(), iou_of, segmentation.iou
    else:
        make = functools.partial(random_labels, 512, 2)
        task, metric = classification.Sets(size=64), f1
    of_one = kind == "sets of 64"

    def arguments(seed):
        prediction, target = make(seed=seed)[:2]
        if of_one:
            prediction = (prediction[:, 1] - prediction[:, 0]).detach().requires_grad_()
        return prediction, target

    criterion = LearnedSurrogateLoss(metric, task=task, draws=2, correction=0.0, **BETTER)
    for seed in range(60):
        step(criterion, arguments(seed))
    prediction, target = arguments(99)
    _, found = step(criterion, (prediction, target))
    sets = len(criterion.task.read(prediction, target).target)
    if of_one:
        true = target.view(8, 64)

        def of_z(z):
            said = z[..., 0] > 0
            return -2 * (said & (true > 0)).sum(1) / (said.sum(1) + true.sum(1))

    else:
        of_z = of(target)
    exact = truth(criterion, (prediction, target), of_z, draws=4000)
    cosine = torch.cosine_similarity(found.reshape(sets, -1), exact.reshape(sets, -1), dim=1)
    assert cosine.mean() >= 0.95


def test_noise_that_the_known_gradient_does_not_need_is_left_out():
    """Two draws of 36 pixels: IoU is known so well that they would add more than they tell."""
    shares, gradients = [], {}
    for correction in (None, 0.0, 1.0):
        layer = torch.nn.Conv2d(1, 1, 3, padding=1)
        with torch.no_grad():
            layer.weight.fill_(0.1)
            layer.weight[..., 1, 1] = 2.0
            layer.bias.fill_(-1.0)
        criterion = LearnedSurrogateLoss(
            segmentation.iou, task=segmentation.Masks(), draws=2, correction=correction
        )
        for seed in range(60):
            images, masks = random_masks(16, seed=seed)
            logits = layer(images.detach())
            (gradients[correction],) = torch.autograd.grad(criterion(logits, masks), logits)
        shares.append(criterion.stats["gradient/correction"])
    assert shares[0] < 0.4
    assert shares[1:] == [0.0, 1.0]
    weighed = torch.lerp(gradients[0.0], gradients[1.0], shares[0])
    torch.testing.assert_close(gradients[None], weighed, rtol=1e-3, atol=1e-5)


def counted(calls):
    def metric(said, true):
        calls.append(1)
        return f1(said, true)

    return metric


def test_the_first_gradient_is_quiet_already():
    """By four times as much as in a call, measured before it, of this batch."""
    closed = LearnedSurrogateLoss(segmentation.iou, task=segmentation.Masks())
    drawn = LearnedSurrogateLoss(segmentation.iou, task=segmentation.Masks(), draws=2)
    batch = random_masks(32)
    exact, found = (step(criterion, batch)[1].flatten() for criterion in (closed, drawn))
    alone = LearnedSurrogateLoss(
        segmentation.iou, task=segmentation.Masks(), draws=2, surrogate="none"
    )
    noisy = step(alone, batch)[1].flatten()
    assert torch.cosine_similarity(found, exact, dim=0) > 0.8
    assert torch.cosine_similarity(noisy, exact, dim=0) < 0.5


def test_what_is_measured_ahead_is_so_once_and_where_it_is_awaited():
    def calls_of(seeds, warm=False, **options):
        calls = []
        criterion = LearnedSurrogateLoss(
            counted(calls), task=classification.Sets(size=6), draws=2, **BETTER, **options
        )
        logits, labels = random_labels(classes=2)
        if warm:
            criterion.warm_up([(logits[:, 1].detach(), labels)], updates=1)
        run(criterion, seeds)
        return len(calls)

    once = calls_of([], warm=True)  # 4 sets, 2 draws
    assert once == 8
    options = {"surrogate": "none"}, {"metric_budget": 0.5}
    plain = [calls_of(range(2), **each) for each in options]
    assert plain[1] <= plain[0]
    assert calls_of(range(2), warm=True) == plain[0] + once
    assert calls_of(range(2)) == plain[0] + 4 * once


def parity(scores, targets):
    """What no score of ranks tells."""
    return float((scores > scores[0]).sum() % 2)


def test_where_nothing_is_known_the_draws_are_followed_in_full():
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 1)
    criterion = LearnedSurrogateLoss(parity, task=ranking.Lists(), higher_is_better=False)
    zeros = 0
    for _ in range(60):
        scores = layer(torch.randn(8, 12, 8)).squeeze(-1)
        (gradient,) = torch.autograd.grad(criterion(scores, torch.rand(8, 12)), layer.weight)
        zeros += not gradient.any()
    assert zeros <= 2
    with pytest.raises(ValueError, match="there is nothing but the draws"):
        LearnedSurrogateLoss(parity, task=ranking.Lists(), surrogate="none", correction=0.0)


@pytest.mark.parametrize("at", [9, 20, 33])
def test_an_error_in_what_is_measured_ahead_changes_nothing(at):
    calls = []

    def metric(said, true):
        calls.append(1)
        if len(calls) == at:
            raise OSError("the metric's own")
        return f1(said, true)

    fails, whole = (
        LearnedSurrogateLoss(each, task=classification.Sets(size=6), draws=2, **BETTER)
        for each in (metric, f1)
    )
    before = snapshot(fails)
    with pytest.raises(MetricError):
        run(fails, range(1))
    assert_identical(snapshot(fails), before)
    assert_identical(run(fails, range(3)), run(whole, range(3)))


# What is learned


def test_nearly_all_of_a_metric_of_counts_is_known():
    criterion = LearnedSurrogateLoss(segmentation.iou, task=segmentation.Masks(), draws=2)
    for seed in range(60):
        step(criterion, random_masks(seed=seed))
    assert criterion.stats["surrogate/r2"] > 0.95
    assert criterion.stats["gradient/effective_draws"] > 40


def test_values_that_come_later_follow_what_is_known():
    by_hand = ByHand()
    criterion = LearnedSurrogateLoss(
        f1, task=classification.Sets(), executor=by_hand, reduction="sum", **BETTER
    )
    for seed in range(30):
        logits, labels = random_labels(classes=2, seed=seed)
        gradient = step(criterion, (logits[:, 1].detach().requires_grad_(), labels))[1]
        by_hand.run()
    assert gradient.any()
    assert core_of(criterion).estimator.weight > 0.9


def of_f1(**options):
    return LearnedSurrogateLoss(f1, task=classification.Sets(), **BETTER, **options)


def run(criterion, seeds):
    found = []
    for seed in seeds:
        logits, labels = random_labels(classes=2, seed=seed)
        found.append(step(criterion, (logits[:, 1].detach().requires_grad_(), labels)))
    return found


@pytest.mark.parametrize("route", ["state", "pickle"])
def test_a_run_that_was_saved_goes_on_as_one_that_was_not(route):
    whole, restored = (
        LearnedSurrogateLoss(f1, task=classification.Sets(size=6), **BETTER) for _ in range(2)
    )
    run(whole, range(15))
    assert whole.stats["gradient/correction"] < 1
    if route == "state":
        restored.load_state_dict(copy.deepcopy(whole.state_dict()), strict=True)
    else:
        restored = pickle.loads(pickle.dumps(whole))
    assert_identical(snapshot(restored), snapshot(whole))
    assert_identical(run(restored, range(15, 19)), run(whole, range(15, 19)))
    assert figures(restored) == pytest.approx(figures(whole), nan_ok=True)


def learn_on_own_batches():
    criterion = of_f1()
    run(criterion, range(100 * dist.get_rank(), 100 * dist.get_rank() + 4))
    return snapshot(criterion)


def test_processes_have_the_weights_in_common_and_draw_apart(ranks):
    first, second = ranks(learn_on_own_batches)
    assert first["weights"].any()
    assert torch.equal(first["weights"], second["weights"])
    assert not torch.equal(first["random"], second["random"])


def test_a_set_that_is_not_finite_spoils_no_other():
    logits, masks = random_masks()
    spoilt = logits.detach().clone()
    spoilt[2, 0, 0, 0] = math.nan
    criterion = LearnedSurrogateLoss(segmentation.iou, task=segmentation.Masks(), draws=2)
    loss, gradient = step(criterion, (spoilt.requires_grad_(), masks))
    assert loss.isnan()
    assert gradient.flatten(1).isfinite().all(1).tolist() == [i != 2 for i in range(6)]


def test_check_finds_the_direction_right():
    criterion = LearnedSurrogateLoss(f1, task=classification.Sets(size=8), **BETTER)
    logits, labels = random_labels(160, classes=2)
    found = criterion.check([(logits[:, 1].detach(), labels)])
    assert found.helps
    assert "hits and claims" in repr(criterion)
    assert "what is known of hits and claims" not in repr(criterion).lower().split("draws")[0]


@pytest.mark.parametrize("name", ["average_precision", "spearman"])
def test_lists_on_which_the_metric_is_not_defined_count_for_nothing(name):
    loss = getattr(ranking, f"{name}_loss")
    criterion = LearnedSurrogateLoss(getattr(ranking, name), task=ranking.Lists())
    scores, targets, mask = random_lists(6, 9)
    targets[0] = 0
    mask[1] = False
    for reduction in ("loss", "function"):
        scores.grad = None
        if reduction == "loss":
            value = criterion(scores, targets, mask)
            mean = criterion.stats["metric/mean"]
        else:
            value = loss(scores, targets, mask=mask)
        value.backward()
        found = value.item(), scores.grad.clone()
        if reduction == "loss":
            of_loss = found
    assert of_loss[0] == pytest.approx(found[0], rel=1e-5)
    assert 1 - mean == pytest.approx(found[0], rel=1e-5)
    assert not found[1][:2].any() and not of_loss[1][:2].any()
    # The function holds the width where it is, the loss lets it move.
    assert torch.cosine_similarity(of_loss[1].flatten(), found[1].flatten(), 0) > 0.8


def test_an_evaluation_without_any_value_says_so():
    def undefined_without_positives(said, true):
        if not true.any():
            raise ValueError("no positives")
        return f1(said, true)

    settings = {"on_metric_error": "skip", **BETTER}
    criterion = LearnedSurrogateLoss(
        undefined_without_positives, task=classification.Sets(), **settings
    )
    run(criterion, range(3))
    with torch.no_grad():
        assert criterion(torch.randn(20), torch.zeros(20).long()).isnan()
        assert criterion(torch.randn(20), torch.ones(20).long()).isfinite()


def test_where_next_to_nothing_is_known_the_draws_count_in_full():
    """Ranks, and what is made of them, tell nothing of whether two scores agree in sign."""
    random = torch.Generator().manual_seed(0)

    def odd(scores, targets):
        return float(scores.argmax() % 2 == scores.argmin() % 2)

    task = ranking.Lists()
    criterion = LearnedSurrogateLoss(odd, task=task, higher_is_better=False)
    layer = torch.nn.Linear(4, 1)
    for _ in range(40):
        scores = layer(torch.randn(16, 10, 4, generator=random))[..., 0]
        criterion(scores, torch.rand(16, 10, generator=random)).backward()
    assert criterion.stats["surrogate/r2"] < 0.05
    assert core_of(criterion).estimator._correction.share < 1
    assert criterion.stats["gradient/correction"] == 1


def test_it_says_how_much_of_the_correction_is_taken():
    criterion = LearnedSurrogateLoss(f1, task=classification.Sets(size=6), **BETTER)
    run(criterion, range(15))
    share = criterion.stats["gradient/correction"]
    assert share < 1
    assert f"of the draws' correction, {share:.0%} is taken" in str(criterion)
