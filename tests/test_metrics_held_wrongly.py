"""Metrics that are handed over as they come, and would be learned as something else."""

import functools

import pytest
from conftest import assert_identical, make_loss, snapshot, train
from torchmetrics.classification import BinaryF1Score
from torchmetrics.text import CharErrorRate, WordInfoLost

from learned_surrogates import LearnedSurrogateLoss, text


def marked(predictions, targets):
    """Edits its lists in place, to the same effect on both sides."""
    for texts in (predictions, targets):
        for i, each in enumerate(texts):
            texts[i] = f"<{each}"
    return text.edit_distance(predictions, targets)


def test_a_metric_that_edits_its_lists_in_place_changes_nobody_elses():
    edited, plain = (
        make_loss("characters-grid", metric=metric, draws=4, data="local-global")
        for metric in (marked, text.edit_distance)
    )
    seeds = range(2)
    assert_identical(
        train(edited, "characters-grid", seeds), train(plain, "characters-grid", seeds)
    )
    assert_identical(snapshot(edited), snapshot(plain))


class Running:
    """As Ignite's and torcheval's are."""

    def __call__(self, predictions, targets):
        self.update(predictions, targets)
        return 0.0

    def update(self, predictions, targets): ...

    def reset(self): ...


@pytest.mark.parametrize(
    ("metric", "remedy"),
    [
        (CharErrorRate(), r"torchmetrics\.functional\.text\.char_error_rate"),
        (functools.partial(CharErrorRate()), r"functional\.text\.char_error_rate"),
        (CharErrorRate().forward, r"functional\.text\.char_error_rate"),
        (BinaryF1Score(), r"functional\.classification\.binary_f1_score"),
        (WordInfoLost(), r"one of torchmetrics\.functional\.text"),
        (Running(), r"update\(\) and reset\(\).*function"),
    ],
)
def test_an_object_that_remembers_every_call_is_refused_with_its_function(metric, remedy):
    with pytest.raises(TypeError, match=f"remembers every call.*{remedy}"):
        LearnedSurrogateLoss(metric)


def test_an_object_without_a_memory_is_a_metric():
    LearnedSurrogateLoss({"update": 1}.get)
    LearnedSurrogateLoss(text.WeightedEditDistance(wrong=2), task=text.CTC("ab"))
