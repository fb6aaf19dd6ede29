"""Numbers in a type that one can compute with."""

import torch
from torch import Tensor

UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def computable(tensor: Tensor) -> Tensor:
    """The wider unsigned types as int64: PyTorch neither compares nor indexes them."""
    return tensor.long() if tensor.dtype in UNSIGNED else tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision and integers in float32, float64 as it is: sums need room."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
