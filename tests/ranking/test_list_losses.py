import functools
import math

import numpy as np
import pytest
import torch
from plain_ranking import CASES, N, by_draws, each, lists
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.retrieval import retrieval_recall

from learned_surrogates import ranking
from learned_surrogates.ranking import _rank_distribution

SODEEP = {
    "squared": (ranking.squared_rank_loss, "numbers"),
    "sum": (ranking.rank_sum_loss, "marks"),
    "margin": (ranking.rank_margin_loss, "marks"),
}
LOSSES = {name: (loss, kind) for name, (loss, _, kind) in CASES.items()} | SODEEP
exactly = ranking.ranks


@functools.cache
def drawn(name, noise):
    """Many draws of two lists of 100 and of one of 6."""
    kind = CASES[name][2]
    rows = [*zip(*lists(kind, 2, 2, N)), *zip(*lists(kind, 1, 1, 6))]
    draws = (24_000, 24_000, 40_000)
    return [(*row, *by_draws(name, *row, noise, count)) for row, count in zip(rows, draws)]


@pytest.mark.parametrize("name", CASES)
def test_without_much_noise_a_loss_is_one_minus_the_metric(name):
    loss, metric, kind = CASES[name]
    scores, targets = lists(kind)
    found = loss(scores, targets, noise=1e-5, reduction="none")
    np.testing.assert_allclose(found, 1 - each(metric, scores, targets), atol=1e-9)


def test_recall_is_torchmetrics():
    scores, targets = lists("marks")
    found = ranking.recall_loss(scores, targets, k=4, noise=1e-5, reduction="none")
    expected = [1 - retrieval_recall(s, t.bool(), top_k=4) for s, t in zip(scores, targets)]
    torch.testing.assert_close(found.float(), torch.stack(expected))


# By how much the expectation may be missed, beside what the draws do not know.
INEXACT = {"average precision": 2e-3}


@pytest.mark.parametrize("name", CASES)
def test_the_value_is_the_mean_under_noise(name):
    loss, *_ = CASES[name]
    for scores, targets, mean, error, _ in drawn(name, 0.3):
        found = 1 - loss(scores, targets, noise=0.3)
        assert abs(found - mean) < 4 * error + INEXACT.get(name, 5e-4)


@pytest.mark.parametrize("name", [name for name in CASES if name != "recall@1"])
@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_the_gradient_is_that_of_the_mean_under_noise(name, noise):
    """As far as 24,000 draws know it: two such estimates have a cosine of about .98."""
    loss, *_ = CASES[name]
    for scores, targets, _, _, drawn_gradient in drawn(name, noise)[:2]:
        scores = scores.clone().requires_grad_()
        (found,) = torch.autograd.grad(loss(scores, targets, noise=noise), scores)
        unit = (scores - scores.mean()) / scores.std(correction=0)
        (expected,) = torch.autograd.grad(unit, scores, -torch.tensor(drawn_gradient))
        assert torch.cosine_similarity(found, expected, dim=0) > 0.95


def test_recall_at_1_has_the_gradient_of_a_product():
    """That of an integral over the own noise, on a fine grid."""
    scores, targets = lists("one", count=1, n=8)
    scores, targets = scores[0].requires_grad_(), targets[0]
    (found,) = torch.autograd.grad(ranking.recall_loss(scores, targets, k=1, noise=0.3), scores)
    own = torch.linspace(-6, 6, 2001, dtype=torch.float64)[:, None]
    unit = (scores - scores.mean()) / scores.std(correction=0) / 0.3
    item = int(targets.argmax())
    others = torch.arange(8) != item
    first = torch.special.ndtr(unit[item] + own - unit[others]).prod(1)
    weights = torch.exp(-(own[:, 0] ** 2) / 2)
    mean = (first * weights).sum() / weights.sum()
    (expected,) = torch.autograd.grad(-mean, scores)
    assert torch.cosine_similarity(found, expected, dim=0) > 0.999


def test_all_ranks_count_without_k():
    scores, targets = lists("gains", n=40)
    whole = ranking.ndcg_loss(scores, targets, k=40, noise=0.3, reduction="none")
    found = ranking.ndcg_loss(scores, targets, noise=0.3, reduction="none")
    torch.testing.assert_close(found, whole, atol=2e-4, rtol=0)
    many = ranking.ndcg_loss(scores, targets, k=1000, noise=0.3, reduction="none")
    torch.testing.assert_close(many, whole)


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    loss, _, kind = CASES[name]
    scores, targets = lists(kind, count=2, n=6)
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, targets, noise=0.4), scores)


