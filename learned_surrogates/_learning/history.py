"""How the figures went, since the first call."""

from collections.abc import Mapping

import torch
from torch import Tensor

MOST_ROWS = 1000


class History:
    """Rows of figures, one an update; every second one is dropped when there are too many.

    Args:
        names: of those figures of `LearnedSurrogateLoss.stats` that are remembered.
    """

    def __init__(self, names: tuple[str, ...]):
        self.names = names
        self.rows: list[list[float]] = []
        self._every = 1
        self._waiting = 0

    def add(self, stats: Mapping[str, float]) -> None:
        self._waiting += 1
        if self._waiting < self._every:
            return
        self._waiting = 0
        self.rows.append([float(stats[key]) for key in self.names])
        if len(self.rows) > MOST_ROWS:
            self.rows = self.rows[::2]
            self._every *= 2

    def columns(self) -> dict[str, list[float]]:
        """One list a figure."""
        return {key: [row[i] for row in self.rows] for i, key in enumerate(self.names)}

    def save(self) -> Tensor:
        """`(1 + rows, figures)`; the first row says how it goes on."""
        header = [self._every, self._waiting] + [0] * (len(self.names) - 2)
        return torch.tensor([header, *self.rows], dtype=torch.float64, device="cpu")

    def load(self, state: Tensor) -> None:
        header, *self.rows = state.tolist()
        self._every, self._waiting = int(header[0]), int(header[1])
