import math

import pytest
import torch
from hypothesis import given, strategies as st

from learned_surrogates._fitted.goodness_of_fit import goodness_of_fit

numbers = st.integers(-3, 3).map(float)


def plain_ranks(values):
    below = [sum(other < value for other in values) for value in values]
    equal = [values.count(value) for value in values]
    return [b + (e - 1) / 2 for b, e in zip(below, equal, strict=True)]


def plain_spearman(a, b):
    a, b = plain_ranks(a), plain_ranks(b)
    mean = (len(a) - 1) / 2
    covariance = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
    spread = math.sqrt(sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b))
    return covariance / spread if spread else math.nan


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=12))
def test_rank_correlation_is_spearmans_with_ties(pairs):
    values, errors = [v for v, _ in pairs], [e for _, e in pairs]
    actual = goodness_of_fit(torch.tensor(values), torch.tensor(errors))["surrogate/spearman"]
    assert actual == pytest.approx(plain_spearman(values, errors), nan_ok=True, abs=1e-9)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12))
def test_errors_are_those_of_a_plain_computation(pairs):
    values, errors = [v for v, _ in pairs], [e for _, e in pairs]
    actual = goodness_of_fit(torch.tensor(values), torch.tensor(errors))
    absolute = sum(abs(v - e) for v, e in pairs) / len(pairs)
    assert actual["surrogate/mae"] == pytest.approx(absolute)
    mean = sum(errors) / len(errors)
    wrong = sum((v - e) ** 2 for v, e in pairs)
    varies = sum((e - mean) ** 2 for e in errors)
    expected = math.sqrt(wrong / varies) if varies else math.nan
    assert actual["surrogate/nrmse"] == pytest.approx(expected, nan_ok=True)


def test_noise_of_the_errors_is_not_the_surrogates_fault():
    """With 20,000 samples, the standard error of the relative error is about .005."""
    random = torch.Generator().manual_seed(0)
    truth = 3 * torch.rand(20_000, generator=random)
    values = truth + 0.3 * torch.randn(20_000, generator=random)
    errors = truth + 0.8 * torch.randn(20_000, generator=random)
    relative = goodness_of_fit(values, errors, torch.full((20_000,), 0.8**2))["surrogate/nrmse"]
    assert relative == pytest.approx(0.3 / truth.std().item(), abs=0.03)
    assert goodness_of_fit(values, errors)["surrogate/nrmse"] > 2 * relative


def test_a_perfect_surrogate():
    errors = torch.tensor([0.0, 1.0, 5.0])
    assert goodness_of_fit(errors, errors) == {
        "surrogate/mae": 0.0,
        "surrogate/nrmse": 0.0,
        "surrogate/spearman": pytest.approx(1.0),
    }


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_samples_give_nan(count):
    figures = goodness_of_fit(torch.ones(count), torch.ones(count))
    assert math.isnan(figures["surrogate/nrmse"])
    assert math.isnan(figures["surrogate/spearman"])
    assert math.isnan(figures["surrogate/mae"]) == (count == 0)
