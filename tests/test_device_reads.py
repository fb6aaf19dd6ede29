"""On calls that do not update the surrogate, the host hardly waits for the device."""

from collections import Counter

import numpy as np
import pytest
import torch
from conftest import OF_VALUES, make_arguments, make_loss
from device_reads import DeviceReads
from torch import nn
from within import core_of

from learned_surrogates import text

QUIET = {
    "eval": lambda criterion, arguments: criterion.eval()(*arguments),
    "no_grad": torch.no_grad()(lambda criterion, arguments: criterion(*arguments)),
    "inference_mode": torch.inference_mode()(lambda criterion, arguments: criterion(*arguments)),
}
# The surrogates that are fitted to values see CTC's target along its best path, found on the host.
LAID_OUT = {"_ctc._lay_out": 1}
# What must be read of targets that are on the device.
TARGETS = {
    "tensors": {},
    "boxes": {"_check.check_boxes": 1},
    "ctc": {"_text_task.as_integers": 3},
    "characters": {"_text_task.as_integers": 1},
}
# What the metric needs at each evaluation: the texts, or its values, which it computed there.
METRIC = {
    "tensors": {"values.as_numbers": 1},
    "boxes": {"values.as_numbers": 1, "_check.check_boxes": 2},
    "ctc": {"_text_task.decode": 1},
    "characters": {"_text_task.decode": 1},
}
# Of two draws, which text reads together.
METRIC_OF_DRAWS = {
    "boxes": {place: 2 * count for place, count in METRIC["boxes"].items()},
    "ctc": {"_text_task.readings": 1},
    "characters": {"_text_task.readings": 1},
}


def settled(case, **options):
    """A loss after its warm-up, whose next call does not update it."""
    criterion = make_loss(case, every=1000, **options)
    for seed in range(5):
        criterion(*make_arguments(case, seed, batch=8))
    # Level boxes do not tell degrees from radians: targets are looked at for a hundred calls.
    core_of(criterion).oracle.first_batches.of_batches = 0
    return criterion


def on_device(criterion, arguments):
    core = core_of(criterion)
    learner, net, pairs = core.learner, core.net, core.pairs
    fields = [*pairs.replay.fields, *pairs.unseen.fields]
    scalars = [net.scale, learner.keep_rate, learner.penalty]
    weights = net.module.state_dict(keep_vars=True).values()
    return [*arguments, *fields, *scalars, *weights]


def reads_of(criterion, call, arguments, device):
    with DeviceReads(on_device(criterion, device)) as recorder:
        call(criterion, arguments)
    return Counter(read.where for read in recorder.reads)


@pytest.mark.parametrize("passive", QUIET)
@pytest.mark.parametrize("case", OF_VALUES)
def test_a_call_that_does_not_learn_waits_for_nothing(case, passive):
    criterion, arguments = settled(case), make_arguments(case, 7)
    laid_out = LAID_OUT if case == "ctc" else {}
    assert reads_of(criterion, QUIET[passive], arguments, arguments[:1]) == laid_out
    targets = TARGETS[case.partition("-")[0]]
    assert reads_of(criterion, QUIET[passive], arguments, arguments) == {**laid_out, **targets}


@pytest.mark.parametrize("options", [{}, {"filter": 0.5, "base_weight": 0.5}])
@pytest.mark.parametrize("case", OF_VALUES)
def test_a_call_without_an_update_reads_what_the_metric_needs_and_one_mask(case, options):
    kind, _, form = case.partition("-")
    if options:
        options = {**options, "base_loss": lambda prediction, *rest: prediction.square().mean()}
    criterion, arguments = settled(case, **options), make_arguments(case, 7)
    expected = Counter({"pairs.observe": 1, **METRIC[kind], **(LAID_OUT if case == "ctc" else {})})
    if form:
        expected += Counter(METRIC_OF_DRAWS[kind])
    updates = criterion.stats["updates"]
    learn = lambda criterion, arguments: criterion(*arguments).sum().backward()  # noqa: E731
    assert reads_of(criterion, learn, arguments, arguments[:1]) == expected
    assert criterion.stats["updates"] == updates


def test_a_sample_that_is_left_out_is_so_without_another_reading():
    criterion, arguments = settled("ctc", metric=text.edit_distance), make_arguments("ctc", 7)
    with torch.no_grad():
        arguments[0][:, 1] = torch.nan
    learn = lambda criterion, arguments: criterion(*arguments)  # noqa: E731
    reads = reads_of(criterion, learn, arguments, arguments[:1])
    assert reads["pairs.observe"] == 1
    assert core_of(criterion).pairs.skipped == 1


READERS = {
    "item": lambda t: t.sum().item(),
    "tolist": lambda t: t.tolist(),
    "float": lambda t: float(t[0]),
    "int": lambda t: int(t[0]),
    "if": lambda t: 1 if t[0] > 0 else 0,
    "any": lambda t: bool((t > 0).any()),
    "cpu": lambda t: t.cpu(),
    "to": lambda t: t.to("cpu", torch.float64),
    "numpy": lambda t: t.numpy(),
    "asarray": np.asarray,
    "mask": lambda t: t[t > 0],
    "set by mask": lambda t: t.clone().__setitem__(t > 0, 1.0),
    "nonzero": lambda t: (t > 0).nonzero(),
    "where": lambda t: torch.where(t > 0),
    "unique": torch.unique,
    "iterated": lambda t: [part.item() for part in t[:1]],
    "a module's": lambda t: nn.Linear(3, 1)(t).item(),
}


@pytest.mark.parametrize("reader", READERS)
def test_the_guard_notices(reader):
    tensor = torch.arange(3.0)
    with DeviceReads([tensor]) as recorder:
        READERS[reader](tensor)
    assert len(recorder.reads) == 1


def test_the_guard_leaves_alone_what_is_on_the_host():
    tensor, other = torch.arange(3.0), torch.arange(3.0)
    with DeviceReads([tensor]) as recorder:
        for reader in READERS.values():
            reader(other)
        there = tensor * 2 + tensor.square().sum()
        there.where(there > 0, 1.0)[[0, 1]].clone()
    assert recorder.reads == []
    with DeviceReads([tensor]) as recorder:
        tensor.cpu().tolist()
        other.to(tensor.device).sum().item()
    assert [read.how for read in recorder.reads] == ["cpu", "item"]
