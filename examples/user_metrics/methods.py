"""What the study trains on: for each method, a loss of a batch."""

import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

import learned_surrogates

from .problem import Metric, Problem
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
    "before",
    "before-base",
)


def is_for(method: str, problem: Problem) -> bool:
    """Whether the problem has what the method needs."""
    if method == "trick":
        return problem.trick is not None
    return problem.outputs is not None or not method.endswith("-outputs")


def make_objective(
    method: str, problem: Problem, seed: int, earlier: ModuleType | None = None
) -> Objective:
    """The method's loss.

    Args:
        method: of `METHODS`.
        seed: of its noise and weights.
        earlier: the package as it was, for "before"; see `load_earlier`.
    """
    name, _, form = method.partition("-")
    metric = problem.metric
    if form == "outputs" or form.endswith("-outputs"):
        assert problem.outputs is not None
        metric = problem.outputs
    calls = int(form) if form.isdigit() else 2
    if name == "score":
        return ScoreFunction(metric, calls, seed)
    if name == "group":
        return GroupRelative(metric, calls, seed)
    if name == "package":
        return package_loss(metric, calls, seed)
    if name == "before":
        if earlier is None:
            raise ValueError(f"{method} needs --before, a folder with the package as it was")
        base = {"base_loss": problem.proxy} if form == "base" else {}
        return earlier.LearnedSurrogateLoss(metric, seed=seed, **base)
    loss = problem.proxy
    if name == "trick" and problem.trick is not None and problem.trick.loss is not None:
        loss = problem.trick.loss
    return lambda prediction, target: loss(prediction, target).mean()


def package_loss(metric: Metric, draws: int, seed: int) -> Objective:
    """The package at its defaults."""
    return learned_surrogates.LearnedSurrogateLoss(metric, draws=draws, seed=seed)


def plain_stats(objective: Objective) -> dict[str, float]:
    """The package's figures that are numbers, without times; empty for other methods."""
    stats: dict[str, Any] = getattr(objective, "stats", {})
    return {
        name: float(f"{value:.4g}")
        for name, value in stats.items()
        if isinstance(value, int | float) and not name.endswith("seconds")
    }


def load_earlier(folder: Path) -> ModuleType:
    """The package of another checkout, beside the installed one, under a name of its own."""
    name = "learned_surrogates_as_it_was"
    file = folder / "learned_surrogates" / "__init__.py"
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(file.parent)]
    )
    if spec is None or spec.loader is None or not file.exists():
        raise FileNotFoundError(f"{folder} holds no learned_surrogates")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module
