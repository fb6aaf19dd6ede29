"""Whatever a metric is written for, each sample gets the value that it has alone."""

import functools
import itertools
import random
import warnings
from difflib import SequenceMatcher

import pytest
import torch
from conftest import l1, make_loss
from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein
from torch import nn
from torchmetrics.functional import text as functional

from learned_surrogates import LearnedSurrogateLoss, MetricError, text
from learned_surrogates._metric.coupling import coupling
from learned_surrogates._metric.metric import Metric
from learned_surrogates._metric.probe import Probe


def evaluated(function, predictions, targets, **options):
    """The metric's values, and its word on how it was called."""
    metric = Metric(function, True, 1000.0, None, "raise")
    errors, _ = metric(predictions, targets)
    return metric.value(errors).tolist(), getattr(metric, "word", None)


def total_error(predictions, targets):
    """The character error rate of a corpus."""
    distances = [Levenshtein.distance(p, t) for p, t in zip(predictions, targets)]
    return sum(distances) / max(1, sum(len(t) for t in targets))


def mean_error(predictions, targets):
    pairs = zip(predictions, targets)
    each = [Levenshtein.distance(p, t) / max(1, len(t)) for p, t in pairs]
    return torch.tensor(each).mean()  # float32


def mean_words(predictions, targets):
    pairs = zip(predictions, targets)
    return sum(Levenshtein.distance(p.split(), t.split()) for p, t in pairs) / len(targets)


def joined(predictions, targets):
    return Levenshtein.distance(" ".join(predictions), " ".join(targets))


OF_LISTS = {
    "totals": total_error,
    "mean in float32": mean_error,
    "joined": joined,
    "TER": functional.translation_edit_rate,
    "EED": functional.extended_edit_distance,
    "chrF": functional.chrf_score,
    "words": mean_words,
}


@pytest.mark.parametrize("name", OF_LISTS)
def test_a_metric_of_lists_is_called_with_lists_of_one(name):
    metric, chance = OF_LISTS[name], random.Random(0)
    for _ in range(30):
        size = chance.randint(1, 5)
        predictions, targets = (
            ["".join(chance.choices("abc ", k=chance.randint(1, 6))) for _ in range(size)]
            for _ in range(2)
        )
        right = [float(metric([p], [t])) for p, t in zip(predictions, targets)]
        assert evaluated(metric, predictions, targets)[0] == pytest.approx(right)


def test_the_smallest_corpus():
    values, _ = evaluated(total_error, ["bc", "a"], ["abc", "a"])
    assert values == pytest.approx([1 / 3, 0])
    values, _ = evaluated(functional.translation_edit_rate, ["a cat"], ["a dog"])
    assert values == pytest.approx([0.5])


def test_a_first_batch_that_is_all_right_does_not_deceive():
    metric = Metric(total_error, None, None, None, "raise")
    metric(["abc", "a"], ["abc", "a"])
    assert metric(["bc", "a"], ["abc", "a"])[0].tolist() == pytest.approx([1 / 3, 0])


def percentage(p, t):
    return 100 * Levenshtein.distance(p, t) / max(1, len(t))


OF_TEXTS = {
    "percentage": percentage,
    "ratio": fuzz.ratio,
    "distance": Levenshtein.distance,
    "normalised": Levenshtein.normalized_distance,
    "difflib": lambda p, t: SequenceMatcher(None, p, t).ratio(),
    "lengths": lambda p, t: abs(len(p) - len(t)),
    "exact": lambda p, t: float(p != t),
    "annotated": None,
    "two strings": None,
}


def differing_characters(text: str, other: str) -> float:
    return sum(a != b for a, b in zip(text, other, strict=False)) + abs(len(text) - len(other))


def overlap(s1, s2):
    return len(set(s1) & set(s2)) / max(1, len(set(s1) | set(s2)))


OF_TEXTS |= {"annotated": differing_characters, "two strings": overlap}


@pytest.mark.parametrize("name", OF_TEXTS)
def test_a_metric_of_two_texts_is_called_with_them(name):
    metric, chance = OF_TEXTS[name], random.Random(0)
    for _ in range(30):
        size = chance.randint(1, 5)
        predictions, targets = (
            ["".join(chance.choices("abc", k=chance.randint(0, 6))) for _ in range(size)]
            for _ in range(2)
        )
        right = [float(metric(p, t)) for p, t in zip(predictions, targets)]
        values, word = evaluated(metric, predictions, targets)
        assert values == pytest.approx(right)
        assert word is None


def accuracy(predictions, targets):
    return sum(p == t for p, t in zip(predictions, targets)) / len(targets)


