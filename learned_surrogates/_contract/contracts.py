"""What the loss relies on of a task, whatever is learned: reading, decoding, draws.

A contract raises an AssertionError where it is broken, or what a hook raises; `NotAsked` where it
does not go with the task or the call. Its docstring is what it asks for.
"""

import copy
import pickle
import random as python_random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._learning.gradient_step import seeded
from .._task import Task
from . import hooks
from .call import Call, NotAsked, own
from .compare import equal, form
from .errors import name_of
from .score_slopes import agree, slopes

DRAWS = 8
SIDES = ("predictions", "targets")


def settings(call: Call) -> None:
    """class attributes are of the right kind, and go with the hooks that are there"""
    task, kind = call.task, type(call.task)
    hooks.check_settings(task)
    if not task.can_sample and (kind.sample, kind.draw) != (Task.sample, Task.draw):
        # A task may say so for each object, as boxes without noise do.
        assert "can_sample" in vars(task), "it defines sample, and must say so: can_sample = True"


def read(call: Call) -> None:
    """reads prediction, target and weights of as many samples, on one device, target detached"""
    assert call.batch is not None


def argument(call: Call) -> None:
    """the prediction is the argument itself, so that a base loss can be called beside it"""
    given = any(value is call.batch.whole for value in call.values)
    assert given, hooks.ITSELF.format(name=name_of(call.task))
    moved = call.moved(-call.batch.prediction.detach())
    assert equal(moved.batch.prediction, -call.batch.prediction), (
        "a call with another tensor in place of the prediction is not read as that: see "
        "Batch.whole and Batch.replaced"
    )


def decode(call: Call) -> None:
    """the metric gets predictions and targets, an entry a sample, the same ones each time"""
    assert equal(call.decode(), call.decode()), "two calls of decode differ: no chance in it"


def apart(call: Call) -> None:
    """what the metric gets is its own: what is later written to the call's tensors is not in it"""
    twin = Call(call.task, call.args, call.kwargs)
    decoded = twin.decoded
    before = copy.deepcopy(decoded)
    with torch.no_grad():
        for value in twin.values:
            if isinstance(value, Tensor):
                value.copy_((value == 0).to(value.dtype))
    for side, was, name in zip(decoded, before, SIDES):
        assert equal(side, was), (
            f"decode returned {name} that share memory with the call's: with an executor, they "
            "change before they are measured. Return copies, .clone()"
        )


def half(call: Call) -> None:
    """the metric of a bfloat16 prediction does not get bfloat16"""
    for side in call.moved(call.batch.prediction.detach().to(torch.bfloat16)).decoded:
        assert not (isinstance(side, Tensor) and side.dtype == torch.bfloat16), (
            "decode gives the metric bfloat16, which numpy and most metrics do not have: .float()"
        )


def alone(call: Call) -> None:
    """a sample alone is read as it is in its batch"""
    for sample in sorted({0, call.several - 1}):
        _same_decoded(call, [sample])


def order(call: Call) -> None:
    """samples in another order are read as they are in this one"""
    _same_decoded(call, list(range(call.several))[::-1])


def perfect(call: Call) -> None:
    """the targets as predictions look like predictions"""
    predictions, targets = call.decoded
    if call.task.target_is_best:
        assert form(predictions) == form(targets), (
            f"target_is_best is True, and decode gives predictions as {form(predictions)}, "
            f"targets as {form(targets)}: a prediction cannot equal its target"
        )
    for found in hooks.perfect(call.task, call.batch):
        assert form(found) == form(predictions), (
            f"perfect gives {form(found)}, decode {form(predictions)}: define perfect, too, such "
            "as [self.decode(batch)[1]], or return []"
        )
    assert hooks.warn_about(call.task, call.batch) in (True, False)


