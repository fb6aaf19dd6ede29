"""A task's hooks, as the loss calls them: what comes back is checked where it comes in.

An error names the hook and its class, what came, what must come, and what to do. What a hook itself
raises stays what it is, with a note that names the hook.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import _task
from .._batch import Batch
from .._learning.fit_values import Generator
from .._task import Task
from .errors import (
    SWAPPED,
    check_device,
    check_pair,
    check_samples,
    check_side,
    described,
    name_of,
    named,
    refused,
    unchanged,
)

ITSELF = (
    "{name}.read must return the prediction as it came, the argument itself: Batch(prediction="
    "prediction, ...). What is computed from it belongs into represent and decode. (A batch that "
    "keeps a part of the argument overrides `whole` and `replaced`.)"
)
FLAGS = ("ragged", "target_is_best", "measured", "can_sample", "has_score")


def read(task: Task[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Batch:
    """What the task reads from a call whose arguments are `plain`, checked.

    Raises:
        TypeError, ValueError: the call's arguments are wrong, as the task says; or what it read is.
    """
    values = (*args, *kwargs.values())
    with unchanged(task, "read", values), named(task, "read", (TypeError, ValueError)):
        batch: Any = _task.read(task, args, kwargs)
    if not isinstance(batch, Batch):
        raise refused(task, "read", batch)
    prediction, target = batch.prediction, batch.target
    if not isinstance(prediction, Tensor) or not prediction.is_floating_point():
        remedy = "The prediction is the model's output before any argmax or threshold"
        raise refused(task, "read", prediction, remedy, part="prediction")
    with_graph = [v for v in values if isinstance(v, Tensor) and v.requires_grad]
    given = any(value is batch.whole for value in values)
    if with_graph and torch.is_grad_enabled() and not batch.whole.requires_grad:
        itself = f"{ITSELF.format(name=name_of(task))} It came without its graph"
        raise ValueError(SWAPPED if given else itself)
    if not isinstance(target, Tensor) or target.ndim == 0:
        remedy = "What is no tensor goes into a field of your own of a subclass of Batch"
        raise refused(task, "read", target, remedy, part="target")
    if target.requires_grad:
        raise ValueError(f"{name_of(task)}.read returned a target with a graph: detach it")
    check_device(task, "read", target, prediction.device, "target")
    _check_sizes(task, batch)
    return batch


def represent(task: Task[Any], prediction: Tensor, batch: Batch) -> Tensor:
    """z `(batch, ...)`."""
    with unchanged(task, "represent", (prediction, batch.target)), named(task, "represent"):
        z: Any = task.represent(prediction, batch)
    check_samples(task, "represent", z, len(batch.target))
    if not z.is_floating_point():
        raise refused(task, "represent", z, "Give it the prediction's dtype")
    check_device(task, "represent", z, prediction.device)
    if prediction.requires_grad and torch.is_grad_enabled() and not z.requires_grad:
        raise ValueError(
            f"{name_of(task)}.represent returned z without a graph, so that no gradient reaches "
            "the prediction: no detach(), argmax, numpy or no_grad on the way, and start from the "
            "argument `prediction`, not from batch.prediction"
        )
    return z


def expand(task: Task[Any], target: Tensor) -> Tensor:
    """y `(batch, ...)`."""
    with unchanged(task, "expand", (target,)), named(task, "expand"):
        y: Any = task.expand(target)
    check_samples(task, "expand", y, len(target))
    return y


def decode(task: Task[Any], batch: Batch) -> tuple[Any, Any]:
    """Predictions and targets as the metric takes them."""
    with unchanged(task, "decode", (batch.prediction, batch.target)), named(task, "decode"):
        pair = task.decode(batch)
    return check_pair(f"{name_of(task)}.decode", pair, len(batch.target))


def encode(
    task: Task[Any],
    predictions: Any,
    targets: Any,
    shapes: tuple[torch.Size, torch.Size] | None,
) -> tuple[Tensor, Tensor]:
    """A generator's pairs as z and stored targets.

    Args:
        task: encodes them.
        predictions: as `decode` would return them.
        targets: as many.
        shapes: of a sample of z and of a stored target so far; None before the first.
    """
    with named(task, "encode"):
        pair: Any = task.encode(predictions, targets, None if shapes is None else shapes[0])
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise refused(task, "encode", pair)
    for part in pair:
        if not isinstance(part, Tensor) or part.ndim == 0 or len(part) != len(targets):
            raise refused(task, "encode", pair, f"There are {len(targets)} pairs")
    for part, shape, like in zip(pair, shapes or (), ("represent", "read")):
        alike = part.shape[1:] == shape
        if task.ragged:
            alike = part.ndim == len(shape) + 1 and (like == "read" or part.shape[1] == shape[0])
        if not alike:
            raise ValueError(
                f"{name_of(task)}.encode gave samples of shape {tuple(part.shape[1:])} where "
                f"{like} gives {tuple(shape)}: both must lay out a sample in the same way. Pairs "
                "come from the generator; is it made for these predictions and targets?"
            )
    return pair[0], pair[1]


def build_surrogate(task: Task[Any], z: Tensor, y: Tensor) -> nn.Module:
    """The task's surrogate for such z and y."""
    with named(task, "build_surrogate"):
        surrogate: Any = task.build_surrogate(z, y)
    if not isinstance(surrogate, nn.Module):
        raise refused(task, "build_surrogate", surrogate)
    return surrogate


