"""Angles and points: hits within a tolerance, on a circle or in the plane."""

import math

import torch
from torch import Tensor, nn

from .problem import (
    Problem,
    Scaled,
    Splits,
    Trick,
    forgiving,
    generator,
    perceptron,
    smooth_absolute_error,
    split,
    squared_error,
)


def bearings() -> Splits:
    random = generator(11)
    x = torch.randn(8000, 6, generator=random)
    weights = torch.randn(6, 1, generator=random) * 50
    bend, noise = 25 * (x[:, :1] * x[:, 1:2]), 15 * torch.randn(8000, 1, generator=random)
    return split(x, (x @ weights + bend + noise) % 360, 4000, 2000)


def turned_bearings() -> Splits:
    """Of the training angles, a quarter are turned by 60 to 120 degrees."""
    random = generator(12)
    x = torch.randn(8000, 6, generator=random)
    weights = torch.randn(6, 2, generator=random)
    vector = x @ weights + 0.4 * torch.stack([x[:, 0] * x[:, 1], x[:, 2] * x[:, 3]], 1)
    angle = torch.rad2deg(torch.atan2(vector[:, 0], vector[:, 1]))
    target = (angle + 6 * torch.randn(8000, generator=random)) % 360
    is_turned = torch.rand(8000, generator=random) < 0.25
    turned = (target + 60 + 60 * torch.rand(8000, generator=random)) % 360
    return split(x, target, 4000, 2000, torch.where(is_turned, turned, target))


def five_points() -> Splits:
    """Of the training points, a quarter are shifted."""
    random = generator(17)
    x = torch.randn(8000, 10, generator=random)
    linear = torch.randn(10, 10, generator=random) / 8
    waves = torch.randn(10, 10, generator=random)
    target = (x @ linear + 0.1 * (2 * x @ waves).sin()).view(-1, 5, 2)
    target = target + 0.08 * torch.randn(8000, 5, 2, generator=random)
    is_shifted = torch.rand(8000, 5, 1, generator=random) < 0.25
    given = torch.where(is_shifted, target + torch.tensor([0.8, 0.4]), target)
    return split(x, target, 3000, 2000, given)


def between(angle: Tensor, other: Tensor) -> Tensor:
    """Degrees, the short way round."""
    difference = (angle - other).abs() % 360
    return torch.minimum(difference, 360 - difference)


def in_steps_of_10(prediction: Tensor, target: Tensor) -> Tensor:
    return ((between(prediction, target) / 10).floor().clamp(max=6) / 6).squeeze(-1)


def one_minus_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    return (1 - torch.deg2rad(prediction - target).cos()).squeeze(-1)


def off_by_more_than_15(prediction: Tensor, target: Tensor) -> Tensor:
    angle = torch.rad2deg(torch.atan2(prediction[:, 0], prediction[:, 1]))
    return (between(angle, target) > 15).float()


def as_vector(angle: Tensor) -> Tensor:
    return torch.stack([torch.deg2rad(angle).sin(), torch.deg2rad(angle).cos()], 1)


def out_of_reach(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction - target).norm(dim=-1) > 0.2).float()


PROBLEMS = [
    Problem(
        name="degrees",
        sentence="angle in degrees, in steps of 10",
        kind="angles",
        make_data=bearings,
        model=lambda: Scaled(perceptron(6, 32, 1), 180, 100),
        proxy=lambda prediction, target: squared_error(prediction, target) / 1e4,
        metric=in_steps_of_10,
        trick=Trick("1 - cosine", loss=one_minus_cosine),
    ),
    Problem(
        name="sincos",
        sentence="angle from (sin, cos) off by more than 15; a quarter of labels wrong",
        kind="angles",
        make_data=turned_bearings,
        model=lambda: perceptron(6, 32, 2),
        proxy=lambda prediction, target: squared_error(prediction, as_vector(target)),
        metric=off_by_more_than_15,
        trick=Trick(
            "Welsch's loss of the vectors, of width 15 degrees",
            loss=lambda prediction, target: forgiving(
                (prediction - as_vector(target)).norm(dim=-1, keepdim=True), math.radians(15)
            ),
        ),
        wrong_labels=True,
    ),
    Problem(
        name="pck",
        sentence="keypoints out of reach, of 5; a quarter of labels wrong",
        kind="points",
        make_data=five_points,
        model=lambda: nn.Sequential(perceptron(10, 32, 10), nn.Unflatten(1, (5, 2))),
        proxy=smooth_absolute_error,
        metric=lambda prediction, target: out_of_reach(prediction, target).mean(-1),
        outputs=out_of_reach,
        trick=Trick(
            "Welsch's loss of the distance, of width 0.2",
            loss=lambda prediction, target: forgiving((prediction - target).norm(dim=-1), 0.2),
        ),
        wrong_labels=True,
    ),
]
