"""What is said to somebody who gave or got something else than was meant."""

import copy
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import assert_identical, make_arguments, make_loss, snapshot, step
from executors import AtOnce
from torch import nn
from within import core_of

from learned_surrogates import (
    Filter,
    FitValues,
    LearnedSurrogateLoss,
    MetricError,
    Tensors,
    Workers,
    boxes,
    check_task,
    ranking,
    retrieval,
    segmentation,
    text,
)


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
    criterion = LearnedSurrogateLoss(
        lambda z, y: z.sum(-1).abs(), higher_is_better=False, base_loss=nn.MSELoss()
    )
    with pytest.raises(AttributeError) as error:
        criterion(torch.randn(2, 3, requires_grad=True), target=["a", "b"])
    assert "base_loss, MSELoss, raised this" in as_note(error)
    assert "(Tensor, target=list)" in as_note(error)


def refusal(metric, count=8, **options):
    criterion = LearnedSurrogateLoss(metric, higher_is_better=False, **options)
    with pytest.raises(MetricError) as error:
        criterion(torch.randn(count, 5, requires_grad=True), torch.randn(count, 5))
    return str(error.value)


RETURNED = {
    "None": (lambda z, y: None, "returned None, where real numbers are expected"),
    "a text": (lambda z, y: "ok", "returned 'ok', where real numbers are expected"),
    "a dict": (lambda z, y: {"f": 1.0}, "returned {'f': 1.0}, where real numbers are expected"),
    "a dict, of batches alone": (lambda z, y: {"f": z.mean(1)}, "returned {'f': tensor("),
    "a generator": (lambda z, y: (1.0 for _ in z), "returned <generator object"),
    "others beside it": (lambda z, y: ((z - y).sum(-1), 0), "returned (tensor("),
    "a wrong shape": (lambda z, y: torch.zeros(3), "returned shape (3,), where shape (8,)"),
}


@pytest.mark.parametrize("kind", RETURNED)
def test_what_a_metric_returned_is_not_what_it_raised_nor_a_sample_s_fault(kind):
    metric, said = RETURNED[kind]
    for batched in (None, True):
        found = refusal(metric, batched=batched)
        assert f"metric '<lambda>' {said}" in found
        assert "(of all 8 samples; " in found
        assert "raised" not in found
        assert "sample 0" not in found
        assert ("called with a batch, batched=True" in found) == (batched is True)


def test_one_sample_s_fault_is_still_its_own():
    def last_is_missing(z, y):
        return [None if each[0] > 50 else 1.0 for each in z]

    criterion = LearnedSurrogateLoss(last_is_missing, batched=True, higher_is_better=False)
    z = torch.zeros(8, 5).index_fill(0, torch.tensor([5]), 99.0).requires_grad_()
    with pytest.raises(MetricError, match=r"returned \[None\].*sample 5 of 8"):
        criterion(z, torch.zeros(8, 5))
    skipping = LearnedSurrogateLoss(
        last_is_missing, batched=True, higher_is_better=False, on_metric_error="skip"
    )
    skipping(z, torch.zeros(8, 5))
    assert skipping.stats["metric/skipped"] == 1


def test_a_form_that_was_given_wrongly_is_named():
    def each(z, y):
        assert z.ndim == 2
        return (z - y).abs().sum(-1)

    assert "called with one sample at a time, batched=False" in refusal(each, batched=False)
    assert "called with a batch, batched=True" in refusal(lambda z, y: z.sum(), batched=True)
    assert "batched=" not in refusal(lambda z, y: None)


def test_a_surrogate_that_is_shown_single_outputs_is_told_their_shapes():
    surrogate = nn.Bilinear(3, 3, 1)
    criterion = LearnedSurrogateLoss(lambda z, y: (z - y).abs(), surrogate=surrogate)
    with pytest.raises(RuntimeError) as error:
        criterion(*make_arguments("measured"))
    assert "Bilinear, was called with z (2, 1) and y (2,)" in as_note(error)
    assert "each output is such a sample: z (n, 1) and y (n,)" in as_note(error)


def of_boxes(**options):
    return LearnedSurrogateLoss(boxes.rotated_iou, task=boxes.Rotated(), **options)


