"""Matching by assignment: the solver's derivative, the soft assignment, the study's losses."""

import itertools

import pytest
import torch

from benchmarks import matching
from lib.assignment import assigned, blackbox_assignment, sinkhorn


def costs(batch=6, n=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, n, n, generator=random, dtype=torch.float64)


def totals(w):
    """The cost of every permutation, `(permutations, batch)`, and those."""
    n = w.shape[1]
    orders = list(itertools.permutations(range(n)))
    return torch.stack([w[:, range(n), order].sum(1) for order in orders]), torch.tensor(orders)


def test_the_assignment_is_the_cheapest_of_all():
    w = costs()
    sums, orders = totals(w)
    assert torch.equal(assigned(w), orders[sums.argmin(0)])


@pytest.mark.parametrize("strength", [0.05, 1.0, 80.0])
def test_the_derivative_is_that_of_the_interpolation(strength):
    """Finite differences of (min_y (w + strength g) . y - min_y w . y) / strength, away from
    ties; g is the Hamming distance's, which does not depend on y."""
    w = costs().requires_grad_()
    right = torch.eye(4, dtype=torch.float64)[costs(seed=1)[:, 0].argsort(1)]
    g = 1 - 2 * right

    def interpolation(w):
        cheapest = [totals(each)[0].amin(0) for each in (w + strength * g, w)]
        return (cheapest[0] - cheapest[1]) / strength

    found = blackbox_assignment(w, strength)
    loss = (found * (1 - right) + right * (1 - found)).sum((1, 2))
    assert torch.equal(loss, 2 * (assigned(w) != right.argmax(2)).sum(1).double())
    (gradient,) = torch.autograd.grad(loss.sum(), w)
    step = 1e-6
    for place in itertools.product(range(4), range(4)):
        moved = torch.zeros(4, 4, dtype=torch.float64)
        moved[place] = step
        difference = interpolation(w.detach() + moved) - interpolation(w.detach() - moved)
        torch.testing.assert_close(gradient[:, *place], difference / (2 * step), atol=1e-6, rtol=0)
    if strength > 1:
        assert gradient.abs().sum((1, 2)).gt(0).equal(loss > 0)


def test_a_small_strength_and_a_right_assignment_have_no_derivative_but_by_a_margin():
    w = costs().requires_grad_()
    right = torch.nn.functional.one_hot(assigned(w), 4).double()

    def gradient(costs, strength, g):
        return torch.autograd.grad(blackbox_assignment(costs, strength), w, g)[0]

    assert gradient(w, 1e-9, costs(seed=2)).eq(0).all()
    assert gradient(w, 5.0, 1 - 2 * right).eq(0).all()
    assert gradient(w + 20 * right, 80.0, 1 - 2 * right).abs().sum((1, 2)).gt(0).all()


def test_sinkhorn_s_matrices_are_doubly_stochastic_and_near_the_assignment_when_cold():
    scores = -costs()
    soft = sinkhorn(scores, 200).exp()
    for dim in (1, 2):
        torch.testing.assert_close(soft.sum(dim), torch.ones(6, 4, dtype=torch.float64))
    assert torch.equal(sinkhorn(50 * scores, 500).argmax(2), assigned(-scores))


@pytest.mark.parametrize("name", matching.PROBLEMS)
def test_views_match_where_the_noise_is_out(name):
    problem = matching.PROBLEMS[name]
    data = matching.views(1.0 if problem.wrong_labels else 0.0)
    inputs, target = data["train"]
    other = matching.views(0.0)["train"]
    assert torch.equal(inputs, other[0])
    assert torch.equal(target.sort(1).values[0], torch.arange(matching.KEYPOINTS))
    changed = (problem.data["train"][1] != other[1]).float().mean().item()
    # Three in ten, of which one comes back to its place on average.
    some = 1 - 0.7**matching.KEYPOINTS
    expected = matching.WRONG - some / matching.KEYPOINTS
    assert changed == pytest.approx(expected if problem.wrong_labels else 0, abs=0.01)
    # The second view of a keypoint is as far from the first as any turn and noise take it.
    first, second = (inputs[:, view, :, :2] for view in range(2))
    second = second.gather(1, other[1][..., None].expand(-1, -1, 2))
    pairs = (torch.cdist(places, places).flatten() for places in (first, second))
    assert torch.corrcoef(torch.stack(list(pairs)))[0, 1] > 0.75


# Places of a matching depend on each other: the study asks what a value a row makes of that.
@pytest.mark.filterwarnings("ignore:metric 'wrong_matches' gives an output another value")
@pytest.mark.parametrize("method", matching.METHODS)
def test_every_loss_has_a_gradient_and_the_right_order_is_better(method):
    _, target = (part[:32] for part in matching.PROBLEMS["right matches"].data["train"])
    right = torch.nn.functional.one_hot(target, matching.KEYPOINTS).float()
    assert matching.wrong_matches(right, target).sum() == 0
    for make in matching.METHODS[method].values():
        random = torch.Generator().manual_seed(0)
        scores = (right + torch.randn(right.shape, generator=random)).requires_grad_()
        total = torch.zeros_like(scores)
        objective = make(0)
        for _ in range(6):
            total += torch.autograd.grad(objective(scores, target), scores)[0]
        # A step against the gradient raises the right pairs' scores above the others'.
        assert total[right > 0].mean() < total[right == 0].mean()
