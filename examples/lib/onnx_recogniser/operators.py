"""ONNX's operators, version 12, as far as PP-OCR's recognisers use them.

Each is called with a node's inputs and attributes. https://onnx.ai/onnx/operators says what it is.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# ONNX's numbers of integer types. PyTorch wants int64 where a value indexes something.
INTEGERS = (6, 7)


def average_pool(x: Tensor, **a: Any) -> Tensor:
    return functional.avg_pool2d(x, a["kernel_shape"], a["strides"])


def batch_normalization(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, **a: Any
) -> Tensor:
    """With the file's statistics in training, too: few images know less than the file does."""
    return functional.batch_norm(x, mean, var, weight, bias, eps=a["epsilon"])


def cast(x: Tensor, to: int) -> Tensor:
    return x.long() if to in INTEGERS else x


def concat(*x: Tensor, axis: int) -> Tensor:
    return torch.cat(x, axis)


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None, **a: Any) -> Tensor:
    top, left, bottom, right = a["pads"]
    if (top, left) != (bottom, right):
        raise NotImplementedError(f"padding that differs from side to side: {a['pads']}")
    return functional.conv2d(x, weight, bias, a["strides"], (top, left), a["dilations"], a["group"])


def global_average_pool(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def hard_sigmoid(x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


def reduce_mean(x: Tensor, axes: Sequence[int], keepdims: int = 1) -> Tensor:
    return x.mean(list(axes), bool(keepdims))


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """A size of 0 is that of the input."""
    return x.reshape([size or x.shape[i] for i, size in enumerate(shape.tolist())])


def shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape)


def slice_(
    x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor, steps: Tensor | None = None
) -> Tensor:
    index = [slice(None)] * x.ndim
    for i, axis in enumerate(axes.tolist()):
        step = 1 if steps is None else int(steps[i])
        index[axis] = slice(int(starts[i]), int(ends[i]), step)
    return x[tuple(index)]


def softmax(x: Tensor, axis: int) -> Tensor:
    return x.softmax(axis)


def squeeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    return x.squeeze(tuple(axes))


def transpose(x: Tensor, perm: Sequence[int]) -> Tensor:
    return x.permute(*perm)


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Add": operator.add,
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "Clip": torch.clamp,
    "Concat": concat,
    "Conv": convolution,
    "Div": operator.truediv,
    "GlobalAveragePool": global_average_pool,
    "HardSigmoid": hard_sigmoid,
    "MatMul": operator.matmul,
    "Mul": operator.mul,
    "Pow": operator.pow,
    "ReduceMean": reduce_mean,
    "Relu": functional.relu,
    "Reshape": reshape,
    "Shape": shape,
    "Sigmoid": torch.sigmoid,
    "Slice": slice_,
    "Softmax": softmax,
    "Sqrt": torch.sqrt,
    "Squeeze": squeeze,
    "Sub": operator.sub,
    "Transpose": transpose,
}
