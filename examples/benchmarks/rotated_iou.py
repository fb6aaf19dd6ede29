"""Rotated IoU in closed form beside shapely: how far apart, and how fast each.

Pairs are of every relation: apart, touching by chance, overlapping, one within the other, the same
but for its description; sides from 1 to 200, at any angle. Both paths see the same pairs, in turns
in one run. Each round is one measurement of each; the ratio is taken within a round.

Example:
    python examples/benchmarks/rotated_iou.py
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from shapely_boxes import shapely_giou, shapely_iou

from learned_surrogates.boxes import rotated_giou, rotated_iou

METRICS = {"IoU": (rotated_iou, shapely_iou), "GIoU": (rotated_giou, shapely_giou)}


def random_pairs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Predictions and targets `(count, 5)` in float64."""
    random = torch.Generator().manual_seed(seed)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=random, dtype=torch.float64)

    targets = torch.cat(
        [
            500 * uniform(count, 2),
            (math.log(200) * uniform(count, 2)).exp(),
            2 * math.pi * uniform(count, 1) - math.pi,
        ],
        1,
    )
    # A tenth of the pairs each: of one and the same box, and of unrelated ones.
    amount = (3 * uniform(count, 1) - 2).exp().where(uniform(count, 1) > 0.1, 0.0)
    normal = torch.randn(count, 5, generator=random, dtype=torch.float64) * amount
    sides = targets[:, 2:4]
    shifts = torch.cat([normal[:, :2] * sides, normal[:, 4:]], 1)
    predictions = torch.cat(
        [
            targets[:, :2] + shifts[:, :2],
            sides * normal[:, 2:4].exp(),
            targets[:, 4:] + shifts[:, 2:],
        ],
        1,
    )
    predictions = predictions.where(uniform(count, 1) > 0.1, predictions.roll(1, 0))
    turned = predictions[:, [0, 1, 3, 2, 4]] + torch.tensor([0, 0, 0, 0, math.pi / 2])
    return predictions.where(uniform(count, 1) > 0.5, turned), targets


def pairs_a_second(function: Callable[[], Any], pairs: int, least: float = 0.3) -> float:
    """Calls the function for `least` seconds or more."""
    start, calls = time.perf_counter(), 0
    while (took := time.perf_counter() - start) < least:
        function()
        calls += 1
    return calls * pairs / took


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--pairs", type=int, default=100_000)
    add("--batches", type=int, nargs="+", default=[64, 4096])
    add("--rounds", type=int, default=5)
    add("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    predictions, targets = random_pairs(options.pairs, 0)
    print("| metric | type | largest difference | mean difference | pairs | with an overlap |")
    print("|---|---|---|---|---|---|")
    for name, (fast, reference) in METRICS.items():
        expected = torch.from_numpy(reference(predictions, targets))
        some = (rotated_iou(predictions, targets) > 0).double().mean().item()
        for dtype in (torch.float64, torch.float32):
            found = fast(predictions.to(dtype), targets.to(dtype)).double()
            difference = (found - expected).abs()
            cells = f"{difference.max():.1e} | {difference.mean():.1e}"
            print(f"| {name} | {dtype} | {cells} | {options.pairs:,} | {some:.0%} |", flush=True)

    print("\n| metric | batch | closed form, pairs/s | shapely, pairs/s | ratio (least to most) |")
    print("|---|---|---|---|---|")
    for name, (fast, reference) in METRICS.items():
        for batch in options.batches:
            pair = predictions[:batch].float(), targets[:batch].float()
            rates = []
            for round_ in range(options.rounds + 1):
                measured = [
                    pairs_a_second(lambda f=function: f(*pair), batch)  # noqa: B023
                    for function in (fast, reference)
                ]
                if round_:  # the first round warms up
                    rates.append(measured)
            ratios = sorted(a / b for a, b in rates)
            ours, theirs = (statistics.median(side) for side in zip(*rates, strict=True))
            spread = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
            print(f"| {name} | {batch} | {ours:,.0f} | {theirs:,.0f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
