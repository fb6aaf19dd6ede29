"""The metric over the most probable readings of a recogniser's outputs."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import assert_identical, snapshot, step
from rapidfuzz.distance import Levenshtein
from within import core_of

from learned_surrogates import LearnedSurrogateLoss, Workers, text
from learned_surrogates._evaluation.measurement import Measurement
from learned_surrogates.text._beam_search import likeliest_readings
from learned_surrogates.text._likeliest_draws import LikeliestDraws

LETTERS = "ab"
TASKS = {
    "ctc": text.CTC(LETTERS, likeliest=True),
    "characters": text.PerPosition(LETTERS, likeliest=True),
}
HEADS = pytest.mark.parametrize("head", TASKS)


def arguments(head, batch=3, positions=4, scale=1.5, seed=0):
    """Random outputs, of one place less for the second text; what the loss is called with."""
    random = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(positions, batch, 3, generator=random)
    lengths = torch.full((batch,), positions)
    lengths[1] -= 1
    if head == "ctc":
        logits.requires_grad_()
        return logits, torch.tensor([[1, 2]]).expand(batch, 2), lengths, [2] * batch
    target = torch.tensor([[1, 2, 0, 0]])[:, :positions].repeat(batch, 1)
    target[1, 1] = -100
    return logits.permute(1, 2, 0).clone().requires_grad_(), target


def odd(predictions, targets):
    """A metric of which nothing is known."""
    return [
        2.0 * p.startswith("b") + (len(p) - len(t)) ** 2
        for p, t in zip(predictions, targets, strict=True)
    ]


def by_reading(task, batch):
    """The probability of each reading of each text, by going through all that may be drawn."""
    probabilities = []
    for logits, present in zip(batch.logits, batch.present, strict=True):
        p = logits.double().softmax(0).T[present]
        paths = torch.tensor(list(itertools.product(range(3), repeat=len(p))))
        shares = p.gather(1, paths.T).prod(0)
        found = {}
        for labels, share in zip(map(tuple, task.labels(paths)), shares.tolist(), strict=True):
            found[labels] = found.get(labels, 0.0) + share
        probabilities.append(found)
    return probabilities


@HEADS
@pytest.mark.parametrize("seed", range(5))
def test_the_most_probable_readings_are_found(head, seed):
    """By going through all paths; with as many prefixes as there are readings."""
    task = TASKS[head].for_surrogate("auto")
    batch = task.read(*arguments(head, seed=seed))
    readings, own = likeliest_readings(task, batch, 20)
    for sample, probabilities in enumerate(by_reading(task, batch)):
        found = [tuple(readings[k][sample]) for k in range(20) if own[k, sample]]
        assert len(set(found)) == len(found) == min(20, len(probabilities))
        best = sorted(probabilities.values(), reverse=True)[: len(found)]
        assert [probabilities[each] for each in found] == pytest.approx(best, rel=1e-4)


@HEADS
def test_where_the_model_is_surer_a_few_are_enough(head):
    task = TASKS[head].for_surrogate("auto")
    batch = task.read(*arguments(head, batch=20, scale=4.0, seed=1))
    readings, _ = likeliest_readings(task, batch, 3)
    found, best = 0.0, 0.0
    for sample, probabilities in enumerate(by_reading(task, batch)):
        found += sum(probabilities[tuple(readings[k][sample])] for k in range(3))
        best += sum(sorted(probabilities.values(), reverse=True)[:3])
    assert 0.99 * best < found <= best + 1e-6


def test_a_character_is_read_twice_with_a_blank_between():
    p = torch.full((3, 3), 1e-3)
    p[0, 1] = p[1, 0] = p[2, 1] = 1.0
    task = TASKS["ctc"].for_surrogate("auto")
    batch = task.read(p.log()[:, None], [[1, 1]], [3], [2])
    assert likeliest_readings(task, batch, 2)[0][0] == [[1, 1]]


@HEADS
def test_value_and_gradient_are_those_of_the_mean_over_the_readings(head):
    task = TASKS[head].for_surrogate("auto")
    called = arguments(head)
    batch = task.read(*called)
    criterion = LearnedSurrogateLoss(odd, task=TASKS[head], draws=3, reduction="none")
    values = criterion(*called)
    (gradient,) = torch.autograd.grad(values.sum(), called[0])
    logits = batch.logits.clone().requires_grad_()
    readings, _ = likeliest_readings(task, batch, 3)
    likelihood = torch.stack(
        [task.log_likelihood(logits, each, batch.present) for each in readings]
    )
    errors = torch.tensor([odd(*pair) for pair in task.pairs(readings, batch)])
    mean = (likelihood.softmax(0) * errors).sum(0)
    mean.sum().backward()
    torch.testing.assert_close(values.detach(), mean.detach())
    torch.testing.assert_close(task.logits(gradient), logits.grad, atol=1e-6, rtol=1e-4)
    assert gradient.abs().sum() > 0.1
    assert criterion.stats["metric/mean"] == pytest.approx(mean.mean().item(), rel=1e-5)
    assert "the 3 likeliest readings" in repr(criterion)
    assert core_of(criterion).estimator.verdict.endswith("the 3 likeliest readings of a sample")


def test_where_there_are_fewer_readings_the_best_one_stands_in():
    asked = []

    def metric(predictions, targets):
        asked.append(predictions)
        return [float(p != t) for p, t in zip(predictions, targets, strict=True)]

    # One frame, of which b is impossible: nothing or "a".
    log_probs = torch.tensor([[[0.3, 0.7, 0.0]]]).log()
    task = TASKS["ctc"].for_surrogate("auto")
    draws = LikeliestDraws(task, task.read(log_probs, [[1]], [1], [1]), 4)
    assert [pair[0] for pair in draws.pairs] == [["a"], [""], ["a"], ["a"]]
    assert draws.shares[:, 0].tolist() == pytest.approx([0.7, 0.3, 0.0, 0.0])
    criterion = LearnedSurrogateLoss(metric, task=TASKS["ctc"])
    value = criterion(log_probs.clone().requires_grad_(), [[1]], [1], [1])
    assert value.item() == pytest.approx(0.3)


def test_samples_without_a_value_have_no_gradient_and_others_stand_for_them():
    task = TASKS["characters"].for_surrogate("auto")
    draws = LikeliestDraws(task, task.read(*arguments("characters", batch=4)), 3)
    values = torch.tensor([odd(*pair) for pair in draws.pairs])
    every = torch.ones(4, dtype=torch.bool)
    whole = Measurement(values=values, usable=every, arrived=every)
    half = torch.tensor([True, False, True, False])
    part = Measurement(
        values=values.where(half, torch.nan), usable=half, arrived=half, stands_for=2.0
    )
    expected = 2 * draws.gradient(whole)[1] * half[:, None, None]
    torch.testing.assert_close(draws.gradient(part)[1], expected)
    assert not draws.gradient(part)[0].any()


@HEADS
def test_a_text_that_is_no_number_spoils_no_other(head):
    called = arguments(head)
    spoilt = called[0].detach().clone()
    samples = spoilt.movedim(1, 0) if head == "ctc" else spoilt
    samples[2] = torch.nan
    spoilt.requires_grad_()
    criterion = LearnedSurrogateLoss(odd, task=TASKS[head], reduction="none")
    clean = LearnedSurrogateLoss(odd, task=TASKS[head], reduction="none")
    values, expected = criterion(spoilt, *called[1:]), clean(*called)
    assert values.isnan().tolist() == [False, False, True]
    torch.testing.assert_close(values[:2], expected[:2])


def test_an_edit_distance_is_asked_about_too():
    asked = []

    def metric(predictions, targets):
        asked.append(len(predictions))
        return text.edit_distance(predictions, targets)

    task = TASKS["ctc"]
    for function in (text.edit_distance, Levenshtein.distance):
        assert "the 4 likeliest" in repr(LearnedSurrogateLoss(function, task=task))
    criterion = LearnedSurrogateLoss(metric, task=task)
    criterion(*arguments("ctc")).backward()
    assert sum(asked) >= 12


def test_nothing_is_random_and_a_resumed_run_goes_on():
    first = LearnedSurrogateLoss(odd, task=TASKS["ctc"])
    second = LearnedSurrogateLoss(odd, task=TASKS["ctc"], seed=7)
    for seed in range(3):
        assert_identical(
            step(first, arguments("ctc", seed=seed)), step(second, arguments("ctc", seed=seed))
        )
    resumed = LearnedSurrogateLoss(odd, task=TASKS["ctc"])
    resumed.load_state_dict(first.state_dict())
    assert_identical(snapshot(resumed), snapshot(first))


def test_values_of_workers_are_waited_for():
    now = LearnedSurrogateLoss(odd, task=TASKS["ctc"])
    with ThreadPoolExecutor(1) as executor:
        waited = LearnedSurrogateLoss(odd, task=TASKS["ctc"], executor=Workers(executor, lag=0))
        assert_identical(step(now, arguments("ctc")), step(waited, arguments("ctc")))
    assert waited.stats["metric/mean"] == now.stats["metric/mean"]


@HEADS
def test_what_all_readings_have_in_common_is_no_matter(head):
    """In float32, shares do not sum to 1, and a large error would leave its own gradient."""
    found = [
        step(LearnedSurrogateLoss(metric, task=TASKS[head], batched=True), arguments(head))[1]
        for metric in (odd, lambda p, t: [1e6 + e for e in odd(p, t)], lambda p, t: [7.0] * len(p))
    ]
    assert_identical(found[1], found[0])
    assert not found[2].any()


def test_a_check_is_of_as_many_readings_as_a_call_has():
    called = arguments("ctc", batch=8)
    criterion = LearnedSurrogateLoss(odd, task=TASKS["ctc"], draws=2)
    asked = criterion.check([called], draws=64).directions["this loss"].cosine
    every = LearnedSurrogateLoss(odd, task=TASKS["ctc"], draws=20).check([called], draws=64)
    assert asked < every.directions["this loss"].cosine - 0.05


def test_what_does_not_go_together():
    with pytest.raises(TypeError, match="likeliest must be True or False; got 3"):
        text.CTC(LETTERS, likeliest=3)
    with pytest.raises(ValueError, match="likeliest=True is for a measured gradient"):
        LearnedSurrogateLoss(odd, task=TASKS["ctc"], surrogate="embedding")
    with pytest.raises(ValueError, match="likeliest=True is for a measured gradient"):
        LearnedSurrogateLoss(odd, task=TASKS["ctc"], surrogate=torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="likeliest=True is for a measured gradient"):
        text.ls_ed(LETTERS, 4, task=TASKS["characters"])
    with pytest.raises(ValueError, match="draws=0"):
        LearnedSurrogateLoss(text.edit_distance, task=TASKS["ctc"], draws=0)
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="lag=0"):
        LearnedSurrogateLoss(odd, task=TASKS["ctc"], executor=executor)
    with pytest.raises(ValueError, match="draws=1"):
        LearnedSurrogateLoss(odd, task=TASKS["ctc"], draws=1)
