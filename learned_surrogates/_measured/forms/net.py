"""What the forms are made of."""

from itertools import pairwise

from torch import Tensor, nn

from ..smoothing import SHARE


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


def spread(logits: Tensor, width: Tensor | None) -> Tensor:
    """What logits vary by, `()`, as the noise has it that is a share of that.

    Args:
        logits: of any shape.
        width: the noise's standard deviation; None where it is not known.
    """
    return scale(logits) if width is None else width.mean() / SHARE


def flat(samples: Tensor) -> Tensor:
    """`(batch, numbers)`."""
    return samples.flatten(1) if samples.ndim > 1 else samples[:, None]
