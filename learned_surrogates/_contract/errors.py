"""What is said of a hook of a task that does not return what it must."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._batch import Batch
from .._task import Task

SWAPPED = (
    "the prediction carries no gradient, and another argument does: are they swapped? The "
    "prediction comes first, and the gradient goes to it alone"
)
#: What each hook must return.
RETURNS = {
    "read": "a Batch(prediction=the model's tensor as it came, target=a tensor with an entry for "
    "each sample)",
    "represent": "z, a floating-point tensor (batch, ...) of two dimensions or more, computed from "
    "its argument `prediction` by differentiable operations",
    "expand": "y, a tensor (batch, ...) of two dimensions or more",
    "decode": "(predictions, targets) as the metric takes them, each a tensor, an array or a list "
    "with an entry for each sample",
    "encode": "(z, stored targets), two tensors with an entry for each pair, like what represent "
    "and read give",
    "build_surrogate": "an nn.Module S(z, y) -> (batch,)",
    "draw": "a list of so many pairs, each as decode returns it",
    "sample_with_score": "(predictions, targets, score), the score of the prediction's shape",
    "perfect": "a list of predictions as decode gives them, [] if there are none",
    "warn_about": "True where the batch has told, False where the next one is to be looked at",
    "generator": "a generator, called as generator(count, rng) -> (predictions, targets); or None",
    "for_surrogate": "a task: task = super().for_surrogate(surrogate), changed and returned",
    "for_base_loss": "a task: self, or a copy of it",
    "reduce": "a tensor that depends on the values",
}


def check_pair(name: str, pair: Any, count: int) -> tuple[Any, Any]:
    """Checks predictions and targets that are meant for the metric.

    Raises:
        TypeError, ValueError: they are none, or not so many.
    """
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{name} must return {RETURNS['decode']}; it returned {described(pair)}")
    for side in pair:
        check_side(name, side, count)
    return pair[0], pair[1]


def check_side(name: str, side: Any, count: int) -> None:
    """Checks the predictions, or the targets, of a batch of so many samples."""
    kind = isinstance(side, Tensor | np.ndarray | Sequence) and not isinstance(side, str | bytes)
    size = len(side) if kind and getattr(side, "shape", None) != () else -1
    if size != count:
        raise (TypeError if size < 0 else ValueError)(
            f"{name} must give the metric a tensor, an array or a list with an entry for each of "
            f"the {count} samples; it returned {described(side)}"
        )
    tensors = [side] if isinstance(side, Tensor) else side if isinstance(side, list) else []
    if any(isinstance(each, Tensor) and each.requires_grad for each in tensors):
        raise ValueError(
            f"{name} returned a tensor with a graph, which most metrics cannot take: detach it"
        )


def refused(
    owner: Task[Any] | Batch, hook: str, came: Any, remedy: str = "", part: str = ""
) -> TypeError:
    """The error for what a hook returned, or for a part of that."""
    what = f"{part} " if part else ""
    return TypeError(
        f"{name_of(owner)}.{hook} must return {RETURNS[hook]}; it returned {what}{described(came)}"
        + (f". {remedy}" if remedy else "")
    )


def described(value: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"a tensor of shape {tuple(value.shape)}, {kind}"
    if isinstance(value, np.ndarray):
        return f"a numpy array of shape {value.shape}, {value.dtype}"
    if isinstance(value, tuple | list | dict | set):
        within = ", ".join(sorted({type(each).__name__ for each in value}))
        return f"a {type(value).__name__} of {len(value)}" + (f" ({within})" if within else "")
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_samples(task: Task[Any], hook: str, found: Any, count: int) -> None:
    if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != count:
        raise refused(task, hook, found, f"The batch has {count} samples")


def check_device(
    task: Task[Any], hook: str, found: Tensor, device: torch.device, part: str = "a tensor"
) -> None:
    if found.device != device:
        raise ValueError(
            f"{name_of(task)}.{hook} returned {part} on {found.device}, and the prediction is on "
            f"{device}: move it there, .to(prediction.device)"
        )


@contextmanager
def named(
    owner: Task[Any] | Batch, hook: str, own: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """A context whose errors, but for the hook's own kinds, get a note that names the hook."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, own):
            name, missing = name_of(owner), ""
            if isinstance(error, AttributeError) and error.obj is owner:
                missing = (
                    f" {name} has no {error.name!r}: does its __init__ call super().__init__()?"
                )
            error.add_note(
                f"{name}.{hook} raised this; it must return {RETURNS[hook]}.{missing} "
                "learned_surrogates.check_task(task, ...) tells more"
            )
        raise


@contextmanager
def unchanged(task: Task[Any], hook: str, values: Sequence[Any]) -> Iterator[None]:
    """A context in which tensors must not be written to."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    before = list(map(_version, tensors))
    yield
    if list(map(_version, tensors)) != before:
        raise ValueError(
            f"{name_of(task)}.{hook} changed a tensor of the call in place: that is the model's or "
            "the user's. Work on a copy, tensor.clone()"
        )


def _version(tensor: Tensor) -> int:
    """How often a tensor was written to; those of inference mode do not count that."""
    return 0 if tensor.is_inference() else tensor._version


def name_of(owner: Task[Any] | Batch) -> str:
    return type(owner).__name__
