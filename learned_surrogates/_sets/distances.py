"""What is known of classes in an order, such as grades: how far off they are, beside hits."""

from collections.abc import Callable

import torch
from torch import Tensor

from .hits import LEAST, Hits


class Distances(Hits):
    r"""Hits and claims, and the distances of claims from the true class, exactly.

    Weighted kappa is one minus the distances' sum over what chance would make of it,
    :math:`\sum_{ck} |c - k|^p\, m_c\, n_k / n` of m claims and n items by class (Cohen,
    Psychological Bulletin 1968). Classes without an order have columns that tell nothing, and marks
    have none that vary.

    Args:
        laid_out, marked, zones, width, threshold: as `Hits` takes them.
    """

    columns = Hits.columns + 2

    def __init__(
        self,
        laid_out: Callable[[Tensor], Tensor],
        marked: Tensor,
        zones: Tensor,
        width: Tensor,
        threshold: float | None,
    ):
        super().__init__(laid_out, marked, zones, width, threshold)
        places = torch.arange(marked.shape[1], device=width.device).to(width)
        if threshold is not None:
            places = torch.zeros_like(places)
        true = torch.einsum("c,bci->bi", places, self.marked)
        #: Of each class from the true one, and their squares, `(2, sets, classes, items)`.
        self.distances = _with_squares((places[:, None] - true[:, None]).abs())
        #: `(2, classes, classes)`
        self.between = _with_squares((places[:, None] - places).abs())

    def scores(self, numbers: Tensor) -> Tensor:
        """Those of hits and claims, then linear and quadratic kappa. By zones."""
        zones = self.zones.shape[1]
        counts, off = numbers.split([numbers.shape[1] - 2 * zones, 2 * zones], 1)
        said = counts.unflatten(1, (3, *self.positives.shape[1:]))[:, 1]
        by_chance = torch.einsum("bzc,pck,bzk->bpz", said, self.between, self.positives)
        by_chance = (by_chance / self.items.clamp(min=1).transpose(1, 2)).clamp(min=LEAST)
        kappas = 1 - off.unflatten(1, (2, zones)) / by_chance
        return torch.cat([super().scores(counts), kappas.flatten(1)], 1)

    def _numbers(self, said: Tensor) -> Tensor:
        off = torch.einsum("bzi,bci,pbci->bpz", self.zones, said, self.distances)
        return torch.cat([super()._numbers(said), off.flatten(1)], 1)


def _with_squares(distances: Tensor) -> Tensor:
    return torch.stack([distances, distances.square()])
