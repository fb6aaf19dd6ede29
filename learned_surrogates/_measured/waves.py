"""Where a metric jumps: what the noise does beyond a straight line, and how much there is of it."""

import math
from functools import cache

import torch
from torch import Tensor, nn

from .forms.classes import Classes

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
# Of the integrals over jumps: how fine, and how far, in standard deviations of the noise.
STEP, FAR = 0.01, 12.0


def waves_of(noise: Tensor) -> Tensor:
    r"""Odd functions of standard normal numbers, `(waves, *noise.shape)`.

    :math:`\sin f \epsilon - f e^{-f^2 / 2} \epsilon`, scaled, so that all have a mean square of 1.
    A wave correlates with no number of the noise, its own included: taken from a metric's
    difference, it changes nothing of the measured gradient but its noise.
    """
    waves = []
    for f in FREQUENCIES:
        line = f * math.exp(-(f**2) / 2)
        size = math.sqrt((1 - math.exp(-2 * f**2)) / 2 - line**2)
        waves.append(((f * noise).sin() - line * noise) / size)
    return torch.stack(waves)


class Shares(nn.Module):
    """How much of each wave there is, by what is seen of an item: a small net for all of them.

    Nothing before it is fitted; of few items, each has a bias of its own.

    Args:
        inputs: figures of an item.
        items: outputs or classes.
        numbers: of an item.
    """

    def __init__(self, inputs: int, items: int, numbers: int = 1, hidden: int = 16):
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.offsets = nn.Parameter(torch.zeros(items, hidden)) if items <= FEW else None
        self.last = nn.Linear(hidden, len(FREQUENCIES) * numbers)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, seen: Tensor) -> Tensor:
        """`(..., items, inputs)` to `(waves, ..., items, numbers)`."""
        hidden = self.first(seen)
        if self.offsets is not None:
            hidden = hidden + self.offsets
        return self.last(hidden.tanh()).unflatten(-1, (len(FREQUENCIES), -1)).movedim(-2, 0)


class Waves(nn.Module):
    """Waves of each number's own noise, by where its output is.

    Args:
        z: predictions `(batch, *sample)`, by which inputs are standardised.
        y: targets of as many numbers.
    """

    mean: Tensor

    def __init__(self, z: Tensor, y: Tensor):
        super().__init__()
        point = z.ndim == 3 and z.shape[2] <= POINT
        self.numbers = z.shape[2] if point else 1
        self.outputs = z[0].numel() // self.numbers
        z = self._items(z)
        self.register_buffer("mean", z.mean((0, 1)))
        inputs = 2 * (1 + 2 * len(HARMONICS)) * self.numbers
        self.shares = Shares(inputs, self.outputs, self.numbers)

    def along(self, noise: Tensor, y: Tensor, width: Tensor) -> Tensor:
        """The noise that waves are of, `(..., batch, *sample)`: each number's own."""
        return noise

    def forward(self, z: Tensor, y: Tensor, width: Tensor) -> Tensor:
        """Of each wave, as a share of the slope's pull: `(waves, batch, *sample)`.

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
        return self.shares(torch.cat(seen, 2)).reshape(len(FREQUENCIES), *shape)

    def _items(self, samples: Tensor) -> Tensor:
        """`(batch, outputs, numbers)`."""
        return samples.reshape(len(samples), self.outputs, self.numbers)


class Margins(nn.Module):
    """Of class logits: waves of the margins' noise, between each other class and the true one.

    Where the true class and another one change places, a metric jumps; what that has of each wave,
    as a share of what it has of a slope, is known from how far they are apart (see `of_jumps`). A
    small net says how it differs, as where a third class is in between.

    Args:
        z: logits `(batch, *sample)`.
        dim: of the classes.
    """

    def __init__(self, z: Tensor, dim: int = 1):
        super().__init__()
        self.dim = dim - z.ndim
        self.classes = z.shape[dim]
        self.shares = Shares(3, self.classes)

    def along(self, noise: Tensor, y: Tensor, width: Tensor) -> Tensor:
        """The margins' noise, `(..., batch, *sample)`, standard normal; of the true class, 0."""
        classes = range(noise.ndim)[self.dim]
        deviation, width = (part.movedim(self.dim, -1) for part in (width * noise, width))
        true = self._true(y)
        of_true = true.expand(*deviation.shape[: noise.ndim - width.ndim], *true.shape)
        margin = deviation - deviation.gather(-1, of_true)
        return (margin / width.hypot(width.gather(-1, true))).movedim(-1, classes)

    def forward(self, z: Tensor, y: Tensor, width: Tensor) -> Tensor:
        """Of each wave, as a share of the slope's pull: `(waves, batch, *sample)`.

        Args:
            z: logits `(batch, *sample)`.
            y: class indices.
            width: the noise's standard deviation, as large as z.
        """
        true = self._true(y)
        z, width = z.movedim(self.dim, -1), width.movedim(self.dim, -1)
        of_margin = width.hypot(width.gather(-1, true))
        # Classes that are masked, by -1e38 say, are merely far.
        apart = ((z - z.gather(-1, true)) / of_margin).clamp(-FAR, FAR)
        first, second = z.topk(2).values.split(1, -1)
        ahead = ((z - torch.where(z == first, second, first)) / width).clamp(-FAR, FAR)
        seen = torch.stack([apart, ahead, ahead.gather(-1, true).expand_as(z)], -1)
        shares = self.shares(seen).squeeze(-1) + of_jumps(apart.abs())
        # What moves all logits moves no margin: of another class's pull, its margin has all.
        shares = shares * (of_margin / width)
        shares = shares.scatter(-1, true.expand(len(shares), *true.shape), 0.0)
        return shares.movedim(-1, self.dim)

    def _true(self, y: Tensor) -> Tensor:
        """`(batch, ..., 1)`; where there is none, any will do."""
        return y.long().where((y >= 0) & (y < self.classes), 0)[..., None]


def of_jumps(distance: Tensor) -> Tensor:
    """What a jump so many standard deviations away has of each wave, as a share of its slope."""
    table = _of_jumps(distance.device)
    steps = (distance / STEP).round().nan_to_num(0.0).clamp(max=table.shape[1] - 1)
    return table[:, steps.long()]


@cache
def _of_jumps(device: torch.device) -> Tensor:
    """By integrals over the normal density, one for each `STEP`: `(waves, distances)`."""
    e = torch.arange(0, FAR, STEP, dtype=torch.float64, device="cpu")
    beyond = ((-e.square() / 2).exp() * torch.stack([e, *waves_of(e)])).flip(1).cumsum(1).flip(1)
    line, *waves = beyond[:, : len(e) // 2]
    return (torch.stack(waves) / line).to(device, torch.float32)


def waves_for(form: nn.Module, z: Tensor, y: Tensor) -> Waves | Margins | None:
    """Waves beside a form of predictions and targets, where there are some that go with them."""
    numbers = z[0].numel()
    if numbers > MOST_NUMBERS:
        return None
    if numbers == y[0].numel():
        return Waves(z, y)
    return Margins(z, form.dim) if isinstance(form, Classes) else None
