"""Quantities: numbers that are used rounded, with a tolerance or a lopsided cost."""

import torch
from torch import Tensor, nn

from .problem import (
    Problem,
    Scaled,
    Splits,
    Trick,
    absolute_error,
    forgiving,
    generator,
    perceptron,
    split,
    squared_error,
)


def with_outliers(seed: int, samples: int, features: int, outputs: int, scale: float) -> Splits:
    """Of the training targets, 30 % are 4 too large."""
    random = generator(seed)
    x = torch.randn(samples, features, generator=random)
    weights = torch.randn(features, outputs, generator=random) / scale
    target = x @ weights + 0.5 * torch.randn(samples, outputs, generator=random)
    given = target + 4 * (torch.rand(samples, outputs, generator=random) < 0.3)
    return split(x, target, samples // 2, samples // 4, given)


def numbers_of_events() -> Splits:
    random = generator(10)
    x = torch.randn(8000, 8, generator=random)
    weights = torch.randn(8, 4, generator=random) / 3
    rate = (x @ weights + 0.4).exp().clamp(max=12)
    varied = rate * torch.empty_like(rate).exponential_(generator=random).sqrt()
    return split(x, torch.poisson(varied, generator=random), 3000, 2000)


def demand() -> Splits:
    random = generator(19)
    x = torch.randn(8000, 8, generator=random)
    weights = torch.randn(8, 4, generator=random) * 2
    noise = 3 * (0.3 * x[:, :1]).exp() * torch.randn(8000, 4, generator=random)
    return split(x, (15 + x @ weights + noise).clamp(min=0).round(), 3000, 2000)


def progress() -> Splits:
    """Progress of diabetes a year on, about 25 to 350."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    x = torch.tensor(x / x.std(0), dtype=torch.float32)
    target = torch.tensor(y, dtype=torch.float32)[:, None]
    order = torch.randperm(len(x), generator=generator(13))
    return split(x[order], target[order], 240, 80)


def off_by_more_than_1(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction - target).abs() > 1).float()


def capped_miscounts(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction.clamp(min=0).round() - target).abs().clamp(max=3)


def stock_costs(prediction: Tensor, target: Tensor) -> Tensor:
    """Ordered in packs of 5; a missing unit costs 4, one left over 1."""
    ordered = 5 * (prediction / 5).round().clamp(min=0)
    return 4 * (target - ordered).clamp(min=0) + (ordered - target).clamp(min=0)


def pinball(prediction: Tensor, target: Tensor) -> Tensor:
    missing = target - prediction
    return torch.maximum(0.8 * missing, -0.2 * missing).mean(1)


def relative_error(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction - target).abs() / target).mean(-1)


def capped_relative_error(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction - target).abs() / target).clamp(max=1).mean(-1)


L1 = Trick("absolute error", loss=absolute_error)
WITHIN_1 = Trick(
    "Welsch's loss of width 1", loss=lambda prediction, target: forgiving(prediction - target, 1)
)
PROBLEMS = [
    Problem(
        name="off_by_1",
        sentence="share off by more than one, of 5; 30 % of labels wrong",
        kind="numbers",
        make_data=lambda: with_outliers(9, 8000, 8, 5, 1),
        model=lambda: nn.Linear(8, 5),
        proxy=squared_error,
        metric=lambda prediction, target: off_by_more_than_1(prediction, target).mean(-1),
        outputs=off_by_more_than_1,
        trick=WITHIN_1,
        wrong_labels=True,
    ),
    Problem(
        name="off100",
        sentence="share off by more than one, of 100; 30 % of labels wrong",
        kind="numbers",
        make_data=lambda: with_outliers(31, 6000, 16, 100, 1.5),
        model=lambda: perceptron(16, 32, 100),
        proxy=squared_error,
        metric=lambda prediction, target: off_by_more_than_1(prediction, target).mean(-1),
        outputs=off_by_more_than_1,
        trick=WITHIN_1,
        steps=3000,
        wrong_labels=True,
    ),
    Problem(
        name="counts",
        sentence="off-counts, rounded and capped",
        kind="numbers",
        make_data=numbers_of_events,
        model=lambda: perceptron(8, 16, 4),
        proxy=squared_error,
        metric=lambda prediction, target: capped_miscounts(prediction, target).mean(-1),
        outputs=capped_miscounts,
        trick=L1,
    ),
    Problem(
        name="mape",
        sentence="capped relative error (real data)",
        kind="numbers",
        make_data=progress,
        model=lambda: Scaled(perceptron(10, 16, 1), 150, 80),
        proxy=lambda prediction, target: squared_error(prediction, target) / 6400,
        metric=capped_relative_error,
        trick=Trick("relative error", loss=relative_error),
        rate=3e-3,
    ),
    Problem(
        name="packs",
        sentence="stock cost in whole packs",
        kind="decisions",
        make_data=demand,
        model=lambda: Scaled(perceptron(8, 16, 4), 15, 5),
        proxy=lambda prediction, target: squared_error(prediction, target) / 10,
        metric=lambda prediction, target: stock_costs(prediction, target).mean(-1),
        outputs=stock_costs,
        trick=Trick("pinball loss", loss=pinball),
    ),
]