def test_equation_4_with_exact_ranks_is_one_minus_spearman():
    scores, targets = lists("numbers", n=30)
    found = ranking.squared_rank_loss(scores, targets, sorter=exactly, reduction="none")
    expected = [1 - spearmanr(s, t).statistic for s, t in zip(scores, targets)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_equation_7_with_exact_ranks_is_the_area_under_the_roc_curve():
    scores, targets = lists("marks", n=30)
    found = ranking.rank_sum_loss(scores, targets, sorter=exactly, reduction="none")
    relevant, n = int(targets[0].sum()), 30
    area = 1 - (n * found - (relevant + 1) / 2) / (n - relevant)
    expected = [roc_auc_score(t, s) for s, t in zip(scores, targets)]
    np.testing.assert_allclose(area, expected, rtol=1e-12)


def test_equation_10_is_the_hardest_triplet_of_ranks():
    scores, targets = lists("one", count=6, n=9)
    mask = torch.rand(6, 9, generator=torch.Generator().manual_seed(0)) < 0.8
    mask |= targets > 0
    options = {"sorter": ranking.expected_ranks, "mask": mask, "reduction": "none", "margin": 2.5}
    found = ranking.rank_margin_loss(scores, targets, **options)
    ranks = ranking.expected_ranks(scores, mask=mask)
    for row, marks, present, loss in zip(ranks.tolist(), targets, mask, found):
        p = int(marks.argmax())
        hinges = [max(0, 2.5 + row[p] - row[c]) for c in range(9) if c != p and present[c]]
        assert loss.item() == pytest.approx(max(hinges))


@pytest.mark.parametrize("name", LOSSES)
def test_reductions_and_shapes(name):
    loss, kind = LOSSES[name]
    scores, targets = lists(kind, count=6)
    single = torch.stack([loss(s, t) for s, t in zip(scores, targets)])
    assert single.shape == (6,)
    values = loss(scores, targets, reduction="none")
    # How far items are looked at goes by all lists of a call.
    torch.testing.assert_close(values, single, atol=1e-5, rtol=0)
    torch.testing.assert_close(loss(scores, targets, reduction="sum"), values.sum())
    torch.testing.assert_close(loss(scores, targets), values.mean())
    twice = [part.unflatten(0, (2, 3)) for part in (scores, targets)]
    torch.testing.assert_close(loss(*twice, reduction="none"), values.view(2, 3))
    assert loss(scores[:0], targets[:0]) == 0
    assert loss(scores[:, :0], targets[:, :0]) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_padding_changes_neither_loss_nor_gradient(name):
    loss, kind = LOSSES[name]
    scores, targets = lists(kind, n=9)
    padded, marks = (torch.full((4, 14), math.nan, dtype=torch.float64) for _ in range(2))
    mask = torch.zeros(4, 14, dtype=torch.bool)
    for row, start in enumerate((0, 2, 5, 3)):
        mask[row, start : start + 9] = True
    padded[mask], marks[mask] = scores.flatten(), targets.flatten()
    padded.requires_grad_(), scores.requires_grad_()
    found, expected = loss(padded, marks, mask=mask), loss(scores, targets)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, padded)
    (wanted,) = torch.autograd.grad(expected, scores)
    torch.testing.assert_close(gradient[mask], wanted.flatten())
    assert (gradient[~mask] == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_lists_without_a_metric_are_left_out(name):
    loss, kind = LOSSES[name]
    scores, targets = lists(kind)
    scores.requires_grad_()
    targets[1] = 0  # of one value, or without a relevant item
    mask = torch.ones(4, 20, dtype=torch.bool)
    mask[2] = False
    defined = [0, 1, 3] if name == "squared" else [0, 3]
    values = loss(scores, targets, mask=mask, reduction="none")
    assert (values[[row for row in range(4) if row not in defined]] == 0).all()
    mean = loss(scores, targets, mask=mask)
    torch.testing.assert_close(mean, values[defined].mean())
    (gradient,) = torch.autograd.grad(mean, scores)
    assert gradient.isfinite().all()
    assert (gradient[2] == 0).all()
    nothing = loss(scores[2:3], targets[2:3], mask=mask[2:3])
    assert nothing == 0
    nothing.backward()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name, dtype):
    loss, kind = LOSSES[name]
    scores, targets = lists(kind, dtype=dtype)
    scores.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(scores, targets)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(scores.float(), targets.float()))
    found.backward()
    assert scores.grad.dtype == dtype
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_targets_of_any_type(name):
    loss, kind = LOSSES[name]
    scores, targets = lists("gains" if kind != "marks" else kind)
    expected = loss(scores, targets.floor())
    torch.testing.assert_close(loss(scores, targets.long()), expected)
    if kind == "marks":
        torch.testing.assert_close(loss(scores, targets.bool()), expected)
        torch.testing.assert_close(loss(scores, 2 * targets - 1), expected)


@pytest.mark.parametrize("name", CASES)
def test_following_the_gradient_sorts_a_list(name):
    """From an order with errors near the metric's reach to one without, by plain descent."""
    loss, metric, kind = CASES[name]
    scores, targets = lists(kind, seed=5, separation=0.7)
    before = each(metric, scores, targets)
    moving = scores.clone().requires_grad_()
    optimizer = torch.optim.Adam([moving], 0.03)
    for _ in range(40):
        optimizer.zero_grad()
        loss(moving, targets, noise=0.5).backward()
        optimizer.step()
    after = each(metric, moving.detach(), targets)
    assert (1 - after).mean() < 0.4 * (1 - before).mean()


