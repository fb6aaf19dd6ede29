"""Fit the match-grid nets that the package ships, to recognisers that never were.

Each step simulates another recogniser, with an alphabet of its own, and fits the net to the mean
edit distance of a few draws from its outputs. Neither the demo recognisers nor any real one take
part; what the net makes of those is measured by `benchmarks/surrogate_error.py --updates 0`.

The shipped weights were made by:
    python examples/fit_match_grid.py --head characters \\
        --output learned_surrogates/text/weights/characters.safetensors
    python examples/fit_match_grid.py --head ctc --width 12 --steps 14000 \\
        --output learned_surrogates/text/weights/ctc.safetensors
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from simulated_recognisers import Outputs, simulate
from torch import Tensor

from learned_surrogates import text
from learned_surrogates.text._match_grid import MatchGridNet

TEXTS = 128
DRAWS = 4
# Recognisers, texts and draws that tell the error, of a stream of their own.
HELD_OUT = (8, 256, 64)
# What belongs to an alphabet or a metric stays as it is, and is not saved.
OWN = ("importances", "saturation")
# Distances below this one weigh the same: the variance of a draw grows with the distance.
LEAST_DISTANCE = 0.1


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--head", choices=["ctc", "characters"], required=True)
    add("--output", type=Path, required=True, help="the .safetensors to write")
    add("--steps", type=int, default=10_000, help="recognisers (default: %(default)s)")
    add("--rate", type=float, default=3e-3, help="highest learning rate (default: %(default)s)")
    add("--width", type=int, default=8, help="channels (default: %(default)s)")
    add("--layers", type=int, default=3, help="2D convolutions (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=1)
    return parser.parse_args()


def grid_and_expectation(
    outputs: Outputs, draws: int, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The match grid of a batch, and its mean edit distance over some draws."""
    task = outputs.task.seen_by("grid")
    batch = task.read(*outputs.arguments)
    drawn = [text.edit_distance(*task.sample(batch, random)) for _ in range(draws)]
    return task.represent(batch.prediction, batch), torch.tensor(np.mean(drawn, 0)).float()


def fit(options: argparse.Namespace) -> MatchGridNet:
    """Fit as the options say, printing the relative error on other recognisers."""
    torch.manual_seed(options.seed)
    net = MatchGridNet(options.width, options.layers)
    for name in OWN:
        net.get_parameter(name).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), lr=options.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.rate, options.steps, pct_start=0.05
    )
    rng, random = np.random.default_rng(options.seed), torch.Generator().manual_seed(options.seed)
    other = np.random.default_rng([options.seed, 1])
    recognisers, texts, draws = HELD_OUT
    held_out = [
        grid_and_expectation(simulate(options.head, texts, other), draws, random)
        for _ in range(recognisers)
    ]
    since = time.monotonic()
    for step in range(1, options.steps + 1):
        grid, expected = grid_and_expectation(simulate(options.head, TEXTS, rng), DRAWS, random)
        value = net(grid, torch.zeros(len(grid), grid.shape[3] - 1))
        loss = ((value - expected).square() / (LEAST_DISTANCE + value.detach())).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            errors = [relative_error(net, *pair) for pair in held_out]
            pace = (time.monotonic() - since) / step * 1000
            print(
                f"step {step:6d}   relative error {np.mean(errors):.3f} (worst recogniser "
                f"{max(errors):.3f})   {pace:.0f} ms a step",
                flush=True,
            )
    return net


@torch.no_grad()
def relative_error(net: MatchGridNet, grid: Tensor, expected: Tensor) -> float:
    """Mean absolute error, over that of the best constant."""
    constant = (expected - expected.median()).abs().mean()
    values = net(grid, torch.zeros(len(grid), grid.shape[3] - 1))
    return float((values - expected).abs().mean() / constant)


def save(net: MatchGridNet, path: Path) -> None:
    """Write what serves any alphabet and metric."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v for k, v in net.state_dict().items() if k not in OWN}, path)


def main() -> None:
    """Fit and save."""
    options = parse()
    torch.set_num_threads(options.threads)
    save(fit(options), options.output)


if __name__ == "__main__":
    main()
