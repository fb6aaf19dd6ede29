"""Metrics that are handed over as they come, and would be learned as something else."""

import functools
import pickle
import warnings

import numpy as np
import pytest
import torch
from conftest import assert_identical, learned, make_loss, train
from rapidfuzz import fuzz
from rapidfuzz.distance import JaroWinkler, Levenshtein
from torch import nn
from torchmetrics.classification import BinaryF1Score
from torchmetrics.functional.text import char_error_rate
from torchmetrics.text import CharErrorRate, WordInfoLost

from learned_surrogates import LearnedSurrogateLoss, MetricError, text
from learned_surrogates._metric.error import CallingFormError
from learned_surrogates._metric.metric import Metric


def marked(predictions, targets):
    """Edits its lists in place, to the same effect on both sides."""
    for texts in (predictions, targets):
        for i, each in enumerate(texts):
            texts[i] = f"<{each}"
    return text.edit_distance(predictions, targets)


def test_a_metric_that_edits_its_lists_in_place_changes_nobody_elses():
    edited, plain = (
        make_loss("characters-auto", metric=metric, draws=4)
        for metric in (marked, text.edit_distance)
    )
    seeds = range(2)
    assert_identical(
        train(edited, "characters-auto", seeds), train(plain, "characters-auto", seeds)
    )
    assert_identical(learned(edited), learned(plain))


class Running:
    """As Ignite's and torcheval's are."""

    def __call__(self, predictions, targets):
        self.update(predictions, targets)
        return 0.0

    def update(self, predictions, targets): ...

    def reset(self): ...


class Appending:
    """As MONAI's are: `aggregate` is the mean of all that was said so far."""

    def __call__(self, y_pred, y): ...

    def aggregate(self): ...

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
        (Appending(), r"aggregate\(\) and reset\(\).*function"),
    ],
)
def test_an_object_that_remembers_every_call_is_refused_with_its_function(metric, remedy):
    with pytest.raises(TypeError, match=f"remembers every call.*{remedy}"):
        LearnedSurrogateLoss(metric)


def test_an_object_without_a_memory_is_a_metric():
    LearnedSurrogateLoss({"update": 1}.get)
    LearnedSurrogateLoss(text.WeightedEditDistance(wrong=2), task=text.CTC("ab"))


def cer(reference, hypothesis, reference_transform=None):
    """As jiwer's: the error rate of all texts together, given strings or lists of them."""
    if isinstance(reference, str):
        reference, hypothesis = [reference], [hypothesis]
    distances = map(Levenshtein.distance, reference, hypothesis)
    return sum(distances) / sum(map(len, reference))


def test_a_metric_that_takes_the_target_first_is_called_so_with_a_word():
    with pytest.warns(UserWarning, match=r"'cer' takes \(reference, hypothesis\).*target comes"):
        metric = Metric(cer, None, None, None, "raise")
    assert metric(["a", "ab"], ["abc", "ab"])[0].tolist() == pytest.approx([2 / 3, 0])


