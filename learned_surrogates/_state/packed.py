"""A state as one tensor of bytes.

What a loss keeps has other names and shapes after its first call than before it. The keys of a
module must not: moving averages pair the entries of two models' `state_dict()` by their order, and
would average layers with whatever stands in their place. Bytes are also left alone by who casts a
checkpoint to half precision.
"""

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

#: The one key of a loss's state: PyTorch's for what a module keeps beside its own tensors.
KEY = "_extra_state"


def pack(tensors: dict[str, Tensor]) -> Tensor:
    """Named tensors as a file of safetensors, on the CPU: `(bytes,)`, uint8."""
    # Copies, as weights may share their storage.
    plain = {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}
    contiguous = {key: tensor.contiguous() for key, tensor in plain.items()}
    return torch.frombuffer(bytearray(save(contiguous)), dtype=torch.uint8)


def unpack(state: Tensor) -> dict[str, Tensor]:
    """The named tensors, on the CPU.

    Raises:
        ValueError: these are not the bytes that were packed.
    """
    if not isinstance(state, Tensor):
        raise ValueError(f"{KEY} must be a tensor of bytes; it is of type {type(state).__name__}")
    try:
        return load(state.cpu().to(torch.uint8).numpy().tobytes())
    except SafetensorError as error:
        raise ValueError(
            f"{KEY} does not hold the bytes that were saved, they were cut off or averaged, say: "
            f"{error}"
        ) from error
