"""Lists: only the order of the outputs counts, or what comes first."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .problem import (
    Problem,
    Splits,
    Trick,
    binary_cross_entropy,
    generator,
    perceptron,
    split,
    squared_error,
)

DISCOUNTS = 1 / torch.log2(torch.arange(2, 7).float())
# Of an item that is none, in the first places of a page.
COSTS = torch.tensor([5.0, 1.0, 1.0, 1.0, 1.0])


def items(seed: int, lists: int, length: int) -> tuple[Tensor, Tensor]:
    """Features of each item, and how good it is."""
    random = generator(seed)
    x = torch.randn(lists, length, 6, generator=random)
    weights = torch.randn(6, 1, generator=random)
    worth = (x @ weights).squeeze(-1) / 2.4 + 0.7 * x[..., 0] * x[..., 1]
    return x, worth + 0.6 * torch.randn(lists, length, generator=random)


def graded_items() -> Splits:
    x, worth = items(14, 6000, 20)
    return split(x, (worth.exp() * 0.8).floor().clamp(0, 4), 2000, 1500)


def relevant_items(seed: int, lists: int, length: int, threshold: float) -> Splits:
    x, worth = items(seed, lists, length)
    target = (worth > threshold).float()
    target[target.sum(1) == 0, 0] = 1.0
    return split(x, target, lists // 3, lists // 4)


def heavy_tails(seed: int, samples: int, outputs: int) -> Splits:
    random = generator(seed)
    x = torch.randn(samples, 12, generator=random)
    weights = torch.randn(12, outputs, generator=random) / 2
    noise = torch.randn(samples, outputs, generator=random)
    noise = noise / (torch.randn(samples, outputs, generator=random).abs() + 0.15)
    target = x @ weights + 0.5 * noise
    return split(x, target.sign() * target.abs() ** 1.5, 3000, samples // 4)


def cost_of_a_page(scores: Tensor, relevant: Tensor) -> Tensor:
    """Of lists `(..., n)`."""
    shown = scores.topk(len(COSTS), dim=-1).indices
    return (COSTS * (1 - relevant.gather(-1, shown))).sum(dim=-1)


class Scorer(nn.Module):
    """Scores each item by itself."""

    def __init__(self, hidden: int):
        super().__init__()
        self.net = perceptron(6, hidden, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs).squeeze(-1)


def ranks(scores: Tensor) -> Tensor:
    return scores.argsort(-1).argsort(-1).float()


def one_minus_spearman(prediction: Tensor, target: Tensor) -> Tensor:
    length = prediction.shape[1]
    squares = (ranks(prediction) - ranks(target)).square().sum(-1)
    return 6 * squares / (length * (length**2 - 1))


def one_minus_ndcg_at_5(prediction: Tensor, target: Tensor) -> Tensor:
    gain = 2**target - 1
    reached = (gain.gather(1, prediction.topk(5, -1).indices) * DISCOUNTS).sum(-1)
    ideal = (gain.topk(5, -1).values * DISCOUNTS).sum(-1)
    return 1 - torch.where(ideal > 0, reached / ideal.clamp(min=1e-9), 1.0)


def one_minus_average_precision(prediction: Tensor, target: Tensor) -> Tensor:
    hits = target.gather(1, prediction.argsort(-1, descending=True))
    precision = hits.cumsum(1) / torch.arange(1, target.shape[1] + 1)
    return 1 - (precision * hits).sum(1) / hits.sum(1)


def list_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """ListNet's, with the gains, or the relevant items, as shares (Cao et al., ICML 2007)."""
    gain = 2**target - 1
    shares = gain / gain.sum(-1, keepdim=True).clamp(min=1e-9)
    return -(shares * prediction.log_softmax(-1)).sum(-1)


def pairwise(prediction: Tensor, target: Tensor) -> Tensor:
    """RankNet's: logistic loss of each relevant item against each other one."""
    margins = prediction[:, :, None] - prediction[:, None, :]
    pairs = (target[:, :, None] > target[:, None, :]).float()
    return (functional.softplus(-margins) * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def squared_rank_error(prediction: Tensor, target: Tensor) -> Tensor:
    return squared_error(prediction, 2 * ranks(target) / target.shape[1] - 1)


RANKS = Trick("squared error of the targets' ranks", loss=squared_rank_error)
PROBLEMS = [
    Problem(
        name="ndcg5",
        sentence="1 - NDCG@5 of 20",
        kind="lists",
        make_data=graded_items,
        model=lambda: Scorer(8),
        proxy=squared_error,
        metric=one_minus_ndcg_at_5,
        trick=Trick("ListNet", loss=list_cross_entropy),
    ),
    Problem(
        name="ap",
        sentence="1 - AP of 20",
        kind="lists",
        make_data=lambda: relevant_items(15, 6000, 20, 1.3),
        model=lambda: Scorer(4),
        proxy=binary_cross_entropy,
        metric=one_minus_average_precision,
        trick=Trick("RankNet", loss=pairwise),
    ),
    Problem(
        name="ap200",
        sentence="1 - AP of 200",
        kind="lists",
        make_data=lambda: relevant_items(37, 3600, 200, 2.2),
        model=lambda: Scorer(4),
        proxy=binary_cross_entropy,
        metric=one_minus_average_precision,
        trick=Trick("ListNet", loss=list_cross_entropy),
    ),
    Problem(
        name="spearman",
        sentence="1 - Spearman of 10",
        kind="lists",
        make_data=lambda: heavy_tails(16, 8000, 10),
        model=lambda: perceptron(12, 16, 10),
        proxy=squared_error,
        metric=one_minus_spearman,
        trick=RANKS,
    ),
    Problem(
        name="sp100",
        sentence="1 - Spearman of 100",
        kind="lists",
        make_data=lambda: heavy_tails(34, 6000, 100),
        model=lambda: perceptron(12, 32, 100),
        proxy=squared_error,
        metric=one_minus_spearman,
        trick=RANKS,
        steps=3000,
    ),
]
