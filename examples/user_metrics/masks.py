"""Masks: pixels are counted, or their outlines compared."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .problem import Problem, Splits, Trick, binary_cross_entropy, generator, split


def small_ellipses() -> Splits:
    random = generator(18)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    centre = 3 + 10 * torch.rand(3600, 2, 1, 1, generator=random)
    radius = 1.5 + 2.5 * torch.rand(3600, 2, 1, 1, generator=random)
    mask = ellipse(rows, columns, centre, radius)
    images = mask * 0.9 + 0.9 * torch.randn(3600, 1, 16, 16, generator=random)
    return split(images, mask, 1200, 800)


def large_ellipses() -> Splits:
    """Two overlapping ellipses of 64 x 64 in noise and smooth clutter."""
    random, count = generator(38), 3600
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    centre = 16 + 32 * torch.rand(count, 2, 1, 1, generator=random)
    mask = torch.zeros(count, 1, 64, 64)
    for _ in range(2):
        shift = 6 * torch.randn(count, 2, 1, 1, generator=random)
        radius = 4 + 8 * torch.rand(count, 2, 1, 1, generator=random)
        mask = torch.maximum(mask, ellipse(rows, columns, centre + shift, radius))
    clutter = torch.randn(count, 1, 16, 16, generator=random)
    clutter = functional.interpolate(clutter, scale_factor=4.0, mode="bilinear")
    noise = torch.randn(count, 1, 64, 64, generator=random)
    return split(mask + clutter + 1.5 * noise, mask, 2400, 400)


def ellipse(rows: Tensor, columns: Tensor, centre: Tensor, radius: Tensor) -> Tensor:
    down = (rows - centre[:, 0:1]) / radius[:, 0:1]
    right = (columns - centre[:, 1:2]) / radius[:, 1:2]
    return (down**2 + right**2 < 1).float()


def small_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 1, 3, padding=1),
    )


def large_net() -> nn.Module:
    """Works on blocks of 4 x 4 pixels, so that a step takes milliseconds."""
    return nn.Sequential(
        nn.PixelUnshuffle(4),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.PixelShuffle(4),
    )


def one_minus_iou(prediction: Tensor, target: Tensor) -> Tensor:
    said, target = (prediction > 0).flatten(1), (target > 0.5).flatten(1)
    common, either = count(said & target), count(said | target)
    return 1 - torch.where(either > 0, common / either.clamp(min=1), 1.0)


def one_minus_boundary_f1(prediction: Tensor, target: Tensor, reach: int = 1) -> Tensor:
    """Of the pixels of one outline, how many the other comes near.

    Args:
        reach: pixels, across or down, within which an outline is met.
    """
    said, given = outline(prediction[:, 0] > 0), outline(target[:, 0] > 0.5)
    precision = share(said, thickened(given, reach))
    recall = share(given, thickened(said, reach))
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-9)
    is_empty = (said.flatten(1).any(1) == 0) & (given.flatten(1).any(1) == 0)
    return torch.where(is_empty, 0.0, 1 - f1)


def neighbours(mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Above, below, left and right; outside is no mask."""
    padded = functional.pad(mask, (1, 1, 1, 1))
    return padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]


def outline(mask: Tensor) -> Tensor:
    above, below, left, right = neighbours(mask)
    return mask & ~(above & below & left & right)


def thickened(mask: Tensor, reach: int) -> Tensor:
    for _ in range(reach):
        above, below, left, right = neighbours(mask)
        mask = mask | above | below | left | right
    return mask


def share(outlined: Tensor, near: Tensor) -> Tensor:
    return count(outlined & near) / count(outlined).clamp(min=1)


def count(mask: Tensor) -> Tensor:
    """Pixels a sample; a sum of truth values is slow in any but this type."""
    return mask.flatten(1).sum(1, dtype=torch.int32)


def soft_iou(prediction: Tensor, target: Tensor) -> Tensor:
    """The IoU of probabilities: what segmentation takes in place of cross-entropy."""
    said, target = prediction.sigmoid().flatten(1), target.flatten(1)
    common = (said * target).sum(1)
    return 1 - (common + 1e-6) / (said.sum(1) + target.sum(1) - common + 1e-6)


SOFT_IOU = Trick("soft IoU", loss=soft_iou)
SMALL = {"make_data": small_ellipses, "model": small_net, "proxy": binary_cross_entropy}
LARGE = {"make_data": large_ellipses, "model": large_net, "proxy": binary_cross_entropy}
PROBLEMS = [
    Problem(
        name="iou",
        sentence="1 - IoU, masks of 16 x 16",
        kind="masks",
        metric=one_minus_iou,
        trick=SOFT_IOU,
        **SMALL,
    ),
    Problem(
        name="boundary",
        sentence="1 - F1 of the outline, masks of 16 x 16",
        kind="masks",
        metric=one_minus_boundary_f1,
        trick=SOFT_IOU,
        **SMALL,
    ),
    Problem(
        name="iou64",
        sentence="1 - IoU, masks of 64 x 64",
        kind="masks",
        metric=one_minus_iou,
        trick=SOFT_IOU,
        steps=2500,
        rate=3e-3,
        **LARGE,
    ),
    Problem(
        name="boundary64",
        sentence="1 - F1 of the outline, masks of 64 x 64",
        kind="masks",
        metric=lambda prediction, target: one_minus_boundary_f1(prediction, target, 2),
        trick=SOFT_IOU,
        steps=2500,
        rate=3e-3,
        **LARGE,
    ),
]
