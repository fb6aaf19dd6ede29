"""What a step with plain tensors costs: the usual loss, draws alone, and the package's defaults.

A small model is trained with batches of 64 on one thread, on the share of outputs that are off by
more than one, one value a sample. Steps alternate between the losses in blocks of 40, and what is
taken is processor time, which other work on the machine hardly changes: the median over the blocks,
after the first 400 steps, in which the surrogate is fitted more often.

Half a minute. Example:
    python examples/benchmarks/tensor_step_time.py --outputs 10 100
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss
from user_metrics.problem import perceptron
from user_metrics.quantities import off_by_more_than_1
from user_metrics.training import BATCH, Stepper

FEATURES, HIDDEN, BLOCK = 16, 32, 40
LOSSES: dict[str, Callable[[], nn.Module]] = {
    "squared error": nn.MSELoss,
    '2 draws, `surrogate="none"`': lambda: LearnedSurrogateLoss(metric, surrogate="none"),
    "2 draws, defaults": lambda: LearnedSurrogateLoss(metric),
}


def metric(prediction: Tensor, target: Tensor) -> Tensor:
    return off_by_more_than_1(prediction, target).mean(-1)


def milliseconds(outputs: int, blocks: int, before: int = 10) -> dict[str, float]:
    """A step's, for each loss.

    Args:
        blocks: of steps that count.
        before: blocks that do not.
    """
    torch.manual_seed(0)
    inputs, weights = torch.randn(4000, FEATURES), torch.randn(FEATURES, outputs) / 2
    targets = inputs @ weights + torch.randn(4000, outputs)
    steps = (before + blocks) * BLOCK
    steppers = {
        name: Stepper(perceptron(FEATURES, HIDDEN, outputs), make(), 1e-3, steps)
        for name, make in LOSSES.items()
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
    return {name: statistics.median(took) for name, took in times.items()}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--outputs", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--blocks", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| outputs | {' | '.join(LOSSES)} |\n|---{'|---' * len(LOSSES)}|")
    for outputs in options.outputs:
        found = milliseconds(outputs, options.blocks)
        print(f"| {outputs} | {' | '.join(f'{took:.2f} ms' for took in found.values())} |")


if __name__ == "__main__":
    main()
