"""Fit a sorter of SoDeep to exact ranks, and say how far it is from them: its table 1.

Vectors are drawn as in the paper (section 3.1.2): uniform, normal, evenly spaced in a random range
and shuffled, or a mixture of these number by number. The loss is L1 between ranks over d; Adam's
rate is halved every 10 million vectors.

Example:
    python examples/fit_sorter.py --sorter lstm --steps 1000 --output runs/lstm.safetensors
"""

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from learned_surrogates import ranking

SORTERS = {"lstm": ranking.LSTMSorter, "conv": ranking.ConvSorter}
PUBLISHED = {"handcrafted": 0.0350, "conv": 0.0120, "lstm": 0.0033}
LENGTH, TEST_VECTORS = 100, 10_000
# Vectors after which the paper halves the rate: 100 epochs of 100,000.
HALVED_EVERY = 10_000_000


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sorter", choices=list(SORTERS), required=True)
    add("--output", type=Path, help="the .safetensors to write")
    add("--steps", type=int, default=1000)
    add("--batch", type=int, default=512, help="the paper's (default: %(default)s)")
    add("--rate", type=float, default=1e-3, help="the paper's (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=1)
    return parser.parse_args()


def vectors(count: int, length: int, random: torch.Generator) -> Tensor:
    """Scores `(count, length)`, a kind each."""
    draw = functools.partial(torch.rand, generator=random)
    uniform = 2 * draw(count, length) - 1
    normal = torch.randn(count, length, generator=random)
    ends = (2 * draw(count, 2) - 1).sort(1).values
    shuffled = draw(count, length).argsort(1) / (length - 1)
    even = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * shuffled
    kinds = torch.stack([uniform, normal, even])
    mixture = kinds.gather(0, torch.randint(3, (1, count, length), generator=random))
    kind = torch.randint(4, (1, count, 1), generator=random).expand(-1, -1, length)
    return torch.cat([kinds, mixture]).gather(0, kind)[0]


def error(sorter: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    """Mean L1 between ranks, over d: the unit of table 1."""
    return (sorter(scores) - ranking.ranks(scores)).abs().mean() / scores.shape[1]


@torch.no_grad()
def tested(sorter: Callable[[Tensor], Tensor], count: int = TEST_VECTORS) -> float:
    """The error on vectors of a stream of their own."""
    parts = vectors(count, LENGTH, torch.Generator().manual_seed(2**31)).split(500)
    return float(torch.stack([error(sorter, part) for part in parts]).mean())


def fit(sorter: nn.Module, options: argparse.Namespace) -> nn.Module:
    """Fits as the options say, printing the error."""
    random = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.Adam(sorter.parameters(), options.rate)
    halving = max(1, HALVED_EVERY // options.batch)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, halving, 0.5)
    since = time.monotonic()
    for step in range(1, options.steps + 1):
        loss = error(sorter, vectors(options.batch, LENGTH, random))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            seconds = time.monotonic() - since
            print(f"step {step:6d}   L1 / d {loss.item():.4f}   {seconds:.0f} s", flush=True)
    return sorter.eval()


def main() -> None:
    """Fit, save, and print the table."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    sorter = fit(SORTERS[options.sorter](), options)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        save_file(sorter.state_dict(), options.output)
    print(f"\nL1 / d on {TEST_VECTORS:,} vectors        here  published")
    rows: dict[str, Callable[[Tensor], Tensor]] = {
        "handcrafted": ranking.sigmoid_ranks,
        options.sorter: sorter,
    }
    for noise in (0.1, 0.3):
        row = functools.partial(ranking.expected_ranks, noise=noise)
        rows[f"expected ranks, noise {noise:g}"] = row
    for name, row in rows.items():
        published = f"{PUBLISHED[name]:.4f}" if name in PUBLISHED else ""
        print(f"{name:28} {tested(row):12.4f}  {published}")


if __name__ == "__main__":
    main()
