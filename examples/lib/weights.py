"""Checkpoints of the examples: weights in half precision, and what the model is built with."""

import os
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

#: Where the committed checkpoints lie.
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


def save_weights(model: nn.Module, path: str | os.PathLike[str], **metadata: Any) -> None:
    """Writes a model's state in half precision, and metadata as text."""
    half = {
        name: value.half() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    save_file(half, path, metadata={key: str(value) for key, value in metadata.items()})


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state and the metadata that `save_weights` wrote."""
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return weights, file.metadata()
