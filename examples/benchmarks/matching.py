"""Keypoint matching as linear assignment: which loss, where a solver has the last word?

Ten keypoints of two views, the second turned, scaled, shuffled and with another appearance, all of
it noisy. Two nets make features of the keypoints, products of features are the scores of pairs,
and `scipy.optimize.linear_sum_assignment` matches them. The metric is the share of wrong matches.
Training matches are right, or three keypoints in ten are matched at random; validation and test are
right.

From the checkpoint of the rows' cross-entropy, 300 steps of 64 pairs of views with Adam and a
cosine to zero, each method at the rate (and blackbox at the strength, the class with the noise)
with the lowest metric on validation for the first seed:

- rows: cross-entropy of each keypoint's scores, continued;
- rows and columns: of both views' keypoints;
- Sinkhorn: cross-entropy of doubly stochastic matrices (Wang et al., "Learning Combinatorial
  Embedding Networks for Deep Graph Matching", ICCV 2019);
- blackbox: the Hamming distance of the assignment, a margin of 1 (Rolinek et al., "Deep Graph
  Matching via Blackbox Differentiation of Combinatorial Solvers", ECCV 2020, Eq. 2 and 7);
- score function: of the metric, two solver calls a pair, as many as blackbox makes;
- class: `LearnedSurrogateLoss(metric)`, as many, its noise by its rule or of width 1;
- class, a value a row: the same, each keypoint's noise credited with its own error alone. That
  breaks the rule that an output's value depends on that output alone.

Some minutes on one core. Writes into results/matching.json.

Example:
    python examples/benchmarks/matching.py
    python examples/benchmarks/matching.py --table
"""

import argparse
import functools
import itertools
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss, Tensors
from lib.assignment import assigned, blackbox_assignment, sinkhorn
from lib.runs import Row, keep_committed, read, spread, write
from user_metrics.methods import Objective
from user_metrics.problem import Problem, Splits, cross_entropy, generator, perceptron, split
from user_metrics.score_function import ScoreFunction
from user_metrics.training import BATCH, checkpoint, scores, tune

RESULTS = Path(__file__).parent / "results" / "matching.json"
KEYPOINTS, APPEARANCE, FEATURES = 10, 6, 16
# Of the mean over a batch, whose gradient is as many times smaller than a pair's.
STRENGTHS = (2.0 * BATCH, 10.0 * BATCH, 80.0 * BATCH)
MARGIN = 1.0
WRONG = 0.3


def views(wrong: float) -> Splits:
    """Two views' keypoints `(pairs, 2, 10, 8)`; which of the second each of the first is."""
    random = generator(7)
    pairs = 6000
    places = 2 * torch.rand(pairs, KEYPOINTS, 2, generator=random) - 1
    looks = torch.randn(pairs, KEYPOINTS, APPEARANCE, generator=random)
    angle = (2 * torch.rand(pairs, generator=random) - 1) * torch.pi / 3
    scale = 0.8 + 0.5 * torch.rand(pairs, generator=random)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    turned = places @ (scale[:, None, None] * turn) + torch.randn(pairs, 1, 2, generator=random)
    turned = turned + 0.2 * torch.randn(turned.shape, generator=random)
    changed = (looks @ torch.randn(APPEARANCE, APPEARANCE, generator=random)).tanh()
    changed = changed + 1.0 * torch.randn(looks.shape, generator=random)
    order = torch.rand(pairs, KEYPOINTS, generator=random).argsort(1)
    first, second = torch.cat([places, looks], 2), torch.cat([turned, changed], 2)
    second = second.gather(1, order.argsort(1)[..., None].expand_as(second))
    # Some keypoints of the first view swap what they match among them.
    stays = torch.rand(pairs, KEYPOINTS, generator=random) >= wrong
    places_in_turn = stays.long().argsort(dim=1, stable=True)
    shuffled = torch.rand(pairs, KEYPOINTS, generator=random)
    shuffled = shuffled.where(~stays, 1.0 + torch.arange(KEYPOINTS)).argsort(1)
    given = order.scatter(1, places_in_turn, order.gather(1, shuffled))
    return split(torch.stack([first, second], 1), order, 3000, 1000, given)


