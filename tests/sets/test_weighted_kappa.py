"""What is known of classes in an order: distances from the true one, and kappas made of them."""

import pytest
import torch
from conftest import step
from plain_sets import chance_of_highest, random_labels
from sklearn.metrics import cohen_kappa_score
from torch.nn.functional import one_hot

from learned_surrogates import LearnedSurrogateLoss, classification
from learned_surrogates._sets.distances import Distances


def known_of(labels, classes, there, width):
    marked = (one_hot(labels, classes).T[None] > 0) & there
    return Distances(lambda z: z, marked, there[None, None], torch.tensor(width).double(), None)


@pytest.mark.parametrize("weights", ["linear", "quadratic"])
def test_the_last_scores_are_weighted_kappas(weights):
    logits, labels = random_labels(40, classes=5)
    there = torch.arange(40) < 33
    known = known_of(labels, 5, there, 1.0)
    found = known.scores(known.of(logits.T[None].double()))[0, -2 if weights == "linear" else -1]
    expected = cohen_kappa_score(labels[there], logits.argmax(1)[there], weights=weights)
    assert found.item() == pytest.approx(expected, abs=1e-9)


def test_expected_distances_are_sums_of_chances():
    logits, labels = random_labels(6, classes=3)
    there = torch.tensor([1, 1, 1, 1, 0, 1]) > 0
    found = known_of(labels, 3, there, 0.8).means(logits.T[None].double())[0, -2:]
    chances = [
        (abs(c - labels[i].item()), chance_of_highest(logits[i].tolist(), 0.8, c))
        for i in there.nonzero()[:, 0]
        for c in range(3)
    ]
    for power, expected in zip((1, 2), found.tolist()):
        assert expected == pytest.approx(sum(p * far**power for far, p in chances), abs=1e-6)


def test_marks_have_no_distances():
    marked = torch.tensor([[[1, 0, 1], [0, 0, 1]]]) > 0
    everything = torch.ones(1, 1, 3, dtype=torch.bool)
    known = Distances(lambda z: z, marked, everything, torch.tensor(1.0), 0.0)
    assert not known.of(torch.ones(1, 2, 3))[0, -2:].any()


@pytest.mark.parametrize("weights", ["linear", "quadratic"])
def test_nearly_all_of_weighted_kappa_is_known(weights):
    def kappa(said, true):
        return cohen_kappa_score(true, said, weights=weights)

    criterion = LearnedSurrogateLoss(
        kappa, task=classification.Sets(size=32), higher_is_better=True, best=1.0
    )
    for seed in range(12):
        step(criterion, random_labels(192, classes=4, seed=seed))
    # Of hits and claims alone, it is 0.66 and 0.36.
    assert criterion.stats["surrogate/r2"] > 0.9
