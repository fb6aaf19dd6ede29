"""Two processes that fit one surrogate: what is the same in both, what is each one's own."""

import contextlib
import copy
import os
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from conftest import (
    CASES,
    MEASURED,
    assert_identical,
    l1,
    make_arguments,
    make_loss,
    snapshot,
    step,
    train,
)
from ranks import Ranks
from test_loss import Weighted
from within import core_of

from learned_surrogates import MetricError
from learned_surrogates._measured.core import MeasuredCore

# What all processes have in common: of a surrogate that is fitted to values, and of one to slopes.
TOGETHER = ("surrogate.", "adam.", "scale", "counters", "z_shape", "target_shape")
TOGETHER_MEASURED = ("form", "adam.", "scale", "z_shape", "target_shape")
PLAIN = ("tensors", "measured")


def together(criterion):
    """The part of the state that all processes have in common."""
    state = snapshot(criterion)
    if isinstance(core_of(criterion), MeasuredCore):
        names = ("calls", "updates")
        counts = torch.tensor([core_of(criterion).stats()[name] for name in names])
        shared = {k: v for k, v in state.items() if k.startswith(TOGETHER_MEASURED)}
        return {**shared, "counters": counts}
    state = {k: v for k, v in state.items() if k.startswith(TOGETHER)}
    state["counters"][2] = 0  # what was skipped is each one's own
    return state


def own_seeds(count, start=0):
    """Seeds of batches that no other rank sees."""
    return range(100 * dist.get_rank() + start, 100 * dist.get_rank() + start + count)


def assert_same(states):
    first, *others = states
    assert first
    for other in others:
        assert other.keys() == first.keys()
        for key, tensor in first.items():
            assert torch.equal(tensor, other[key]), key


def fit_on_own_batches(case):
    options = {} if case in MEASURED else {"penalty_weight": 0.1, "penalty_every": 2}
    criterion = make_loss(case, **options)
    train(criterion, case, own_seeds(4))
    state = snapshot(criterion)
    # What is known of readings is not fitted to any replay.
    return together(criterion), state.get("replay.0", state["random"]), state["random"]


@pytest.mark.parametrize("case", CASES)
def test_weights_are_the_same_bits_and_replay_and_draws_are_not(ranks, case):
    states, replays, streams = zip(*ranks(fit_on_own_batches, case), strict=True)
    assert_same(states)
    calls, updates = states[0]["counters"].tolist()[:2]
    assert calls == 4
    assert updates == 4 or (case in MEASURED and updates > 100)
    assert not torch.equal(*replays)
    assert not torch.equal(*streams)


def everything_in_replay(criterion):
    """No chance in what is drawn: the surrogate is fitted to all pairs, oldest first."""
    pairs = core_of(criterion).pairs
    pairs.draw = lambda: pairs.replay.oldest_first() if pairs.replay.size else None


def global_batch(seed):
    return make_arguments(seed=seed, batch=8)


def fit_on_shares(sizes):
    criterion = make_loss()
    batch = criterion.task.read(*global_batch(0))
    z = criterion.task.represent(batch.prediction.detach(), batch)
    # Standardised by all samples.
    core_of(criterion).net.prepare(z, batch.target, torch.ones(len(z), dtype=torch.bool))
    everything_in_replay(criterion)
    for seed in range(4):
        shares = [part.split(sizes)[dist.get_rank()] for part in global_batch(seed)]
        step(criterion, (shares[0].detach().requires_grad_(), shares[1]))
    return together(criterion)


@pytest.mark.parametrize("sizes", [(4, 4), (7, 1), (8, 0)])
def test_one_global_batch_gives_the_surrogate_of_one_process(ranks, sizes):
    """The mean over all pairs does not depend on who holds them."""
    states = ranks(fit_on_shares, sizes)
    assert_same(states)
    alone = make_loss()
    everything_in_replay(alone)
    for seed in range(4):
        step(alone, global_batch(seed))
    # Adam divides by small gradients, so rounding shows; the four steps moved weights by 4e-3.
    torch.testing.assert_close(states[0], together(alone), rtol=1e-3, atol=5e-5)


