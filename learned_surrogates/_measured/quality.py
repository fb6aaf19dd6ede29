"""How good the gradient is: how quiet, and what the usual loss's has in common with it."""

import math

import torch
from torch import Tensor

from .._batch import Batch
from .._state.tensors import ANY, Shapes, as_tensor
from .._support.transfer import send
from .weights import in_weights, last_layer

# Weight of the newest reading in the running means; readings are made at updates.
MOMENTUM = 0.02
# Of a layer's weights, so many are looked at.
MOST_WEIGHTS = 2**14
# Before so many readings there are no figures.
FEWEST = 10
# Times the mean squared length up to which a reading counts in full.
MOST = 100.0
# Standard errors of a signal that chance alone may make.
SURE = 2.0
# Products of gradients whose running means and squares tell the standard error.
PRODUCTS = 3


class Quality:
    """Reads gradients in the last layer's weights, where samples add up as they do in training.

    Per output, every usual loss looks good: what agrees cancels over the batch. Halves of a batch,
    at random, are independent, so that their running means have independent noise, and the product
    of one half's mean with the other's has that of the true gradients as its own mean.
    """

    def __init__(self) -> None:
        #: Running means of two halves' gradients, measured and of the base loss: `(4, weights)`.
        self.vectors = torch.zeros(4, 0, dtype=torch.float32, device="cpu")
        #: Running means of both gradients' squared lengths, of products and of their squares.
        self.figures = torch.zeros(2 + 2 * PRODUCTS, dtype=torch.float64, device="cpu")
        self.readings = 0

    def read(self, batch: Batch, measured: Tensor, base: Tensor | None) -> None:
        """Takes gradients with respect to a batch's prediction, of its shape.

        A sample alone is the one half, and its own the other: readings take turns.
        """
        count = len(batch.target)
        if not count:
            return
        turn = self.readings % 2 if count == 1 else 0
        # At random: batches may have an order, such as a yes and a no in turns.
        random = torch.Generator().manual_seed(self.readings)
        order = torch.randperm(count, generator=random, device="cpu") + turn
        odd = batch.per_sample(send(order % 2 == 1, measured.device), measured.ndim)
        halves = []
        for gradient in (measured,) if base is None else (measured, base.to(measured)):
            first = gradient.where(~odd, 0.0)
            halves += [first, gradient - first]
        try:
            found = in_weights(batch, halves, last_layer(batch.prediction))
        except RuntimeError:  # a graph that is gone through once only
            found = in_weights(batch, halves, [])
        if base is None:
            found = [*found, *map(torch.zeros_like, found)]
        new = torch.stack([part[:: -(-len(part) // MOST_WEIGHTS)] for part in found])
        if not new.isfinite().all():
            return
        # Squares of large and small gradients have no room in float32; MPS has nothing wider.
        new = new if new.device.type == "mps" else new.double()
        if self.vectors.shape != new.shape:
            self.vectors, self.readings = torch.zeros_like(new, dtype=torch.float32), 0
        new = self._bounded(new)
        if count == 1:
            products, vectors = self._of_one(new, turn)
        else:
            vectors = torch.lerp(self.vectors.to(new), new, self._rate(self.readings))
            products = _products(*new, *vectors)
        figures = torch.cat([_lengths(new), products, products.square()]).double().cpu()
        self.figures = torch.lerp(self.figures, figures, self._rate(self.readings))
        self.vectors = vectors.float()
        self.readings += 1

    def _of_one(self, new: Tensor, turn: int) -> tuple[Tensor, Tensor]:
        """Products and running means, where one half has a gradient, and the other nothing."""
        own = torch.arange(4, device=new.device)[:, None] % 2 == turn
        # Of a whole batch's gradient, a half has half.
        new = new / 2
        rate = self._rate(self.readings // 2)
        vectors = self.vectors.to(new)
        vectors = torch.where(own, torch.lerp(vectors, new, rate), vectors)
        x, y, other_x, other_y = new[turn], new[2 + turn], vectors[1 - turn], vectors[3 - turn]
        return torch.stack([2 * (x @ other_y), 2 * (y @ other_x), x @ other_x]), vectors

    @staticmethod
    def _rate(readings: int) -> float:
        """Weight of a reading after so many."""
        return max(MOMENTUM, 1 / (readings + 1))

    def _bounded(self, new: Tensor) -> Tensor:
        """A reading that is no longer than some mean ones."""
        if not self.readings:
            return new
        lengths = _lengths(new)
        most = MOST * self.figures[:2].to(lengths)
        shares = torch.where((lengths > most) & (most > 0), (most / lengths).sqrt(), 1.0)
        return new * shares.repeat_interleave(2)[:, None]

    def _means(self) -> tuple[float, float, float]:
        """Squared lengths of the measured and the base loss's mean gradient, and their product."""
        if self.readings < FEWEST:
            return math.nan, math.nan, math.nan
        g, h, b, c = self.vectors.cpu().double()
        return 4 * float(g @ h), 4 * float(b @ c), 2 * float(g @ c + h @ b)

    @property
    def signal_to_noise(self) -> float:
        """Length of a step's mean over its standard deviation; NaN before it is known."""
        return _ratio(self._means()[0], float(self.figures[0]))

    @property
    def sure_signal_to_noise(self) -> float:
        """The same as far as it is more than noise makes by chance."""
        signal = self._means()[0]
        if signal != signal:
            return math.nan
        # Where halves have nothing in common, the product of their means varies as that of one
        # reading's does, over the readings' number.
        means, squares = self.figures[2:].split(PRODUCTS)
        by_chance = 4 * math.sqrt(max(0.0, float(squares[2] - means[2].square()))) / self._worth
        return _ratio(signal - SURE * by_chance, float(self.figures[0]))

    @property
    def base_signal_to_noise(self) -> float:
        """The same of the base loss."""
        return _ratio(self._means()[1], float(self.figures[1]))

    @property
    def cosine(self) -> tuple[float, float]:
        """Of the base loss's mean gradient with the measured one, and its standard error."""
        signal, base, across = self._means()
        if not (signal > 0 and base > 0):
            return math.nan, math.nan
        means, squares = self.figures[2:].split(PRODUCTS)
        variances = (squares - means.square()).clamp(min=0)
        size = math.sqrt(signal * base)
        error = 2 * math.sqrt(float(variances[:2].sum()) / (self._worth - 1)) / size
        return max(-1.0, min(1.0, across / size)), error

    @property
    def _worth(self) -> float:
        """So many readings the running means tell of."""
        return min(self.readings, (2 - MOMENTUM) / MOMENTUM)

    # Where it lives

    def to(self, device: torch.device) -> None:
        self.vectors = self.vectors.to(device)

    def save(self, name: str) -> dict[str, Tensor]:
        """Its part of a state, under a name."""
        return {
            f"{name}.vectors": self.vectors,
            f"{name}.figures": self.figures,
            f"{name}.readings": as_tensor(self.readings),
        }

    def shapes(self, name: str) -> Shapes:
        """The shapes of that part."""
        figures = tuple(self.figures.shape)
        return {f"{name}.vectors": (4, ANY), f"{name}.figures": figures, f"{name}.readings": ()}

    def load(self, state: dict[str, Tensor], name: str, device: torch.device) -> None:
        self.vectors = state[f"{name}.vectors"].to(device, copy=True)
        self.figures = state[f"{name}.figures"].to(self.figures, copy=True)
        self.readings = int(state[f"{name}.readings"])


def _lengths(new: Tensor) -> Tensor:
    """Squared, of both gradients' whole, `(2,)`."""
    return new.unflatten(0, (2, 2)).sum(1).square().sum(1)


def _products(
    g: Tensor, h: Tensor, b: Tensor, c: Tensor, g0: Tensor, h0: Tensor, b0: Tensor, c0: Tensor
) -> Tensor:
    """What a reading has in common with the means: how much that varies tells the error."""
    return torch.stack([g @ c0 + h @ b0, b @ h0 + c @ g0, g @ h])


def _ratio(signal: float, length: float) -> float:
    """Of a mean's length to a standard deviation, by squared lengths of the mean and of steps."""
    noise = length - signal
    return math.sqrt(max(0.0, signal) / noise) if noise > 0 else math.nan
