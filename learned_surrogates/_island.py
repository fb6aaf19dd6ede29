"""Where the surrogate and the metric compute."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


@contextmanager
def island(device: torch.device) -> Iterator[None]:
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
