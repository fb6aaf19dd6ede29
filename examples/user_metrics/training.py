"""Training: to a checkpoint on the proxy, and from there on with one method or another."""

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from .methods import Objective, plain_stats
from .problem import Metric, Problem

BATCH = 64
# Steps between two looks at the clock, and steps of the proxy that are timed beside them.
BLOCK, PROXY_BLOCK = 20, 4
# Calls after which the package's figures are written down, beside those at the end.
EARLY = 200


@dataclass
class Run:
    """What one run has come to.

    Attributes:
        validation, test: the metric's mean.
        milliseconds: a step.
        proxy_milliseconds: a step of the proxy, in the same run.
        stats: of the package after `EARLY` calls ("early") and at the end ("end").
    """

    validation: float
    test: float
    milliseconds: float
    proxy_milliseconds: float
    stats: dict[str, dict[str, float]] = field(default_factory=dict)


class Stepper:
    """Steps of Adam, whose rate falls from `rate` to zero by a cosine."""

    def __init__(self, model: nn.Module, objective: Objective, rate: float, steps: int):
        self.model, self.objective, self.rate, self.steps = model, objective, rate, steps
        self.optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)
        self.done = 0

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        rate = self.rate * (1 + math.cos(math.pi * self.done / self.steps)) / 2
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        self.objective(self.model(inputs), targets).backward()
        self.optimizer.step()
        self.done += 1


class Batches:
    """Random batches of a split."""

    def __init__(self, split: tuple[Tensor, Tensor], size: int, seed: int):
        self.split, self.size = split, size
        self.random = torch.Generator().manual_seed(seed)

    def next(self) -> tuple[Tensor, Tensor]:
        inputs, targets = self.split
        chosen = torch.randint(0, len(inputs), (self.size,), generator=self.random)
        return inputs[chosen], targets[chosen]


def mean_proxy(problem: Problem) -> Objective:
    return lambda prediction, target: problem.proxy(prediction, target).mean()


def checkpoint(problem: Problem, seed: int, folder: Path) -> nn.Module:
    """The model after the proxy's own schedule; made once and kept in the folder."""
    torch.manual_seed(seed)
    model = problem.model()
    file = folder / f"{problem.name}-{seed}-{problem.steps}-{problem.rate:g}.pt"
    if file.exists():
        model.load_state_dict(torch.load(file))
        return model
    stepper = Stepper(model, mean_proxy(problem), problem.rate, problem.steps)
    batches = Batches(problem.data["train"], BATCH, seed)
    for _ in range(problem.steps):
        stepper.step(*batches.next())
    folder.mkdir(parents=True, exist_ok=True)
    # Another process may be about to do the same: the file appears whole or not at all.
    part = file.with_suffix(f".{time.time_ns()}")
    torch.save(model.state_dict(), part)
    part.replace(file)
    return model


def tune(
    model: nn.Module,
    problem: Problem,
    objective: Objective,
    *,
    rate: float,
    seed: int,
    steps: int = 600,
    batch: int = BATCH,
    decide: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]] | None = None,
) -> Run:
    """Trains on, and scores.

    Args:
        model: is changed.
        objective: a method's loss.
        rate: highest learning rate.
        seed: of the batches.
        decide: the trick's, see `Trick`.
    """
    control = Stepper(copy.deepcopy(model), mean_proxy(problem), rate, steps)
    stepper = Stepper(model, objective, rate, steps)
    batches = Batches(problem.data["train"], batch, 1000 + seed)
    of_control = Batches(problem.data["train"], batch, 1000 + seed)
    times: tuple[list[float], list[float]] = [], []
    stats = {}
    while stepper.done < steps:
        block = min(BLOCK, steps - stepper.done)
        times[0].append(timed(stepper, batches, block))
        times[1].append(timed(control, of_control, min(PROXY_BLOCK, block)))
        if stepper.done == EARLY:
            stats["early"] = plain_stats(objective)
    stats["end"] = plain_stats(objective)
    return Run(
        *scores(model, problem, decide),
        *map(statistics.median, times),
        {when: figures for when, figures in stats.items() if figures},
    )


def timed(stepper: Stepper, batches: Batches, steps: int) -> float:
    """Milliseconds a step. In blocks, as the package does not do the same at every step."""
    start = time.perf_counter()
    for _ in range(steps):
        stepper.step(*batches.next())
    return 1000 * (time.perf_counter() - start) / steps


@torch.no_grad()
def scores(
    model: nn.Module,
    problem: Problem,
    decide: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]] | None = None,
) -> tuple[float, float]:
    """The metric's mean on validation and test."""
    outputs = {
        split: torch.cat([model(part) for part in problem.data[split][0].split(500)])
        for split in ("validation", "test")
    }
    targets = {split: problem.data[split][1] for split in outputs}
    if decide is not None:
        decision = decide(outputs["validation"], targets["validation"])
        outputs = {split: decision(output) for split, output in outputs.items()}
    validation, test = (mean(problem.metric, outputs[s], targets[s]) for s in outputs)
    return validation, test


def mean(metric: Metric, prediction: Tensor, target: Tensor) -> float:
    return float(metric(prediction, target).mean())
