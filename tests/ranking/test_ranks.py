import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from plain_ranking import lists
from scipy.stats import rankdata

from learned_surrogates import ranking
from learned_surrogates.ranking import _pairs, _rank_distribution

SOFT = {
    "expected": ranking.expected_ranks,
    "sigmoid": ranking.sigmoid_ranks,
    "blackbox": ranking.blackbox_rank,
}
ragged = torch.tensor([[True] * 7, [True] * 4 + [False] * 3, [False] * 6 + [True]])


def by_loops(scores, above):
    return [
        1 + sum(above(other - own) for j, other in enumerate(scores) if j != i)
        for i, own in enumerate(scores)
    ]


@given(st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=1, max_size=4))
def test_ranks_are_scipys(rows):
    scores = torch.tensor(rows, dtype=torch.float64)
    np.testing.assert_array_equal(ranking.ranks(scores), rankdata(-scores.numpy(), axis=1))


def test_a_transposed_view_is_ranked_without_a_warning():
    scores = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    torch.set_warn_always(True)
    try:
        found = ranking.ranks(scores.T)
    finally:
        torch.set_warn_always(False)
    assert found.equal(ranking.ranks(scores.T.contiguous()))


def test_ranks_of_ragged_lists_are_those_of_each():
    scores = torch.randint(-2, 3, (3, 7), generator=torch.Generator().manual_seed(0)).double()
    found = ranking.ranks(scores, mask=ragged)
    for row, mask, ranks in zip(scores, ragged, found):
        np.testing.assert_array_equal(ranks[mask], rankdata(-row[mask].numpy()))
        assert (ranks[~mask] == 0).all()


@pytest.mark.parametrize("noise", [0.02, 0.1, 1.0])
def test_expected_ranks_are_the_sum_over_pairs(noise):
    scores, _ = lists("numbers", n=9)
    found = ranking.expected_ranks(scores, noise=noise)
    for row, ranks in zip(scores.numpy(), found):
        unit = (row - row.mean()) / row.std()
        chance = lambda gap: (1 + math.erf(gap / (2 * noise))) / 2  # noqa: E731
        np.testing.assert_allclose(ranks, by_loops(unit, chance), rtol=1e-12)


def test_expected_ranks_are_the_mean_of_ranks_under_noise():
    scores, _ = lists("numbers", count=1, n=12)
    unit = (scores - scores.mean()) / scores.std(correction=0)
    noisy = unit + 0.3 * torch.randn(20_000, 12, generator=torch.Generator().manual_seed(0))
    drawn = ranking.ranks(noisy)
    error = drawn.std(0) / math.sqrt(len(drawn))
    found = ranking.expected_ranks(scores, noise=0.3)[0]
    assert ((found - drawn.mean(0)).abs() < 4 * error).all()


def test_without_much_noise_they_are_the_ranks():
    scores, _ = lists("numbers", n=30)
    found = ranking.expected_ranks(scores, noise=1e-6)
    torch.testing.assert_close(found, ranking.ranks(scores))


def test_sigmoid_ranks_are_equation_12_and_one():
    scores, _ = lists("numbers", n=9)
    for row, ranks in zip(scores.numpy(), ranking.sigmoid_ranks(scores)):
        expected = by_loops(row, lambda gap: 1 / (1 + math.exp(-10 * gap)))
        np.testing.assert_allclose(ranks, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["expected", "sigmoid"])
def test_gradients_of_soft_ranks(name):
    scores, _ = lists("numbers", count=3, n=7)
    scores.requires_grad_()
    assert torch.autograd.gradcheck(SOFT[name], scores)
    assert torch.autograd.gradgradcheck(SOFT[name], scores)
    assert torch.autograd.gradcheck(lambda s: SOFT[name](s, mask=ragged), scores)


@pytest.mark.parametrize("name", SOFT)
def test_any_shape(name):
    scores = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    found = SOFT[name](scores)
    assert found.shape == scores.shape
    torch.testing.assert_close(found[1, 2], SOFT[name](scores[1, 2]))
    assert SOFT[name](scores[:0]).shape == (0, 3, 7)
    assert SOFT[name](scores[..., :0]).shape == (2, 3, 0)


@pytest.mark.parametrize("name", SOFT)
def test_padding_changes_neither_ranks_nor_gradients(name):
    scores, _ = lists("numbers", count=3, n=7)
    padded = scores.masked_fill(~ragged, math.nan).requires_grad_()
    found = SOFT[name](padded, mask=ragged)
    weights = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).double()
    (gradient,) = torch.autograd.grad((found * weights).sum(), padded)
    for row, mask, ranks, slope, weight in zip(scores, ragged, found, gradient, weights):
        alone = row[mask].clone().requires_grad_()
        expected = SOFT[name](alone)
        torch.testing.assert_close(ranks[mask], expected)
        (wanted,) = torch.autograd.grad((expected * weight[mask]).sum(), alone)
        torch.testing.assert_close(slope[mask], wanted)
        assert (slope[~mask] == 0).all()
        assert (ranks[~mask] == 0).all()