def fit_given_surrogate(sizes):
    surrogate = Weighted()
    with torch.no_grad():
        surrogate.weight += dist.get_rank()
    criterion = make_loss(surrogate=surrogate, reduction="none")
    size = sizes[dist.get_rank()]
    for seed in range(2):
        values, _ = step(
            criterion, tuple(p.detach()[:size].requires_grad_() for p in make_arguments(seed=seed))
        )
    assert torch.equal(surrogate.unused, torch.ones(2))
    assert surrogate.unused not in core_of(criterion).net.optimizer.state
    return together(criterion), values


@pytest.mark.parametrize("sizes", [(4, 4), (0, 4)])
def test_a_given_surrogate_is_one_too(ranks, sizes):
    """Also where a rank without pairs cannot know which weights the surrogate does not use."""
    states, values = zip(*ranks(fit_given_surrogate, sizes), strict=True)
    assert_same(states)
    assert [len(each) for each in values] == list(sizes)
    if sizes == (4, 4):
        torch.testing.assert_close(*values)


def fit_in_own_group():
    alone = [dist.new_group([rank]) for rank in range(2)][dist.get_rank()]
    states = []
    for options in ({"sync": alone}, {"sync": False}):
        criterion = make_loss(**options)
        with mock.patch.object(dist, "all_reduce", side_effect=AssertionError("travels")):
            train(criterion, "tensors", own_seeds(3))
        states.append(snapshot(criterion))
    return states


def test_a_group_of_one_and_sync_off_fit_alone(ranks):
    results = ranks(fit_in_own_group)
    for in_group, without_sync in results:
        assert_identical(in_group, without_sync)
    weights = [with_group["surrogate.net.1.weight"] for with_group, _ in results]
    assert not torch.equal(*weights)


def fit_in_group_of(members):
    group = dist.new_group(members)
    criterion = make_loss(sync=group)
    twin = copy.deepcopy(criterion)
    for loss in (criterion, twin):
        train(loss, "tensors", own_seeds(3))
    assert_same([together(criterion), together(twin)])
    return together(criterion)


def test_a_group_may_leave_processes_out(ranks):
    assert_same(ranks(fit_in_group_of, [0, 1]))
    outside, inside = ranks(fit_in_group_of, [1])
    assert not torch.equal(outside["surrogate.net.1.weight"], inside["surrogate.net.1.weight"])


@contextlib.contextmanager
def counted(*names):
    calls = []
    with contextlib.ExitStack() as stack:
        for name in names:
            real = getattr(dist, name)

            def spy(tensor, *args, real=real, name=name, **kwargs):
                calls.append(name)
                return real(tensor, *args, **kwargs)

            stack.enter_context(mock.patch.object(dist, name, spy))
        yield calls


def exchanges():
    criterion = make_loss(every=3)
    seen = []
    with counted("all_reduce", "all_gather", "broadcast_object_list") as calls:
        for seed in own_seeds(9):
            step(criterion, make_arguments(seed=seed))
            seen.append(list(calls))
            calls.clear()
    return seen


def test_one_exchange_an_update_and_none_otherwise(ranks):
    for seen in ranks(exchanges):
        assert seen[0] == ["all_gather", "broadcast_object_list"]
        # The first update also agrees on the scale.
        assert [len(calls) for calls in seen[1:]] == [0, 2, 0, 0, 1, 0, 0, 1]


def evaluate_on_rank_0(case):
    criterion = make_loss(case)
    for start in (0, 4):
        if dist.get_rank() == 0:
            criterion.eval()(*make_arguments(case, 7))
            with torch.no_grad():
                criterion.train()(*make_arguments(case, 8))
            with torch.inference_mode():
                criterion(*make_arguments(case, 9))
        criterion.train()
        train(criterion, case, own_seeds(3, start))
    return together(criterion)


@pytest.mark.parametrize("case", [*PLAIN, "ctc"])
def test_evaluation_on_one_rank_neither_hangs_nor_disturbs(ranks, case):
    assert_same(ranks(evaluate_on_rank_0, case))


def fit_with_batches_of(sizes, case="tensors"):
    """Sizes are those of each rank's batches, in turn."""
    criterion = make_loss(case, reduction="sum")
    for seed, size in zip(own_seeds(10), sizes[dist.get_rank()]):
        prediction, *rest = make_arguments(case, seed)
        batch_dim = 1 if case == "ctc" else 0
        part = prediction.detach().narrow(batch_dim, 0, size).requires_grad_()
        loss, gradient = step(criterion, (part, *(each[:size] for each in rest)))
        assert loss.isfinite()
        assert gradient.shape == part.shape
    return together(criterion)


