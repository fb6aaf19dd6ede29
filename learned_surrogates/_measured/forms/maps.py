"""Convolutions over maps: what a metric sees of neighbourhoods, such as boundaries."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .net import mlp, scale

SHARPNESS = 5.0
# Larger maps are seen at half of their resolution, and so on.
MOST_POSITIONS = 1024


class Maps(nn.Module):
    """S of features of 5 x 5 neighbourhoods, their mean over the map taken.

    Args:
        z: predictions `(batch, channels, height, width)`, by which inputs are standardised.
        y: targets of the same shape.
    """

    statistics: Tensor

    def __init__(self, z: Tensor, y: Tensor, channels: int = 12, hidden: int = 32):
        super().__init__()
        y = y.to(z)
        self.register_buffer("statistics", torch.stack([z.mean(), scale(z), y.mean(), scale(y)]))
        self.shrink = 1
        while z.shape[2] * z.shape[3] > MOST_POSITIONS * self.shrink**2:
            self.shrink *= 2
        self.near = nn.Conv2d(4 * z.shape[1], channels, 3, padding=1)
        self.far = nn.Conv2d(channels, channels, 3, padding=1)
        self.net = mlp(2 * channels, hidden, hidden, 1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Values `(batch,)`."""
        z_mean, z_scale, y_mean, y_scale = self.statistics
        z, y = (z - z_mean) / z_scale, (y.to(z) - y_mean) / y_scale
        said = (SHARPNESS * (z + z_mean / z_scale)).sigmoid()
        seen = torch.cat([z, y, said, said * y], 1)
        if self.shrink > 1:
            seen = F.avg_pool2d(seen, self.shrink, ceil_mode=True)
        near = F.silu(self.near(seen))
        far = F.silu(self.far(near))
        return self.net(torch.cat([near.mean((2, 3)), far.mean((2, 3))], 1)).squeeze(1)
