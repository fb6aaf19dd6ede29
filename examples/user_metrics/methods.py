"""What the study trains on: for each method, a loss of a batch."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor

from learned_surrogates import LearnedSurrogateLoss, Workers

from .problem import Problem
from .score_function import GroupRelative, ScoreFunction

# `(prediction, target) -> ()`.
Objective = Callable[[Tensor, Tensor], Tensor]

METHODS = (
    "proxy",
    "trick",
    "score-2",
    "score-16",
    "score-2-outputs",
    "group-2",
    "group-16",
    "package-2",
    "package-16",
    "package-outputs",
    "package-share",
)
# What it is told to take less of what draws correct by.
SHARE: dict[str, Any] = {"correction": 0.25}
# And where the metric is dear. Values that are late come eight calls later.
LATE = {"executor": Workers(ThreadPoolExecutor, lag=8)}
DEAR: dict[str, dict[str, Any]] = {
    "package-quarter": {"metric_budget": 0.25},
    "package-late": LATE,
    "package-late-proxy": LATE,
}


def is_for(method: str, problem: Problem) -> bool:
    """Whether the problem has what the method needs."""
    if method == "trick":
        return problem.trick is not None
    return problem.outputs is not None or not method.endswith("-outputs")


def make_objective(method: str, problem: Problem, seed: int) -> Objective:
    """The method's loss.

    Args:
        method: of `METHODS` or `DEAR`.
        seed: of its noise and weights.
    """
    name, _, form = method.partition("-")
    told = SHARE if method == "package-share" else DEAR.get(method, {})
    metric = problem.metric
    if form == "outputs" or form.endswith("-outputs"):
        assert problem.outputs is not None
        metric = problem.outputs
    calls = int(form) if form.isdigit() else 2
    if name == "score":
        return ScoreFunction(metric, calls, seed)
    if name == "group":
        return GroupRelative(metric, calls, seed)
    loss = problem.proxy
    if method == "trick" and problem.trick is not None and problem.trick.loss is not None:
        loss = problem.trick.loss

    def mean_loss(prediction: Tensor, target: Tensor) -> Tensor:
        return loss(prediction, target).mean()

    if name == "package":
        base = mean_loss if form.endswith("-proxy") else None
        return LearnedSurrogateLoss(metric, draws=calls, seed=seed, base_loss=base, **told)
    return mean_loss


def plain_stats(objective: Objective) -> dict[str, float]:
    """The package's figures that are numbers, without times; empty for other methods."""
    stats: dict[str, Any] = getattr(objective, "stats", {})
    return {
        name: float(f"{value:.4g}")
        for name, value in stats.items()
        if isinstance(value, int | float) and not name.endswith("seconds")
    }
