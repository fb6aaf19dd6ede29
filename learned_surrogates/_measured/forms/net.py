"""What the forms are made of."""

from itertools import pairwise

from torch import Tensor, nn


def mlp(*widths: int, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Layers from the first width to the last, smooth: the fit differentiates the slope."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def scale(samples: Tensor) -> Tensor:
    """Standard deviation of all numbers, `()`; 1 where nothing varies."""
    spread = samples.float().std(correction=0)
    return spread.where(spread > 0, 1.0)


def flat(samples: Tensor) -> Tensor:
    """`(batch, numbers)`."""
    return samples.flatten(1) if samples.ndim > 1 else samples[:, None]
