"""The random data generator R for boxes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._support.checks import check_number, check_seed
from ._check import as_boxes, check_boxes
from ._geometry import area, corners, rotate, untangled, with_angle
from ._iou import rotated_iou
from ._target_frame import ordered_corners

# Standard deviations of a distortion: of the centre in shares of the sides, of the sides'
# logarithms, of the angle in radians, of each corner in shares of the sides.
SPREAD = {"centre": 1.0, "sides": 1.0, "angle": 0.5, "corners": 0.3}
# A pair is kept if its IoU is so close to the one drawn for it.
TOLERANCE = 0.005
# How many errors distort a box of so many numbers.
ERRORS = {4: 4, 5: 5, 8: 13}
HALVINGS = 24
# A pair for which no direction was found by then has an IoU of 1: only where labels are so far from
# the origin, for their size, that their type has no room between them and their neighbours.
MOST_ROUNDS = 50


class RandomDistortions:
    """Pairs of boxes whose IoU is uniform over 0..1: the generator of LS-IoU.

    A box is drawn from the labels, and an IoU for it; then the box is distorted in a random
    direction (of centre, size and angle at once, or of some of them) until the IoU is the one
    drawn. The original is the target and the distorted box the prediction. As in the paper (LS,
    section 4.3, with 3 million pairs), pairs are made once, with their IoU, and then drawn from
    that pool: at the first call, some seconds for 100,000.

    Args:
        labels: training boxes to start from, `(count, 4)`, `(count, 5)` or `(count, 8)`, as the
            metric takes them. None makes random ones, which serves the surrogate "target-frame":
            that does not see where a box is or how large.
        numbers: of a random box, 4, 5 or 8, where there are no labels.
        pool: pairs in the pool.
        seed: of the pool.

    Attributes:
        ious: those of the pool, `(pool,)`; None before the first call.

    Raises:
        TypeError, ValueError: labels that are no boxes, or none of which has an area.

    Example:
        >>> import numpy as np, torch
        >>> labels = torch.tensor([[50.0, 41.0, 32.0, 10.0, 0.25], [8.0, 9.0, 5.0, 5.0, 0.0]])
        >>> generator = RandomDistortions(labels, pool=1000)
        >>> predictions, targets = generator(500, np.random.default_rng(0))
        >>> torch.histc(rotated_iou(predictions, targets), 4, 0, 1) / 500
        tensor([0.2..., 0.2..., 0.2..., 0.2...])
    """

    def __init__(self, labels: Any = None, *, numbers: int = 5, pool: int = 20_000, seed: int = 0):
        check_number("pool", pool, 1)
        self.seed = check_seed(seed)
        if labels is not None:
            labels = as_boxes("labels", labels).detach().cpu()
            check_boxes("labels", labels)
            labels = labels[area(corners(labels)[1]) > 0]
            if not len(labels):
                raise ValueError("labels must hold a box that has an area")
            numbers = labels.shape[1]
        elif numbers not in ERRORS:
            raise ValueError(f"numbers must be 4, 5 or 8; got {numbers!r}")
        self.labels = labels
        self.numbers = numbers
        self.pool = pool
        self.ious: Tensor | None = None
        self._pairs: tuple[Tensor, Tensor] | None = None

    def __repr__(self) -> str:
        source = "random boxes" if self.labels is None else f"{len(self.labels):,} labels"
        return f"RandomDistortions({source}, pool={self.pool:,})"

    def __call__(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """`count` predictions and their targets on the CPU, float64 if the labels are."""
        if self._pairs is None:
            self._pairs, self.ious = self._make(np.random.default_rng(self.seed))
        drawn = torch.from_numpy(rng.integers(self.pool, size=count))
        return self._pairs[0][drawn], self._pairs[1][drawn]

    @torch.no_grad()
    def _make(self, rng: np.random.Generator) -> tuple[tuple[Tensor, Tensor], Tensor]:
        if self.labels is None:
            targets = random_boxes(self.pool, self.numbers, rng)
        else:
            targets = self.labels[torch.from_numpy(rng.integers(len(self.labels), size=self.pool))]
        wanted = torch.from_numpy(rng.random(self.pool)).float()
        predictions, ious = targets.clone(), torch.ones_like(wanted)
        left = torch.arange(self.pool, device="cpu")
        for _ in range(MOST_ROUNDS):
            if not len(left):
                break
            own, goal = targets[left], wanted[left]
            errors = random_errors(len(left), self.numbers, rng)
            # Where the IoU falls below the goal, between none and all of the distortion.
            low, high = torch.zeros_like(goal), torch.ones_like(goal)
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                above = rotated_iou(distorted(own, errors * middle[:, None]), own) > goal
                low, high = middle.where(above, low), high.where(above, middle)
            found = distorted(own, errors * low[:, None])
            reached = rotated_iou(found, own)
            good = (reached - goal).abs() < TOLERANCE
            predictions[left[good]], ious[left[good]] = found[good], reached[good].float()
            left = left[~good]
        if self.numbers == 8:
            predictions = untangled(predictions)
        return (predictions, targets), ious


def random_errors(count: int, numbers: int, rng: np.random.Generator) -> Tensor:
    """Directions of distortion `(count, ...)`, so far that hardly any IoU is left."""
    spread = [SPREAD["centre"]] * 2 + [SPREAD["sides"]] * 2 + [SPREAD["angle"]]
    spread += [SPREAD["corners"]] * 8
    errors = rng.normal(size=(count, ERRORS[numbers])) * spread[: ERRORS[numbers]]
    # Half of the distortions are of some of these only, in a ratio of its own each.
    mixed = rng.random((count, ERRORS[numbers])) ** 2 * (rng.random((count, 1)) < 0.5)
    return torch.from_numpy(4 * errors * (1 - mixed)).float()


def distorted(boxes: Tensor, errors: Tensor) -> Tensor:
    """Boxes with errors `(batch, 4)`, `(batch, 5)` or `(batch, 13)` in their own frames.

    Errors are of the centre in shares of the sides, of the sides' logarithms, of the angle in
    radians, and of each corner in shares of the sides.
    """
    if boxes.shape[1] == 8:
        points, frame = ordered_corners(boxes)
        whole = _distorted(frame, errors)
        own = rotate(points - frame[:, None, :2], -frame[:, 4:]) / frame[:, None, 2:4]
        own = own + errors[:, 5:].unflatten(1, (4, 2))
        moved = rotate(own * whole[:, None, 2:4], whole[:, 4:])
        return (moved + whole[:, None, :2]).flatten(1)
    changed = _distorted(with_angle(boxes), errors)
    if boxes.shape[1] == 5:
        return changed
    half = changed[:, 2:4] / 2
    return torch.cat([changed[:, :2] - half, changed[:, :2] + half], 1)


def _distorted(boxes: Tensor, errors: Tensor) -> Tensor:
    shift = rotate(errors[:, :2] * boxes[:, 2:4], boxes[:, 4])
    sides = boxes[:, 2:4] * errors[:, 2:4].clamp(-8, 8).exp()
    angle = boxes[:, 4:] + (errors[:, 4:5] if errors.shape[1] > 4 else 0)
    return torch.cat([boxes[:, :2] + shift, sides, angle], 1)


def random_boxes(count: int, numbers: int, rng: np.random.Generator) -> Tensor:
    """Boxes of 0.05 to 0.5 in a unit square, sides apart and log-uniform, at any angle."""
    centre = rng.random((count, 2))
    sides = np.exp(rng.uniform(np.log(0.05), np.log(0.5), (count, 2)))
    if numbers == 4:
        boxes = np.concatenate([centre - sides / 2, centre + sides / 2], 1)
        return torch.from_numpy(boxes).float()
    angle = rng.uniform(-np.pi / 2, np.pi / 2, (count, 1))
    rectangles = torch.from_numpy(np.concatenate([centre, sides, angle], 1)).float()
    if numbers == 5:
        return rectangles
    middle, around = corners(rectangles)
    return (middle[:, None] + around).flatten(1)
