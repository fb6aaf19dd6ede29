"""One net for outputs that are alike: numbers, labels, points, items of a list."""

import torch
from torch import Tensor, nn

from .net import mlp, scale

# The sharpness of soft ranks, in spreads of the scores: about that of the expected rank under the
# noise of `Smoothing`.
SHARPNESS = 3.0
# Items against which an item is ranked; of longer lists, as many quantiles.
RIVALS = 32


class Elements(nn.Module):
    """`S(z, y) = g(mean_k f(z_k, y_k, z_k - y_k))` over the outputs k, with ranks for lists.

    Args:
        z: predictions `(batch, outputs)` or `(batch, outputs, numbers)`, by which inputs are
            standardised.
        y: targets of the same shape.
        ranks: whether f also sees each output's soft rank, and that of its target.
    """

    statistics: Tensor

    def __init__(self, z: Tensor, y: Tensor, ranks: bool = False, hidden: int = 32):
        super().__init__()
        self.ranks = ranks
        z, y = _items(z), _items(y).to(z)
        statistics = [z.mean(), scale(z), y.mean(), scale(y), scale(z - y)]
        self.register_buffer("statistics", torch.stack(statistics))
        # Twice differentiated for each output, a tanh takes two thirds of a SiLU's time.
        each = mlp(3 * z.shape[2] + 2 * ranks, hidden, hidden, activation=nn.Tanh)
        self.each = nn.Sequential(each, nn.Tanh())
        self.all = mlp(hidden, hidden, 1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Values `(batch,)`."""
        z, y = _items(z), _items(y).to(z)
        z_mean, z_scale, y_mean, y_scale, error_scale = self.statistics
        parts = [(z - z_mean) / z_scale, (y - y_mean) / y_scale, (z - y) / error_scale]
        if self.ranks:
            parts.append(_soft_ranks(z.squeeze(2) * (SHARPNESS / z_scale))[..., None])
            # Ties share a rank.
            parts.append(_soft_ranks(y.squeeze(2) * (1e4 / y_scale))[..., None])
        return self.all(self.each(torch.cat(parts, 2)).mean(1)).squeeze(1)


def _items(samples: Tensor) -> Tensor:
    """`(batch, outputs, numbers)`."""
    return samples[..., None] if samples.ndim == 2 else samples.flatten(2)


def _soft_ranks(scores: Tensor) -> Tensor:
    """The share of items that are below each, `(batch, items)`, softly."""
    rivals = scores
    if scores.shape[1] > RIVALS:
        items, rivals = scores.shape[1], scores.sort(1).values
        middle = (torch.arange(RIVALS, device=scores.device) + 0.5) * (items / RIVALS)
        rivals = rivals[:, middle.long()]
    return (scores[:, :, None] - rivals[:, None, :]).sigmoid().mean(2)
