"""How well surrogates fit metrics that are not edit distance.

Three metrics, over an alphabet of 52: `wrong`, whether the text is; `worth`, an error in one of the
first ten characters costs ten times as much as in another one; `alike`, neighbours in the alphabet
are the same, as letters are to a metric that ignores case, and the targets have one or the other at
random. Each batch is the output of another simulated recogniser, with the same alphabet; relative
errors are those of `stats`, on predictions that were not yet fitted to, over the last 1,024 of
them.

Example:
    python examples/benchmarks/character_metrics.py --head ctc
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

EXAMPLES = Path(__file__).parents[1]
sys.path.insert(0, str(EXAMPLES))

from simulated_recognisers import FIRST_CHARACTER, simulate

from learned_surrogates import LearnedSurrogateLoss, text

SIZE = 52
ALPHABET = [chr(FIRST_CHARACTER + i) for i in range(SIZE)]
BATCH = 64


def fold(character: str) -> str:
    """The first of two neighbours."""
    return chr(ord(character) // 2 * 2)


def alike(predictions: Sequence[str], targets: Sequence[str]) -> Any:
    """Edit distance to which neighbours are the same."""
    sides = [["".join(map(fold, each)) for each in side] for side in (predictions, targets)]
    return text.edit_distance(*sides)


def wrong(prediction: str, target: str) -> float:
    """1 as soon as anything is wrong."""
    return float(prediction != target)


METRICS: dict[str, Callable[..., Any]] = {
    "wrong": wrong,
    "worth": text.WeightedEditDistance(characters={"".join(ALPHABET[:10]): 10}),
    "alike": alike,
}
# Arguments of the task, and of the loss.
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grid": ({}, {}),
    "grid, fold": ({"fold": fold}, {}),
    "conditioned": ({}, {"surrogate": "conditioned"}),
}


def batches(head: str, metric: str, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """What the loss is called with, without end."""
    rng = np.random.default_rng(seed)
    while True:
        output, target, *lengths = simulate(head, BATCH, rng, alphabet_size=SIZE).arguments
        if metric == "alike":
            neighbour = ((target - 1) ^ 1) + 1
            chosen = torch.from_numpy(rng.random(target.shape) < 0.5) & (target > 0)
            target = torch.where(chosen, neighbour, target)
        yield output, target, *lengths


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--head", choices=["ctc", "characters"], default="characters")
    parser.add_argument("--updates", type=int, nargs="+", default=[16, 500])
    parser.add_argument("--metrics", nargs="+", choices=list(METRICS), default=list(METRICS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    make = text.CTC if options.head == "ctc" else text.Characters
    print(f"{options.head} head, relative error")
    columns = " | ".join(f"{updates} updates" for updates in options.updates)
    print(f"| metric | surrogate | {columns} |\n|---|---|" + "---|" * len(options.updates))
    for metric, form in (
        (metric, form)
        for metric in options.metrics
        for form in FORMS
        if "fold" not in form or metric == "alike"
    ):
        of_task, of_loss = FORMS[form]
        errors: list[list[float]] = [[] for _ in options.updates]
        for seed in range(options.seeds):
            criterion = LearnedSurrogateLoss(
                METRICS[metric],
                task=make(ALPHABET, **of_task),
                data="local",
                seed=seed,
                **of_loss,
            )
            stream, done = batches(options.head, metric, seed), 0
            for error, updates in zip(errors, options.updates, strict=True):
                stats = criterion.warm_up(stream, updates=updates - done)
                error.append(stats["relative_error"])
                done = updates
        spreads = [statistics.stdev(error) if len(error) > 1 else 0.0 for error in errors]
        cells = [
            f"{statistics.mean(error):.2f} ± {spread:.2f}"
            for error, spread in zip(errors, spreads, strict=True)
        ]
        print(f"| {metric} | {form} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
