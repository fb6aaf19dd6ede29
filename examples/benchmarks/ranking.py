"""List metrics from a converged checkpoint: losses of ranks, the proxy, the measured gradient.

The problems of lists in examples/user_metrics, with the protocol of `any_metric.py`: from the
proxy's checkpoints, 600 steps of Adam with a cosine to zero, each method at the rate (and, where it
has one, the width or strength) with the lowest metric on validation in the mean over the seeds.

- proxy: the usual loss, continued;
- package-2: `LearnedSurrogateLoss(metric)`, two metric calls a sample;
- closed form: `spearman_loss`, `average_precision_loss`, `ndcg_loss`, noise 0.1 or 0.3;
- SoDeep: Eq. 4 or 7 through `expected_ranks` with these widths;
- blackbox: the metric's formula with `blackbox_rank` in it, two strengths;
- torchsort, diffsort: SoDeep's loss, or NDCG's discount, of these packages' soft ranks, two
  strengths each, where they are asked for (`pip install --group rivals`);
- expected rank: NDCG's discount of the expected rank;
- both: `LearnedSurrogateLoss` with the closed form as its base loss.

"page" has a metric without a closed form, the cost of the five best items of AP's lists: an
irrelevant one costs 1, and 5 in the first place. There the closed form is that of AP.

Needs scikit-learn. A few minutes on one core.

Example:
    python examples/benchmarks/ranking.py
    python examples/benchmarks/ranking.py --problems sp100 --methods proxy "closed form"
"""

import argparse
import dataclasses
import functools
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss, ranking
from lib.rivals import diffsort_ranks, torchsort_ranks
from lib.runs import spread
from user_metrics import PROBLEMS as ALL_PROBLEMS
from user_metrics.lists import cost_of_a_page
from user_metrics.methods import Objective, make_objective
from user_metrics.problem import Problem
from user_metrics.training import Run, checkpoint, tune

NOISES = (0.1, 0.3)
# Of the mean over a batch of 64, whose gradient is 64 times smaller than a list's.
STRENGTHS = (300.0, 3000.0)
RATES = (3e-4, 1e-3, 3e-3)

# By width of the noise, or by strength.
Candidates = dict[float, Callable[..., Tensor]]


def precision_by_blackbox(scores: Tensor, targets: Tensor, strength: float) -> Tensor:
    """AP of ranks (Rolinek et al., CVPR 2020): ranks among relevant items over ranks among all."""
    relevant = targets > 0
    ranks = ranking.blackbox_rank(scores, strength=strength)
    among = ranking.blackbox_rank(scores, strength=strength, mask=relevant)
    return 1 - ((among / ranks).where(relevant, 0.0).sum(1) / relevant.sum(1)).mean()


def discounted(ranks: Tensor, targets: Tensor, k: int) -> Tensor:
    """NDCG with the discount of ranks as they are, not cut at k."""
    gains = 2**targets - 1
    places = torch.arange(2, k + 2, device=gains.device)
    ideal = (gains.topk(k, 1).values / places.log2()).sum(1).clamp(min=1e-9)
    return 1 - ((gains / (1 + ranks).log2()).sum(1) / ideal).mean()


def ndcg_5(scores: Tensor, targets: Tensor, noise: float) -> Tensor:
    return ranking.ndcg_loss(scores, 2**targets - 1, k=5, noise=noise)


def of_expected_rank(scores: Tensor, targets: Tensor, noise: float) -> Tensor:
    return discounted(ranking.expected_ranks(scores, noise=noise), targets, 5)


def gain_by_blackbox(scores: Tensor, targets: Tensor, strength: float) -> Tensor:
    return discounted(ranking.blackbox_rank(scores, strength=strength), targets, 5)


def of_rivals(loss: Callable[..., Tensor]) -> dict[str, Candidates]:
    """A loss with a sorter, with those of other packages."""
    return {
        "torchsort": with_sorters(
            loss, {s: functools.partial(torchsort_ranks, strength=s) for s in (0.1, 1.0)}
        ),
        "diffsort": with_sorters(
            loss, {s: functools.partial(diffsort_ranks, steepness=s) for s in (10.0, 20.0)}
        ),
    }


def gain_of_ranks(scores: Tensor, targets: Tensor, sorter: Callable[[Tensor], Tensor]) -> Tensor:
    return discounted(sorter(scores), targets, 5)


def with_noise(loss: Callable[..., Tensor]) -> Candidates:
    return {noise: functools.partial(loss, noise=noise) for noise in NOISES}