def test_what_may_mean_texts_or_characters_is_told_by_its_parameters_or_refused():
    values, word = evaluated(accuracy, ["ab", "ca"], ["ac", "ca"])
    assert values == [0, 1]
    assert "called with lists of one" in word
    criterion = LearnedSurrogateLoss(
        lambda prediction, target: accuracy(prediction, target),
        task=text.PerPosition("abc"),
        higher_is_better=True,
        best=1.0,
        on_metric_error="skip",
    )
    logits = torch.randn(3, 4, 5, requires_grad=True)
    with pytest.raises(ValueError, match="Say batched=False"):  # also of texts that tell nothing
        criterion(logits, torch.zeros(3, 5, dtype=torch.long))
    assert criterion.stats["calls"] == 0


def median_scaled(p, t):
    return (p * t.median() / p.median() - t).abs().mean(-1)


def pearson_over_everything(p, t):
    p, t = (p - p.mean()) / p.std(), (t - t.mean()) / t.std()
    return (p * t).mean(-1)


def over_the_largest(p, t):
    return l1(p, t) / t.abs().max()


@pytest.mark.parametrize("metric", [median_scaled, pearson_over_everything, over_the_largest])
def test_a_samples_value_does_not_change_when_others_join(metric):
    targets = torch.tensor([[1.0, 2, 3], [1, 2, 3], [2, 3, 5]])
    predictions = targets * torch.tensor([[1.0], [4], [2]]) + torch.tensor([[0, 0.5, 0]])
    values, word = evaluated(metric, predictions, targets)
    right = [float(metric(p, t)) for p, t in zip(predictions, targets)]
    assert values == pytest.approx(right)
    assert "another value where others are in its batch" in word


def test_scaled_by_the_median_each_sample_alone_is_right():
    targets = torch.tensor([[1.0, 2, 3], [1, 2, 3]])
    predictions = targets * torch.tensor([[1.0], [4]])
    assert evaluated(median_scaled, predictions, targets)[0] == pytest.approx([0, 0])


def test_a_batch_that_does_not_tell_is_not_the_last_one_that_is_asked():
    metric = Metric(over_the_largest, None, None, None, "raise")
    metric(torch.ones(1, 3), torch.zeros(1, 3) + 2)
    metric(torch.ones(4, 3), torch.ones(4, 3))
    predictions, targets = torch.ones(2, 3), torch.tensor([[2.0, 2, 2], [4, 4, 4]])
    assert metric(predictions, targets)[0].tolist() == pytest.approx([1.5, 2.25])


def over_the_spread(p, t):
    return l1(p, t) / (l1(p, t) - l1(p, t).mean()).norm()


def test_what_is_no_number_alone_is_an_error():
    metric = Metric(over_the_spread, None, None, None, "raise")
    with pytest.raises(MetricError, match="returned inf"):
        metric(torch.randn(4, 3), torch.randn(4, 3))
    assert "not inf" in metric.word


def test_rounding_and_chance_are_no_coupling():
    chance = torch.Generator().manual_seed(0)
    noisy = lambda p, t: l1(p, t) * (1 + 0.1 * torch.rand(len(p), generator=chance))  # noqa: E731
    rounded = lambda p, t: l1(p, t) * (1 + 1e-5 * len(p))  # noqa: E731
    for function in (noisy, rounded):
        metric = Metric(function, None, None, None, "raise")
        metric(torch.randn(4, 3), torch.randn(4, 3))
        assert metric.batched
        assert metric.word is None


def f1(prediction, target):
    """Of a set; the more samples, the more it says."""
    said = prediction > 0
    right = (said & (target > 0)).sum()
    return 2 * right / (said.sum() + (target > 0).sum()).clamp(min=1)


def labels(seed):
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(8, 5, generator=chance, requires_grad=True), torch.randn(
        8, 5, generator=chance
    )


def test_a_score_of_a_set_is_called_for_each_sample_with_a_word_and_once():
    criterion = make_loss(metric=f1, higher_is_better=True, best=1.0)
    nothing = -torch.ones(8, 5)
    criterion(nothing.clone().requires_grad_(), nothing)  # of which nothing can be told
    said = r"one number of a whole batch.*one sample at a time.*task=classification\.Sets\(\)"
    with pytest.warns(UserWarning, match=said):
        criterion(*labels(0))
    prediction, target = labels(1)
    criterion(prediction, target)
    each = [f1(*pair).item() for pair in zip(prediction, target)]
    assert criterion.stats["metric/mean"] == pytest.approx(sum(each) / 8)


def test_an_error_rate_by_totals_is_called_for_each_text_with_a_word():
    values, word = evaluated(functional.char_error_rate, ["abc", "d"], ["abd", "e"])
    assert values == pytest.approx([1 / 3, 1])
    assert "0.5 here, which is not the mean of its samples', 0.666667" in word
    assert "Sets" not in word  # which take no texts


