import inspect
import math

import pytest
import torch
from conftest import l1
from torch import nn

from learned_surrogates import LearnedSurrogateLoss, text

WRONG = [
    ("task", "ctc", TypeError),
    ("task", text.CTC, TypeError),
    ("surrogate", "network", ValueError),
    ("surrogate", nn.Linear, ValueError),
    ("data", "globl", ValueError),
    ("data", "global", ValueError),
    ("data", "local-global", ValueError),
    ("generator", 5, TypeError),
    ("best", "perfect", TypeError),
    ("best", math.nan, ValueError),
    ("batched", "yes", TypeError),
    ("higher_is_better", "yes", TypeError),
    ("on_metric_error", "ignore", ValueError),
    ("reduction", "avg", ValueError),
    ("reduction", None, ValueError),
    ("update_every", 0, ValueError),
    ("update_every", 2.0, TypeError),
    ("update_steps", 0, ValueError),
    ("update_steps", True, TypeError),
    ("batch_size", 0, ValueError),
    ("batch_size", None, TypeError),
    ("learning_rate", -1e-3, ValueError),
    ("learning_rate", math.nan, ValueError),
    ("learning_rate", "fast", TypeError),
    ("penalty_weight", -1, ValueError),
    ("penalty_weight", "none", TypeError),
    ("penalty_norm", -1, ValueError),
    ("penalty_norm", None, TypeError),
    ("penalty_every", 0, ValueError),
    ("warm_up_updates", -1, ValueError),
    ("warm_up_updates", 1.5, TypeError),
    ("replay_capacity", 0, ValueError),
    ("replay_capacity", "many", TypeError),
    ("replay_bytes", 0, ValueError),
    ("replay_bytes", 1e9, TypeError),
    ("seed", "a", TypeError),
    ("seed", 1.5, TypeError),
    ("seed", None, TypeError),
]


@pytest.mark.parametrize(("name", "value", "error"), WRONG)
def test_a_wrong_argument_is_named(name, value, error):
    with pytest.raises(error, match=name):
        LearnedSurrogateLoss(l1, **{name: value})


def test_everything_after_the_metric_is_by_keyword():
    with pytest.raises(TypeError, match="positional"):
        LearnedSurrogateLoss(l1, None)
    parameters = list(inspect.signature(LearnedSurrogateLoss).parameters.values())
    assert parameters[0].name == "metric"
    assert {parameter.kind for parameter in parameters[1:]} == {inspect.Parameter.KEYWORD_ONLY}


def test_every_argument_is_documented():
    documentation = inspect.getdoc(LearnedSurrogateLoss)
    for name in inspect.signature(LearnedSurrogateLoss).parameters:
        assert f"\n    {name}: " in documentation


@pytest.mark.parametrize("name", ["update_every", "batch_size", "warm_up_updates", "seed"])
def test_least_values_are_accepted(name):
    LearnedSurrogateLoss(l1, **{name: 0 if name in ("warm_up_updates", "seed") else 1})


def test_integers_serve_as_numbers():
    LearnedSurrogateLoss(l1, learning_rate=1, penalty_weight=0, penalty_norm=2, best=0)


def test_construction_prints_nothing_and_calls_nothing(capsys):
    def metric(prediction, target):
        raise AssertionError("called")

    LearnedSurrogateLoss(metric, task=text.CTC("abc"))
    assert capsys.readouterr() == ("", "")


def test_the_last_option_of_data_is_the_default_where_there_is_a_generator():
    assert "data: local," in repr(LearnedSurrogateLoss(l1))
    task = text.CTC("abc")
    assert "data: local-global" in repr(LearnedSurrogateLoss(l1, task=task, surrogate="pair"))
    generator = text.RandomEdits("abc")
    assert "data: local-global" in repr(LearnedSurrogateLoss(l1, generator=generator))
    assert "data: local," in repr(LearnedSurrogateLoss(l1, task=task, data="local"))
    # A surrogate that comes fitted learns nothing new from certain predictions.
    assert "data: local," in repr(LearnedSurrogateLoss(l1, task=task))
    assert "data: local-global" in repr(LearnedSurrogateLoss(l1, task=task, generator=generator))


def test_a_new_loss_is_a_module_without_children_whose_state_is_tensors():
    criterion = LearnedSurrogateLoss(l1)
    assert isinstance(criterion, nn.Module)
    assert not list(criterion.children())
    assert all(isinstance(tensor, torch.Tensor) for tensor in criterion.state_dict().values())
