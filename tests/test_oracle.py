"""A value of the metric from the question to the answer."""

import time
import warnings

import pytest
import torch
from conftest import l1, make_arguments, make_loss, step
from executors import ByHand
from within import core_of

from learned_surrogates import LearnedSurrogateLoss, MetricError, Tensors, Workers, boxes, text
from learned_surrogates._evaluation.oracle import Oracle
from learned_surrogates._metric.metric import Metric

TASK = Tensors(smoothing=0)


def make_oracle(metric=l1, workers=None, budget=None, on_error="raise"):
    direction = getattr(metric, "higher_is_better", False)
    return Oracle(TASK, Metric(metric, direction, None, True, on_error), workers, budget)


def question(seed=0):
    """A batch of four, and the predictions and targets that the metric is asked about."""
    prediction, target = make_arguments(seed=seed)
    return TASK.read(prediction, target), [(prediction.detach(), target)]


def ask(oracle, seed=0, pairs=None):
    batch, about = question(seed)
    return oracle.ask(batch, about if pairs is None else pairs, torch.Generator())


def test_where_there_is_nothing_to_ask_nothing_is_awaited_or_counted():
    oracle = make_oracle()
    for _ in range(3):
        assert list(oracle.answers(ask(oracle, pairs=[]), ())) == []
    assert oracle.queue.pending == []
    assert oracle.stats()["metric/unmeasured"] == 0
    assert oracle.ask_now(4, []) is None


def test_an_answer_comes_with_what_was_seen_at_its_call():
    by_hand = ByHand()
    oracle, seen = make_oracle(workers=Workers(by_hand)), (torch.arange(4.0),)
    assert list(oracle.answers(ask(oracle), seen)) == []
    assert oracle.stats()["metric/pending"] == 4
    by_hand.run()
    ((measured, then),) = oracle.answers(ask(oracle, seed=1), (torch.zeros(4),))
    torch.testing.assert_close(measured.mean, l1(*question()[1][0]).double())
    assert then[0].tolist() == [0, 1, 2, 3]


def test_what_is_lost_has_no_answer():
    by_hand = ByHand()
    oracle = make_oracle(workers=Workers(by_hand), on_error="skip")
    assert list(oracle.answers(ask(oracle), (torch.zeros(4),))) == []
    by_hand.given[0][0].cancel()
    assert list(oracle.answers(ask(oracle, seed=1), (torch.zeros(4),))) == []
    assert (oracle.stats()["metric/lost"], oracle.stats()["metric/unmeasured"]) == (4, 0)


def test_a_call_that_raises_has_its_own_question_forgotten():
    def failing(prediction, target):
        raise OSError("no disk")

    by_hand = ByHand()
    oracle = make_oracle(failing, workers=Workers(by_hand, lag=1))
    list(oracle.answers(ask(oracle), ()))
    by_hand.run()
    asked = []
    submit = oracle.queue.submit
    oracle.queue.submit = lambda *given: asked.append(submit(*given)) or asked[-1]
    with pytest.raises(MetricError, match="an earlier call's batch"):
        ask(oracle, seed=1)
    assert [job.wanted for job in asked[0].jobs] == [False]
    assert oracle.queue.pending == []


def test_beyond_the_backlog_nothing_is_sent_and_that_is_counted():
    oracle = make_oracle(workers=Workers(ByHand(), max_pending=1))
    for sent in (4, 0, 0):
        evaluation = ask(oracle)
        assert evaluation.sent == sent
        assert list(oracle.answers(evaluation, (torch.zeros(4),))) == []
    assert oracle.stats()["metric/unmeasured"] == 8


def test_a_budget_is_for_calls_and_not_for_what_is_asked_now():
    oracle = make_oracle(budget=0.5)
    assert ask(oracle).sent == 2
    assert oracle.ask_now(4, question()[1]).usable.tolist() == [True] * 4


def test_seconds_are_those_of_the_last_question():
    def slow(prediction, target):
        time.sleep(0.05)
        return l1(prediction, target)

    oracle = make_oracle(slow)
    ask(oracle)
    assert 0.05 <= oracle.stats()["metric/seconds"] < 5


@pytest.mark.parametrize("call", ["ask", "check"])
def test_the_first_batches_are_looked_at(call):
    """By a call, and by a check before any call."""
    target = torch.tensor([[1.0, 2.0, 3.0, 4.0, 90.0], [1.0, 2.0, 3.0, 4.0, 45.0]])
    prediction = (target + 0.1).requires_grad_()
    criterion = LearnedSurrogateLoss(boxes.rotated_iou, task=boxes.Rotated())
    with pytest.warns(UserWarning, match="degrees"):
        criterion(prediction, target) if call == "ask" else criterion.check([(prediction, target)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        criterion(prediction, target)


def test_a_distance_that_is_known_is_never_asked_for():
    criterion = make_loss("ctc-auto", metric=text.edit_distance)
    for seed in range(3):
        step(criterion, make_arguments("ctc", seed=seed))
    assert core_of(criterion).oracle.queue.pending == []
    assert criterion.stats["metric/unmeasured"] == 0
