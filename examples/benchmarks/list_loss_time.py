"""Milliseconds of the losses of lists, forwards and backwards: CPU time of one thread.

Example:
    python examples/benchmarks/list_loss_time.py --items 20 100
"""

import argparse
import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor

from learned_surrogates import ranking

# Each with its kind of targets.
LOSSES: dict[str, tuple[Callable[..., Tensor], str]] = {
    "Spearman": (ranking.spearman_loss, "numbers"),
    "AP": (ranking.average_precision_loss, "marks"),
    "recall@10": (functools.partial(ranking.recall_loss, k=10), "marks"),
    "NDCG@5": (functools.partial(ranking.ndcg_loss, k=5), "gains"),
    "NDCG@10": (functools.partial(ranking.ndcg_loss, k=10), "gains"),
    "NDCG": (ranking.ndcg_loss, "gains"),
}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--lists", type=int, default=64)
    add("--items", type=int, nargs="+", default=[20, 100])
    add("--noise", type=float, nargs="+", default=[0.1, 0.3])
    add("--calls", type=int, default=3)
    return parser.parse_args()


def milliseconds(loss: Callable[..., Tensor], scores: Tensor, targets: Tensor, calls: int) -> float:
    """Of a call and its backward pass, after one that does not count."""
    loss(scores, targets).backward()
    start = time.thread_time()
    for _ in range(calls):
        loss(scores, targets).backward()
    return 1000 * (time.thread_time() - start) / calls


def main() -> None:
    """Measure and print."""
    options = parse()
    torch.set_num_threads(1)
    for items in options.items:
        random = torch.Generator().manual_seed(0)
        scores, worth = torch.randn(2, options.lists, items, generator=random)
        scores.requires_grad_()
        targets = {
            "numbers": worth,
            "marks": (worth > 1.28).float(),  # a tenth
            "gains": (worth.exp() * 0.8).floor().clamp(0, 4),  # two in five are not 0
        }
        for noise in options.noise:
            found = {
                name: milliseconds(
                    functools.partial(loss, noise=noise), scores, targets[kind], options.calls
                )
                for name, (loss, kind) in LOSSES.items()
            }
            cells = "   ".join(f"{name} {value:.1f}" for name, value in found.items())
            print(f"{items} items, noise {noise:g}: {cells}", flush=True)


if __name__ == "__main__":
    main()
