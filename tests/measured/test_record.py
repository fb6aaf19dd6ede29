"""What a loss is told of its calls, what it makes of that, and when its base loss steps back."""

import math
import warnings
from types import SimpleNamespace

import pytest
import torch

from learned_surrogates._evaluation.measurement import Measurement
from learned_surrogates._measured.followed import Followed
from learned_surrogates._measured.record import Record
from learned_surrogates._metric.metric import Metric

NAN = math.nan


def estimator(r2=NAN, **others):
    """Stands for one with two draws."""
    figures = {
        "r2": r2,
        "weight": 0.75,
        "updates": 3,
        "replay": SimpleNamespace(size=9),
        "silent_advice": "the draws are close",
        "stats": dict,
        "describe": lambda: ["the estimator's own"],
        "differences": lambda values: values[0] - values[1],
        "errors": lambda measured, seen: measured.mean,
    }
    return SimpleNamespace(**{**figures, **others})


def record_of(made=None, draws=2):
    """One of a metric of which higher is better, up to 5."""
    return Record(made or estimator(), Metric(max, True, 5.0, True, "skip"), draws)


def measured(first, second, usable=None):
    """Errors of two draws."""
    values = torch.tensor([first, second], dtype=torch.float64)
    every = torch.ones(len(first), dtype=torch.bool)
    return Measurement(values=values, usable=torch.tensor(usable or every.tolist()), arrived=every)


def test_figures_are_of_samples_on_which_the_metric_did_not_fail():
    record = record_of()
    one = measured([1.0, 2.0, NAN], [1.0, 3.0, 0.0], [True, True, False])
    assert record.observe(one, ())
    assert record.metric_mean == pytest.approx(5 - 7 / 4)
    assert record.signal == 0.5
    assert record.observe(measured([1.0, 2.0], [0.0, 0.0]), ())
    assert record.signal == pytest.approx(0.5 + 0.05 * (1 - 0.5))
    before = record.metric_mean, record.signal
    assert not record.observe(measured([NAN] * 4, [0.0] * 4, [False] * 4), ())
    assert (record.metric_mean, record.signal) == before
    assert record.skipped == 5


@pytest.mark.parametrize(
    ("figures", "leads"),
    [
        ({}, True),
        ({"left": 0.06}, True),
        ({"left": 0.04}, False),
        ({"left": 0.04, "signal": 0.0}, True),
        ({"left": 0.04, "signal": NAN}, True),
        ({"left": NAN, "calls": 99}, True),
        ({"left": NAN, "calls": 100}, False),
        ({"left": 1.0, "calls": 100}, True),
        # By three standard errors.
        ({"cosine": (-0.31, 0.1)}, False),
        ({"cosine": (-0.29, 0.1)}, True),
        ({"left": NAN, "calls": 100, "has_base_loss": False}, True),
    ],
)
def test_when_the_base_loss_hands_over(figures, leads):
    record = record_of()
    record.calls, record.signal = figures.get("calls", 0), figures.get("signal", 0.1)
    record.has_base_loss = figures.get("has_base_loss", True)
    record.quality = SimpleNamespace(
        base_signal_to_noise=figures.get("left", 1.0), cosine=figures.get("cosine", (NAN, NAN))
    )
    record.hand_over()
    assert record.leading == leads


@pytest.mark.parametrize(("given", "share"), [(0.25, 0.25), (0.0, 0.0), (None, 0.5)])
def test_the_share_of_the_base_loss(given, share):
    record = record_of(estimator(base_weight=0.5))
    followed = Followed(record, SimpleNamespace(base_weight=given))
    assert followed.base_share == 0
    record.has_base_loss = True
    assert followed.base_share == 1
    record.leading = False
    assert followed.base_share == share


def test_only_calls_in_a_row_are_silent():
    record = record_of()
    same, other = measured([1.0, 2.0], [1.0, 2.0]), measured([1.0, 2.0], [1.0, 2.5])
    nothing = measured([1.0, 2.0], [3.0, 4.0], [False, False])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in [*[same] * 99, other, *[same] * 99, nothing]:
            record.warn_if_silent(call)
    with pytest.warns(UserWarning, match=r"100 calls .*the draws are close.*Give base_loss="):
        record.warn_if_silent(same)


def test_calls_with_nothing_to_follow_are_told_once():
    record = record_of()
    with pytest.warns(UserWarning, match="for 100 calls the metric's values came after") as seen:
        for _ in range(200):
            record.warn_of_nothing()
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("r2", "draws", "worth"),
    [(0.5, 4, 8.0), (-0.5, 4, 4.0), (NAN, 4, 4.0), (1.0, 4, 4000.0), (0.5, 0, math.inf)],
)
def test_what_draws_are_worth(r2, draws, worth):
    stats = record_of(estimator(r2), draws).stats(0.25)
    assert stats["gradient/effective_draws"] == pytest.approx(worth)


def test_what_is_told():
    record = record_of(estimator(0.5), 4)
    record.calls = 1234
    assert record.describe() == [
        "the estimator's own",
        "R2 0.50: 4 draws do the work of 8.0",
        "calls: 1,234, updates: 3",
    ]
    for made, draws in ((estimator(), 4), (estimator(0.5), 0)):
        assert len(record_of(made, draws).describe()) == 2
    stats = record.stats(0.25)
    expected = {
        "calls": 1234,
        "updates": 3,
        "replay/size": 9,
        "surrogate/r2": 0.5,
        "surrogate/weight": 0.75,
        "base_loss/share": 0.25,
        "metric/skipped": 0,
    }
    assert {name: stats[name] for name in expected} == expected
    assert record_of(estimator(replay=None)).stats(0.0)["replay/size"] == 0


def test_a_call_without_any_finite_prediction_is_told_of_once():
    record = record_of()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record.warn_if_not_finite(torch.tensor([False, True]))
    with pytest.warns(UserWarning, match="mask it with -1e9"):
        record.warn_if_not_finite(torch.tensor([False, False]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record.warn_if_not_finite(torch.tensor([False, False]))


def test_where_draws_once_differed_the_model_is_said_to_have_left():
    record = record_of()
    record.signal = 1e-3
    with pytest.warns(UserWarning, match="has left where the metric tells"):
        for _ in range(100):
            record.warn_if_silent(measured([1.0, 2.0], [1.0, 2.0]))
