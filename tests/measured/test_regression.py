"""Running least squares: what is known of a metric's differences in terms of others."""

import numpy as np
import pytest
import torch

from learned_surrogates._measured.regression import MOMENTUM, Regression


def rows(count, weights, noise=0.1, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, len(weights)))
    d = x @ np.array(weights) + noise * random.normal(size=count)
    return torch.from_numpy(x), torch.from_numpy(d)


def test_the_weights_are_those_of_least_squares():
    regression = Regression(torch.zeros(3))
    x, d = rows(200, [1.0, -2.0, 0.5])
    regression.take(x, d)
    regression.solve()
    found, *_ = np.linalg.lstsq(x.numpy(), d.numpy(), rcond=None)
    np.testing.assert_allclose(regression.weights.numpy(), found, rtol=1e-8)


def test_what_is_doubted_takes_as_many_rows_to_be_half_believed():
    regression = Regression(torch.tensor([0.0, 100.0]))
    x, d = rows(100, [1.0, 1.0], noise=0.0)
    regression.take(x, d)
    regression.solve()
    assert regression.weights[0] == pytest.approx(1.0, abs=0.1)
    assert regression.weights[1] == pytest.approx(0.5, abs=0.1)


def test_older_calls_count_less_and_less():
    regression = Regression(torch.zeros(1))
    regression.take(*rows(100, [1.0], noise=0.0))
    for seed in range(50):
        regression.take(*rows(100, [3.0], noise=0.0, seed=seed))
    regression.solve()
    old = (1 - MOMENTUM) ** 50
    assert regression.rows == pytest.approx(100 * sum((1 - MOMENTUM) ** k for k in range(51)))
    share = old / sum((1 - MOMENTUM) ** k for k in range(51))
    assert regression.weights.item() == pytest.approx(3 - 2 * share, abs=0.02)


@pytest.mark.parametrize("wild", [1e9, -1e9, float("nan"), float("inf")])
def test_one_wild_difference_does_not_bend_the_fit(wild):
    regression = Regression(torch.zeros(2))
    for seed in range(20):
        x, d = rows(100, [1.0, -1.0], seed=seed)
        if seed == 18:
            d[0] = wild
        regression.take(x, d)
    regression.solve()
    np.testing.assert_allclose(regression.weights.numpy(), [1.0, -1.0], atol=0.05)


def test_a_column_that_never_varies_has_no_weight():
    regression = Regression(torch.ones(2))
    x, d = rows(50, [1.0, 0.0])
    x[:, 1] = 0
    regression.take(x, d)
    regression.solve()
    assert regression.weights[1] == 0
    assert regression.weights.isfinite().all()


def test_a_column_that_has_hardly_varied_is_not_worth_any_number():
    """A class that was drawn once, hardly different: its weight would be 100."""
    regression = Regression(torch.tensor([10.0, 10.0]))
    x, d = rows(50, [1.0, 0.0], noise=0.0)
    x[:, 1] = 0
    x[0, 1], d[0] = 1e-3, x[0, 0] + 0.1
    regression.take(x, d)
    regression.solve()
    assert abs(regression.weights[1]) < 0.01
