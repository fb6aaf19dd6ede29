"""What the forms are made of."""

from torch import Tensor, nn


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers, smooth: the fit differentiates the slope once more."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        nn.Linear(hidden, outputs),
    )


def scale(samples: Tensor) -> Tensor:
    """Standard deviation of all numbers, `()`; 1 where nothing varies."""
    spread = samples.float().std(correction=0)
    return spread.where(spread > 0, 1.0)


def flat(samples: Tensor) -> Tensor:
    """`(batch, numbers)`."""
    return samples.flatten(1) if samples.ndim > 1 else samples[:, None]
