"""Where the surrogate and the metric compute."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """A context in which the user's contexts do not matter.

    Numbers keep their own precision, whatever autocast there is; tensors may be kept, also from
    inference mode; and hooks on saved tensors do not reach ours, which activation checkpointing
    would count among the user's.
    """
    with (
        torch.autocast(device.type, enabled=False),
        torch.inference_mode(False),
        saved_tensors_hooks(Tensor.detach, lambda tensor: tensor),
    ):
        yield


def never_compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, left out of what `torch.compile` compiles around it.

    The metric and the decoding are Python, and each step of a fit another branch: compiled, they
    break into dozens of graphs. `torch.compiler.disable` on the function itself would import the
    compiler, a second, for those who do not use it.
    """

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return call
