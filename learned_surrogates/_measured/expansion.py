"""What a form tells of a metric's differences: a slope, and waves for where the metric jumps."""

import math

import torch
from torch import Tensor, nn

from .._contract import hooks

# Of the waves, in radians a standard deviation of the noise.
FREQUENCIES = (1.5, 3.0)
# Up to so many numbers are of one point, and answer together; others answer each for itself.
POINT = 4
# Outputs up to which each may be of its own kind.
FEW = 32
# Numbers of a sample beyond which waves cost more time and memory than all else.
MOST_NUMBERS = 2**12
# An output is seen as it is and, as thresholds may come again and again, in sines and cosines of so
# many radians a standard deviation of the noise.
HARMONICS = (1, 2)


def basis(noise: Tensor, count: int) -> Tensor:
    r"""The first so many odd functions of standard normal noise, `(count, *noise.shape)`.

    The noise itself; and waves :math:`\sin f \epsilon - f e^{-f^2 / 2} \epsilon`, scaled, so that
    all have a mean square of 1. A wave correlates with no number of the noise, its own included:
    taken from a metric's difference, it changes nothing of the measured gradient but its noise.
    """
    waves = []
    for f in FREQUENCIES[: count - 1]:
        line = f * math.exp(-(f**2) / 2)
        size = math.sqrt((1 - math.exp(-2 * f**2)) / 2 - line**2)
        waves.append(((f * noise).sin() - line * noise) / size)
    return torch.stack([noise, *waves])


class Expansion(nn.Module):
    """A form S, and waves beside it where targets have as many numbers, and these are not too many.

    Whether a draw crosses a threshold of the metric depends on how far that is from the output. Of
    one that may lie anywhere, the best slope tells 1 / sqrt(2) of the differences' variance, with
    both waves it is 0.89.

    Args:
        form: `S(z, y) -> (batch,)`.
        z: predictions `(batch, *sample)`, by which inputs are standardised.
        y: targets `(batch, ...)`.
    """

    def __init__(self, form: nn.Module, z: Tensor, y: Tensor):
        super().__init__()
        self.form = form
        #: Whether there is something to learn; else the form is in the metric's units as it is.
        self.learns = any(parameter.requires_grad for parameter in form.parameters())
        numbers = z[0].numel()
        suited = numbers == y[0].numel() and numbers <= MOST_NUMBERS
        self.waves = Waves(z, y) if suited else None

    def forward(
        self, z: Tensor, y: Tensor, width: Tensor, scale: Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """How much of each function of `basis` a difference has: `(functions, batch, *sample)`.

        Args:
            z: predictions `(batch, *sample)`, with `requires_grad`.
            y: targets `(batch, ...)`.
            width: the noise's standard deviation, as large as z.
            scale: the size of differences, `()`.
            create_graph: whether the outcome is differentiated.
        """
        dtype = next((p.dtype for p in self.form.parameters() if p.is_floating_point()), z.dtype)
        value = self.form(z.to(dtype), y.to(dtype) if y.is_floating_point() else y)
        value = hooks.surrogate_value(value, z)
        unit = scale if self.learns else 1
        (slope,) = torch.autograd.grad(
            unit * value.sum(), z, create_graph=create_graph, materialize_grads=True
        )
        pull = slope * width
        if self.waves is None:
            return pull[None]
        waves = pull.detach() * self.waves(z.detach(), y, width)
        return torch.cat([pull[None], waves])


class Waves(nn.Module):
    """How much of each wave there is, as a share of the slope's pull, by where an output is.

    One small net for all outputs; of few, each has a bias of its own.

    Args:
        z: predictions `(batch, *sample)`, by which inputs are standardised.
        y: targets of as many numbers.
    """

    mean: Tensor

    def __init__(self, z: Tensor, y: Tensor, hidden: int = 16):
        super().__init__()
        point = z.ndim == 3 and z.shape[2] <= POINT
        self.numbers = z.shape[2] if point else 1
        self.outputs = z[0].numel() // self.numbers
        z = self._items(z)
        self.register_buffer("mean", z.mean((0, 1)))
        inputs = 2 * (1 + 2 * len(HARMONICS)) * self.numbers
        self.first = nn.Linear(inputs, hidden)
        few = self.outputs <= FEW
        self.offsets = nn.Parameter(torch.zeros(self.outputs, hidden)) if few else None
        self.last = nn.Linear(hidden, len(FREQUENCIES) * self.numbers)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, z: Tensor, y: Tensor, width: Tensor) -> Tensor:
        """Of each wave: `(waves, batch, *sample)`.

        Args:
            z: predictions `(batch, *sample)`.
            y: targets.
            width: the noise's standard deviation, as large as z.
        """
        shape = z.shape
        z, y, width = map(self._items, (z, y.to(z), width))
        seen = []
        for part in ((z - self.mean) / width, (z - y) / width):
            seen += [part, *(f(k * part) for k in HARMONICS for f in (torch.sin, torch.cos))]
        hidden = self.first(torch.cat(seen, 2))
        if self.offsets is not None:
            hidden = hidden + self.offsets
        shares = self.last(hidden.tanh()).unflatten(2, (len(FREQUENCIES), self.numbers))
        return shares.movedim(2, 0).reshape(len(FREQUENCIES), *shape)

    def _items(self, samples: Tensor) -> Tensor:
        """`(batch, outputs, numbers)`."""
        return samples.reshape(len(samples), self.outputs, self.numbers)
