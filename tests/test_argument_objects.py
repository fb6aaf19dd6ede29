"""`Fit`, `FitValues`, `Replay` and `Skip`."""

import dataclasses
import inspect
import math

import pytest
from conftest import l1
from within import core_of

from learned_surrogates import (
    Filter,
    Fit,
    FitValues,
    LearnedSurrogateLoss,
    Replay,
    Skip,
    Tensors,
    ranking,
    text,
)

WRONG_FIELDS = [
    (Fit, "every", 0, ValueError),
    (Fit, "every", 2.0, TypeError),
    (Fit, "steps", 0, ValueError),
    (Fit, "steps", True, TypeError),
    (Fit, "batch_size", 0, ValueError),
    (Fit, "batch_size", "64", TypeError),
    (Fit, "learning_rate", -1e-3, ValueError),
    (Fit, "learning_rate", math.nan, ValueError),
    (Fit, "learning_rate", "fast", TypeError),
    (FitValues, "every", 0, ValueError),
    (FitValues, "data", "globl", ValueError),
    (FitValues, "generator", 5, TypeError),
    (FitValues, "filter", "all", TypeError),
    (FitValues, "penalty_weight", -1, ValueError),
    (FitValues, "penalty_weight", "none", TypeError),
    (FitValues, "penalty_norm", -1, ValueError),
    (FitValues, "penalty_norm", None, TypeError),
    (FitValues, "penalty_every", 0, ValueError),
    (FitValues, "warm_up", -1, ValueError),
    (FitValues, "warm_up", 1.5, TypeError),
    (Replay, "capacity", 0, ValueError),
    (Replay, "capacity", "many", TypeError),
    (Replay, "bytes", 0, ValueError),
    (Replay, "bytes", 1e9, TypeError),
    (Replay, "save", 1, TypeError),
    (Skip, "give_up_after", 0, ValueError),
    (Skip, "give_up_after", 1.5, TypeError),
]


@pytest.mark.parametrize(("kind", "name", "value", "error"), WRONG_FIELDS)
def test_a_wrong_field_is_named_where_it_is_given(kind, name, value, error):
    with pytest.raises(error, match=rf"\b{name}\b"):
        kind(**{name: value})


@pytest.mark.parametrize("kind", [Fit, FitValues, Replay, Skip])
def test_fields_are_documented_by_keyword_and_for_good(kind):
    documentation = inspect.getdoc(kind)
    for field in dataclasses.fields(kind):
        assert f"\n    {field.name}: " in documentation
    with pytest.raises(TypeError, match="positional"):
        kind(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kind(), dataclasses.fields(kind)[0].name, 5)


def test_what_only_a_fit_to_values_knows_is_refused_where_the_gradient_is_measured():
    with pytest.raises(ValueError, match=r"fit=FitValues\(warm_up=5\) is for a surrogate that is"):
        LearnedSurrogateLoss(l1, fit=FitValues(warm_up=5))
    expected = r"surrogate='embedding'.* for it, or fit=Fit\(\.\.\.\)"
    with pytest.raises(ValueError, match=expected):
        LearnedSurrogateLoss(l1, task=text.CTC("ab"), fit=FitValues(data="local"))


@pytest.mark.parametrize("data", ["global", "local-global"])
def test_pairs_that_nothing_makes_are_refused(data):
    with pytest.raises(ValueError, match=f"data='{data}' needs generator="):
        LearnedSurrogateLoss(l1, task=Tensors(smoothing=0), fit=FitValues(data=data))


@pytest.mark.parametrize("task", [Tensors(), Tensors(smoothing=0)], ids=["measured", "values"])
def test_a_plain_fit_serves_both_ways_of_learning(task):
    criterion = LearnedSurrogateLoss(l1, task=task, fit=Fit(every=7, steps=2))
    assert "arguments: fit=Fit(every=7, steps=2)" in repr(criterion)


def test_the_repr_shows_objects_with_what_is_not_default():
    assert "arguments:" not in repr(LearnedSurrogateLoss(l1, fit=Fit(), replay=Replay()))
    criterion = LearnedSurrogateLoss(
        l1,
        task=Tensors(smoothing=0),
        fit=FitValues(warm_up=3, filter=Filter(2.0, relative=True), generator=lambda count, rng: 1),
        replay=Replay(capacity=9, save=False),
        on_metric_error=Skip(give_up_after=None),
    )
    (line,) = [line for line in repr(criterion).splitlines() if "arguments: " in line]
    assert line.split("arguments: ")[1] == (
        "fit=FitValues(generator=function(...), filter=Filter(threshold=2.0, relative=True), "
        "warm_up=3), replay=Replay(capacity=9, save=False), "
        "on_metric_error=Skip(give_up_after=None)"
    )


def test_the_papers_losses_take_fields_by_name():
    criterion = text.feds("abc", 6, every=3, filter=Filter(0.5), seed=2)
    shown = repr(criterion)
    assert "data: local, 1 x 192 of each every 3 calls" in shown
    assert "filter=Filter(threshold=0.5)" in shown
    assert "penalty_weight=0.1" in shown
    assert "every 8 calls" in repr(text.ls_ed("abc", 6, fit=Fit(every=8)))
    mixed = text.ls_ed("abc", 6, fit=FitValues(warm_up=3, batch_size=9), batch_size=7)
    fit = core_of(mixed).recipe.fit
    # What is said counts, by itself first; the rest is as published.
    assert (fit.warm_up, fit.batch_size, fit.every, fit.penalty_weight) == (3, 7, 1, 0.1)
    assert fit.generator is not None


@pytest.mark.parametrize(
    "task, metric",
    [
        (text.CTC("abc"), text.normalized_edit_distance),
        (text.CTC("abc"), text.edit_distance),
        (ranking.Lists(), ranking.spearman),
    ],
)
@pytest.mark.parametrize(
    "options", [{"fit": Fit(learning_rate=0.1)}, {"replay": Replay(capacity=3)}]
)
def test_settings_that_would_do_nothing_are_refused(task, metric, options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"{name}={name.title()}\(.*nothing is"):
        LearnedSurrogateLoss(metric, task=task, **options)
    LearnedSurrogateLoss(metric, task=task, fit=Fit(every=8), replay=Replay(save=False))