@pytest.mark.parametrize("name", LOSSES)
def test_wrong_arguments_are_named(name):
    loss, kind = LOSSES[name]
    scores, targets = lists(kind)
    with pytest.raises(ValueError, match=r"targets must have the shape of scores, \(4, 20\); got"):
        loss(scores, targets[:, 1:])
    with pytest.raises(TypeError, match="targets must be a tensor; got list"):
        loss(scores, targets.tolist())
    with pytest.raises(ValueError, match="reduction must be one of 'none', 'mean', 'sum'"):
        loss(scores, targets, reduction="batchmean")
    if name in CASES:
        with pytest.raises(ValueError, match="noise must be above 0"):
            loss(scores, targets, noise=0.0)


def test_wrong_sizes_are_named():
    scores, targets = lists("marks")
    with pytest.raises(ValueError, match="k must be at least 1"):
        ranking.recall_loss(scores, targets, k=0)
    with pytest.raises(TypeError, match="k must be an integer"):
        ranking.ndcg_loss(scores, targets, k=2.5)
    with pytest.raises(ValueError, match="margin must be at least 0"):
        ranking.rank_margin_loss(scores, targets, margin=-1)
    with pytest.raises(ValueError, match=r"sorter must return a rank for each score, \(4, 20\)"):
        ranking.rank_sum_loss(scores, targets, sorter=lambda s: s.mean(1))


@pytest.mark.parametrize("name", ["ndcg", "ndcg@3", "recall@1", "recall@10"])
@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_what_is_far_from_the_first_k_may_be_left_out(name, noise, monkeypatch):
    loss, _, kind = CASES[name]
    scores, targets = lists(kind, count=3, n=60)
    mask = torch.rand(3, 60, generator=torch.Generator().manual_seed(0)) < 0.9
    scores.requires_grad_()

    def call():
        found = loss(scores, targets, noise=noise, mask=mask)
        return found, *torch.autograd.grad(found, scores)

    found, gradient = call()
    monkeypatch.setattr(_rank_distribution, "REACH", math.inf)
    whole, expected = call()
    # Without k, far ranks go by their mean.
    exact, of_gradient = (2e-4, 1e-2) if name == "ndcg" else (2e-5, 1e-3)
    torch.testing.assert_close(found, whole, atol=exact, rtol=0)
    largest = expected.abs().max()
    torch.testing.assert_close(gradient, expected, atol=of_gradient * largest, rtol=0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_show(name, number):
    """As NaN, which gradient scalers know to skip; not as an error in the middle of a run."""
    loss, _, kind = CASES[name]
    scores, targets = lists(kind)
    scores[1, 0] = number
    found = loss(scores, targets, reduction="none")
    assert found[1].isnan()
    assert found[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_targets_that_are_not_finite_are_refused(name, number):
    """A list with one would otherwise count as having no items that matter."""
    loss, kind = LOSSES[name]
    scores, targets = lists(kind)
    targets[1, 0] = number
    with pytest.raises(ValueError, match=rf"targets must be finite; one is {number}.*mask="):
        loss(scores, targets)


@pytest.mark.parametrize("loss", [ranking.spearman_loss, ranking.squared_rank_loss])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.uint16])
def test_only_the_order_of_targets_counts_in_whatever_type(loss, dtype):
    order = torch.tensor([[3, 1, 2, 0, 2, 4]])
    scores = torch.linspace(0, 1, 6)[None]
    late = 60_000 if dtype == torch.uint16 else 1_700_000_000  # seconds since 1970
    torch.testing.assert_close(loss(scores, (late + order).to(dtype)), loss(scores, order))


def test_the_correlation_with_times_in_seconds():
    scores, order = torch.linspace(0, 1, 6), np.array([3, 1, 2, 0, 2, 4])
    found = ranking.spearman(scores, torch.tensor(1_700_000_000 + order))
    assert found == pytest.approx(spearmanr(scores, order).statistic, abs=1e-6)


@pytest.mark.parametrize("metric", [ranking.spearman, ranking.average_precision])
def test_a_metric_of_one_list_refuses_several(metric):
    scores, order = torch.linspace(0, 1, 6), torch.tensor([3, 1, 2, 0, 2, 4])
    with pytest.raises(ValueError, match="those of one list"):
        metric(scores[None], order[None])
    with pytest.raises(ValueError, match="targets must have the shape of scores"):
        metric(scores, order[:5])


@pytest.mark.parametrize("name", LOSSES)
def test_of_no_lists_and_of_lists_of_nothing_there_is_a_gradient(name):
    loss, _ = LOSSES[name]
    for shape in ((0, 5), (2, 0)):
        scores = torch.zeros(shape, requires_grad=True)
        loss(scores, torch.zeros(shape), reduction="sum").backward()
        assert scores.grad.shape == shape


@pytest.mark.parametrize("items", [0, 1, 100_003])
def test_what_does_not_vary_has_no_correlation_however_long_it_is(items):
    assert ranking.spearman(torch.arange(items).float(), torch.zeros(items)).isnan()