def test_expected_ranks_do_not_depend_on_scale_and_order():
    scores, _ = lists("numbers", n=9)
    found = ranking.expected_ranks(scores)
    torch.testing.assert_close(ranking.expected_ranks(1e-3 * scores + 5), found)
    order = torch.tensor([3, 1, 4, 0, 5, 8, 2, 6, 7])
    torch.testing.assert_close(ranking.expected_ranks(scores[:, order]), found[:, order])


def test_lists_that_do_not_vary_are_finite():
    for value in (0.0, 0.1, 1e4):
        scores = torch.full((2, 50), value, requires_grad=True)
        found = ranking.expected_ranks(scores)
        torch.testing.assert_close(found, torch.full((2, 50), 25.5))
        (gradient,) = torch.autograd.grad(found[0, 0], scores)
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    scores = lists("numbers", n=40)[0].to(dtype).requires_grad_()
    single = scores.detach().float().requires_grad_()
    found, expected = ranking.expected_ranks(scores), ranking.expected_ranks(single)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    (half,) = torch.autograd.grad(found[:, 3].sum(), scores)
    (whole,) = torch.autograd.grad(expected[:, 3].sum(), single)
    assert half.dtype == dtype
    torch.testing.assert_close(half, whole.to(dtype))


def test_blocks_are_the_whole(monkeypatch):
    scores, targets = lists("marks", n=30)
    scores.requires_grad_()

    def everything():
        found = [ranking.expected_ranks(scores)[:, ::3].sum()]
        found += [ranking.average_precision_loss(scores, targets, noise=0.3)]
        found += [
            ranking.ndcg_loss(scores, targets, k=5),
            ranking.recall_loss(scores, targets, k=5),
        ]
        return [(value, *torch.autograd.grad(value, scores)) for value in found]

    whole = everything()
    monkeypatch.setattr(_pairs, "MOST_NUMBERS", 200)
    torch.testing.assert_close(everything(), whole)


def test_counts_are_a_chain_of_convolutions():
    chances = torch.rand(3, 11, generator=torch.Generator().manual_seed(0)).double()
    for events, most in itertools.product((0, 1, 2, 5, 8, 11), (1, 2, 4, 12)):
        found = _rank_distribution.first_counts(chances[:, :events], most)
        for row, counts in zip(chances.numpy(), found):
            expected = np.ones(1)
            for chance in row[:events]:
                expected = np.convolve(expected, [1 - chance, chance])
            expected = np.pad(expected, (0, 12))[:most]
            np.testing.assert_allclose(counts, expected, atol=1e-15)


def best_permutation(weights):
    """The ranks that minimise `weights . ranks`, by trying all."""
    every = itertools.permutations(range(1, len(weights) + 1))
    return np.array(min(every, key=lambda ranks: np.dot(weights, ranks)), dtype=float)


def test_blackbox_ranks_are_the_best_permutation_and_its_interpolation_s_gradient():
    random = np.random.default_rng(0)
    for _ in range(20):
        w, g = random.standard_normal((2, 4))
        strength = random.uniform(0.5, 3)
        scores = torch.tensor(w, requires_grad=True)
        found = ranking.blackbox_rank(scores, strength=strength)
        np.testing.assert_array_equal(found.detach(), best_permutation(w))
        (gradient,) = torch.autograd.grad((found * torch.tensor(g)).sum(), scores)

        def interpolation(at, g=g, strength=strength):
            moved = at + strength * g
            best = [best_permutation(part) @ part for part in (moved, at)]
            return (best[0] - best[1]) / strength

        step = 1e-6 * np.eye(4)
        slope = [(interpolation(w + s) - interpolation(w - s)) / 2e-6 for s in step]
        np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_blackbox_gradients_vanish_at_the_optimum_unless_there_is_a_margin():
    scores = torch.tensor([0.3, 0.9, 0.8, 0.1], requires_grad=True)
    relevant = torch.tensor([0.0, 1.0, 1.0, 0.0])

    def gradient(margin, strength=1.0):
        found = ranking.blackbox_rank(scores - margin * relevant, strength=strength)
        return torch.autograd.grad((found * relevant).sum(), scores)[0]

    # Nothing is gained by a shift of all relevant items to where they are.
    assert (ranking.blackbox_rank(scores) * relevant).sum() == 3
    assert gradient(0.6, 0.2).dot(relevant) < 0
    assert (gradient(0.0, 1e-4) == 0).all()
    with pytest.raises(RuntimeError):
        loss = ranking.blackbox_rank(scores).square().sum()
        (first,) = torch.autograd.grad(loss, scores, create_graph=True)
        first.sum().backward()


