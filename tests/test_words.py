"""What is said to somebody who gave or got something else than was meant."""

import re

import pytest
import torch
from conftest import step

from learned_surrogates import LearnedSurrogateLoss, Tensors, check_task, ranking


def silent(predictions, targets):
    return 1.0 + 0 * predictions.sum(-1)


@pytest.mark.parametrize("task", [Tensors(), ranking.Lists()])
def test_why_all_draws_are_the_same_is_said_in_one_sentence(task):
    criterion = LearnedSurrogateLoss(silent, task=task, higher_is_better=False)
    arguments = torch.randn(4, 3, requires_grad=True), torch.ones(4, 3)
    with pytest.warns(UserWarning, match="tells good from bad, or the noise.*may be too small"):
        for _ in range(100):
            step(criterion, arguments)


def test_what_is_not_asked_of_a_task_is_named_as_its_attribute_is():
    arguments = torch.randn(4, 3), torch.randn(4, 3)
    why = {each.name: each.why for each in check_task(Tensors(smoothing=0), *arguments).contracts}
    assert (why["draws"], why["scores"]) == ("can_sample is False", "has_score is False")
