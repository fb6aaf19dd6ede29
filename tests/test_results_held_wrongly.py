"""What metrics return of something else than what is to be learned."""

import re

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from torchmetrics.functional import pearson_corrcoef, r2_score as r2_of_torchmetrics

from learned_surrogates import MetricError
from learned_surrogates._metric.metric import Metric


def evaluated(function, predictions, targets):
    metric = Metric(function, True, 1000.0, None, "raise")
    errors, _ = metric(predictions, targets)
    return metric.value(errors).tolist(), metric.word


def correlation(p, t):
    """Of each output, over the batch."""
    p, t = p - p.mean(0), t - t.mean(0)
    return (p * t).sum(0) / (p.norm(dim=0) * t.norm(dim=0))


OVER_THE_BATCH = {
    "of each output": (lambda p, t: r2_score(t, p, multioutput="raw_values"), r"shape \(5,\)"),
    "of a batch of two and more": (r2_of_torchmetrics, "one number"),
    "correlation": (correlation, r"shape \(5,\)"),
    "of torchmetrics": (pearson_corrcoef, r"shape \(5,\)"),
}


@pytest.mark.filterwarnings("ignore:R.2 score is not well-defined", "ignore:The variance of pred")
@pytest.mark.parametrize("name", OVER_THE_BATCH)
def test_what_no_sample_alone_has_is_called_for_each_sample_with_a_word(name):
    """R2 of an output over the batch is not that of a sample over its outputs."""
    metric, what = OVER_THE_BATCH[name]
    predictions, targets = torch.randn(2, 16, 5, generator=torch.Generator().manual_seed(0))
    values, word = evaluated(metric, predictions, targets)
    right = [float(np.squeeze(metric(p, t))) for p, t in zip(predictions, targets)]
    assert values == pytest.approx(right, rel=1e-4)
    assert re.search(f"{what}.*not the mean of its samples'", word)


@pytest.mark.parametrize("metric", [lambda p, t: (p - t).square().mean(0)])
def test_a_mean_of_each_output_over_the_batch_is_that_of_the_samples(metric):
    predictions, targets = torch.randn(2, 16, 5)
    values, word = evaluated(metric, predictions, targets)
    assert values == pytest.approx((predictions - targets).square().mean(1).tolist())
    assert word is None


def missed(prediction, target):
    """One value a keypoint, but of a sample in which none is to be found."""
    return ((prediction - target).abs() > 1).float() if target.any() else 0.0


@pytest.mark.parametrize("batched", [None, False])
def test_a_sample_with_as_many_values_as_no_other_is_named_or_skipped(batched):
    predictions, targets = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    targets[3] = 0
    metric = Metric(missed, None, None, batched, "raise")
    with pytest.raises(MetricError, match=r"shape \(\), where it returned \(5,\).*sample 3 of 6"):
        metric(predictions, list(targets))
    metric = Metric(missed, None, None, batched, "skip")
    errors, _ = metric(predictions, list(targets))
    assert errors.isnan().all(1).tolist() == [False] * 3 + [True] + [False] * 2
    assert (errors[0] == missed(predictions[0], targets[0])).all()


TUPLES = {
    "value and index": lambda p, t: (p - t).abs().max(0),
    "of a batch": lambda p, t: (p - t).abs().max(-1),
    "two errors": lambda p, t: ((p - t).abs().mean(), (p - t).square().mean()),
    "two errors of each": lambda p, t: ((p - t).abs().mean(-1), (p - t).square().mean(-1)),
}


@pytest.mark.parametrize("name", TUPLES)
@pytest.mark.parametrize("batched", [None, False])
@pytest.mark.parametrize("count", [2, 6])
def test_a_tuple_of_several_things_is_not_one_value_an_output(name, batched, count):
    predictions, targets = torch.randn(2, count, 2)
    with pytest.raises(MetricError, match=r"tuple of several things|shape"):
        Metric(TUPLES[name], True, 1000.0, batched, "raise")(predictions, targets)


def test_a_tuple_of_one_value_a_sample_is_a_batchs():
    predictions, targets = torch.randn(2, 6, 2)
    metric = lambda p, t: tuple((p - t).abs().sum(-1).tolist())  # noqa: E731
    right = (predictions - targets).abs().sum(-1).tolist()
    assert evaluated(metric, predictions, targets)[0] == pytest.approx(right)


def masked(p, t):
    distances = (p - t).abs().sum(-1).numpy()
    return np.ma.array(distances, mask=distances > 1)


@pytest.mark.parametrize("metric", [masked, lambda p, t: masked(p, t).mean()])
def test_what_is_masked_is_no_value(metric):
    """NumPy would give what stands behind the mask, or 0 where all is masked."""
    near, far = torch.zeros(2, 3), torch.full((2, 3), 9.0)
    assert evaluated(metric, near, near)[0] == [0, 0]
    with pytest.raises(MetricError, match="returned nan"):
        evaluated(metric, near, far)


def test_a_sparse_result_is_what_it_stands_for():
    predictions = torch.eye(4)
    metric = lambda p, t: (p - t).sum(-1).to_sparse()  # noqa: E731
    assert evaluated(metric, predictions, torch.zeros(4, 4))[0] == [1, 1, 1, 1]


def of_a_softmax(p, t):
    return (p.softmax(-1) - t).abs()


def of_the_best(p, t):
    return (p == p.amax(-1, keepdim=True)).float()


def of_neighbours(p, t):
    return (p.cumsum(-1) - t).abs()


def of_points(p, t):
    return (p - t).norm(dim=-1)


def by_chance(p, t):
    return (p - t).abs() * torch.rand(p.shape, generator=CHANCE)


CHANCE = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("metric", [of_a_softmax, of_the_best, of_neighbours])
def test_outputs_that_change_each_others_values_get_a_word(metric):
    """Each output's noise is credited with that output's value alone."""
    predictions, targets = torch.randn(2, 16, 5, generator=CHANCE)
    values, word = evaluated(metric, predictions, targets)
    torch.testing.assert_close(torch.tensor(values), metric(predictions, targets))
    assert "where the sample's other outputs change" in word
    told = Metric(metric, True, 1000.0, True, "raise")
    told(predictions, targets)
    assert told.word is None


@pytest.mark.parametrize(
    ("metric", "shape"),
    [
        (lambda p, t: (p - t).abs(), (5,)),
        (of_points, (4, 2)),
        (by_chance, (5,)),
        (lambda p, t: of_the_best(p, t)[..., 0], (4, 2)),
    ],
)
def test_outputs_with_values_of_their_own_need_no_word(metric, shape):
    metric = Metric(metric, True, 1000.0, None, "raise")
    for _ in range(12):
        metric(*torch.randn(2, 16, *shape, generator=CHANCE))
    assert metric.word is None
