"""Whatever form a metric has, a sample gets the value that it has alone, or it is refused."""

import copy
import operator
import random
from collections import Counter

import numpy as np
import pytest
import torch
from metrics import Made, named, of_tensors, of_texts

from learned_surrogates._metric.error import CallingFormError, MetricError
from learned_surrogates._metric.metric import Metric

NUMBER = {"suite": 1000, "long": 10_000}
pytestmark = pytest.mark.filterwarnings("ignore:.*the target comes first:UserWarning")


def some_texts(chance: random.Random) -> tuple[list[str], list[str]]:
    """A batch, of which some are right, or all."""
    letters = chance.choice(["ab", "abc ", "01234567", "aA"])
    targets = [
        "".join(chance.choices(letters, k=chance.randint(1, 7)))
        for _ in range(chance.randint(1, 5))
    ]
    wrong = chance.choice([0, 0.5, 1, 1])
    predictions = [
        "".join(chance.choices(letters, k=chance.randint(0, 7))) if chance.random() < wrong else t
        for t in targets
    ]
    return predictions, targets


def some_tensors(chance: random.Random, features: int) -> tuple[torch.Tensor, torch.Tensor]:
    random_state = torch.Generator().manual_seed(chance.getrandbits(32))
    return torch.randn(2, chance.randint(1, 5), features, generator=random_state).unbind()


def outcome(made: Made, batches: list) -> str:
    metric = Metric(made.function, True, 1e6, None, "raise")
    for predictions, targets in batches:
        right = [float(np.squeeze(made.meant(p, t))) for p, t in zip(predictions, targets)]
        given = copy.deepcopy((predictions, targets))
        try:
            errors, _ = metric(*given)
        except CallingFormError:
            assert made.unclear or made.pairs, made.how
            return "pairs" if made.pairs else "refused"
        except MetricError:
            assert not np.isfinite(right).all(), made.how  # a rate over no words, say
            return "failed"
        same = torch.equal if isinstance(predictions, torch.Tensor) else operator.eq
        assert all(map(same, given, (predictions, targets))), f"edited: {made.how}"
        values = metric.value(errors).tolist()
        assert values == pytest.approx(right, rel=1e-4, abs=1e-4), (made.how, predictions, targets)
    return "right"


def run(kind: str, number: int) -> Counter:
    outcomes: Counter = Counter()
    for seed in range(number):
        chance = random.Random(seed)
        if kind == "texts":
            made, batches = named(of_texts(chance), chance), [some_texts(chance) for _ in range(3)]
        else:
            # Of an even number, sums of differences may stay what they are when all are shifted.
            made, features = named(of_tensors(chance), chance), chance.choice([3, 5])
            batches = [some_tensors(chance, features) for _ in range(3)]
        outcomes[outcome(made, batches)] += 1
    return outcomes


@pytest.mark.parametrize("kind", ["texts", "tensors"])
def test_no_metric_is_taken_for_another(kind):
    outcomes = run(kind, NUMBER["suite"])
    assert outcomes["right"] > 0.9 * (outcomes.total() - outcomes["pairs"])
    assert outcomes["pairs"] > 50


@pytest.mark.long
@pytest.mark.parametrize("kind", ["texts", "tensors"])
def test_no_metric_of_thousands_is_taken_for_another(kind, record_property):
    outcomes = run(kind, NUMBER["long"])
    record_property("outcomes", dict(outcomes))
