"""The plain controls: the expected metric's gradient from draws alone, nothing learned.

Predictions z are smoothed by Gaussian noise n of width w. The score function's gradient of the
expected metric, in antithetic pairs, is

    E[(e(z + w n, y) - e(z - w n, y)) / 2 * n / w]

and nothing here depends on the package, so that its gradients can be judged by these.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .problem import Metric

# Of the spread; between half of this and this, the results hardly change.
SHARE = 0.35
# Weight of the newest batch in the running spread.
MOMENTUM = 0.02


class Smoothed(ABC):
    """A loss, `(prediction, target) -> ()`, whose gradient comes from noise on the predictions.

    Its width is a share of the smaller of two spreads: the outputs' over the batch and, where the
    target is alike, the errors'.

    Args:
        metric: `(batch,)`, lower is better.
        calls: of the metric, a sample and step.
        seed: of the noise.
    """

    def __init__(self, metric: Metric, calls: int, seed: int):
        self.metric, self.calls = metric, calls
        self.random = torch.Generator().manual_seed(seed)
        self.spread: Tensor | None = None

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            z = prediction.detach()
            gradient = self.gradient(z, target, self.width(z, target))
        # Its value means nothing; its gradient is the one that was measured.
        return (prediction * gradient).sum() / len(z)

    def width(self, z: Tensor, target: Tensor) -> Tensor:
        spread = z.std(0).mean()
        if target.shape == z.shape and target.is_floating_point():
            spread = torch.minimum(spread, (z - target).std())
        self.spread = spread if self.spread is None else self.spread.lerp(spread, MOMENTUM)
        return SHARE * self.spread

    def measure(self, draws: Tensor, target: Tensor) -> Tensor:
        """The metric of draws `(draws, batch, ...)`, in one call."""
        targets = target.expand(len(draws), *target.shape).flatten(0, 1)
        return self.metric(draws.flatten(0, 1), targets).unflatten(0, draws.shape[:2])

    def noise(self, count: int, z: Tensor) -> Tensor:
        return torch.randn(count, *z.shape, generator=self.random)

    @abstractmethod
    def gradient(self, z: Tensor, target: Tensor, width: Tensor) -> Tensor:
        """Each sample's own, of the shape of `z`."""


class ScoreFunction(Smoothed):
    """Antithetic pairs. Where the metric is `(batch, outputs)`, each output's noise is credited
    with its own value only: what the others' noise does to their values is no news of it."""

    def gradient(self, z: Tensor, target: Tensor, width: Tensor) -> Tensor:
        noise = self.noise(self.calls // 2, z)
        values = self.measure(torch.cat([z + width * noise, z - width * noise]), target)
        above, below = values.chunk(2)
        difference = (above - below) / 2
        if difference.ndim > 2:
            difference = difference / difference.shape[2:].numel()
        return (like(difference, noise) * noise).mean(0) / width


class GroupRelative(Smoothed):
    """Independent draws whose advantages are normalised by their group's mean and deviation.

    The policy gradient of GRPO (Shao et al., 2024), with one step a group, so that there is
    nothing to clip, and without a penalty for leaving the checkpoint.
    """

    def gradient(self, z: Tensor, target: Tensor, width: Tensor) -> Tensor:
        noise = self.noise(self.calls, z)
        values = self.measure(z + width * noise, target)
        advantage = (values - values.mean(0)) / (values.std(0) + 1e-4)
        return (like(advantage, noise) * noise).mean(0) / width


def like(values: Tensor, noise: Tensor) -> Tensor:
    """With as many dimensions as the noise."""
    return values.reshape(*values.shape, *[1] * (noise.ndim - values.ndim))
