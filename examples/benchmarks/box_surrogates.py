"""How well each surrogate for rotated boxes fits, and whether its gradient points the right way.

Predictions are targets with Gaussian errors in the targets' own units (mean IoU about .63), in
place of a detector's. Fresh ones fit the surrogate, others test it. `relative` is the mean absolute
error over that of the best constant. `cosine` compares gradients with respect to those errors with
the exact gradient of 1 - IoU: the mean over samples, and that of all samples as one vector.

Two metrics: IoU; and the IoU of pixels that a pillar does not hide, which depends on where a box
is, and has no gradient to compare with.

Example:
    python examples/benchmarks/box_surrogates.py --seeds 3
"""

import argparse
import itertools
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import FitValues, LearnedSurrogateLoss, boxes
from lib.box_losses import gwd_loss, kld_loss, smooth_l1_loss

PICTURE = 64
BATCH = 64
TEST = 2000


def labels(count: int, random: torch.Generator) -> Tensor:
    """Boxes `(count, 5)` in the picture, sides 6 to 30, most of them oblong."""
    centre = PICTURE * (0.1 + 0.8 * torch.rand(count, 2, generator=random))
    sides = 14 * (0.4 * torch.randn(count, 2, generator=random)).exp()
    angle = math.pi * (torch.rand(count, 1, generator=random) - 0.5)
    return torch.cat([centre, sides, angle], 1)


def predicted(targets: Tensor, errors: Tensor) -> Tensor:
    """Boxes with errors of centre (in sides), of sides (logarithms) and of angle."""
    cosine, sine = targets[:, 4].cos(), targets[:, 4].sin()
    u, v = (errors[:, :2] * targets[:, 2:4]).unbind(1)
    x, y = targets[:, 0] + cosine * u - sine * v, targets[:, 1] + sine * u + cosine * v
    sides = targets[:, 2:4] * errors[:, 2:4].exp()
    return torch.cat([torch.stack([x, y], 1), sides, targets[:, 4:] + errors[:, 4:]], 1)


def draw(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Targets, and errors of predictions: many small, few large."""
    width = 0.1 * (0.7 * torch.randn(count, 5, generator=random)).exp()
    return labels(count, random), width * torch.randn(count, 5, generator=random)


def inside(rectangles: Tensor) -> Tensor:
    """Which pixels a box covers, `(batch, height, width)`."""
    at = torch.arange(PICTURE) + 0.5
    x, y, width, height, angle = rectangles[:, :, None, None].unbind(1)
    across, down = at - x, at[:, None] - y
    u, v = across * angle.cos() + down * angle.sin(), down * angle.cos() - across * angle.sin()
    return (2 * u.abs() <= width) & (2 * v.abs() <= height)


def visible_iou(predictions: Tensor, targets: Tensor) -> Tensor:
    """IoU of the pixels left of column 24 and right of column 40; 1 where there are none."""
    columns = torch.arange(PICTURE) + 0.5
    visible = (columns < 24) | (columns > 40)
    a, b = inside(predictions), inside(targets)
    seen = ((a | b) & visible).sum((1, 2))
    return torch.where(seen > 0, (a & b & visible).sum((1, 2)) / seen.clamp(min=1), 1.0)


def cosines(loss: Tensor, exact: Tensor, errors: Tensor) -> dict[str, float]:
    """Between the gradients of two losses `(batch,)`, where boxes overlap."""
    some = exact < 0.95
    both = [
        torch.autograd.grad(value.sum(), errors, retain_graph=True)[0][some]
        for value in (loss, exact)
    ]
    cosine = torch.nn.functional.cosine_similarity
    whole = cosine(*(gradient.flatten() for gradient in both), dim=0)
    return {"sample": cosine(*both).mean().item(), "whole": whole.item()}


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--updates", type=int, default=1000)
    add("--seeds", type=int, default=3)
    add("--surrogate", nargs="+", default=list(boxes.Rotated.surrogates))
    add("--data", nargs="+", default=["local", "local-global", "global"])
    add("--metrics", nargs="+", default=["IoU", "visible IoU"])
    add("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    targets, errors = draw(TEST, torch.Generator().manual_seed(1000))
    errors.requires_grad_()
    predictions = predicted(targets, errors)
    exact = 1 - boxes.rotated_iou(predictions, targets)
    print(f"mean IoU {1 - exact.mean().item():.3f}")
    for rival in (smooth_l1_loss, gwd_loss, kld_loss):
        found = cosines(rival(predictions, targets), exact, errors)
        print(f"{rival.__name__}: cosine {found['sample']:.2f} / {found['whole']:.2f}")

    columns = ["relative", "sample", "whole"]
    print("\n| metric | surrogate | data | relative | cosine, sample | cosine, whole |")
    print("|---|---|---|---|---|---|")
    for name, surrogate, data in itertools.product(
        options.metrics, options.surrogate, options.data
    ):
        rows = []
        for seed in range(options.seeds):
            criterion = fitted(METRICS[name], surrogate, data, seed, options.updates)
            values = criterion(predictions, targets)
            true = 1 - METRICS[name](predictions.detach(), targets)
            constant = (true - true.median()).abs().mean()
            row = {"relative": ((values - true).abs().mean() / constant).item()}
            rows.append(row | (cosines(values, exact, errors) if name == "IoU" else {}))
        print(f"| {name} | {surrogate} | {data} | {cells(rows, columns)} |", flush=True)


def fitted(metric: Any, surrogate: str, data: str, seed: int, updates: int) -> LearnedSurrogateLoss:
    """A loss whose surrogate has had so many updates, each with a fresh batch of predictions."""
    random = torch.Generator().manual_seed(seed)
    criterion = LearnedSurrogateLoss(
        metric,
        higher_is_better=True,
        best=1.0,
        task=boxes.Rotated(),
        surrogate=surrogate,
        fit=FitValues(
            data=data,
            generator=boxes.RandomDistortions(labels(5000, random), seed=seed),
            batch_size=BATCH if data == "local-global" else 2 * BATCH,
        ),
        reduction="none",
        seed=seed,
    )
    batches = (draw(BATCH, random) for _ in range(updates))
    criterion.warm_up(((predicted(t, e), t) for t, e in batches), updates=updates)
    return criterion.eval()


def cells(rows: list[dict[str, float]], columns: list[str]) -> str:
    """Mean and standard deviation of each column, as parts of a table's row; empty if unknown."""
    parts = []
    for column in columns:
        values = [row[column] for row in rows if column in row]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        parts.append(f"{statistics.mean(values):.2f}{spread}" if values else "")
    return " | ".join(parts)


METRICS = {"IoU": boxes.rotated_iou, "visible IoU": visible_iou}


if __name__ == "__main__":
    main()