SIZES = {
    "uneven last batch": ([4, 4, 4], [4, 4, 1]),
    "empty last batch": ([4, 4, 4], [4, 4, 0]),
    "empty first batch": ([0, 4, 4], [4, 4, 4]),
    "empty first batches": ([0, 0, 4], [0, 4, 4]),
    "always empty": ([4, 4, 4], [0, 0, 0]),
}


@pytest.mark.parametrize("case", [*PLAIN, "ctc"])
@pytest.mark.parametrize("sizes", SIZES)
def test_batches_of_other_sizes(ranks, sizes, case):
    states = ranks(fit_with_batches_of, SIZES[sizes], case)
    assert_same(states)
    if case in MEASURED:
        assert states[0]["counters"][0] == 3
        # With batches of four, one process has its eight pairs at the third call.
        assert "forms" in states[0] or sizes == "empty first batches"
        return
    assert states[0]["counters"].tolist()[:2] == [3, 2 if sizes == "empty first batches" else 3]


class FailsAt:
    """A metric that raises on one rank at some calls of the loss."""

    def __init__(self, *calls):
        self.calls, self.call = calls, 0

    def __call__(self, prediction, target):
        if dist.get_rank() == 1 and self.call in self.calls:
            raise OSError("the scorer is down")
        return l1(prediction, target)


def fit_with_failures(failing, update_every, on_metric_error="raise", case="tensors"):
    metric = FailsAt(*failing)
    criterion = make_loss(
        case,
        metric=metric,
        every=update_every,
        on_metric_error=on_metric_error,
        batched=True,
    )
    messages = []
    for metric.call, seed in enumerate(own_seeds(6)):
        try:
            step(criterion, make_arguments(seed=seed))
        except MetricError as error:
            messages.append((metric.call, str(error)))
    return together(criterion), messages, core_of(criterion).stats()["metric/skipped"]


@pytest.mark.parametrize("failing", [0, 2])
def test_a_metric_that_fails_where_the_surrogate_is_updated_fails_on_all_ranks(ranks, failing):
    results = ranks(fit_with_failures, [failing], 1)
    states, messages, _ = zip(*results, strict=True)
    assert_same(states)
    assert states[0]["counters"].tolist()[:2] == [6, 5]
    assert [call for call, _ in messages[0]] == [call for call, _ in messages[1]] == [failing]
    assert "1 of 2 processes" in messages[0][0][1]
    assert "the scorer is down" in messages[1][0][1]


@pytest.mark.parametrize("failing", [1, 4])
def test_a_metric_that_fails_where_it_is_measured_fails_on_all_ranks_that_fit(ranks, failing):
    """Before the surrogate is made nothing travels, and the one in which it fails raises alone."""
    results = ranks(fit_with_failures, [failing], 1, "raise", "measured")
    states, messages, _ = zip(*results, strict=True)
    assert_same(states)
    assert states[0]["counters"][0] == 6
    assert [call for call, _ in messages[1]] == [failing]
    assert "the scorer is down" in messages[1][0][1]
    assert [call for call, _ in messages[0]] == ([failing] if failing == 4 else [])


def test_a_metric_that_fails_elsewhere_fails_alone_and_keeps_the_step(ranks):
    results = ranks(fit_with_failures, [0, 3], 2)
    states, messages, _ = zip(*results, strict=True)
    assert_same(states)
    assert states[0]["counters"].tolist()[:2] == [6, 2]
    assert [call for call, _ in messages[0]] == [3]
    assert [call for call, _ in messages[1]] == [0, 3]


@pytest.mark.parametrize("case", PLAIN)
@pytest.mark.parametrize("failing", [[0], [1, 2], range(6)])
def test_skipped_samples_keep_the_step(ranks, failing, case):
    results = ranks(fit_with_failures, list(failing), 1, "skip", case)
    states, messages, skipped = zip(*results, strict=True)
    assert_same(states)
    calls, updates = states[0]["counters"].tolist()[:2]
    assert (calls, updates) == (6, 6) or (case in MEASURED and calls == 6 and updates > 100)
    assert messages == ([], [])
    assert skipped == (0, 4 * len(failing))


