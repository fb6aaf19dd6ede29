import pytest
import torch
from torch import nn

from learned_surrogates._fitted.objective import objective
from learned_surrogates._surrogate import norm


def make_problem():
    random = torch.Generator().manual_seed(0)
    z, y = torch.randn(2, 5, 3, 2, generator=random, dtype=torch.float64)
    return z, y, torch.rand(5, generator=random, dtype=torch.float64)


def numerical_gradient_norms(surrogate, z, y, step=1e-6):
    """By central differences, sample by sample."""
    norms = []
    for i in range(len(z)):
        total = 0.0
        for index in torch.cartesian_prod(*map(torch.arange, z.shape[1:])).tolist():
            shifted = z.clone()
            shifted[(i, *index)] += step
            above = surrogate(shifted, y)[i]
            shifted[(i, *index)] -= 2 * step
            total += ((above - surrogate(shifted, y)[i]) / (2 * step)) ** 2
        norms.append(total**0.5)
    return torch.stack(norms)


@pytest.mark.parametrize(("weight", "target"), [(0.1, 1.0), (2.0, 0.3)])
def test_objective_equals_its_equation(weight, target):
    z, y, error = make_problem()
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh()).double()

    def surrogate(z, y):
        return (net(z) - net(y)).square().sum(-1)

    actual, penalty = objective(surrogate, z, y, error, penalty_weight=weight, penalty_norm=target)
    with torch.no_grad():
        norms = numerical_gradient_norms(surrogate, z, y)
        expected_penalty = (norms - target).square().mean()
        expected = (surrogate(z, y) - error).square().mean() + weight * expected_penalty
    torch.testing.assert_close(penalty, expected_penalty, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(actual.detach(), expected, rtol=1e-6, atol=1e-8)
    actual.backward()
    assert net[1].weight.grad.abs().sum() > 0
    assert not z.requires_grad


def test_objective_without_a_penalty():
    z, y, error = make_problem()
    actual, penalty = objective(
        lambda z, y: (z - y).sum((1, 2)), z, y, error, penalty_weight=0, penalty_norm=1
    )
    torch.testing.assert_close(actual, (((z - y).sum((1, 2)) - error) ** 2).mean())
    assert penalty is None


def test_norm_is_euclidean_and_smooth_at_zero():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    lengths = norm(vectors)
    torch.testing.assert_close(lengths.detach(), torch.tensor([5.0, 0.0]))
    (gradient,) = torch.autograd.grad(lengths.sum(), vectors, create_graph=True)
    torch.testing.assert_close(gradient.detach(), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    (second,) = torch.autograd.grad(gradient.square().sum(), vectors)
    assert second.isfinite().all()
