"""One net on all numbers of a prediction and its target."""

import torch
from torch import Tensor, nn

from ..._surrogate import Standardise
from .net import flat, mlp


class Pair(nn.Module):
    """`S(z, y) = n([z, y, z - y])`, the difference where targets have as many numbers or one.

    Args:
        z: predictions `(batch, ...)`, by which inputs are standardised.
        y: targets `(batch, ...)`.
    """

    def __init__(self, z: Tensor, y: Tensor, hidden: int = 64):
        super().__init__()
        inputs = self._inputs(z, y)
        self.standardise = Standardise(inputs)
        self.net = mlp(inputs.shape[1], hidden, hidden, 1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Values `(batch,)`."""
        return self.net(self.standardise(self._inputs(z, y))).squeeze(1)

    def _inputs(self, z: Tensor, y: Tensor) -> Tensor:
        parts = [flat(z), flat(y).to(z)]
        if parts[1].shape[1] in (1, parts[0].shape[1]):
            parts.append(parts[0] - parts[1])
        return torch.cat(parts, 1)