def value(surrogate: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    """The surrogate's values `(batch,)`."""
    try:
        found: Any = surrogate(z, y)
    except Exception as error:
        error.add_note(
            f"The surrogate, {type(surrogate).__name__}, was called with z {tuple(z.shape)} and "
            f"y {tuple(y.shape)}, as the task's represent and expand give them"
        )
        raise
    return surrogate_value(found, z)


def surrogate_value(found: Any, z: Tensor) -> Tensor:
    """What a surrogate returned, if it is `(batch,)` and has a gradient where one is asked for."""
    if not isinstance(found, Tensor) or found.shape != z.shape[:1]:
        raise (ValueError if isinstance(found, Tensor) else TypeError)(
            f"the surrogate must return one value a sample, shape {tuple(z.shape[:1])}; it "
            f"returned {described(found)}"
        )
    if torch.is_grad_enabled() and z.requires_grad and not found.requires_grad:
        raise ValueError(
            "the surrogate's values have no gradient with respect to z, which is what is asked of "
            "it: it must not detach them, nor compute under no_grad"
        )
    return found


def draw(
    task: Task[Any], batch: Batch, count: int, random: torch.Generator
) -> list[tuple[Any, Any]]:
    """Random draws from each prediction's distribution, as `decode` gives them."""
    with unchanged(task, "draw", (batch.prediction, batch.target)), named(task, "draw"):
        draws: Any = task.draw(batch, count, random)
    if not isinstance(draws, list) or len(draws) != count:
        raise refused(task, "draw", draws)
    return [check_pair(f"{name_of(task)}.sample", pair, len(batch.target)) for pair in draws]


def sample_with_score(
    task: Task[Any], batch: Batch, random: torch.Generator
) -> tuple[Any, Any, Tensor]:
    """A draw, and the gradient of its log-likelihood with respect to the prediction."""
    given = batch.prediction, batch.target
    with unchanged(task, "sample_with_score", given), named(task, "sample_with_score"):
        drawn: Any = task.sample_with_score(batch, random)
    if not isinstance(drawn, tuple | list) or len(drawn) != 3:
        raise refused(task, "sample_with_score", drawn)
    predictions, targets, score = drawn
    if not isinstance(score, Tensor) or score.shape != batch.prediction.shape:
        remedy = f"The prediction's shape is {tuple(batch.prediction.shape)}"
        raise refused(task, "sample_with_score", score, remedy, part="score")
    name = f"{name_of(task)}.sample_with_score"
    return *check_pair(name, (predictions, targets), len(batch.target)), score


def perfect(task: Task[Any], batch: Batch) -> list[Any]:
    """Predictions of which one should be the best there is."""
    with named(task, "perfect"):
        found: Any = task.perfect(batch)
    if not isinstance(found, list):
        raise refused(task, "perfect", found)
    for predictions in found:
        check_side(f"{name_of(task)}.perfect", predictions, len(batch.target))
    return found


def warn_about(task: Task[Any], batch: Batch) -> bool:
    """Whether a batch has told that all is well, or that it is not."""
    with named(task, "warn_about"):
        told: Any = task.warn_about(batch)
    if told is None:
        raise refused(task, "warn_about", told)
    return bool(told)


def settled(task: Task[Any], hook: str, *arguments: Any) -> Task[Any]:
    """The task that `for_base_loss` or `for_surrogate` makes of a task."""
    with named(task, hook, (TypeError, ValueError)):
        found: Any = getattr(task, hook)(*arguments)
    if not isinstance(found, Task):
        raise refused(task, hook, found)
    return found


def generator(task: Task[Any]) -> Generator | None:
    """The task's own random data generator."""
    with named(task, "generator"):
        found: Any = task.generator()
    if found is not None and not callable(found):
        raise refused(task, "generator", found)
    return found


def reduce(batch: Batch, values: Tensor, reduction: str) -> Tensor:
    """The loss of the call, from that of its samples."""
    with named(batch, "reduce"):
        loss: Any = batch.reduce(values, reduction)
    if not isinstance(loss, Tensor) or (values.requires_grad and not loss.requires_grad):
        raise refused(batch, "reduce", loss)
    return loss


def check_settings(task: Task[Any]) -> None:
    """Checks what a task says of itself by its attributes.

    Raises:
        TypeError: one is of the wrong kind, or goes with a hook that is not there.
    """
    name, kind = name_of(task), type(task)
    names = task.surrogates
    if not isinstance(names, tuple) or not names or not all(isinstance(n, str) for n in names):
        raise TypeError(
            f"{name}.surrogates must be a tuple of names, the default first, such as "
            f'("embedding",), with the comma; it is {names!r}'
        )
    for flag in FLAGS:
        if not isinstance(getattr(task, flag), bool):
            raise TypeError(f"{name}.{flag} must be True or False; it is {getattr(task, flag)!r}")
    if task.can_sample and not task.measured and not defines_draws(task):
        raise TypeError(f"{name}.can_sample is True: then it must define sample(batch, random)")
    if task.draws and not task.can_sample:
        raise TypeError(
            f"{name}.draws is {task.draws!r}, and {name}.can_sample is False: to draw, define "
            "sample(batch, random) and set can_sample = True"
        )
    if task.measured and kind.estimator is Task.estimator:
        raise TypeError(
            f"{name}.measured is True: then it must define estimator(...). A task of plain tensors "
            "has one that is a subclass of Tensors"
        )


def defines_draws(task: Task[Any]) -> bool:
    """Whether one of the hooks that draw is the task's own."""
    hooks = ("sample", "draw", "sample_with_score")
    return any(getattr(type(task), hook) is not getattr(Task, hook) for hook in hooks)


def _check_sizes(task: Task[Any], batch: Batch) -> None:
    """Checks that prediction, target and weights are of as many samples."""
    shape, count, dim = tuple(batch.prediction.shape), len(batch.target), batch.batch_dim
    if dim is not None and (not isinstance(dim, int) or not -len(shape) <= dim < len(shape)):
        raise ValueError(
            f"{name_of(task)}.read returned batch_dim={dim!r} for a prediction of shape {shape}: "
            "it must be one of its dimensions, or None for one sample without any"
        )
    size = 1 if dim is None else shape[dim]
    if size != count:
        raise ValueError(
            f"{name_of(task)}.read returned a prediction of {size} samples, shape {shape} with "
            f"batch_dim={dim}, and a target of {count}, shape {tuple(batch.target.shape)}: both "
            "must hold the same samples. Let it check the arguments, and say which dimension of "
            "the prediction is the batch's"
        )
    weights: Any = batch.weights
    if weights is not None and (not isinstance(weights, Tensor) or weights.shape != (count,)):
        raise ValueError(
            f"{type(batch).__name__}.weights must be one number a sample, shape ({count},); it is "
            f"{described(weights)}"
        )