ORDERS = {
    "y_true, y_pred": True,
    "y_true, y_score": True,
    "labels_true, labels_pred": True,
    "ground_truth, x": True,
    "groundTruths, outputs": True,
    "gold, guess": True,
    "refs, hyps": True,
    "references, candidate": True,
    "label, other": True,
    "y, y_hat": True,
    "expected, actual": True,
    "actual, predicted": True,
    "target, output": True,
    "observed, simulated": True,
    "obs, x": True,
    "solution, submission": True,
    "clean, denoised": True,
    "target_mask, x": True,
    "expected_output, output": True,
    "expected_output, actual_output": True,
    "true_tags, tags": True,
    "tags, predicted_tags": True,
    "gt_boxes, boxes": True,
    "boxes, pred_boxes": True,
    "true_bboxes, bboxes": True,
    "ytrue, ypred": True,
    "evaluation, simulation": True,
    "gold_answer, answer": True,
    "x, x_hat": True,
    "relevant, retrieved": True,
    "tags, true_tags": False,
    "predicted_tags, tags": False,
    "boxes, gt_boxes": False,
    "target_logits, logits": True,
    "true_labels, predicted_labels": True,
    "output, expected_output": False,
    "gold_output, x": False,
    "x, pred_text": True,
    "embeddings, candidates": False,
    "scores, candidate_labels": False,
    "expected_value, y": False,
    "truth_prob, y": False,
    "label_scores, marks": False,
    "target_scores, target": False,
    "features, predicted_class_weights": False,
    "preds, target": False,
    "predicted_labels, labels": False,
    "y_pred, y_true": False,
    "input, target": False,
    "predictions, references": False,
    "hypotheses, reference": False,
    "forecast, observation": False,
    "observed, expected": False,
    "actual, expected": False,
    "predicted, actual": False,
    "s1, s2": False,
    "p, t": False,
    "a, b": False,
    "z, y": False,
    "boxes, others": False,
}


@pytest.mark.parametrize("names", ORDERS)
def test_the_names_of_parameters_tell_their_order(names):
    from learned_surrogates._metric.parameters import is_reversed

    function = eval(f"lambda {names}: 1")
    assert is_reversed(function) == ORDERS[names]
    assert is_reversed(functools.partial(eval(f"lambda rate, {names}: 1"), 16000)) == ORDERS[names]
    assert not is_reversed(eval(f"lambda {names.partition(',')[0]}: 1"))


class Excess(nn.Module):
    def forward(self, target, prediction):
        return (prediction - target).clamp(min=0).mean(-1)


def excess(y_true, y_pred):
    return Excess()(y_true, y_pred)


@functools.wraps(excess)
def logged(*args, **kwargs):
    return excess(*args, **kwargs)


@functools.wraps(excess)
def turned(p, t):
    return excess(t, p)


@pytest.mark.parametrize("metric", [Excess(), logged, turned])
def test_a_module_and_what_is_wrapped_get_what_they_take(metric):
    """A wrapper that has turned the order by itself says so by its own parameters."""
    predictions, targets = torch.randn(2, 4, 3).unbind()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values, _ = Metric(metric, None, None, None, "raise")(predictions, targets)
    assert values.tolist() == pytest.approx((predictions - targets).clamp(min=0).mean(-1).tolist())
    assert len(caught) == (metric is not turned)


def test_what_takes_the_target_first_keeps_its_direction_and_travels():
    with pytest.warns(UserWarning, match="the target comes first"):
        metric = pickle.loads(pickle.dumps(Metric(similarity, None, None, None, "raise")))
    assert metric.higher_is_better
    assert metric(["ab"], ["abcd"])[0].tolist() == pytest.approx([0.5])


def similarity(target, prediction):
    return len(prediction) / len(target)


similarity.higher_is_better, similarity.best = True, 1.0


METRICS = [
    text.edit_distance,
    text.normalized_edit_distance,
    text.word_edit_distance,
    text.normalized_word_edit_distance,
    text.WeightedEditDistance(wrong=2),
    text.WeightedEditDistance(characters={"a": 2}),
]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "kind", [torch.tensor, np.array, list, lambda x: [[str(x)]], lambda x: [None]]
)
def test_an_edit_distance_of_what_are_no_strings_is_refused(metric, kind):
    with pytest.raises(TypeError, match=r"must be strings.*task=text\.CTC"):
        metric(kind([1.0]), kind([1.0]))
    assert metric(np.array(["ab"]), ["ab"]) == [0]


def test_an_edit_distance_without_a_task_says_what_it_lacks():
    criterion = LearnedSurrogateLoss(text.edit_distance)
    with pytest.raises(MetricError, match=r"takes strings.*task=text\.CTC"):
        criterion(torch.randn(4, 3, requires_grad=True), torch.randn(4, 3))


