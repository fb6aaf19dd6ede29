"""What a step with plain tensors costs: the usual loss, draws alone, and the package's defaults.

A small model is trained with batches of 64 on one thread, on the share of outputs that are off by
more than one, one value a sample; before, for 300 steps on squared error, so that there is
something for a surrogate to learn. Steps alternate between the losses in blocks of 40, and what is
taken is processor time, which other work on the machine hardly changes: the median over the blocks,
after the first 400 steps, in which the surrogate is fitted more often. R2 tells whether it is there
at all: one that tells nothing is switched off, and costs nothing.

Half a minute. Example:
    python examples/benchmarks/tensor_step_time.py --outputs 10 100
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss
from user_metrics.methods import Objective
from user_metrics.problem import perceptron
from user_metrics.quantities import off_by_more_than_1
from user_metrics.score_function import ScoreFunction
from user_metrics.training import BATCH, Stepper

FEATURES, HIDDEN, BLOCK, TRAINED = 16, 32, 40, 300
LOSSES: dict[str, Callable[[], Objective]] = {
    "squared error": nn.MSELoss,
    "score function, by hand": lambda: ScoreFunction(metric, 2, seed=0),
    '2 draws, `surrogate="none"`': lambda: LearnedSurrogateLoss(metric, surrogate="none"),
    "2 draws, defaults": lambda: LearnedSurrogateLoss(metric),
}


def metric(prediction: Tensor, target: Tensor) -> Tensor:
    return off_by_more_than_1(prediction, target).mean(-1)


def milliseconds(outputs: int, blocks: int, before: int = 10) -> tuple[dict[str, float], float]:
    """A step's, for each loss; and the surrogate's R2.

    Args:
        blocks: of steps that count.
        before: blocks that do not.
    """
    torch.manual_seed(0)
    inputs, weights = torch.randn(4000, FEATURES), torch.randn(FEATURES, outputs) / 2
    targets = inputs @ weights + torch.randn(4000, outputs)
    model = perceptron(FEATURES, HIDDEN, outputs)
    trained = Stepper(model, nn.MSELoss(), 1e-2, TRAINED)
    for batch in torch.randint(0, len(inputs), (TRAINED, BATCH)):
        trained.step(inputs[batch], targets[batch])
    steps = (before + blocks) * BLOCK
    losses = {name: make() for name, make in LOSSES.items()}
    steppers = {
        name: Stepper(copy.deepcopy(model), loss, 1e-3, steps) for name, loss in losses.items()
    }
    times: dict[str, list[float]] = {name: [] for name in LOSSES}
    for block in range(before + blocks):
        for name, stepper in steppers.items():
            chosen = torch.randint(0, len(inputs), (BLOCK, BATCH))
            start = time.process_time()
            for batch in chosen:
                stepper.step(inputs[batch], targets[batch])
            if block >= before:
                times[name].append(1000 * (time.process_time() - start) / BLOCK)
    learned = losses["2 draws, defaults"]
    assert isinstance(learned, LearnedSurrogateLoss)
    return {name: statistics.median(took) for name, took in times.items()}, learned.stats[
        "surrogate/r2"
    ]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--outputs", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--blocks", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| outputs | {' | '.join(LOSSES)} | R2 |\n|---{'|---' * len(LOSSES)}|---|")
    for outputs in options.outputs:
        found, r2 = milliseconds(outputs, options.blocks)
        columns = " | ".join(f"{took:.2f} ms" for took in found.values())
        print(f"| {outputs} | {columns} | {r2:.2f} |")


if __name__ == "__main__":
    main()
