"""What is said to somebody who gave or got something else than was meant."""

import re

import pytest
import torch
from conftest import make_arguments, step
from torch import nn

from learned_surrogates import LearnedSurrogateLoss, Tensors, check_task, ranking, text


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


@pytest.mark.parametrize(("name", "kind"), [("metric", nn.L1Loss), ("base_loss", nn.MSELoss)])
def test_a_module_s_class_in_its_place_is_named(name, kind):
    with pytest.raises(TypeError, match=f"{name} must be callable.*{kind.__name__}.*: call it"):
        LearnedSurrogateLoss(**{"metric": silent, name: kind})


def as_note(error):
    return " ".join(getattr(error.value, "__notes__", []))


def test_what_a_base_loss_raises_keeps_its_kind_and_names_it():
    task = text.CTC("abcdef")
    criterion = LearnedSurrogateLoss(
        text.edit_distance, task=task, base_loss=nn.CrossEntropyLoss(), base_weight=0.5
    )
    arguments = make_arguments("ctc")
    with pytest.raises((TypeError, RuntimeError, ValueError)) as alone:
        nn.CrossEntropyLoss()(*arguments)
    with pytest.raises(alone.type, match=re.escape(str(alone.value))) as error:
        criterion(*arguments)
    assert "base_loss, CrossEntropyLoss, raised this" in as_note(error)
    assert "(Tensor, Tensor, Tensor, Tensor)" in as_note(error)


def test_a_base_loss_that_does_not_take_lists_is_named():
    criterion = LearnedSurrogateLoss(lambda z, y: z.sum(-1).abs(), base_loss=nn.MSELoss())
    with pytest.raises(AttributeError) as error:
        criterion(torch.randn(2, 3, requires_grad=True), target=["a", "b"])
    assert "base_loss, MSELoss, raised this" in as_note(error)
    assert "(Tensor, target=list)" in as_note(error)