class Matcher(nn.Module):
    """Scores of all pairs of keypoints, `(batch, 10, 10)`."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(perceptron(2 + APPEARANCE, 64, FEATURES) for _ in range(2))

    def forward(self, inputs: Tensor) -> Tensor:
        places = inputs[..., :2] - inputs[..., :2].mean(2, keepdim=True)
        keypoints = torch.cat([places, inputs[..., 2:]], 3)
        first, second = (net(keypoints[:, view]) for view, net in enumerate(self.nets))
        return first @ second.transpose(1, 2)


def wrong_matches(scores: Tensor, target: Tensor) -> Tensor:
    """Of each keypoint of the first view, `(batch, 10)`."""
    return (assigned(-scores) != target).float()


def share_of_wrong_matches(scores: Tensor, target: Tensor) -> Tensor:
    return wrong_matches(scores, target).mean(1)


def rows(scores: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(scores.transpose(1, 2), target).mean(1)


def rows_and_columns(scores: Tensor, target: Tensor) -> Tensor:
    return rows(scores, target) + cross_entropy(scores, target.argsort(1)).mean(1)


def doubly_stochastic(scores: Tensor, target: Tensor) -> Tensor:
    return -sinkhorn(scores).gather(2, target[..., None]).mean((1, 2))


def hamming(scores: Tensor, target: Tensor, strength: float) -> Tensor:
    """v (1 - v*) + v* (1 - v) of the assignment v, the right one v* made dearer by the margin."""
    right = nn.functional.one_hot(target, KEYPOINTS).to(scores)
    found = blackbox_assignment(MARGIN * right - scores, strength)
    return (found * (1 - right) + right * (1 - found)).sum((1, 2))


def mean_of(loss: Callable[..., Tensor]) -> Callable[[int], Objective]:
    return lambda seed: lambda scores, target: loss(scores, target).mean()


def learned(metric: Callable[..., Tensor], seed: int, width: float | None = None) -> Objective:
    return LearnedSurrogateLoss(metric, task=Tensors(smoothing=width), seed=seed)


# By method, what to choose from: functions of a seed that make a loss.
METHODS: dict[str, dict[str, Callable[[int], Objective]]] = {
    "rows": {"": mean_of(rows)},
    "rows and columns": {"": mean_of(rows_and_columns)},
    "Sinkhorn": {"": mean_of(doubly_stochastic)},
    "blackbox": {
        f"{strength / BATCH:g}": mean_of(functools.partial(hamming, strength=strength))
        for strength in STRENGTHS
    },
    "score function": {"": lambda seed: ScoreFunction(share_of_wrong_matches, 2, seed)},
    "class": {
        "": lambda seed: learned(share_of_wrong_matches, seed),
        "width 1": lambda seed: learned(share_of_wrong_matches, seed, 1.0),
    },
    "class, a value a row": {"": lambda seed: learned(wrong_matches, seed)},
}
RATES = (1e-4, 1e-3, 3e-3)
PROBLEMS = {
    name: Problem(
        name=f"matching-{wrong:g}",
        sentence=name,
        kind="solvers",
        make_data=functools.partial(views, wrong),
        model=Matcher,
        proxy=rows,
        metric=share_of_wrong_matches,
        steps=2000,
        rate=3e-3,
        wrong_labels=wrong > 0,
    )
    for name, wrong in (("right matches", 0.0), ("wrong matches", WRONG))
}


def run(options: argparse.Namespace) -> list[Row]:
    """Each problem and method, all seeds at the candidate that is best with the first one."""
    found = []
    for name, problem in PROBLEMS.items():
        found.append({"problem": name, "method": "checkpoint"} | unchanged(problem, options))
        for method, candidates in METHODS.items():
            tried = {
                (setting, rate): one(problem, candidates[setting], rate, 0, options)
                for setting, rate in itertools.product(candidates, RATES)
            }
            setting, rate = min(tried, key=lambda candidate: tried[candidate][0])
            runs = [tried[setting, rate]]
            for seed in range(1, options.seeds):
                runs.append(one(problem, candidates[setting], rate, seed, options))
            row: Row = {"problem": name, "method": method, "setting": setting, "rate": rate}
            row |= dict(zip(("validation", "test"), zip(*runs, strict=True), strict=True))
            found.append(row)
            print(json.dumps(found[-1]), flush=True)
    return found


def unchanged(problem: Problem, options: argparse.Namespace) -> Row:
    """Of the checkpoints, the metric on validation and test."""
    models = [checkpoint(problem, seed, options.checkpoints) for seed in range(options.seeds)]
    pairs = [[round(value, 5) for value in scores(model, problem)] for model in models]
    return dict(zip(("validation", "test"), zip(*pairs, strict=True), strict=True))


def one(
    problem: Problem,
    make: Callable[[int], Objective],
    rate: float,
    seed: int,
    options: argparse.Namespace,
) -> tuple[float, float]:
    """The metric on validation and test."""
    model = checkpoint(problem, seed, options.checkpoints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = tune(model, problem, make(seed), rate=rate, seed=seed, steps=options.steps)
    return round(made.validation, 5), round(made.test, 5)


def table(found: list[Row]) -> str:
    """Markdown: mean and standard deviation of the test's metric over the seeds, in per cent."""
    lines = ["| loss | " + " | ".join(PROBLEMS) + " |", "|---" * (1 + len(PROBLEMS)) + "|"]
    for method in ("checkpoint", *METHODS):
        own = (row for row in found if row["method"] == method)
        cells = [spread([100 * value for value in row["test"]], 2) for row in own]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, default=3)
    add("--steps", type=int, default=300)
    add("--checkpoints", type=Path, default=Path("runs/matching"))
    add("--results", type=Path, default=RESULTS)
    add("--table", action="store_true", help="print what the results have, and run nothing")
    options = parser.parse_args()
    keep_committed(parser, options, "seeds", "steps")
    torch.set_num_threads(1)
    if not options.table:
        write(options.results, run(options))
    print(table(read(options.results)))


if __name__ == "__main__":
    main()
