"""From the host to the device of the prediction."""

import torch
from torch import Tensor


def send(tensor: Tensor, to: torch.device | Tensor) -> Tensor:
    """A tensor of ours on another device, or on that of another tensor and of its type.

    What leaves the host's ordinary memory has been read when this returns, so nobody need wait
    until the device has done what it was given before. The other way round, one must.
    """
    device, dtype = (to.device, to.dtype) if isinstance(to, Tensor) else (to, tensor.dtype)
    return tensor.to(device, dtype, non_blocking=tensor.device.type == "cpu")
