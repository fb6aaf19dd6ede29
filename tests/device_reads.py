"""Where a call reads numbers back from a device: what makes the host wait for a GPU.

On a CPU nothing tells a tensor of the device from one of the host, so the descendants of the
device's tensors are followed through every function of PyTorch.
"""

import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

import learned_surrogates

PACKAGE = Path(learned_surrogates.__file__).parent
TESTS = Path(__file__).parent
# Their results are on the host.
READING = {
    "__array__",
    "__bool__",
    "__complex__",
    "__contains__",
    "__float__",
    "__index__",
    "__int__",
    "allclose",
    "cpu",
    "equal",
    "is_nonzero",
    "item",
    "numpy",
    "tolist",
}
# Their results are on the device, and of a size that the host must know.
SIZING = {"argwhere", "bincount", "masked_select", "nonzero", "unique"}
INDEXING = {"__getitem__", "__setitem__", "index_put", "index_put_"}


class Read(NamedTuple):
    """A reading: in which function of the package or of the tests, and how."""

    where: str
    how: str


class DeviceReads(TorchFunctionMode):
    """Records what reads numbers of the device's tensors, within it.

    Args:
        tensors: those of the device to begin with. What is computed from one of them is one too,
            and what is moved by `to(device)`; "cpu", by name, is the host.
    """

    def __init__(self, tensors: Iterable[Tensor]):
        super().__init__()
        self.reads: list[Read] = []
        # By identity, and kept, such that no other tensor takes its number.
        self._known = {id(tensor): tensor for tensor in tensors}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.__name__
        result = func(*args, **kwargs)
        inputs = [*tree_iter((args, kwargs))]
        if not any(map(self._is_known, inputs)):
            arrives = name == "to" and any(isinstance(part, torch.device) for part in inputs)
            return self._mark(_alias(result)) if arrives else result
        if name in READING or (name in ("to", "as_tensor") and "cpu" in _names(inputs)):
            self.reads.append(Read(_caller(), name))
            return _alias(result)
        masks = [p for p in tree_iter(args[1:]) if self._is_known(p) and p.dtype == torch.bool]
        sizes = name in SIZING or (name == "where" and len(inputs) == 1)
        if sizes or (name in INDEXING and masks):
            self.reads.append(Read(_caller(), name))
        if name in ("__setitem__", "copy_"):
            self._mark(args[0])
        if name == "__iter__":
            return iter([self._mark(part) for part in result])
        for part in tree_iter(result):
            self._mark(part)
        return result

    def _is_known(self, part: object) -> bool:
        return isinstance(part, Tensor) and id(part) in self._known

    def _mark(self, part):
        if isinstance(part, Tensor):
            self._known[id(part)] = part
        return part


def _names(inputs: list) -> list[str]:
    return [part for part in inputs if isinstance(part, str)]


def _alias(result):
    """The same tensor as another object: on a CPU, moving it gives it back itself."""
    return result.detach() if isinstance(result, Tensor) and not result.requires_grad else result


def _caller() -> str:
    """The innermost function of the package or of the tests that is running."""
    for frame in reversed(traceback.extract_stack()[:-2]):
        path = Path(frame.filename)
        if path.is_relative_to(PACKAGE) or path.is_relative_to(TESTS):
            return f"{path.stem}.{frame.name}"
    return "?"
