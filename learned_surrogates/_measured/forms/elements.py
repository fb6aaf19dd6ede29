"""One net for outputs that are alike: numbers, labels, points, items of a list."""

import math

import torch
from torch import Tensor, nn

from .net import mlp, scale, spread

# The sharpness of soft ranks, in spreads of the scores: about that of the expected rank under the
# noise of `Smoothing`.
SHARPNESS = 3.4
# That of the target's, which has no noise; ties share a rank.
HARD = 1e4
# Items against which an item is ranked; of longer lists, as many quantiles.
RIVALS = 32


class Elements(nn.Module):
    """`S(z, y) = g(mean_k f(z_k, y_k, z_k - y_k))` over the outputs k, with ranks for lists.

    Args:
        z: predictions `(batch, outputs)` or `(batch, outputs, numbers)`, by which inputs are
            standardised.
        y: targets of the same shape.
        width: the noise's standard deviation, as large as z, for ranks; None is what `Smoothing`
            makes of scores that vary alike.
        ranks: whether f also sees each output's soft rank, and that of its target.
    """

    statistics: Tensor
    sharpness: Tensor

    def __init__(
        self,
        z: Tensor,
        y: Tensor,
        width: Tensor | None = None,
        ranks: bool = False,
        hidden: int = 32,
    ):
        super().__init__()
        self.ranks = ranks
        z, y = _items(z), _items(y).to(z)
        statistics = [z.mean(), scale(z), y.mean(), scale(y), scale(z - y)]
        self.register_buffer("statistics", torch.stack(statistics))
        if ranks:
            self.register_buffer("sharpness", SHARPNESS / spread(z, width))
        # Twice differentiated for each output, a tanh takes two thirds of a SiLU's time.
        each = mlp(3 * z.shape[2] + 6 * ranks, hidden, hidden, activation=nn.Tanh)
        self.each = nn.Sequential(each, nn.Tanh())
        self.all = mlp(hidden, hidden, 1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Values `(batch,)`."""
        z, y = _items(z), _items(y).to(z)
        z_mean, z_scale, y_mean, y_scale, error_scale = self.statistics
        parts = [(z - z_mean) / z_scale, (y - y_mean) / y_scale, (z - y) / error_scale]
        if self.ranks:
            parts += [_ranks(z * self.sharpness), _ranks(y * (HARD / y_scale))]
        return self.all(self.each(torch.cat(parts, 2)).mean(1)).squeeze(1)


def _items(samples: Tensor) -> Tensor:
    """`(batch, outputs, numbers)`."""
    return samples[..., None] if samples.ndim == 2 else samples.flatten(2)


def _ranks(scores: Tensor) -> Tensor:
    """Of scores `(batch, items, 1)`, `(batch, items, 3)`.

    The share of items that are below each, softly; and for metrics of the first or last few, how
    many are below and above it, in logarithms.
    """
    items, scores = scores.shape[1], scores.squeeze(2)
    rivals = scores
    if items > RIVALS:
        middle = (torch.arange(RIVALS, device=scores.device) + 0.5) * (items / RIVALS)
        rivals = scores.sort(1).values[:, middle.long()]
    below = (scores[:, :, None] - rivals[:, None, :]).sigmoid().mean(2, keepdim=True)
    # An item is half below itself, and half above.
    others = (items * torch.cat([below, 1 - below], 2) - 0.5).clamp(min=0)
    shares = torch.cat([below, others.log1p() / math.log1p(items)], 2)
    # As numbers that vary by 1, which the other inputs do.
    return (shares - 0.5) * 12**0.5
