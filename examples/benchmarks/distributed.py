"""What several processes cost: the time of DDP with the loss over DDP with the proxy, and bytes.

Every process runs the same steps on its own batches; steps of the proxy and of the loss alternate
in rounds, so that a machine that slows down slows both. One line a case, from rank 0.

Example:
    python examples/benchmarks/distributed.py --head ctc --processes 2
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing

sys.path.insert(0, str(Path(__file__).parents[1]))

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from learned_surrogates import Fit, FitValues, LearnedSurrogateLoss, text
from lib.post_tuning import BATCH, Objective, surrogate_objective
from lib.recogniser import ALPHABET, Recogniser, proxy_loss
from lib.word_images import WordImages


class Traffic:
    """Counts the exchanges of the loss, which are the process's only calls of all_reduce."""

    def __init__(self) -> None:
        self.exchanges, self.bytes = 0, 0
        self.all_reduce = dist.all_reduce
        dist.all_reduce = self

    def __call__(self, tensor: Tensor, **options: object) -> object:
        """Stands in for torch.distributed.all_reduce."""
        self.exchanges += 1
        self.bytes += tensor.nbytes
        return self.all_reduce(tensor, **options)


def measure(rank: int, options: argparse.Namespace, meeting: str) -> None:
    """One process of the benchmark."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=options.processes
    )
    traffic = Traffic()
    images, labels = WordImages("train", rank).batch(BATCH)
    wrapped = DistributedDataParallel(Recogniser(options.head))
    task = text.CTC(ALPHABET) if options.head == "ctc" else text.PerPosition(ALPHABET)
    for surrogate, draws in (("embedding", 0), ("auto", 4)):
        for every in options.every:
            criterion = LearnedSurrogateLoss(
                text.normalized_edit_distance,
                task=task,
                surrogate=surrogate,
                draws=draws,
                fit=FitValues(every=every, warm_up=0) if draws == 0 else Fit(every=every),
            )
            proxy = proxy_loss(options.head)
            learned = surrogate_objective(criterion, options.head, 0.0)
            seconds(wrapped, learned, images, labels, every)  # builds the surrogate
            traffic.exchanges = traffic.bytes = 0
            updates = criterion.stats["updates"]
            steps = max(every, 4)
            ratios = []
            for _ in range(options.rounds):
                base = seconds(wrapped, proxy, images, labels, steps)
                ratios.append(seconds(wrapped, learned, images, labels, steps) / base)
            updates = criterion.stats["updates"] - updates
            if rank == 0:
                print(
                    f"{surrogate}, {draws} draws, fit=Fit(every={every}): "
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
                    f"{traffic.exchanges / updates:.0f} exchange of "
                    f"{traffic.bytes / updates / 1e3:,.0f} kB an update",
                    flush=True,
                )
    if rank == 0:
        gradients = sum(p.nbytes for p in wrapped.parameters())
        print(f"the model's own gradients: {gradients / 1e3:,.0f} kB a step")
    dist.destroy_process_group()


def seconds(
    model: torch.nn.Module,
    objective: Objective,
    images: torch.Tensor,
    labels: list[str],
    steps: int,
) -> float:
    """Mean wall time of a training step, once all processes are there."""
    dist.barrier()
    start = time.perf_counter()
    for _ in range(steps):
        model.zero_grad()
        objective(model(images), labels).backward()
    dist.barrier()
    return (time.perf_counter() - start) / steps


def main() -> None:
    """Start the processes, and wait for them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--head", choices=["ctc", "characters"], default="ctc")
    parser.add_argument("--every", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            measure, (options, f"{folder}/meeting"), nprocs=options.processes
        )


if __name__ == "__main__":
    main()
