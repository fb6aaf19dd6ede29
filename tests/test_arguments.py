import functools
import inspect
import math

import numpy as np
import pytest
import torch
from conftest import CASES, assert_identical, l1, make_arguments, make_loss, snapshot, step, train
from torch import nn

from learned_surrogates import (
    Fit,
    FitValues,
    LearnedSurrogateLoss,
    Replay,
    Skip,
    Tensors,
    classification,
    retrieval,
    text,
)

WRONG = [
    ("task", "ctc", TypeError),
    ("task", text.CTC, TypeError),
    ("surrogate", "network", ValueError),
    ("surrogate", nn.Linear, ValueError),
    ("fit", {"every": 1}, TypeError),
    ("fit", Fit, TypeError),
    ("replay", 100, TypeError),
    ("best", "perfect", TypeError),
    ("best", math.nan, ValueError),
    ("batched", "yes", TypeError),
    ("higher_is_better", "yes", TypeError),
    ("on_metric_error", "ignore", ValueError),
    ("on_metric_error", Skip, ValueError),
    ("reduction", "avg", ValueError),
    ("reduction", None, ValueError),
    ("seed", "a", TypeError),
    ("seed", 1.5, TypeError),
    ("seed", None, TypeError),
    ("seed", 2**70, ValueError),
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


def test_least_values_are_accepted():
    least = FitValues(every=1, steps=1, batch_size=1, penalty_every=1, warm_up=0)
    replay, skip = Replay(capacity=1, bytes=1), Skip(give_up_after=1)
    values = {"task": Tensors(smoothing=0), "fit": least, "replay": replay}
    LearnedSurrogateLoss(l1, seed=0, on_metric_error=skip, **values)


def test_integers_serve_as_numbers():
    fit = FitValues(learning_rate=1, penalty_weight=0, penalty_norm=2)
    LearnedSurrogateLoss(l1, task=Tensors(smoothing=0), fit=fit, best=0)


def test_a_seed_of_numpys_is_that_integer():
    losses = [make_loss("measured", seed=seed) for seed in (3, np.int64(3))]
    assert_identical(*(step(criterion, make_arguments()) for criterion in losses))


SEEDED = {
    "recall": retrieval.RecallAtK,
    "contrast": functools.partial(classification.ESupCon, 3, 4),
}


@pytest.mark.parametrize("name", SEEDED)
@pytest.mark.parametrize(("seed", "error"), [(1.5, TypeError), (None, TypeError), (-1, ValueError)])
def test_what_is_no_seed_is_refused_by_name(name, seed, error):
    with pytest.raises(error, match="seed must be"):
        SEEDED[name](seed=seed)


@pytest.mark.parametrize("width", [math.inf, torch.tensor(math.inf), torch.tensor(math.nan)])
def test_a_width_that_is_not_finite_is_refused(width):
    with pytest.raises(ValueError, match=r"smoothing must be .*finite"):
        Tensors(smoothing=width)


def test_construction_prints_nothing_and_calls_nothing(capsys):
    def metric(prediction, target):
        raise AssertionError("called")

    LearnedSurrogateLoss(metric, task=text.CTC("abc"))
    assert capsys.readouterr() == ("", "")


def test_the_last_option_of_data_is_the_default_where_there_is_a_generator():
    values = Tensors(smoothing=0)
    assert "data: local," in repr(LearnedSurrogateLoss(l1, task=values))
    task = text.CTC("abc")
    assert "data: local-global" in repr(LearnedSurrogateLoss(l1, task=task, surrogate="pair"))
    generator = text.RandomEdits("abc")
    assert "data: local-global" in repr(
        LearnedSurrogateLoss(l1, task=values, fit=FitValues(generator=generator))
    )
    assert "data: local," in repr(
        LearnedSurrogateLoss(l1, task=task, surrogate="pair", fit=FitValues(data="local"))
    )


def test_a_new_loss_is_a_module_without_children_whose_state_is_tensors():
    criterion = LearnedSurrogateLoss(l1)
    assert isinstance(criterion, nn.Module)
    assert not list(criterion.children())
    assert all(isinstance(tensor, torch.Tensor) for tensor in criterion.state_dict().values())


# At a call

UNREADABLE = {
    "meta": (lambda tensor: tensor.to("meta"), "on the meta device"),
    "sparse": (lambda tensor: tensor.to_sparse(), "must be a dense tensor; it is sparse_coo"),
    "complex": (lambda tensor: tensor.to(torch.complex64), "must be real; it is torch.complex64"),
    "8 bits": (lambda tensor: tensor.to(torch.float8_e4m3fn), "16 bits or more|must be integers"),
}
NAMES = {"ctc": ("log_probs", "targets"), "characters": ("input", "target")}


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("case", CASES)
def test_a_tensor_that_cannot_be_read_is_named(case, kind, part):
    criterion = make_loss(case)
    train(criterion, case, range(2))
    before, arguments = snapshot(criterion), list(make_arguments(case))
    change, message = UNREADABLE[kind]
    arguments[part] = change(arguments[part].detach())
    tensors = dict.fromkeys(("tensors", "measured"), ("prediction", "target"))
    kinds = {"boxes": ("pred", "target"), **tensors, **NAMES}
    with pytest.raises(TypeError, match=f"^{kinds[case.partition('-')[0]][part]} .*({message})"):
        criterion(*arguments)
    assert_identical(snapshot(criterion), before)
    assert step(criterion, make_arguments(case))[0].isfinite()


@pytest.mark.parametrize("integers", ["input_lengths", "target_lengths"])
def test_lengths_that_cannot_be_read_are_named(integers):
    names = ("log_probs", "targets", "input_lengths", "target_lengths")
    arguments = dict(zip(names, make_arguments("ctc"), strict=True))
    for kind in ("meta", "sparse", "complex"):
        wrong = {**arguments, integers: UNREADABLE[kind][0](arguments[integers])}
        with pytest.raises(TypeError, match=f"^{integers} .*({UNREADABLE[kind][1]})"):
            make_loss("ctc")(**wrong)


@pytest.mark.parametrize(
    ("case", "signature"),
    [
        ("tensors", "prediction, target"),
        ("ctc", "log_probs, targets, input_lengths, target_lengths"),
        ("characters", "input, target"),
        ("boxes", "pred, target, weight=None, avg_factor=None, reduction_override=None"),
    ],
)
def test_a_missing_or_superfluous_argument_gets_the_signature(case, signature):
    criterion, arguments = make_loss(case), make_arguments(case)
    expected = rf"called as criterion\({signature}\): .*"
    with pytest.raises(TypeError, match=expected + "missing 1 required positional argument"):
        criterion(*arguments[:-1])
    with pytest.raises(TypeError, match=expected + "positional arguments"):
        criterion(*arguments, None, None, None, None)
    with pytest.raises(TypeError, match=expected + "unexpected keyword argument 'weights'"):
        criterion(*arguments, weights=None)
    with pytest.raises(TypeError, match=expected):
        criterion.warm_up([arguments[:-1]], updates=1)
    with pytest.raises(TypeError, match=expected):
        criterion.check([arguments[:-1]])


def test_a_type_error_of_a_users_task_stays_what_it_is():
    class Own(Tensors):
        def read(self, prediction, target):
            raise TypeError("no such prediction")

    for task in (Own(), Own(smoothing=0)):
        with pytest.raises(TypeError, match=r"^no such prediction"):
            LearnedSurrogateLoss(l1, task=task)(*make_arguments())


def test_a_users_task_need_not_call_the_constructor_it_inherits():
    class Own(Tensors):
        def __init__(self, scale):
            self.scale = scale

        def decode(self, batch):
            prediction, target = super().decode(batch)
            return self.scale * prediction, target

    criterion = LearnedSurrogateLoss(l1, task=Own(2.0))
    prediction, target = make_arguments()
    with torch.no_grad():
        torch.testing.assert_close(criterion(prediction, target), l1(2 * prediction, target).mean())
    assert step(criterion, (prediction, target))[1].abs().sum() > 0


def test_a_reduction_that_was_set_later_is_checked_too():
    criterion = make_loss()
    criterion.reduction = "avg"
    with pytest.raises(ValueError, match="reduction must be one of"):
        criterion(*make_arguments())


@pytest.mark.parametrize("part", ["prediction", "target"])
def test_samples_without_numbers_are_refused(part):
    arguments = {"prediction": torch.zeros(4, 3), "target": torch.zeros(4, 3)}
    arguments[part] = torch.zeros(4, 0)
    with pytest.raises(ValueError, match=rf"{part} has samples without numbers: \(4, 0\)"):
        make_loss()(**arguments)


@pytest.mark.parametrize("case", CASES)
def test_targets_may_come_from_inference_mode(case):
    """As those of a teacher that labels batches do."""
    criterion, plain = make_loss(case), make_loss(case)
    for seed in range(2):
        prediction, *rest = make_arguments(case, seed)
        with torch.inference_mode():
            rest = [part.clone() for part in rest]
        result = step(criterion, (prediction, *rest))
        assert_identical(result, step(plain, make_arguments(case, seed)))


class Product(nn.Module):
    """Needs the target where it computes a gradient with respect to the prediction."""

    def forward(self, z, y):
        return (z * y).sum(-1)


def test_targets_from_inference_mode_reach_a_surrogate_that_multiplies_with_them():
    prediction, target = make_arguments()
    with torch.inference_mode():
        same = target.clone()
    _, gradient = step(make_loss(surrogate=Product()), (prediction, same))
    torch.testing.assert_close(gradient, target / 4)
