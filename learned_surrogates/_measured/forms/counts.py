"""Soft counts of hits, misses and false alarms: for labels and masks."""

import torch
from torch import Tensor, nn

from .net import mlp, spread

# Of the sigmoids that count, in spreads of the logits: the first is about the probability that a
# logit is above its threshold under the noise of `Smoothing`.
SHARPNESS = (5.0, 2.0, 1.0)


class Counts(nn.Module):
    """S of how many outputs are hits, misses and false alarms, by soft thresholds that are learned.

    Args:
        z: logits `(batch, ...)`.
        y: marks of yes and no: bool, 0 and 1, or -1 and 1, of the same shape.
        width: the noise's standard deviation, as large as z; None is what `Smoothing` makes of
            logits that vary alike.
    """

    size: Tensor

    def __init__(self, z: Tensor, y: Tensor, width: Tensor | None = None, hidden: int = 32):
        super().__init__()
        sharpness = torch.tensor(SHARPNESS, device=z.device)
        self.log_sharpness = nn.Parameter((sharpness / spread(z, width)).log())
        self.thresholds = nn.Parameter(torch.zeros_like(sharpness))
        self.register_buffer("size", torch.tensor(float(z[0].numel()), device=z.device))
        features = 7 * len(SHARPNESS) + 1
        self.net = mlp(features, hidden, hidden, 1)
        self.straight = nn.Linear(features, 1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Values `(batch,)`."""
        z, marked = z.flatten(1), (y.flatten(1) > 0).to(z)
        marks = marked.sum(1)
        features = [marks / self.size]
        for sharpness, threshold in zip(self.log_sharpness.exp(), self.thresholds, strict=True):
            said = ((z - threshold) * sharpness).sigmoid()
            hits, claims = (said * marked).sum(1), said.sum(1)
            features += [
                hits / self.size,
                (marks - hits) / self.size,
                (claims - hits) / self.size,
                hits / (marks + 1),
                hits / (claims + 1),
                hits / (claims + marks + 1),
                hits / (claims + marks - hits + 1),
            ]
        seen = torch.stack(features, 1)
        return (self.net(seen) + self.straight(seen)).squeeze(1)
