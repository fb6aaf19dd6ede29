"""What a surrogate that is fitted to values relies on: z, y, and the generator's pairs.

Each contract is asked of every form that the task's surrogates have; see `contracts`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._learning.gradient_step import seeded
from .._learning.replay_buffer import common_shape, pad_to
from .._task import Task
from . import hooks
from .call import Call, NotAsked
from .compare import equal, form
from .errors import check_pair, described


def represent(call: Call) -> None:
    """z (batch, ...) is floating point, of two dimensions or more, and finite"""
    for task in call.forms:
        z = call.z(task)
        assert z.isfinite().all(), f"z is not finite{of_form(task)}: {described(z)}"


def gradient(call: Call) -> None:
    """a gradient reaches the prediction, and is finite"""
    for task in call.forms:
        z = call.z(task)
        weights = torch.rand(z.shape, generator=torch.Generator().manual_seed(0)).to(z)
        given = [v for v in call.values if isinstance(v, Tensor) and v.requires_grad]
        gradients = torch.autograd.grad((weights * z).sum(), given, allow_unused=True)
        found = torch.cat([part.flatten() for part in gradients if part is not None])
        assert found.isfinite().all(), f"the gradient of z is not finite{of_form(task)}"
        assert found.any(), (
            f"the gradient of z is zero{of_form(task)}: rounding, a threshold or argmax in "
            "represent has none; give the surrogate what comes before, such as probabilities"
        )


def independent(call: Call) -> None:
    """z of a sample depends on that sample's prediction alone"""
    count = call.several
    for sample in sorted({0, count // 2, count - 1}):
        others = [(i + 1) % count for i in range(count)]
        others[sample] = sample
        moved = call.like(others)
        if equal(moved, call.batch.prediction):
            raise NotAsked("the predictions are all the same: give a call whose samples differ")
        for task in call.forms:
            before, after = call.z(task)[sample], call.z(task, moved)[sample]
            assert equal(before, after), (
                f"z of sample {sample} changes{of_form(task)} when other samples' predictions do: "
                "represent must not mix the batch, as a mean, a norm or a softmax over dimension "
                f"{call.batch.batch_dim} of the prediction does"
            )


def cut(call: Call) -> None:
    """z and y of samples alone, and in another order, are those in their batch"""
    for samples in ([0], list(range(call.several))[::-1]):
        part = call.only(samples)
        for task in call.forms:
            pairs = {
                "z": (part.z(task), call.z(task)),
                "y": (hooks.expand(task, part.batch.target), hooks.expand(task, call.batch.target)),
            }
            for name, (own, whole) in pairs.items():
                assert _padded_alike(own, whole[samples], ragged=task.ragged), (
                    f"{name} of samples {samples} is another one when they are alone in a call"
                    f"{of_form(task)}: read and represent must treat each sample on its own"
                )


def expand(call: Call) -> None:
    """y (batch, ...) is finite, of two dimensions or more, each from its own stored target alone"""
    target = call.batch.target
    for task in call.forms:
        y = hooks.expand(task, target)
        assert y.isfinite().all(), f"y is not finite{of_form(task)}: {described(y)}"
        for sample in range(min(2, len(target))):
            alone = hooks.expand(task, target[sample : sample + 1])[0]
            assert equal(alone, y[sample]), (
                f"y of sample {sample} is another one when its target is expanded alone"
                f"{of_form(task)}"
            )


def padding(call: Call) -> None:
    """where samples are ragged, a stored target that is padded with zeros is y padded with zeros"""
    target = call.batch.target
    if not call.task.ragged:
        raise NotAsked("ragged is False: all samples have one shape")
    longer = pad_to(target, torch.Size((*target.shape[1:-1], target.shape[-1] + 3)))
    for task in call.forms:
        same = _padded_alike(hooks.expand(task, target), hooks.expand(task, longer))
        assert same, (
            f"padding shows in y{of_form(task)}: replay pads stored targets with zeros, which must "
            "stand for nothing. Store what counts from 1 on"
        )


def encode(call: Call) -> None:
    """predictions and targets as the metric takes them become z and targets of the same layout"""
    predictions, targets = call.decoded
    stored = call.batch.target
    for task in call.forms:
        z = call.z(task)
        shapes = z.shape[1:], stored.shape[1:]
        again, target = hooks.encode(task, predictions, targets, shapes)
        assert again.is_floating_point(), f"encode's z is {described(again)}{of_form(task)}"
        assert target.dtype == stored.dtype, (
            f"encode's targets are {target.dtype}, and read's {stored.dtype}: replay has one type"
        )
        assert task.ragged or equal(target.to(stored.device), stored), (
            f"encode stores other targets than read does, of the same ones{of_form(task)}"
        )


def generator(call: Call) -> None:
    """the task's own generator makes pairs that look like what decode gives"""
    for task in call.forms:
        make = hooks.generator(task)
        if make is None:
            continue
        pair = check_pair("the generator", make(4, np.random.default_rng(0)), 4)
        assert [form(side) for side in pair] == [form(side) for side in call.decoded], (
            f"the generator makes {form(pair[0])}, decode gives {form(call.decoded[0])}"
        )
        hooks.encode(task, *pair, (call.z(task).shape[1:], call.batch.target.shape[1:]))


def surrogate(call: Call) -> None:
    """the default surrogate gives one value a sample, of that sample alone, with a gradient"""
    for task in call.forms:
        z, target = call.z(task).detach().cpu().float(), call.batch.target.cpu()
        y = hooks.expand(task, target).float()
        with seeded(0):
            try:
                net = hooks.build_surrogate(task, z, y).float()
            except ValueError:
                if task is call.forms[0]:
                    raise
                continue  # one that is asked for by name may refuse these shapes
        z.requires_grad_()
        value = hooks.value(net, z, y)
        (slope,) = torch.autograd.grad(value.sum(), z, allow_unused=True)
        assert slope is not None and slope.isfinite().all() and slope.any(), (
            f"the surrogate's value has no finite gradient in z{of_form(task)}"
        )
        assert equal(hooks.value(net, z[:1], y[:1]), value[:1]), (
            f"the surrogate's value of a sample depends on its batch{of_form(task)}: no BatchNorm"
        )


def precision(call: Call) -> None:
    """z of a float64 prediction is float64"""
    double = call.moved(call.batch.prediction.detach().to(torch.float64))
    for task in call.forms:
        z = double.z(task)
        assert z.dtype == torch.float64, (
            f"z of a float64 prediction is {z.dtype}{of_form(task)}: compute in the prediction's "
            "own dtype, to which the loss casts it"
        )


def of_form(task: Task[Any]) -> str:
    """Of which representation an error is, where the task has several."""
    return f" (surrogate={task.surrogate!r})" if len(task.surrogates) > 1 else ""


def _padded_alike(one: Tensor, other: Tensor, *, ragged: bool = True) -> bool:
    """Whether two batches are the same or, where that may be, but for zeros behind them."""
    if not ragged:
        return equal(one, other)
    shape = common_shape([one, other])
    return equal(pad_to(one, shape), pad_to(other, shape))
