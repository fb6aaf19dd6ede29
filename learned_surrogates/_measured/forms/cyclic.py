"""Targets that go round, as angles and hours do, against predictions of another kind."""

import math

import torch
from torch import Tensor, nn

from ..._surrogate import Standardise
from .net import flat, mlp

# Of a target that may lie anywhere in its period, in radians a standard deviation.
FREQUENCY = 2 * math.pi / math.sqrt(12)


class Cyclic(nn.Module):
    """`S(z, y) = n([z, y, w, z w])`, w the sines and cosines of targets, whose period is learned.

    So a sine and cosine are turned by the target, which a net of z and y alone hardly learns.

    Args:
        z: predictions `(batch, ...)`, by which inputs are standardised.
        y: targets `(batch, ...)`, of few numbers.
    """

    def __init__(self, z: Tensor, y: Tensor, hidden: int = 64):
        super().__init__()
        z, y = flat(z), flat(y).to(z)
        self.of_z, self.of_y = Standardise(z), Standardise(y)
        self.frequency = nn.Parameter(torch.full((y.shape[1],), FREQUENCY))
        waves = 2 * y.shape[1]
        self.net = mlp(z.shape[1] + y.shape[1] + waves + z.shape[1] * waves, hidden, hidden, 1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Values `(batch,)`."""
        z, y = self.of_z(flat(z)), self.of_y(flat(y).to(z))
        turns = y * self.frequency
        waves = torch.cat([turns.sin(), turns.cos()], 1)
        turned = (z[:, :, None] * waves[:, None]).flatten(1)
        return self.net(torch.cat([z, y, waves, turned], 1)).squeeze(1)
