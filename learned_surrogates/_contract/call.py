"""A call of the loss, as the contracts of a task take it apart and put it together again."""

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._base_loss import with_prediction
from .._batch import Batch, plain
from .._support.precision import at_least_float32
from .._task import Task
from . import hooks


class NotAsked(Exception):
    """A contract does not go with this task or this call."""


class Call:
    """What the loss would be called with: copies, the prediction a leaf.

    Args:
        task: reads it.
        args: positional arguments.
        kwargs: keyword arguments.
    """

    def __init__(self, task: Task[Any], args: Sequence[Any], kwargs: dict[str, Any]):
        self.task = task
        self.args: tuple[Any, ...] = tuple(map(own, args))
        self.kwargs = {key: own(value) for key, value in kwargs.items()}
        #: What the task held before anything was asked of it; None where that is not known.
        self.settings: dict[str, Any] | None = None

    @property
    def values(self) -> tuple[Any, ...]:
        """All arguments."""
        return (*self.args, *self.kwargs.values())

    def read(self, task: Task[Any] | None = None) -> Batch:
        """What a task reads, by default the call's own."""
        with torch.enable_grad():
            return hooks.read(task or self.task, self.args, self.kwargs)

    @cached_property
    def batch(self) -> Batch:
        """What the task reads."""
        whole = self.read().whole
        if any(value is whole for value in self.values):
            whole.requires_grad_()
        return self.read()

    def decode(self) -> tuple[Any, Any]:
        """What the metric gets."""
        with torch.no_grad():
            return hooks.decode(self.task, self.batch)

    @cached_property
    def decoded(self) -> tuple[Any, Any]:
        """The same, once."""
        return self.decode()

    @cached_property
    def forms(self) -> list[Task[Any]]:
        """The task, as each surrogate that is fitted to values has it."""
        found = {} if self.task.measured else {self.task.surrogate: self.task}
        for name in self.task.surrogates:
            form = hooks.settled(self.task, "for_surrogate", name)
            if not form.measured:
                found.setdefault(name, form)
        if not found:
            raise NotAsked("the metric's gradient is measured: nothing is represented")
        return list(found.values())

    def z(self, task: Task[Any], prediction: Tensor | None = None) -> Tensor:
        """A task's representation, by default of the call's prediction; differentiable."""
        batch = self.read(task)
        prediction = batch.prediction if prediction is None else prediction
        with torch.enable_grad():
            return hooks.represent(task, at_least_float32(prediction), batch)

    @property
    def several(self) -> int:
        """How many samples there are, where that is several, with a dimension of their own."""
        count = len(self.batch.target)
        if self.batch.batch_dim is None or count < 2:
            raise NotAsked("needs a call with a batch of two samples or more")
        return count

    def like(self, samples: Sequence[int]) -> Tensor:
        """The prediction, with other samples of the batch in place of each."""
        prediction, dim = self.batch.prediction.detach(), self.batch.batch_dim
        assert dim is not None
        index = torch.tensor(samples, device=prediction.device)
        return prediction.index_select(dim, index).requires_grad_()

    def moved(self, prediction: Tensor) -> "Call":
        """The call with another tensor in place of the prediction."""
        if not any(value is self.batch.whole for value in self.values):
            raise NotAsked("the prediction is not an argument of the call")
        moved = with_prediction(self.batch, prediction, self.args, self.kwargs)
        return Call(self.task, *moved)

    def only(self, samples: Sequence[int]) -> "Call":
        """The call with some samples only, in this order.

        Raises:
            NotAsked: an argument does not say which part of it belongs to a sample.
        """
        count = self.several
        whole, dim = self.batch.whole, self.batch.batch_dim
        assert dim is not None
        if whole.shape[dim] != count:
            raise NotAsked("the call has samples that are left out: give one where all count")

        def part(value: Any) -> Any:
            if value is whole:
                return self.like(samples)
            if isinstance(value, Tensor | np.ndarray) and value.ndim and len(value) == count:
                return value[list(samples)]
            if isinstance(value, list | tuple) and len(value) == count:
                return [value[sample] for sample in samples]
            if isinstance(value, list | tuple) or getattr(value, "shape", ()) != ():
                raise NotAsked("an argument has not one entry a sample, and cannot be cut")
            return value

        kwargs = {key: part(value) for key, value in self.kwargs.items()}
        return Call(self.task, [part(value) for value in self.args], kwargs)


def own(value: Any) -> Any:
    """A copy of an argument, a tensor as a leaf."""
    value = plain(value)
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    return copy.deepcopy(value)