@pytest.mark.parametrize(
    "metric",
    [
        nn.MSELoss(),
        nn.L1Loss(reduction="sum"),
        lambda p, t: (p - t).abs().max(-1).values.mean(),
        functools.partial(f1),
    ],
)
def test_a_mean_or_sum_needs_no_word(metric):
    """Nor does what was said to be meant."""
    options = {}
    if isinstance(metric, functools.partial):
        options = {"batched": False, "higher_is_better": True, "best": 1.0}
    criterion = make_loss(metric=metric, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(2):
            criterion(*labels(seed))


def test_a_metric_that_takes_nothing_but_batches_gets_batches_of_one():
    def worst_channel(prediction, target):
        assert prediction.ndim == 4
        return (prediction - target).square().mean((2, 3)).amax()

    predictions, targets = torch.randn(2, 4, 3, 5, 5).unbind()
    values, word = evaluated(worst_channel, predictions, targets)
    right = [worst_channel(p[None], t[None]).item() for p, t in zip(predictions, targets)]
    assert values == pytest.approx(right)
    assert "one number of a whole batch" in word


def test_values_for_all_pairs_are_refused_with_their_diagonal():
    def box_iou(a, b):
        low = torch.maximum(a[:, None, :2], b[None, :, :2])
        high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
        return (high - low).clamp(min=0).prod(-1)

    boxes = torch.rand(4, 4) + torch.tensor([0.0, 0, 1, 1])
    criterion = make_loss(metric=box_iou)
    with pytest.raises(ValueError, match=r"each target.*diagonal"):
        criterion(boxes.clone().requires_grad_(), boxes)
    boxes = torch.cat([boxes, boxes[:1]])  # (4, 4) might be one value for each number of a box
    with pytest.raises(MetricError, match="diagonal"):
        make_loss(metric=box_iou, batched=True)(boxes.clone().requires_grad_(), boxes)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_column_is_one_value_a_sample(count):
    predictions, targets = torch.randn(2, count, 3).unbind()
    metric = Metric(lambda p, t: l1(p, t)[:, None], None, None, None, "raise")
    for _ in range(2):
        assert metric(predictions, targets)[0].tolist() == pytest.approx(l1(predictions, targets))
    assert metric.batched


def test_a_coupling_in_any_output_is_seen():
    def over_the_batch(prediction, target):
        errors = (prediction - target).abs()
        errors[:, 1] /= errors[:, 1].mean()
        return errors

    random = torch.Generator().manual_seed(0)
    predictions, targets = (torch.rand(6, 2, generator=random) for _ in range(2))
    values = over_the_batch(predictions, targets)
    assert coupling(over_the_batch, predictions, targets, values) is not None
    alone = (predictions - targets).abs()
    assert coupling(lambda p, t: (p - t).abs(), predictions, targets, alone) is None
    metric = Metric(over_the_batch, None, None, None, "raise")
    right = torch.cat([over_the_batch(p[None], t[None]) for p, t in zip(predictions, targets)])
    torch.testing.assert_close(metric(predictions, targets)[0], right.double())
    assert "It is called with one sample at a time" in metric.word


def test_values_of_another_shape_the_second_time_are_no_coupling():
    calls = itertools.count()

    def by_turns(prediction, target):
        if len(prediction) == 1:
            return torch.ones(1)
        return prediction if next(calls) else prediction.mean(1)

    predictions = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    values = by_turns(predictions, predictions)
    assert coupling(by_turns, predictions, predictions, values) is None


def test_steps_that_chance_decides_are_no_coupling():
    """Two answers for a sample are the same by chance in half of the cases."""
    random = torch.Generator().manual_seed(0)

    def by_chance(prediction, target):
        return (torch.rand(prediction.shape, generator=random) > 0.5).float()

    predictions, targets = torch.randn(2, 16, 2, generator=random)
    for _ in range(10):
        values = by_chance(predictions, targets)
        assert coupling(by_chance, predictions, targets, values) is None


def test_of_the_other_pairs_two_are_equal_one_of_them_a_single_word():
    """A metric may have no value for texts with spaces."""
    probe = Probe(text.edit_distance, ["abc", "bd"], ["abcd", "b"])
    equal = [a for a, b in probe.other_pairs() if a == b]
    assert len(equal) == 2 and any(" " not in each for each in equal)


def cut_off(p, t):
    errors = l1(p, t)
    return errors.clamp(max=errors.quantile(0.8))


def test_a_value_that_is_cut_off_at_a_batchs_other_values_is_seen():
    """Of six, the largest becomes the second largest, and they are equal then."""
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        predictions, targets = torch.randn(2, 6, 3, generator=random)
        values, word = evaluated(cut_off, predictions, targets)
        assert values == pytest.approx(l1(predictions, targets).tolist())
        assert "another value where others are in its batch" in word


def test_of_samples_that_say_the_same_alone_few_are_asked_and_once():
    asked = []

    def metric(p, t):
        asked.append(len(p))
        return l1(p, t)

    predictions, targets = torch.randn(2, 64, 3)
    assert coupling(metric, predictions, targets, l1(predictions, targets)) is None
    assert asked == [1] * 9
