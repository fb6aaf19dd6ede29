"""Numbers with which one can still compute."""

from torch import Tensor


def moderate(samples: Tensor) -> Tensor:
    """Which samples `(batch, ...)` are finite, and so are their squares in float32: `(batch,)`."""
    return samples[:, None].flatten(1).float().square().sum(1).isfinite()
