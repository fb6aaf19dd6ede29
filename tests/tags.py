"""A task as the page "Write a task" has it: predictions and targets are sets of tags."""

import torch
from torch import nn

from learned_surrogates import Batch, EmbeddingDistance, Task

NAMES = ("cat", "dog", "indoor", "night", "people")


def jaccard_distance(predicted: set[str], true: set[str]) -> float:
    return 1 - len(predicted & true) / len(predicted | true) if predicted | true else 0.0


class Tags(Task[Batch]):
    can_sample = True
    draws = 2
    target_is_best = True

    def __init__(self, names):
        self.names = tuple(names)

    def rows(self, sets):
        return torch.tensor([[float(name in tags) for name in self.names] for tags in sets])

    def sets(self, rows):
        return [{name for name, on in zip(self.names, row) if on} for row in rows.tolist()]

    def read(self, logits, tags):
        return Batch(prediction=logits, target=self.rows(tags).to(logits.device))

    def represent(self, prediction, batch):
        return prediction.sigmoid()

    def decode(self, batch):
        return self.sets(batch.prediction > 0), self.sets(batch.target > 0)

    def encode(self, predictions, targets, shape):
        return self.rows(predictions), self.rows(targets)

    def build_surrogate(self, z, y):
        layers = nn.Linear(z.shape[1], 16), nn.LeakyReLU(), nn.Linear(16, 8)
        return EmbeddingDistance(nn.Sequential(*layers))

    def sample(self, batch, random):
        shares = batch.prediction.sigmoid().cpu()
        drawn = torch.rand(shares.shape, generator=random) < shares
        return self.sets(drawn), self.sets(batch.target > 0)


def call(batch=6, seed=0):
    """Logits, a leaf, and sets of tags."""
    random = torch.Generator().manual_seed(seed)
    tags = [
        {name for name, on in zip(NAMES, row) if on}
        for row in (torch.rand(batch, len(NAMES), generator=random) < 0.4).tolist()
    ]
    return torch.randn(batch, len(NAMES), generator=random).requires_grad_(), tags


def pairs(count, rng):
    """A generator of pairs."""
    drawn = rng.random((2, count, len(NAMES))) < 0.4
    return tuple([{name for name, on in zip(NAMES, row) if on} for row in side] for side in drawn)
