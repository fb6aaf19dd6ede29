"""What is true of a gradient at a model that stands still: by thousands of draws, over the weights.

The loss says of its gradient how good it is, from the draws that train a model anyway. Here the
same figures are measured by many more draws, over all weights of the model, over those of its last
layer, and over the outputs. The surrogate stays as it is: it learns nothing from them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .methods import Objective
from .problem import Metric
from .score_function import like
from .training import BATCH, Batches

SPACES = ("all", "last", "outputs")
# Of steps, whose sums are kept apart: how much they differ tells the standard errors.
BLOCKS = 20
# Calls' worth that a running mean tells of whose newest call has a weight of 0.02.
REPORTED = 99
# Samples at a time. Samples are independent, so that a step of 64 is as much noisier.
MANY = 10 * BATCH


@dataclass(frozen=True)
class Figure:
    """A value and its standard error."""

    value: float
    error: float


class Blocks:
    """Sums over steps of several vectors and numbers, in blocks.

    Args:
        names: of what is summed.
    """

    def __init__(self, *names: str):
        self.sums: dict[str, list[Tensor]] = {name: [] for name in names}

    def add(self, block: int, **values: Tensor) -> None:
        for name, value in values.items():
            sums = self.sums[name]
            if len(sums) <= block:
                sums.append(torch.zeros_like(value, dtype=torch.float64))
            sums[block] += value

    def figure(self, statistic: Callable[..., float], *names: str) -> Figure:
        """A function of the blocks' sums, each `(blocks, ...)`, and its error by the jackknife."""
        parts = [torch.stack(self.sums[name]) for name in names]
        blocks = len(parts[0])
        left_out = []
        for block in range(blocks):
            kept = [part[torch.arange(blocks) != block] for part in parts]
            left_out.append(statistic(*kept))
        spread = torch.tensor(left_out, dtype=torch.float64).var(correction=0).item()
        return Figure(statistic(*parts), math.sqrt((blocks - 1) * spread))


def cosine(first: Tensor, second: Tensor) -> float:
    """Of the means that vectors `(blocks, n)` have in expectation, without their noise."""
    size = math.sqrt(max(0.0, square(first)) * max(0.0, square(second)))
    return product(first, second) / size if size > 0 else math.nan


def product(first: Tensor, second: Tensor) -> float:
    """Of the expected means: from pairs of different blocks, as both share the samples' noise."""
    return float(first.sum(0) @ second.sum(0) - (first * second).sum())


def square(vectors: Tensor) -> float:
    """The same of one mean with itself."""
    return product(vectors, vectors)


def taken_away(plain: Tensor, quiet: Tensor) -> float:
    """Share of the plain noise that is not left."""
    return 1 - float(quiet.sum() / plain.sum())


def signal_to_noise(vectors: Tensor, lengths: Tensor, counts: Tensor) -> float:
    """Length of a step's mean over its standard deviation, of `BATCH` samples.

    Args:
        vectors: sums over `MANY` samples' gradients, `(blocks, n)`.
        lengths: of their squared lengths, `(blocks,)`.
        counts: how many they are, `(blocks,)`.
    """
    pairs = float(counts.sum().square() - counts.square().sum())
    signal = square(vectors) / pairs
    noise = (float(lengths.sum() / counts.sum()) - signal) * MANY / BATCH
    return math.sqrt(max(0.0, signal) / noise) if noise > 0 else math.nan


def gradients(prediction: Tensor, model: nn.Module, each: list[Tensor]) -> dict[str, list[Tensor]]:
    """For each gradient of a prediction, flat: of all weights, of the last layer's, and itself."""
    parameters = list(model.parameters())
    # The weights that the model lists last, and the bias behind them.
    last = max(index for index, parameter in enumerate(parameters) if parameter.ndim > 1)
    found: dict[str, list[Tensor]] = {space: [] for space in SPACES}
    for gradient in each:
        parts = torch.autograd.grad(prediction, parameters, gradient, retain_graph=True)
        found["all"].append(torch.cat([part.flatten() for part in parts]))
        found["last"].append(torch.cat([part.flatten() for part in parts[last:]]))
        found["outputs"].append(gradient.flatten())
    return found


class Draws:
    """Gradients around a batch by two independent antithetic pairs of draws, and two of the loss's.

    Args:
        metric: `(batch,)`, or `(batch, outputs)`: one value an output.
        call: the loss's gradient of each sample, by one pair of draws of its own, `(batch, ...)`.
        width: of the noise, its standard deviation.
    """

    def __init__(
        self,
        metric: Metric,
        call: Callable[[Tensor, Tensor], Tensor],
        width: float,
        random: torch.Generator,
    ):
        self.metric, self.call, self.width, self.random = metric, call, width, random

    def around(self, z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of each sample without and with the surrogate, `(2, batch, ...)` each."""
        noise = torch.randn(2, *z.shape, generator=self.random)
        with torch.no_grad():
            above, below = (
                torch.stack([self.metric(z + sign * self.width * each, target) for each in noise])
                for sign in (1, -1)
            )
        d = (above - below) / 2
        plain = like(d, noise) * noise / self.width / d[0, 0].numel()
        return plain, torch.stack([self.call(z, target) for _ in range(2)])


def measure(
    model: nn.Module,
    proxy: Objective,
    draws: Draws,
    data: tuple[Tensor, Tensor],
    seed: int,
    count: int = 10_000,
) -> dict[str, Figure]:
    """The figures at a model, which is left as it is.

    Args:
        proxy: `(prediction, target) -> ()`.
        data: the split that the model is trained on.
        seed: of the samples.
        count: of draws of `BATCH` samples.

    Returns:
        By space, as in "cosine, all": "r2", the share of the draws' noise that the surrogate takes
        away; "signal_to_noise" of a step, and "cosine" of the proxy's gradient with the metric's.
        "r2, reported" is that of the outputs with the error of a report, which tells of some 100
        calls.
    """
    batches = Batches(data, MANY, seed)
    steps = max(1, count * BATCH // (4 * MANY * BLOCKS))
    spaces = {
        space: Blocks("metric", "proxy", "length", "count", "plain", "quiet") for space in SPACES
    }
    for block in range(BLOCKS):
        for _ in range(steps):
            inputs, target = batches.next()
            prediction = model(inputs)
            plain, quiet = draws.around(prediction.detach(), target)
            (of_proxy,) = torch.autograd.grad(
                proxy(prediction, target), prediction, retain_graph=True
            )
            each = [*plain / MANY, *quiet / MANY, of_proxy]
            for space, found in gradients(prediction, model, each).items():
                first, second, quieter, other, of_base = found
                spaces[space].add(
                    block,
                    metric=(quieter + other) / 2,
                    proxy=of_base,
                    length=(quieter.square().sum() + other.square().sum()) / 2,
                    count=torch.ones(()),
                    plain=(first - second).square().sum(),
                    quiet=(quieter - other).square().sum(),
                )
    figures = {}
    for space, blocks in spaces.items():
        figures[f"r2, {space}"] = blocks.figure(taken_away, "plain", "quiet")
        if space != "outputs":  # which are of other samples at each step
            figures[f"cosine, {space}"] = blocks.figure(cosine, "metric", "proxy")
            figures[f"signal_to_noise, {space}"] = blocks.figure(
                signal_to_noise, "metric", "length", "count"
            )
    told = figures["r2, outputs"]
    fewer = 2 * MANY * steps * BLOCKS / (REPORTED * BATCH)
    figures["r2, reported"] = Figure(told.value, told.error * math.sqrt(fewer))
    return figures
