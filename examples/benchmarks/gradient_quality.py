"""Is it true what the loss says of its gradient? Held against 10,000 draws.

For each problem, the checkpoint of `any_metric.py` stands still, and the loss is called 200 times
with batches of 64 of the training data, and the proxy as its base loss. What its `stats` say then
is compared with what `user_metrics/gradient_truth.py` measures by 10,000 draws: R2, the share of
the draws' noise that the surrogate takes away; the signal over the noise of a step; and the cosine
of the base loss's gradient with the metric's, in the last layer's parameters and over all weights.
"virtual" is the same loss that sees no graph, and takes a virtual layer on the outputs.

Some 20 seconds a problem on one core, and as many for a checkpoint that is missing. Writes into
results/gradient_quality.json.

Example:
    python examples/benchmarks/gradient_quality.py
    python examples/benchmarks/gradient_quality.py --table
"""

import argparse
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss
from lib.runs import Row, read, write
from user_metrics import PROBLEMS
from user_metrics.gradient_truth import Draws, measure
from user_metrics.methods import plain_stats
from user_metrics.problem import Metric, Problem
from user_metrics.training import BATCH, Batches, checkpoint, mean_proxy

RESULTS = Path(__file__).parent / "results" / "gradient_quality.json"
CALLS = 200
# A cosine is clear that differs from zero by so many of its standard errors.
CLEAR = 3
# R2 is right up to so much.
NEAR = 0.05


def called(
    model: nn.Module, problem: Problem, metric: Metric, seed: int, *, graph: bool = True
) -> LearnedSurrogateLoss:
    """The loss after `CALLS` calls at a model that stands still.

    Args:
        graph: whether the loss sees how the prediction came about.
    """
    criterion = LearnedSurrogateLoss(metric, base_loss=mean_proxy(problem), seed=seed)
    batches = Batches(problem.data["train"], BATCH, 100 + seed)
    for _ in range(CALLS):
        inputs, target = batches.next()
        prediction = model(inputs)
        criterion(prediction if graph else prediction.detach().requires_grad_(), target)
    return criterion


def one_call(criterion: LearnedSurrogateLoss, metric: Metric) -> Callable[[Tensor, Tensor], Tensor]:
    """The gradient of each sample by a pair of draws that the loss does not learn from."""
    still = LearnedSurrogateLoss(metric).eval()
    still.load_state_dict(criterion.state_dict())

    def call(z: Tensor, target: Tensor) -> Tensor:
        z = z.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(still(z, target), z)
        return len(z) * gradient

    return call


def compare(problem: Problem, form: str, seed: int, draws: int, checkpoints: Path) -> Row:
    """What the loss says, and what is true.

    Args:
        form: "sample" or, for one value an output, "output".
    """
    metric = problem.metric if form == "sample" else problem.outputs
    assert metric is not None
    model = checkpoint(problem, 0, checkpoints)
    criterion = called(model, problem, metric, seed)
    random = torch.Generator().manual_seed(7000 + seed)
    truth = measure(
        model,
        mean_proxy(problem),
        Draws(
            metric,
            one_call(criterion, metric),
            criterion.stats["gradient/smoothing"],
            random,
        ),
        problem.data["train"],
        7000 + seed,
        draws,
    )
    virtual = called(model, problem, metric, seed, graph=False).stats
    return {
        "problem": problem.name,
        "a value a": form,
        "seed": seed,
        "stats": plain_stats(criterion),
        "virtual": [rounded(virtual[f"base_loss/{name}"]) for name in ("cosine", "cosine_error")],
        "truth": {
            name: [rounded(figure.value), rounded(figure.error)] for name, figure in truth.items()
        },
    }


def rounded(figure: float) -> float:
    return float(f"{figure:.4g}")


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    add("--form", choices=["sample", "output"], default="sample", help="a value a sample or output")
    add("--seeds", type=int, default=2)
    add("--draws", type=int, default=10_000)
    add("--results", type=Path, default=RESULTS)
    add("--checkpoints", type=Path, default=Path("runs/any_metric"))
    add("--table", action="store_true", help="print what the results come to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = read(options.results)
    if options.table:
        return print(table(rows))
    for name in options.problems:
        for seed in range(options.seeds):
            key = {"problem": name, "a value a": options.form, "seed": seed}
            if any(key.items() <= row.items() for row in rows):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of metrics that say nothing there
                arguments = options.form, seed, options.draws, options.checkpoints
                rows.append(compare(PROBLEMS[name], *arguments))
            write(options.results, rows)
            print(*table(rows[-1:]).splitlines()[2:3], flush=True)
    return None


HEADS = (
    "problem",
    "R2 said",
    "true, outputs / all weights",
    "signal over noise said",
    "true, last layer / all",
    "cosine said",
    "virtual",
    "true, last layer / all",
)


def table(rows: list[Row]) -> str:
    """Markdown, and the counts of what is right."""
    lines = ["| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    return "\n".join([*lines, "", *counts(rows)])


def cells(row: Row) -> list[str]:
    stats, truth = row["stats"], row["truth"]
    name = row["problem"] + (", one value an output" if row["a value a"] == "output" else "")
    cosine = [stats[f"base_loss/{name}"] for name in ("cosine", "cosine_error")]
    return [
        name,
        f"{stats['surrogate/r2']:.2f}",
        f"{truth['r2, outputs'][0]:.2f} / {truth['r2, all'][0]:.2f}",
        f"{stats['gradient/signal_to_noise']:.2f}",
        " / ".join(f"{truth[f'signal_to_noise, {space}'][0]:.2f}" for space in ("last", "all")),
        with_error(*cosine),
        with_error(*row["virtual"]),
        " / ".join(with_error(*truth[f"cosine, {space}"]) for space in ("last", "all")),
    ]


def with_error(value: float, error: float) -> str:
    return "hidden" if math.isnan(value) else f"{value:.2f} ± {error:.2f}"


def counts(rows: list[Row]) -> list[str]:
    """How often what is said is true."""
    off = [row["stats"]["surrogate/r2"] - row["truth"]["r2, outputs"][0] for row in rows]
    near = sum(abs(each) <= NEAR for each in off)
    found = [
        f"- R2 off by {min(off):+.2f} to {max(off):+.2f}, at most {NEAR}: {near} of {len(off)}."
    ]
    pairs = {
        "R2 within two standard errors of a report": [
            (row["stats"]["surrogate/r2"], 0.0, *row["truth"]["r2, reported"]) for row in rows
        ],
        "cosines within two standard errors": [
            (
                row["stats"]["base_loss/cosine"],
                row["stats"]["base_loss/cosine_error"],
                *row["truth"]["cosine, last"],
            )
            for row in rows
        ],
    }
    for name, checks in pairs.items():
        known = [check for check in checks if not any(map(math.isnan, check))]
        right = sum(abs(said - true) <= 2 * math.hypot(a, b) for said, a, true, b in known)
        found.append(f"- {name}: {right} of {len(known)}.")
    for said in ("stats", "virtual"):
        signs = [
            (value(row, said), row["truth"]["cosine, all"][0])
            for row in rows
            if abs(row["truth"]["cosine, all"][0]) > CLEAR * row["truth"]["cosine, all"][1]
        ]
        known = [pair for pair in signs if not math.isnan(pair[0])]
        right = sum(a * b > 0 for a, b in known)
        found.append(f"- sign over all weights, {said}: {right} of {len(known)} of {len(signs)}.")
    return found


def value(row: Row, said: str) -> float:
    return float(row["stats"]["base_loss/cosine"] if said == "stats" else row["virtual"][0])


if __name__ == "__main__":
    main()
