"""The gradient of a smoothed metric, from what the metric said of draws."""

import torch
from torch import Tensor

from .._evaluation.measurement import Measurement
from .._support.transfer import send
from .draws import AntitheticPairs, by_output, half_differences


def estimate(
    differences: Tensor,
    noise: Tensor,
    width: Tensor,
    told: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    r"""The measured gradient and the part of it that a slope tells, for each sample.

    With :math:`s = z \pm w \epsilon` and half differences
    :math:`d = (e(z + w \epsilon) - e(z - w \epsilon)) / 2`, the mean of :math:`d \epsilon / w` is
    the gradient of :math:`E[e(s)]` (antithetic score function). For *any* vector g that does not
    see these draws, :math:`\langle g, s - z \rangle` has the gradient g, and so has each h that is
    this and odd functions of the noise which correlate with none of its numbers (see `expansion`),
    so that

    .. math:: g + (d - h)\, \epsilon / w

    has the same mean for every g and h, and varies the less, the better h tells d: a control
    variate (LAX of Grathwohl et al., ICLR 2018, with a control whose own gradient is exact).

    Args:
        differences: d, `(pairs, batch, outputs)`, one value for each group of the prediction's
            numbers; each group is credited with its own alone.
        noise: standard normal, `(pairs, batch, outputs, numbers)`.
        width: w, to be broadcast to `(outputs, numbers)`.
        told: g, `(batch, outputs, numbers)`, and h, as large as the differences; None are 0.

    Returns:
        g, and what the draws correct it by: `(batch, outputs, numbers)` each.
    """
    known = torch.zeros_like(noise[0])
    if told is not None:
        known, predicted = told
        differences = differences - predicted
    return known, (differences[..., None] * noise / width).mean(0)


def centred(values: Tensor) -> Tensor:
    """Values `(draws, ...)` less their mean over the draws."""
    return values - values.mean(0)


def measured_gradient(
    measured: Measurement,
    draws: AntitheticPairs,
    told: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """The gradient of each sample's expected error: what the slope tells, and what corrects it.

    Where only some samples were measured, chosen at random, they stand for all: the mean over calls
    stays what it is. Samples on which the metric failed are not corrected.

    Args:
        measured: what the metric said of the draws.
        draws: around the batch's predictions.
        told: by the surrogate, weighed: its slope `(batch, *sample)`, and what it tells of each
            difference, `(pairs, batch * outputs)`; None without one.

    Returns:
        Two gradients `(batch, *sample)`, whose sum is unbiased.
    """
    z, pairs = draws.z, len(draws.noise)
    outputs = measured.values.shape[2:]
    count = max(1, outputs.numel())
    differences = half_differences(measured.values).reshape(pairs, -1, count)
    differences, stands_for = measured.stand_in(differences)
    if told is not None:
        slope, predicted = told
        # Not where the metric has other outputs than when the surrogate was asked.
        same = predicted.numel() == differences.numel()
        told = (by_output(slope, outputs, 1), predicted.view_as(differences)) if same else None
    known, rest = estimate(
        send(differences, z),
        by_output(draws.noise, outputs, 2),
        by_output(draws.width.expand(z.shape[1:])[None], outputs, 1)[0],
        told,
    )
    weights = send(stands_for, z)[:, None, None] / count
    rest = torch.where(weights > 0, weights * rest, 0.0)
    return known.reshape(z.shape) / count, rest.reshape(z.shape)