@pytest.mark.parametrize("name", SOFT)
def test_wrong_arguments_are_named(name):
    ranks, scores = SOFT[name], torch.randn(2, 5)
    with pytest.raises(TypeError, match=r"scores must be a tensor; got list\. Pad lists.*mask="):
        ranks([0.1, 0.2])
    with pytest.raises(TypeError, match="scores must be floating-point numbers"):
        ranks(torch.arange(5))
    with pytest.raises(ValueError, match="single number"):
        ranks(torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"mask must have the shape of scores, \(2, 5\)"):
        ranks(scores, mask=torch.ones(5, dtype=torch.bool))
    with pytest.raises(TypeError, match="mask must be bool"):
        ranks(scores, mask=torch.ones(2, 5))


def test_widths_must_be_above_zero():
    scores = torch.randn(5)
    with pytest.raises(ValueError, match="noise must be above 0"):
        ranking.expected_ranks(scores, noise=0)
    with pytest.raises(ValueError, match="strength must be above 0"):
        ranking.blackbox_rank(scores, strength=0)
    with pytest.raises(ValueError, match="sharpness must be above 0"):
        ranking.sigmoid_ranks(scores, sharpness=0)
    with pytest.raises(TypeError, match="sharpness must be a number"):
        ranking.sigmoid_ranks(scores, sharpness="10")


NAN, INF = math.nan, math.inf


def test_a_list_with_a_score_that_is_no_number_has_no_order():
    scores = torch.tensor([[1.0, NAN, 2.0], [1.0, 3.0, 2.0]])
    for found in (ranking.ranks(scores), ranking.blackbox_rank(scores)):
        assert found[0].isnan().all()
        assert found[1].tolist() == [3, 1, 2]
    marks = torch.tensor([0, 1, 1, 0])
    for wild in ([NAN] * 4, [1.0, 2.0, NAN, 0.0]):
        assert ranking.average_precision(torch.tensor(wild), marks).isnan()
        assert ranking.spearman(torch.tensor(wild), torch.arange(4)).isnan()
    there = torch.tensor([True, False, True])
    assert ranking.ranks(scores[0], mask=there).tolist() == [2, 0, 1]


@pytest.mark.parametrize("function", [ranking.ranks, ranking.blackbox_rank])
def test_what_is_not_there_is_below_scores_of_minus_infinity(function):
    there = torch.tensor([False, True, True, False])
    assert function(torch.tensor([5.0, -INF, 1.0, 9.0]), mask=there).tolist() == [0, 2, 1, 0]


def test_scores_of_minus_infinity_have_the_last_place_and_no_better():
    marks = torch.tensor([0, 1])
    found = [ranking.average_precision(torch.tensor([1.0, low]), marks) for low in (-INF, -1e9)]
    assert found == [0.5, 0.5]


@pytest.mark.parametrize("top", [1.2, 1.6, 2.0, 2.4])
def test_average_precision_of_one_relevant_item_near_the_top(top):
    """Value and slope against the rank's distribution."""
    scores = torch.tensor([top, 1.1, 0.9, 0.3, 0, -0.2, -0.5, -0.8, -1.2, -1.6]).double()
    scores = scores.requires_grad_()
    marks = torch.zeros(10)
    marks[0] = 1
    found = ranking.average_precision_loss(scores, marks)
    (slope,) = torch.autograd.grad(found, scores)
    unit = _pairs.standardised(scores[None], torch.ones(1, 10, dtype=torch.bool)) / 0.3
    everywhere = torch.ones_like(unit, dtype=torch.bool)
    worth = 1 / torch.arange(1.0, 11.0, dtype=torch.float64)
    exact = _rank_distribution.expected_worth(unit, everywhere, everywhere, worth, None, nodes=40)
    exact = 1 - exact[0, 0]
    (exact_slope,) = torch.autograd.grad(exact, scores)
    assert found.item() == pytest.approx(exact.item(), abs=0.002)
    assert slope[0].item() == pytest.approx(exact_slope[0].item(), rel=0.05)


def test_what_is_not_there_has_no_part_in_a_blackbox_gradient():
    scores = torch.tensor([0.2, 0.9, 0.5, 0.0], requires_grad=True)
    there = torch.tensor([True, True, True, False])
    found = ranking.blackbox_rank(scores, mask=there)
    (1 / found)[0].mul(-1).backward()  # 0 * inf where there is none
    assert scores.grad.isfinite().all()