def draws(call: Call) -> None:
    """draws look like what decode gives, differ, and follow from the random generator alone"""
    batch = call.batch
    if not call.task.can_sample:
        raise NotAsked("can_sample is False")
    if not hooks.defines_draws(call.task):
        raise NotAsked("draws are the estimator's")

    def drawn(seed: int, at_once: int = DRAWS) -> list[tuple[Any, Any]]:
        random = torch.Generator().manual_seed(0)
        found: list[tuple[Any, Any]] = []
        with seeded(seed):
            while len(found) < DRAWS:
                found += hooks.draw(call.task, batch, at_once, random)
        return found

    first = drawn(1)
    assert equal(first, drawn(1, at_once=1)), "draws together are not those one by one"
    assert equal(first, drawn(2)), (
        "draws from a generator of one seed differ: take all chance from the argument `random`, "
        "torch.rand(..., generator=random)"
    )
    assert {form(pair[0]) for pair in first} == {form(call.decoded[0])}, (
        f"sample gives {form(first[0][0])}, decode {form(call.decoded[0])}"
    )
    assert all(equal(pair[1], call.decoded[1]) for pair in first), "draws have other targets"
    assert not all(equal(pair[0], first[0][0]) for pair in first), (
        f"{DRAWS} draws are all the same: is it a draw from the prediction's distribution? If so, "
        "give a call whose predictions are less certain"
    )


def scores(call: Call) -> None:
    """the score of a draw is finite, and of the prediction's shape"""
    if not call.task.has_score:
        raise NotAsked("has_score is False")
    found = hooks.sample_with_score(call.task, call.batch, torch.Generator().manual_seed(0))
    assert found[2].isfinite().all(), "a score is not finite"


def likelihood(call: Call) -> None:
    """draws move with the prediction as their scores say, in scale and sign, too"""
    if not call.task.has_score:
        raise NotAsked("has_score is False")
    told, seen, error = slopes(call)
    cosine = torch.cosine_similarity(told, seen, 0)
    assert agree(told, seen, error), (
        f"where predictions are moved, draws follow with a slope of {seen.norm():.2g}; by their "
        f"scores it is {told.norm():.2g}, and the cosine {cosine:.2f}. A score is the gradient of "
        "the draws' summed log-likelihoods, not of their mean, with each at the temperature at "
        "which it was drawn, and of its own sample alone"
    )


def unchanged(call: Call) -> None:
    """no hook changes the call's arguments, the task itself, or a global random stream"""
    values = [own(value) for value in call.values]
    chance = _global_chance()
    decoded, batch = call.decoded, call.read()
    if call.task.can_sample and not call.task.measured:
        hooks.draw(call.task, batch, 1, torch.Generator().manual_seed(0))
    if not call.task.measured:
        for task in call.forms:
            call.z(task)
            hooks.expand(task, batch.target)
            try:
                hooks.encode(task, *decoded, None)
            except NotImplementedError:
                continue
    assert equal(list(call.values), values), "a hook changed an argument of the call in place"
    assert call.settings is None or equal(vars(call.task), call.settings), (
        "a hook changed the task: one task may serve several losses, so that what belongs to a "
        "call goes into its Batch"
    )
    assert equal(_global_chance(), chance), (
        "a hook took random numbers from a global stream: sample gets a generator of its own"
    )


def copies(call: Call) -> None:
    """the task can be pickled and copied, and does the same afterwards"""
    try:
        pickled = pickle.loads(pickle.dumps(call.task))
    except Exception as error:
        error.add_note(
            "A task must be one that pickle takes: no lambda, no class within a function"
        )
        raise
    for twin in (pickled, copy.deepcopy(call.task)):
        other = Call(twin, call.args, call.kwargs)
        assert equal(other.decoded, call.decoded), "a copy of the task decodes otherwise"


def reduction(call: Call) -> None:
    """batches are reduced to one number, or to one value a sample"""
    values = torch.ones(len(call.batch.target), requires_grad=True)
    for reduction in ("mean", "sum", "none"):
        call.batch.check_reduction(reduction)
        loss = hooks.reduce(call.batch, values, reduction)
        dim = call.batch.batch_dim
        shape = () if reduction != "none" or dim is None else (call.batch.whole.shape[dim],)
        assert tuple(loss.shape) == shape, (
            f"Batch.reduce gives {tuple(loss.shape)} for {reduction!r}; it must be {shape}"
        )


def _same_decoded(call: Call, samples: Sequence[int]) -> None:
    """Holds a call with some samples against these samples of the whole call."""
    for side, whole, name in zip(call.only(samples).decoded, call.decoded, SIDES):
        assert equal(list(side), [whole[sample] for sample in samples]), (
            f"decode gives other {name} for samples {list(samples)} alone than for them in their "
            "batch"
        )


def _global_chance() -> list[Any]:
    """The states of the random streams that everybody shares."""
    state: Any = np.random.get_state()
    return [torch.get_rng_state(), list(state[1]), state[2], python_random.getstate()[1]]