@pytest.mark.parametrize("metric", [char_error_rate, functools.partial(char_error_rate)])
def test_what_is_annotated_as_of_texts_gets_no_tensors(metric):
    """Of a tensor's own characters, all is wrong, whatever the model does."""
    with pytest.raises(MetricError, match=r"takes strings.*task=text\.CTC"):
        LearnedSurrogateLoss(metric)(torch.randn(4, 3, requires_grad=True), torch.randn(4, 3))

    def of_a_tensor_and_a_name(prediction: torch.Tensor, target: str) -> float:
        return float(prediction.abs().sum()) * len(target)

    criterion = LearnedSurrogateLoss(of_a_tensor_and_a_name, higher_is_better=False)
    criterion(torch.randn(2, 3, requires_grad=True), ["a", "bc"])


@pytest.mark.parametrize(
    "metric",
    [
        Levenshtein.distance,
        functools.partial(Levenshtein.normalized_distance),
        JaroWinkler.distance,
        fuzz.ratio,
    ],
)
@pytest.mark.parametrize("options", [{}, {"batched": False}, {"on_metric_error": "skip"}])
def test_rapidfuzz_without_a_task_of_text_is_refused(metric, options):
    """Of a tensor's elements, it would compare where they lie in memory."""
    criterion = LearnedSurrogateLoss(metric, higher_is_better=True, best=100.0, **options)
    with pytest.raises(MetricError, match=r"takes strings.*task=text\.CTC"):
        criterion(torch.randn(4, 3, requires_grad=True), torch.randn(4, 3))
    assert Metric(metric, True, 100.0, None, "raise")(["ab"], ["ac"])[1].all()


def of_tensors_or_texts(prediction: torch.Tensor | str, target: torch.Tensor | str):
    return float(prediction.abs().sum())


@functools.wraps(Levenshtein.distance)
def of_lists(prediction, target):
    return Levenshtein.distance(prediction.tolist(), target.tolist())


@pytest.mark.parametrize(
    "metric",
    [
        of_tensors_or_texts,
        of_lists,
        functools.partial(Levenshtein.distance, processor=torch.Tensor.tolist),
    ],
)
@pytest.mark.parametrize("options", [{}, {"batched": False}])
def test_what_takes_tensors_beside_texts_gets_them(metric, options):
    criterion = LearnedSurrogateLoss(metric, higher_is_better=False, **options)
    criterion(torch.randn(4, 3, requires_grad=True), torch.randn(4, 3))


def test_targets_that_a_metric_edits_in_place_stay_the_users():
    def shouted(predictions, targets):
        for i, each in enumerate(targets):
            targets[i] = f"{each}!"
        return torch.tensor([float(len(each)) for each in targets]) + predictions.sum(1).abs()

    targets = ["a", "bc", "def", "g"]
    criterion = LearnedSurrogateLoss(shouted, batched=True, higher_is_better=False)
    criterion(torch.randn(4, 3, requires_grad=True), targets).backward()
    assert targets == ["a", "bc", "def", "g"]


def test_what_a_metric_edited_before_it_failed_is_not_what_it_gets_again():
    def length(predictions, targets):
        for i, each in enumerate(targets):
            targets[i] = f"{each}!"
        if any(each.startswith("?") for each in targets):
            raise ValueError("nothing is known of it")
        return [float(len(each)) for each in targets]

    metric = Metric(length, None, None, True, "skip")
    values, usable = metric(["", "", ""], ["a", "?", "bcd"])
    assert usable.tolist() == [True, False, True]
    assert values[usable].tolist() == [2.0, 4.0]


@pytest.mark.parametrize("batch", [2, 5])
def test_a_distance_of_all_pairs_is_not_one_value_an_output(batch):
    """Two samples of two numbers have as many pairs as outputs."""
    criterion = LearnedSurrogateLoss(torch.cdist)
    with pytest.raises(MetricError, match="each prediction with each target"):
        criterion(torch.randn(batch, 2, requires_grad=True), torch.randn(batch, 2))


