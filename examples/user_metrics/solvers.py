"""Solvers: a programme takes the predictions as its costs, and its answer is judged."""

import itertools

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from .problem import (
    Problem,
    Splits,
    Trick,
    cross_entropy,
    generator,
    perceptron,
    row_cross_entropy,
    split,
    squared_error,
)

SIDE = 5  # of the grid of crossings


def pairs_to_match() -> Splits:
    """Five things and five descriptions of them, shuffled; the target says which is whose."""
    random = generator(20)
    things = torch.randn(5000, 5, 4, generator=random)
    order = torch.rand(5000, 5, generator=random).argsort(1)
    shuffled = things.gather(1, order.argsort(1)[..., None].expand(-1, -1, 4))
    descriptions = shuffled @ torch.randn(4, 4, generator=random)
    descriptions = descriptions + 2.0 * torch.randn(5000, 5, 4, generator=random)
    return split(torch.cat([things, descriptions], -1), order, 2000, 1000)


class Matcher(nn.Module):
    """Scores of all pairs, `(batch, 5, 5)`."""

    def __init__(self) -> None:
        super().__init__()
        self.thing, self.description = perceptron(4, 16, 6), perceptron(4, 16, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        descriptions = self.description(inputs[..., 4:])
        return self.thing(inputs[..., :4]) @ descriptions.transpose(1, 2)


def wrong_partners(prediction: Tensor, target: Tensor) -> Tensor:
    """Share of wrong pairs in the assignment of the highest sum."""
    said = [linear_sum_assignment(scores, maximize=True)[1] for scores in prediction.numpy()]
    return (torch.from_numpy(np.stack(said)) != target).float().mean(1)


def row_and_column_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    columns = cross_entropy(prediction, target.argsort(1)).mean(1)
    return row_cross_entropy(prediction, target) + columns


def all_paths() -> Tensor:
    """Which roads each way from one corner to the other takes, `(ways, roads)`.

    Ways lead right and down, between crossings of a square grid.
    """
    turns = 2 * (SIDE - 1)
    ways = []
    for downs in itertools.combinations(range(turns), SIDE - 1):
        roads, row, column = torch.zeros(2, SIDE, SIDE), 0, 0
        for turn in range(turns):
            roads[int(turn in downs), row, column] = 1
            row, column = (row + 1, column) if turn in downs else (row, column + 1)
        ways.append(torch.cat([roads[0, :, :-1].flatten(), roads[1, :-1].flatten()]))
    return torch.stack(ways)


PATHS = all_paths()


def traffic() -> Splits:
    """Costs of 40 roads, far from linear in five features (Elmachtoub and Grigas, 2022)."""
    random = generator(39)
    x = torch.randn(4000, 5, generator=random)
    weights = (torch.rand(5, 40, generator=random) < 0.5).float()
    cost = (x @ weights / 5**0.5 + 3) ** 6 / 3.5**6 + 1
    cost = cost * (0.5 + torch.rand(4000, 40, generator=random))
    return split(x, cost / cost.mean(), 1000, 1000)


def regret(prediction: Tensor, target: Tensor) -> Tensor:
    """How much dearer the way is that looks cheapest than the cheapest one, as a share of it."""
    costs = target @ PATHS.T
    taken = costs.gather(1, (prediction @ PATHS.T).argmin(1, keepdim=True)).squeeze(1)
    return taken / costs.amin(1) - 1


def spo_plus(prediction: Tensor, target: Tensor) -> Tensor:
    """The convex bound of the regret, made for such problems (the same paper, Eq. 10)."""
    best = PATHS[(target @ PATHS.T).argmin(1)]
    bound = ((target - 2 * prediction) @ PATHS.T).amax(1)
    return bound + ((2 * prediction - target) * best).sum(1)


PROBLEMS = [
    Problem(
        name="hungarian",
        sentence="wrong pairs in an assignment of 5 to 5",
        kind="solvers",
        make_data=pairs_to_match,
        model=Matcher,
        proxy=row_cross_entropy,
        metric=wrong_partners,
        trick=Trick("cross-entropy of rows and columns", loss=row_and_column_cross_entropy),
    ),
    Problem(
        name="path",
        sentence="regret of the shortest path over 40 roads",
        kind="solvers",
        make_data=traffic,
        model=lambda: nn.Linear(5, 40),
        proxy=squared_error,
        metric=regret,
        trick=Trick("SPO+", loss=spo_plus),
    ),
]
