"""Whether draws move with the prediction as their scores say."""

import zlib
from typing import Any

import torch
from torch import Tensor

from .._batch import Batch
from .._support.moderate import fill_values
from .call import Call, NotAsked
from .hooks import sample_with_score

DRAWS = 500
# Length of the first step, in standard deviations of the prediction's numbers; how often it is made
# four times as long, as of numbers that are nearly the same, until differences are no noisier than
# what scores tell; and how often it is then halved until the slope stays what it is.
STEP, LONGER, HALVINGS = 0.5, 6, 8
# Shares by which it may change then, and by which slopes may differ; deviations that chance makes.
STAYS, ALIKE, SURE = 0.1, 0.2, 4.0


def slopes(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    r"""Slopes of a function's mean over draws, by their scores and by moving the prediction.

    With f = 1 or -1 for each draw s, :math:`E[(f - \bar f) \nabla \log p_z(s)]` is the gradient
    of :math:`E[f]`. Both are taken along that gradient, as other draws have it, and along a
    direction at random. Scores are looked at one by one: all of them would not fit into memory.

    Returns:
        By scores, by differences, and the standard error of their difference: `(2 * samples,)`.

    Raises:
        NotAsked: there is no slope that draws would show.
    """
    batch = call.batch
    coin = Coin([_draw(batch, call, seed)[0] for seed in range(DRAWS)])
    f = coin.sides - coin.sides.mean(0)
    z = batch.samples_first(batch.prediction.detach()).double().cpu()
    half = DRAWS // 2
    gradient = torch.zeros_like(z)
    for seed in range(half):
        gradient += f[seed, :, None] * _draw(batch, call, seed)[1]
    random = torch.Generator().manual_seed(0)
    directions = [gradient, torch.randn(z.shape, generator=random, dtype=z.dtype)]
    units = [_unit(direction.where(z.isfinite(), 0.0)) for direction in directions]
    rest = (_draw(batch, call, seed)[1] for seed in range(half, DRAWS))
    along = torch.stack([torch.stack([(score * unit).sum(1) for unit in units]) for score in rest])
    told = (f[half:, None] * along).flatten(1)
    plain = z[z.isfinite() & ~fill_values(z)]
    step = STEP * (float(plain.std(correction=0)) if len(plain) else 0.0) or STEP
    seen = _seen(call, z, units, step, coin)
    for _ in range(LONGER if _more_than_chance(told.mean(0), _variance(told)) else 0):
        if seen.any() and _variance(seen).sum() <= _variance(told).sum():
            break
        step *= 4
        seen = _seen(call, z, units, step, coin)
    for _ in range(HALVINGS):
        step /= 2
        finer = _seen(call, z, units, step, coin)
        stays = _alike(seen.mean(0), finer.mean(0), _variance(seen) + _variance(finer), STAYS)
        seen = finer
        if stays:
            break
    variance = _variance(told) + _variance(seen)
    if not any(_more_than_chance(each.mean(0), variance) for each in (told, seen)):
        raise NotAsked("no slope of these draws is more than chance makes")
    return told.mean(0), seen.mean(0), variance.sqrt()


def agree(told: Tensor, seen: Tensor, error: Tensor) -> bool:
    """Whether they are the same, but for chance and for what a step is too long."""
    return _alike(told, seen, error.square())


class Coin:
    """A function of a sample's draw that is 1 or -1, and for equal draws the same.

    Args:
        drawn: predictions as the metric takes them; those above their mean are on the one side.
    """

    def __init__(self, drawn: list[Any]):
        numbers = torch.stack([_numbers(each) for each in drawn])
        self.means = numbers.mean(0)
        #: `(draws, samples)`
        self.sides = self._sides(numbers)

    def toss(self, drawn: Any) -> Tensor:
        """`(samples,)` float64."""
        return self._sides(_numbers(drawn))

    def _sides(self, numbers: Tensor) -> Tensor:
        return 1.0 - 2.0 * (numbers > self.means)


def _numbers(drawn: Any) -> Tensor:
    """A number for each sample, `(samples,)` float64: what it holds, weighed at random."""
    if isinstance(drawn, Tensor):
        flat = drawn.detach().double().cpu().nan_to_num()[:, None].flatten(1)
        random = torch.Generator().manual_seed(1)
        return flat @ torch.randn(flat.shape[1], generator=random, dtype=flat.dtype)
    return torch.tensor([_number(one) for one in drawn], dtype=torch.float64, device="cpu")


def _number(one: Any) -> float:
    if isinstance(one, Tensor):
        one = one.tolist()
    if isinstance(one, set | frozenset):
        return sum(map(_weight, one))
    if isinstance(one, str | list | tuple):
        return sum(map(_weight, enumerate(one)))
    return _weight(one)


def _weight(one: Any) -> float:
    """-1 to 1, the same for what reads the same."""
    return zlib.crc32(repr(one).encode()) / 2**31 - 1


def _draw(batch: Batch, call: Call, seed: int) -> tuple[Any, Tensor]:
    """A draw, and its scores `(samples, numbers)` float64, 0 where they are not finite."""
    random = torch.Generator().manual_seed(seed)
    drawn, _, score = sample_with_score(call.task, batch, random)
    score = batch.samples_first(score.detach()).double().cpu()
    return drawn, score.where(score.isfinite(), 0.0)


def _seen(call: Call, z: Tensor, units: list[Tensor], step: float, coin: Coin) -> Tensor:
    """Slopes by differences, `(draws, directions * samples)`."""
    found = []
    for unit in units:
        sides = [call.moved(_shaped(z + s * step * unit, call.batch)).batch for s in (1, -1)]
        tossed = [
            [coin.toss(_draw(side, call, seed)[0]) for seed in range(DRAWS)] for side in sides
        ]
        found.append((torch.stack(tossed[0]) - torch.stack(tossed[1])) / (2 * step))
    return torch.cat(found, 1)


def _variance(values: Tensor) -> Tensor:
    """Of the mean over draws."""
    return values.var(0) / len(values)


def _more_than_chance(mean: Tensor, variance: Tensor) -> bool:
    """Whether it is not merely what a mean of that variance has by chance."""
    return not _alike(mean, torch.zeros_like(mean), variance)


def _alike(a: Tensor, b: Tensor, variance: Tensor, share: float = ALIKE) -> bool:
    """Whether vectors differ by no more than a share, or than chance, which adds `variance`."""
    off = (a - b).square().sum() - variance.sum()
    by_chance = SURE * (2 * variance.square().sum()).sqrt()
    size = torch.maximum(a.square().sum(), b.square().sum())
    return bool(off <= by_chance or (b.any() and off <= share**2 * size))


def _unit(directions: Tensor) -> Tensor:
    lengths = directions.norm(dim=1, keepdim=True)
    return directions / lengths.where(lengths > 0, 1.0)


def _shaped(samples: Tensor, batch: Batch) -> Tensor:
    """`(batch, numbers)` as the prediction is."""
    prediction = batch.prediction.detach()
    if batch.batch_dim is None:
        return samples.view(prediction.shape).to(prediction)
    first = prediction.movedim(batch.batch_dim, 0)
    return samples.view(first.shape).movedim(0, batch.batch_dim).to(prediction)