def with_strength(loss: Callable[..., Tensor]) -> Candidates:
    return {strength: functools.partial(loss, strength=strength) for strength in STRENGTHS}


def with_sorters(loss: Callable[..., Tensor], sorters: Candidates) -> Candidates:
    return {value: functools.partial(loss, sorter=sorter) for value, sorter in sorters.items()}


CORRELATION = {
    "closed form": with_noise(ranking.spearman_loss),
    "SoDeep": with_sorters(ranking.squared_rank_loss, with_noise(ranking.expected_ranks)),
    "blackbox": with_sorters(ranking.squared_rank_loss, with_strength(ranking.blackbox_rank)),
    **of_rivals(ranking.squared_rank_loss),
}
PRECISION = {
    "closed form": with_noise(ranking.average_precision_loss),
    "SoDeep": with_sorters(ranking.rank_sum_loss, with_noise(ranking.expected_ranks)),
    "blackbox": with_strength(precision_by_blackbox),
    **of_rivals(ranking.rank_sum_loss),
}
PROBLEMS = {name: ALL_PROBLEMS[name] for name in ("spearman", "sp100", "ap", "ap200", "ndcg5")}
PROBLEMS["page"] = dataclasses.replace(
    PROBLEMS["ap"], name="page", sentence="cost of a page of five", metric=cost_of_a_page
)
# By problem and method, the losses that validation chooses from.
LOSSES: dict[str, dict[str, Candidates]] = {
    "spearman": CORRELATION,
    "sp100": CORRELATION,
    "ap": PRECISION,
    "ap200": PRECISION,
    "ndcg5": {
        "closed form": with_noise(ndcg_5),
        "expected rank": with_noise(of_expected_rank),
        "blackbox": with_strength(gain_by_blackbox),
        **of_rivals(gain_of_ranks),
    },
    "page": {"closed form": with_noise(ranking.average_precision_loss)},
}
METHODS = ("proxy", "package-2", "closed form", "SoDeep", "expected rank", "blackbox", "both")
RIVALS = ("torchsort", "diffsort")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--problems", nargs="+", choices=list(LOSSES), default=["spearman", "ap", "ndcg5", "page"])
    add("--methods", nargs="+", choices=METHODS + RIVALS, default=list(METHODS))
    add("--rates", nargs="+", type=float, default=RATES)
    add("--seeds", type=int, default=3)
    add("--steps", type=int, default=600)
    add("--checkpoints", type=Path, default=Path("runs/any_metric"))
    return parser.parse_args()


def candidates(problem: Problem, method: str) -> dict[str, Callable[[int], Objective]]:
    """What to choose from: functions of a seed that make a loss."""
    if method in ("proxy", "package-2"):
        return {"": lambda seed: make_objective(method, problem, seed)}
    if method == "both":
        if problem.name != "page":
            return {}
        base = functools.partial(ranking.average_precision_loss, noise=NOISES[-1])
        return {"": lambda seed: LearnedSurrogateLoss(problem.metric, base_loss=base, seed=seed)}
    losses = LOSSES[problem.name].get(method, {})
    return {f"{value:g}, ": lambda seed, loss=loss: loss for value, loss in losses.items()}


def runs(problem: Problem, method: str, options: argparse.Namespace) -> dict[str, list[Run]]:
    """The seeds' runs, for each candidate and rate."""
    found = {}
    for value, make in candidates(problem, method).items():
        for rate in options.rates:
            models = [checkpoint(problem, s, options.checkpoints) for s in range(options.seeds)]
            found[f"{value}rate {rate:g}"] = [
                tune(model, problem, make(seed), rate=rate, seed=seed, steps=options.steps)
                for seed, model in enumerate(models)
            ]
    return found


def mean(figures: list[float]) -> float:
    return statistics.mean(figures)


def main() -> None:
    """Train and print."""
    options = parse()
    torch.set_num_threads(1)
    for name in options.problems:
        problem = PROBLEMS[name]
        for method in options.methods:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tried = runs(problem, method, options)
            if not tried:
                continue
            chosen = min(tried, key=lambda name: mean([run.validation for run in tried[name]]))
            test = [run.test for run in tried[chosen]]
            pace = mean([run.milliseconds - run.proxy_milliseconds for run in tried[chosen]])
            print(
                f"{problem.sentence:22} {method:14} {spread(test, 4)}"
                f"   {' '.join(f'{figure:.4f}' for figure in test)}   {pace:+.1f} ms a step   "
                f"({chosen})",
                flush=True,
            )


if __name__ == "__main__":
    main()