def wrong_places(logits, classes):
    return (logits.argmax(1) != classes).float()


def far(prediction, target):
    return ((prediction - target).abs() > 1).float()


def correlation(prediction, target):  # of several samples, and not defined for one
    return float(torch.stack([prediction.flatten(), target.flatten()]).corrcoef()[0, 1])


@pytest.mark.parametrize(
    ("metric", "prediction", "target", "said"),
    [
        (wrong_places, (32, 5, 7, 6), lambda: torch.randint(0, 5, (32, 7, 6)), "movedim"),
        (
            far,
            (8, 1),
            lambda: torch.randn(8),
            r"64 values for 8 samples.*\(8, 1\).*\(8,\).*squeeze",
        ),
        (
            far,
            (8,),
            lambda: torch.randn(8, 1),
            r"64 values for 8 samples.*\(8,\).*\(8, 1\).*squeeze",
        ),
        (
            correlation,
            (8,),
            lambda: torch.randn(8),
            r"one number of several.*Sets.*Lists.*\[None\]",
        ),
    ],
)
def test_what_cannot_be_called_so_says_how_to_hand_it_over(metric, prediction, target, said):
    criterion = LearnedSurrogateLoss(metric, on_metric_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of a correlation of one
        with pytest.raises(CallingFormError, match=f"(?s){said}"):
            criterion(torch.randn(prediction).requires_grad_(), target())


def test_what_is_not_defined_for_some_samples_alone_is_called_with_the_others():
    """Of the first, the middle and the last row, all marks are alike."""
    target = (torch.arange(64)[:, None] + torch.arange(4) > 33).float()
    target[[0, 32, 63]] = torch.tensor([[0.0], [1], [1]])
    target[1:32, 0] = 1
    criterion = LearnedSurrogateLoss(
        lambda z, y: correlation(z, y) if len(y.unique()) > 1 else float("nan"),
        higher_is_better=True,
        best=1.0,
        on_metric_error="skip",
    )
    with pytest.warns(UserWarning, match="one number of a whole batch"):
        loss = criterion(torch.randn(64, 4).requires_grad_(), target)
    assert loss.isfinite()


def test_a_first_batch_of_one_is_not_broadcast():
    criterion = LearnedSurrogateLoss(far, higher_is_better=False)
    assert criterion(torch.randn(1, 1).requires_grad_(), torch.randn(1)).isfinite()


@pytest.mark.parametrize(
    ("prediction", "target", "said"),
    [
        (torch.randn(4), {"a": torch.randn(4)}, r"list with an entry.*got dict.*targets.items\(\)"),
        (torch.randn(4), (torch.randn(4), torch.randn(4)), r"2 targets.*torch.stack"),
        ({"a": torch.randn(4)}, torch.randn(4), "got dict.*torch.cat"),
        ((torch.randn(4), torch.randn(4)), torch.randn(4), "got tuple.*torch.cat"),
        (["abc"], ["abd"], "got list.*For text"),
    ],
)
def test_several_tensors_are_refused_with_what_to_do(prediction, target, said):
    with pytest.raises((TypeError, ValueError), match=said):
        LearnedSurrogateLoss(far)(prediction, target)


def test_skipping_is_advised_only_where_the_metric_has_worked():
    criterion = LearnedSurrogateLoss(failing_from(call=99), higher_is_better=False)
    with pytest.raises(MetricError) as first:
        LearnedSurrogateLoss(failing_from(call=0))(
            torch.randn(4, 2).requires_grad_(), torch.zeros(4, 2)
        )
    assert "skip" not in str(first.value)
    with pytest.raises(MetricError, match="on_metric_error='skip'"):
        for _ in range(200):
            criterion(torch.randn(4, 2).requires_grad_(), torch.zeros(4, 2))


def failing_from(call):
    calls = []

    def metric(prediction, target):
        calls.append(1)
        if len(calls) > call:
            raise RuntimeError("out of order")
        return (prediction - target).abs().sum(-1)

    return metric
