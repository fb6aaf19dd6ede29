"""Antithetic pairs around predictions, and how a metric's values are credited to their numbers."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._batch import Batch
from .._contract.hooks import decode
from .._support.precision import at_least_float32
from .._support.transfer import send
from .._task import Task


@dataclass(frozen=True, kw_only=True)
class AntitheticPairs:
    """Antithetic pairs around a batch of predictions.

    Attributes:
        z: predictions, float32, `(batch, *sample)`.
        width: the noise's standard deviation, to be broadcast to a sample.
        noise: standard normal, `(pairs, batch, *sample)`.
        pairs: what the metric gets: predictions and targets of z plus, and of z less, width times
            the first noise, then the second one, and so on.
    """

    z: Tensor
    width: Tensor
    noise: Tensor
    pairs: list[tuple[Any, Any]]


def draw(
    task: Task[Any], batch: Batch, width: Tensor, count: int, random: torch.Generator
) -> AntitheticPairs:
    """So many draws, in antithetic pairs, from the noise around a batch's predictions."""
    original = batch.prediction.detach()
    z = original.float()
    shape = (count // 2, *z.shape)
    made = torch.randn(shape, generator=random, dtype=torch.float32, device="cpu")
    width, noise = width.to(z), send(made, z)
    # A sum in half precision, or of float64 in float32, would not be what it is said to be.
    original = at_least_float32(original)
    pairs = [
        decode(task, replace(batch, prediction=original + sign * deviation.to(original)))
        for deviation in width * noise
        for sign in (1, -1)
    ]
    return AntitheticPairs(z=z, width=width, noise=noise, pairs=pairs)


def half_differences(values: Tensor) -> Tensor:
    """`(e(z + deviation) - e(z - deviation)) / 2` of values `(draws, ...)`: `(pairs, ...)`."""
    return (values[0::2] - values[1::2]) / 2


def by_output(tensor: Tensor, outputs: torch.Size, batch_dims: int) -> Tensor:
    """`(..., batch, *outputs, *rest)` as `(..., batch, outputs, numbers)`."""
    lead = tensor.shape[:batch_dims]
    return tensor.reshape(*lead, max(1, outputs.numel()), -1)


def as_samples(z: Tensor, target: Any, outputs: torch.Size) -> tuple[Tensor, Tensor | None]:
    """Predictions and targets as the surrogate sees them: each output with a value is a sample.

    Returns:
        z `(batch * outputs, ...)`, of two dimensions or more, and the targets; None where these
        are no tensor, or none with those outputs.
    """
    dims = len(outputs)
    z = z.flatten(0, dims) if dims else z
    z = z[:, None] if z.ndim == 1 else z
    if not isinstance(target, Tensor):
        return z, None
    if dims:
        if target.shape[1 : 1 + dims] != outputs:
            return z, None
        target = target.flatten(0, dims)
    return z, target
