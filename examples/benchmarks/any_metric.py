"""Metrics of users' own, from a converged checkpoint: the study behind docs/any-metric.md.

Every run starts from a small model that its usual loss, the proxy, has trained to the end of its
schedule (one checkpoint a seed, kept under runs/), and trains it for the same number of steps with:

- proxy: the usual loss, the control;
- trick: what one would try first: another loss, a threshold, a decision by expected costs;
- score-2, score-16: the score function's gradient of the expected metric, from 2 or 16 metric calls
  a sample in antithetic pairs, nothing learned;
- group-2, group-16: the group-relative policy gradient with as many calls;
- package-2, package-16: `LearnedSurrogateLoss(metric, draws=2)`, or 16, and nothing else;
- package-outputs, score-2-outputs: with 2 calls of the metric that gives one value an output;
- package-share: with 2 calls, and a quarter of what draws correct the surrogate by;
- package-quarter, package-late, package-late-proxy, only if they are named: of a batch a quarter is
  measured; or all, and the values come eight calls later, without and with the proxy as base loss.

A method's learning rate is the one of six, 1e-4 to 3e-2, with the lowest mean metric on validation
samples for the first two seeds. The other seeds run at that rate alone. Test samples are read once
a run, and only to be written down. Steps are Adam's with a cosine to zero, timed in blocks, and
beside each block a few of the proxy's. What is trained is in examples/user_metrics; it needs
scikit-learn.

Runs that the results have are not made again, so that the study can be interrupted, and divided
among processes; `--again` forgets those of the methods named, for when the package has changed.

Large masks spend most of a step on fetching memory anew: with glibc, the environment variables
MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_, both at 1000000000, keep it.

Example:
    python examples/benchmarks/any_metric.py --problems off_by_1 costs --methods proxy score-2
    python examples/benchmarks/any_metric_page.py
"""

import argparse
import functools
import math
import statistics
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

from user_metrics import PROBLEMS
from user_metrics.methods import DEAR, METHODS, is_for, make_objective
from user_metrics.problem import Problem
from user_metrics.results import Results, Row
from user_metrics.summary import CHOOSING
from user_metrics.training import checkpoint, tune

RESULTS = Path(__file__).parent / "results" / "any_metric"
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    add("--methods", nargs="+", choices=[*METHODS, *DEAR], default=list(METHODS))
    add("--batch", type=int, nargs="+", default=[64, 8])
    add("--steps", type=int, default=600)
    add("--seeds", type=int, default=5)
    add("--again", action="store_true", help="forget the runs of these methods first")
    add("--results", type=Path, default=RESULTS)
    add("--checkpoints", type=Path, default=Path("runs/any_metric"))
    add("--threads", type=int, default=1)
    return parser.parse_args(arguments)


class Study:
    """The runs of one problem and batch size."""

    def __init__(self, problem: Problem, batch: int, options: argparse.Namespace):
        self.problem, self.batch, self.options = problem, batch, options
        about = {
            "problem": problem.name,
            "sentence": problem.sentence,
            "kind": problem.kind,
            "trick": problem.trick.sentence if problem.trick else "",
            "wrong_labels": problem.wrong_labels,
            "command": f"python examples/benchmarks/any_metric.py --problems {problem.name}",
            "torch": torch.__version__,
        }
        self.results = Results(options.results / f"{problem.name}.json", about)

    def run(self, method: str) -> Row:
        """The rates with the first seeds, then the other seeds at the best one."""
        if self.options.again:
            self.results.drop(method=method, batch=self.batch, steps=self.options.steps)
        seeds = range(self.options.seeds)
        choosing = seeds[:CHOOSING]
        tried = {rate: self.row(method, rate, choosing) for rate in RATES}
        row = self.row(method, lowest(tried), seeds)
        self.results.keep_stats_of(row)
        return row

    def row(self, method: str, rate: float, seeds: range) -> Row:
        """One method and rate, with these seeds: from the results, or made."""
        key = {"batch": self.batch, "steps": self.options.steps, "method": method, "rate": rate}
        row = self.results.find(**key)
        for seed in seeds:
            if row is None or seed not in row["seeds"]:
                row = self.made(seed, key)
        assert row is not None
        return row

    def made(self, seed: int, key: dict[str, Any]) -> Row:
        method, trick = key["method"], self.problem.trick
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a loss does badly is what the study shows
            run = tune(
                checkpoint(self.problem, seed, self.options.checkpoints),
                self.problem,
                make_objective(method, self.problem, seed),
                rate=key["rate"],
                seed=seed,
                steps=key["steps"],
                batch=key["batch"],
                decide=trick.decide if method == "trick" and trick else None,
            )
        return self.results.add(seed, run, commit(), **key)


def lowest(tried: dict[float, Row]) -> float:
    """The rate with the lowest mean metric on validation, over the first seeds."""
    means = {rate: statistics.mean(row["validation"][:CHOOSING]) for rate, row in tried.items()}
    return min(means, key=lambda rate: math.inf if math.isnan(means[rate]) else means[rate])


@functools.cache
def commit() -> str:
    """The checkout's, with a plus where the package or what it trains has changed since."""
    git = ["git", "-C", str(ROOT)]
    changes = [*git, "status", "--porcelain", "--", "learned_surrogates", "examples/user_metrics"]
    try:
        head, changed = (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            for command in ([*git, "rev-parse", "--short", "HEAD"], changes)
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed else "")


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    for name in options.problems:
        for batch in options.batch:
            study = Study(PROBLEMS[name], batch, options)
            for method in options.methods:
                if not is_for(method, study.problem):
                    continue
                row = study.run(method)
                mean, pace = (statistics.mean(row[key]) for key in ("test", "milliseconds"))
                print(f"{name} {batch} {method} {row['rate']:g}: {mean:.4f}, {pace:.1f} ms")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
