"""Whether draws move with the prediction as their scores say."""

import zlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .._batch import Batch
from .._task import Task
from . import hooks
from .call import Call

DRAWS = 500
# Length of a step, in standard deviations of the prediction's numbers.
STEP = 0.5


def slopes(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    r"""Slopes of a function's mean over draws, by their scores and by moving the prediction.

    With f = 1 or -1 for each draw s, at random, :math:`E[(f - \bar f) \nabla \log p_z(s)]` is the
    gradient of :math:`E[f]`. Both are taken along that gradient, as other draws have it, and along
    a direction at random.

    Returns:
        By scores, by differences, and the standard error of their difference: `(2 * samples,)`.
    """
    task, batch = call.task, call.batch
    coin = Coin()
    f, scores = _draw(task, batch, range(DRAWS), coin)
    f = f - f.mean(0)
    z = batch.samples_first(batch.prediction.detach()).double().cpu()
    usable = z.isfinite() & scores.isfinite().all(0)
    spread = z[usable].std(correction=0) if usable.any() else z.new_ones(())
    step = STEP * (spread if spread > 0 else 1.0)
    random = torch.Generator().manual_seed(0)
    first = slice(None, DRAWS // 2)
    gradient = (f[first, :, None] * scores[first]).mean(0)
    found = []
    for direction in (gradient, torch.randn(z.shape, generator=random, dtype=z.dtype)):
        direction = direction.where(usable, 0.0)
        length = direction.norm(dim=1, keepdim=True)
        unit = direction / length.where(length > 0, 1.0)
        told = f[DRAWS // 2 :] * (scores[DRAWS // 2 :].where(usable, 0.0) * unit).sum(2)
        sides = [
            _draw(
                task, call.moved(_shaped(z + sign * step * unit, batch)).batch, range(DRAWS), coin
            )
            for sign in (1, -1)
        ]
        seen = (sides[0][0] - sides[1][0]) / (2 * step)
        variance = told.var(0) / len(told) + seen.var(0) / len(seen)
        found.append((told.mean(0), seen.mean(0), variance.sqrt()))
    told, seen, errors = (torch.cat(parts) for parts in zip(*found, strict=True))
    return told, seen, errors


class Coin:
    """A function of a sample's draw that is 1 or -1, and for equal draws the same."""

    def __init__(self) -> None:
        #: Of numbers: what they are weighed with, and each sample's mean.
        self.weights: Tensor | None = None
        self.means: Tensor | None = None

    def toss(self, drawn: list[Any]) -> Tensor:
        """`(draws, samples)` float64, of predictions as the metric takes them."""
        if not all(isinstance(each, Tensor) for each in drawn):
            return torch.tensor([[_parity(one) for one in each] for each in drawn]).double()
        numbers = torch.stack([each.double().cpu() for each in drawn])[..., None].flatten(2)
        if self.weights is None or self.means is None:
            random = torch.Generator().manual_seed(1)
            self.weights = torch.randn(numbers.shape[2], generator=random, dtype=numbers.dtype)
            self.means = (numbers @ self.weights).mean(0)
        return 1.0 - 2.0 * (numbers @ self.weights > self.means)


def _parity(one: Any) -> int:
    """1 or -1, by what an object is made of."""
    if isinstance(one, Tensor):
        one = one.tolist()
    if isinstance(one, set | frozenset):
        one = sorted(one, key=repr)
    text = one if isinstance(one, str) else repr(one)
    return 1 - 2 * (zlib.crc32(text.encode()) & 1)


def _draw(task: Task[Any], batch: Batch, seeds: Iterable[int], coin: Coin) -> tuple[Tensor, Tensor]:
    """Of draws, the coin's sides, `(draws, samples)`, and scores `(draws, samples, numbers)`."""
    drawn, scores = [], []
    for seed in seeds:
        predictions, _, score = hooks.sample_with_score(
            task, batch, torch.Generator().manual_seed(seed)
        )
        drawn.append(predictions)
        scores.append(batch.samples_first(score.detach()).double().cpu())
    return coin.toss(drawn), torch.stack(scores)


def _shaped(samples: Tensor, batch: Batch) -> Tensor:
    """`(batch, numbers)` as the prediction is."""
    prediction = batch.prediction.detach()
    if batch.batch_dim is None:
        return samples.view(prediction.shape).to(prediction)
    first = prediction.movedim(batch.batch_dim, 0)
    return samples.view(first.shape).movedim(0, batch.batch_dim).to(prediction)
