"""What the arguments say together, and what the task takes where they say nothing."""

import pytest
from executors import ByHand

from learned_surrogates import Filter, Fit, FitValues, Replay, Tensors, Workers, boxes, text
from learned_surrogates._recipe import Recipe

VALUES = Tensors(smoothing=0)


def make_recipe(**changed) -> Recipe:
    given = {
        "task": VALUES,
        "fit": Fit(),
        "replay": Replay(),
        "draws": 0,
        "base_weight": None,
        "correction": 1.0,
        "seed": 0,
        "executor": None,
        "metric_budget": None,
    }
    return Recipe(**{**given, **changed})


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("fit", {"every": 1}, TypeError),
        ("replay", Replay, TypeError),
        ("draws", -1, ValueError),
        ("draws", 2.0, TypeError),
        ("seed", -1, ValueError),
        ("seed", "a", TypeError),
        ("base_weight", 1.1, ValueError),
        ("base_weight", -0.1, ValueError),
        ("base_weight", "half", TypeError),
        ("correction", 1.1, ValueError),
        ("correction", -0.1, ValueError),
        ("correction", "half", TypeError),
        ("metric_budget", 1.5, ValueError),
        ("metric_budget", 0, ValueError),
    ],
)
def test_a_wrong_value_is_named(name, value, error):
    with pytest.raises(error, match=f"^{name} must"):
        make_recipe(**{name: value})


def test_the_ends_of_a_range_belong_to_it():
    for share in (0, 1):
        assert make_recipe(base_weight=share).base_weight == share
        measured = make_recipe(task=Tensors(), fit=Fit(), draws=2, correction=share)
        assert measured.correction == share


def test_what_is_given_is_taken():
    fit = FitValues(
        every=2,
        steps=3,
        batch_size=5,
        learning_rate=0.7,
        filter=0.4,
        penalty_weight=0.2,
        penalty_norm=0.3,
        penalty_every=4,
        warm_up=6,
    )
    recipe = make_recipe(fit=fit, replay=Replay(capacity=7, bytes=8))
    assert (recipe.fit.every, recipe.fit.steps, recipe.batch_size) == (2, 3, 5)
    assert (recipe.learning_rate, recipe.values.warm_up) == (0.7, 6)
    assert (recipe.penalty_weight, recipe.values.penalty_norm, recipe.values.penalty_every) == (
        0.2,
        0.3,
        4,
    )
    assert recipe.filter == Filter(0.4)
    assert (recipe.replay.capacity, recipe.replay.bytes) == (7, 8)


def test_what_is_not_given_is_the_tasks():
    of_boxes = make_recipe(task=boxes.Rotated())
    assert (of_boxes.batch_size, of_boxes.learning_rate, of_boxes.data) == (192, 1e-3, "local")
    assert make_recipe(task=Tensors()).learning_rate == 5e-3
    of_text = make_recipe(task=text.CTC("ab").for_surrogate("embedding"))
    assert (of_text.batch_size, of_text.penalty_weight, of_text.data) == (64, 0.1, "local-global")
    assert isinstance(of_text.generator, text.RandomEdits)


def test_nought_is_given_too():
    task = text.CTC("ab").for_surrogate("embedding")
    recipe = make_recipe(task=task, fit=FitValues(penalty_weight=0, learning_rate=0))
    assert (recipe.penalty_weight, recipe.learning_rate) == (0, 0)


def test_the_users_generator_comes_before_the_tasks():
    def generator(count, rng):
        raise AssertionError("called")

    task = text.CTC("ab").for_surrogate("embedding")
    assert make_recipe(task=task, fit=FitValues(generator=generator)).generator is generator
    assert make_recipe(fit=FitValues(generator=generator)).data == "local-global"


@pytest.mark.parametrize(
    ("others", "allowed"),
    [
        ({"executor": Workers(ByHand(), lag=0)}, True),
        ({"executor": Workers(ByHand(), lag=1)}, False),
        ({"executor": Workers(ByHand())}, False),
        ({"metric_budget": 0.5}, False),
    ],
)
def test_a_filter_needs_all_values_in_the_call(others, allowed):
    if allowed:
        assert make_recipe(fit=FitValues(filter=0.5), **others).filter == Filter(0.5)
    else:
        with pytest.raises(ValueError, match=r"^filter= compares"):
            make_recipe(fit=FitValues(filter=0.5), **others)


def test_a_fit_to_values_is_refused_where_the_gradient_is_measured():
    with pytest.raises(ValueError, match=r"^fit=FitValues\(\) is for a surrogate"):
        make_recipe(task=Tensors(), fit=FitValues())


def test_pairs_that_nothing_makes_are_refused():
    with pytest.raises(ValueError, match=r"^data='global' needs generator="):
        make_recipe(fit=FitValues(data="global"))