def fail_in_warm_up(case):
    metric = FailsAt(2)

    def batches():
        for metric.call, seed in enumerate(own_seeds(6)):
            yield make_arguments(seed=seed)

    criterion = make_loss(case, metric=metric, batched=True)
    with pytest.raises(MetricError):
        criterion.warm_up(batches(), updates=4)
    metric.call = 0
    train(criterion, case, own_seeds(2))
    return together(criterion)


def warm_up(case, batches):
    """Batches are how many of them each rank has; None takes the generator alone."""
    criterion = make_loss(case, warm_up=10)
    count = batches and batches[dist.get_rank()]
    own = None if count is None else [make_arguments(case, seed) for seed in own_seeds(count)]
    criterion.warm_up(own, updates=4)
    assert criterion.stats["updates"] == 4
    train(criterion, case, own_seeds(2, 50))
    return together(criterion)


@pytest.mark.parametrize(
    ("case", "batches"),
    [("tensors", (4, 4)), ("tensors", (0, 2)), ("characters", None), ("ctc", (1, 3))],
)
def test_warm_up_is_made_together(ranks, case, batches):
    assert_same(ranks(warm_up, case, batches))


@pytest.mark.parametrize("case", PLAIN)
def test_a_metric_that_fails_in_warm_up_fails_on_all_ranks(ranks, case):
    assert_same(ranks(fail_in_warm_up, case))


def resume_each_from_its_own(case):
    criterion, restored = make_loss(case), make_loss(case, seed=9)
    train(criterion, case, own_seeds(3))
    restored.load_state_dict(criterion.state_dict())
    for loss in (criterion, restored):
        train(loss, case, own_seeds(3, 10))
    assert_identical(snapshot(restored), snapshot(criterion))
    return together(restored)


@pytest.mark.parametrize("case", ["ctc", "measured"])
def test_each_rank_resumes_bit_for_bit_from_its_own_state(ranks, case):
    assert_same(ranks(resume_each_from_its_own, case))


def resume_from_rank_0(loads_on, case, calls_before=0):
    criterion = make_loss(case)
    train(criterion, case, own_seeds(3))
    state = [criterion.state_dict()]
    dist.broadcast_object_list(state)
    restored = make_loss(case)
    train(restored, case, own_seeds(calls_before, 20))
    if dist.get_rank() in loads_on:
        restored.load_state_dict(state[0])
    train(restored, case, own_seeds(2, 10))
    return together(restored), snapshot(restored)["random"]


@pytest.mark.parametrize("case", ["ctc", "measured"])
@pytest.mark.parametrize("loads_on", [[0, 1], [0], [1]])
def test_all_ranks_may_resume_from_one_state(ranks, loads_on, case):
    states, streams = zip(*ranks(resume_from_rank_0, loads_on, case), strict=True)
    assert_same(states)
    assert states[0]["counters"][0] == 5
    assert states[0]["counters"][1] == 5 or case in MEASURED
    assert not torch.equal(*streams)


@pytest.mark.parametrize("case", ["ctc", *PLAIN])
def test_ranks_that_resume_from_one_state_in_the_middle_still_draw_apart(ranks, case):
    states, streams = zip(*ranks(resume_from_rank_0, [0, 1], case, 4), strict=True)
    assert_same(states)
    assert states[0]["counters"][0] == 5
    assert not torch.equal(*streams)


def outlive_the_other():
    if dist.get_rank() == 1:
        os._exit(1)
    with pytest.raises(RuntimeError) as caught:
        train(make_loss(), "tensors", range(3))
    return "".join(caught.value.__notes__)


def test_a_process_that_ends_is_not_waited_for():
    ranks = Ranks(2)
    try:
        ranks.send(outlive_the_other)
        note, error = ranks.result(0)
    finally:
        ranks.close()
    assert error is None
    assert "waiting for the other processes" in note


@pytest.mark.parametrize(("name", "value"), [("sync", 1), ("sync", None), ("sync", "all")])
def test_wrong_arguments_are_named(name, value):
    with pytest.raises(TypeError, match=name):
        make_loss(**{name: value})