SCORES = torch.zeros(1, 3)
NAMED = {
    "RecallAtK": (lambda: retrieval.RecallAtK(5), TypeError, r"ks must be a sequence.*got 5"),
    "characters": (
        lambda: text.WeightedEditDistance(characters=5),
        TypeError,
        "characters must be a dict.*got 5",
    ),
    "no character": (
        lambda: text.WeightedEditDistance(characters={"": 1}),
        ValueError,
        "a key of characters must be a string of one character or more; got ''",
    ),
    "no text": (
        lambda: text.WeightedEditDistance(characters={5: 1}),
        TypeError,
        "a key of characters must be a string.*got 5",
    ),
    "gains": (
        lambda: ranking.ndcg_loss(SCORES, torch.tensor([[1.0, -2.0, 0.0]])),
        ValueError,
        "targets must be gains of 0 or more; one is -2",
    ),
    "draws of boxes": (
        lambda: of_boxes(draws=2),
        ValueError,
        r"Rotated\(\) has none: give.*noise=",
    ),
    "draws of tensors": (
        lambda: LearnedSurrogateLoss(silent, task=Tensors(smoothing=0), draws=2),
        ValueError,
        "has none: plain tensors have one unless smoothing=0",
    ),
    "length": (lambda: text.feds("abc", 0), ValueError, "length must be at least 2; got 0"),
    "class maps": (
        lambda: segmentation.counts(torch.randn(2, 3, 4, 4), torch.ones(2, 4, 4).long()),
        ValueError,
        "give classes=3",
    ),
    "check": (lambda: of_boxes().report("page.html", check="x"), TypeError, "check must be what"),
    "Workers": (lambda: Workers(4), TypeError, r"^Workers\.executor must be.*got 4"),
    "executor": (lambda: of_boxes(executor=4), TypeError, r"^executor must be.*Workers\(\.\.\.\)"),
    "lag": (lambda: Workers(AtOnce, lag=-1), ValueError, r"^Workers\.lag must be at least 0"),
    "filter": (lambda: FitValues(filter="x"), TypeError, r"^FitValues\.filter must be a number"),
    "Filter": (lambda: Filter(-1), ValueError, r"^Filter\.threshold must be at least 0"),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_was_given_wrongly_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, error, message = NAMED[name]
    with pytest.raises(error, match=message):
        function()
    assert not list(tmp_path.iterdir())


def test_padding_of_gains_may_be_negative_where_there_is_no_item():
    targets, mask = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[True, True, False]])
    assert ranking.ndcg_loss(SCORES, targets, mask=mask).isfinite()


def test_an_executor_that_was_given_does_not_travel():
    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(TypeError, match=r"ThreadPoolExecutor, cannot travel.*give a callable"):
            pickle.dumps(of_boxes(executor=executor))
        assert (
            core_of(copy.deepcopy(of_boxes(executor=executor))).recipe.executor.executor is executor
        )
    pickle.loads(pickle.dumps(of_boxes(executor=ThreadPoolExecutor)))
    pickle.loads(pickle.dumps(of_boxes(executor=AtOnce())))


@pytest.mark.parametrize("lag", [None, 0, 2])
def test_an_executor_that_was_shut_down_is_found_at_the_first_call(lag):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    criterion = make_loss("measured", executor=Workers(executor, lag=lag))
    before = snapshot(criterion)
    with pytest.raises(MetricError, match="cannot schedule new futures after shutdown"):
        criterion(*make_arguments("measured"))
    assert_identical(snapshot(criterion), before)


MODELS = [nn.Linear(3, 3), nn.Linear(3, 3)]
PARAMETERS = {
    "of another model": (lambda: MODELS[1].parameters(), ValueError, "of no model that these"),
    "a module": (lambda: MODELS[0], TypeError, r"model\.parameters\(\).*got Linear"),
    "modules": (
        lambda: nn.Sequential(*MODELS),
        TypeError,
        r"model\.parameters\(\).*got Sequential",
    ),
    "names": (lambda: MODELS[0].named_parameters(), TypeError, r"model\.parameters\(\).*got tuple"),
    "a state": (lambda: MODELS[0].state_dict(), TypeError, r"model\.parameters\(\).*got str"),
    "a tensor": (lambda: MODELS[0].weight, TypeError, r"model\.parameters\(\).*got Parameter"),
    "none": (list, ValueError, "none that requires a gradient"),
}


@pytest.mark.parametrize("kind", PARAMETERS)
def test_parameters_of_a_check_that_are_not_the_models_are_refused(kind):
    parameters, error, message = PARAMETERS[kind]
    criterion, target = make_loss("measured"), torch.randn(8, 3)
    with pytest.raises(error, match=message):
        criterion.check([(MODELS[0](target), target)], parameters=parameters(), draws=2)


def test_parameters_of_which_only_some_made_the_predictions_are_compared():
    target = torch.randn(8, 3)
    both = [*MODELS[1].parameters(), *MODELS[0].parameters()]
    criterion = make_loss("measured")
    found, alone = (
        criterion.check([(MODELS[0](target), target)], parameters=parameters, draws=64)
        for parameters in (both, MODELS[0].parameters())
    )
    cosine = found.directions["this loss"].cosine
    assert cosine == pytest.approx(alone.directions["this loss"].cosine)
    assert cosine > 0.5
