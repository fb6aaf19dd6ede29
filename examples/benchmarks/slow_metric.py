"""What a metric that takes ten steps costs: in the call, and in an executor, in one run.

The metric sleeps, as one does that waits for a simulator or another machine, so that it takes no
processor from the training step. In each round, the steps of each case are between two runs with a
metric that takes no time, so that a machine that slows down slows them all; the ratio to their mean
is taken, then the median over the rounds (least to most). The first row compares the same with
itself: noise. Processor time, which other work on the machine hardly changes, is that of this
process with its threads.

Example:
    python examples/benchmarks/slow_metric.py --slower 10 --workers 16
"""

import argparse
import functools
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import torch
from torch import Tensor, nn

from learned_surrogates import LearnedSurrogateLoss, Workers

BATCH, FEATURES, OUTPUTS = 64, 256, 16
# More than the values that are on their way.
FIRST_STEPS = 60


def largest_error(prediction: Tensor, target: Tensor) -> Tensor:
    """A metric of plain tensors, `(batch,)`."""
    return (prediction - target).abs().amax(-1)


class Sleeping:
    """The same, after some seconds a batch."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return largest_error(prediction, target)


class Training:
    """A model that is trained on a loss, step by step."""

    def __init__(self, width: int, criterion: LearnedSurrogateLoss):
        torch.manual_seed(0)
        hidden = [nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        self.model = nn.Sequential(*hidden, nn.Linear(width, OUTPUTS))
        # Computed and not taken: how long a step takes depends on the numbers in it.
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0)
        self.criterion = criterion

    def seconds(self, steps: int) -> Tensor:
        """Mean wall time of a step, and this process's processor time."""
        start = time.perf_counter(), time.process_time()
        for _ in range(steps):
            inputs, targets = torch.randn(BATCH, FEATURES), torch.randn(BATCH, OUTPUTS)
            loss = self.criterion(self.model(inputs), targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        taken = time.perf_counter() - start[0], time.process_time() - start[1]
        return torch.tensor(taken) / steps


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slower", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=18)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()

    free = Training(options.width, LearnedSurrogateLoss(largest_error))
    free.seconds(FIRST_STEPS)
    step = statistics.median(free.seconds(options.steps)[0].item() for _ in range(5))
    sleeping = Sleeping(options.slower * step)
    threads = functools.partial(ThreadPoolExecutor, options.workers)
    context = multiprocessing.get_context("spawn")
    processes = functools.partial(ProcessPoolExecutor, options.workers, mp_context=context)
    workers = {
        "in the call": None,
        "threads": Workers(threads),
        f"threads, lag = {options.workers}": Workers(threads, lag=options.workers),
        "processes": Workers(processes),
        "in the call, metric_budget = 0.1": None,
    }
    cases = {"no time at all": free}
    for name, executor in workers.items():
        budget = 0.1 if "budget" in name else None
        metric = sleeping if budget is None else Sleeping(budget * sleeping.seconds)
        criterion = LearnedSurrogateLoss(
            metric, batched=True, executor=executor, metric_budget=budget
        )
        cases[name] = Training(options.width, criterion)
        if executor is not None and executor.lag is None:
            # Until all workers have started, and the surrogate is fitted to what they say.
            while not criterion.stats["updates"]:
                cases[name].seconds(4)
        cases[name].seconds(FIRST_STEPS if executor else 12)

    ratios: dict[str, list[Tensor]] = {name: [] for name in cases}
    before = {name: dict(training.criterion.stats) for name, training in cases.items()}
    for round_ in range(options.rounds):
        names = list(cases)
        first = round_ % len(names)
        last = free.seconds(options.steps)
        for name in names[first:] + names[:first]:
            took = cases[name].seconds(options.steps)
            following = free.seconds(options.steps)
            ratios[name].append(2 * took / (last + following))
            last = following
    print(
        f"step {1000 * step:.1f} ms, metric {1000 * sleeping.seconds:.0f} ms, {options.workers} "
        f"workers, {torch.get_num_threads()} threads of PyTorch, {options.rounds} rounds"
    )
    print("A step over one with a metric that takes no time:\n")
    print("| metric | wall time | processor time | measured |\n|---|---|---|---|")
    for name, training in cases.items():
        columns = torch.stack(ratios[name]).unbind(1)
        spread = " | ".join(
            f"{statistics.median(column.tolist()):.2f} ({column.min():.2f} to {column.max():.2f})"
            for column in columns
        )
        stats = training.criterion.stats
        calls, left_out = (stats[key] - before[name][key] for key in ("calls", "unmeasured"))
        share = 1 - left_out / (calls * BATCH)
        print(f"| {name} | {spread} | {share:.0%} |")


if __name__ == "__main__":
    main()
