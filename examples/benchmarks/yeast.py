"""Genes of yeast and their 14 functions: does a metric of a set gain on real, small data?

2,417 genes with 103 features (Elisseeff and Weston, 2002), as the package river carries them: 1,600
for training, 400 for validation, the rest for the test, dealt anew for each seed. A perceptron is
trained with binary cross-entropy, then tuned for as many steps with each loss, at the rate with the
best metric on validation in the mean over seeds. Metrics, lower is better, of a whole split:

- AP: one minus average precision, the mean over labels;
- F2: one minus F2 of what has a logit above zero, the mean over labels.

Needs `pip install --group rivals`. Writes into results/yeast.json. Minutes on one core.

Example:
    python examples/benchmarks/yeast.py
"""

import argparse
import copy
import csv
import gzip
import math
import sys
import warnings
from collections.abc import Callable
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss, classification, ranking
from lib.rivals import rival
from lib.runs import keep_committed, read, spread, write
from user_metrics.lists import one_minus_average_precision
from user_metrics.problem import Metric, perceptron

RESULTS = Path(__file__).parent / "results" / "yeast.json"
FEATURES, LABELS, TRAIN, VALIDATION, BATCH = 103, 14, 1600, 400, 128
# Of logits, labels `(batch, 14)`, and which samples they are of.
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
Split = tuple[Tensor, Tensor]


@cache
def genes() -> Split:
    """Features of variance one, and labels: `(2417, 103)` and `(2417, 14)`."""
    file = files(rival("river")) / "datasets" / "yeast.csv.gz"
    with gzip.open(str(file), "rt") as lines:
        _, *rows = csv.reader(lines)
    table = torch.tensor([[float(cell) for cell in row] for row in rows])
    features, labels = table.split([FEATURES, LABELS], 1)
    return features / features.std(), labels


@cache
def splits(seed: int) -> dict[str, Split]:
    features, labels = genes()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    sizes = [TRAIN, VALIDATION, len(labels) - TRAIN - VALIDATION]
    parts = zip(features[order].split(sizes), labels[order].split(sizes), strict=True)
    return dict(zip(("train", "validation", "test"), parts, strict=True))


def one_minus_f2(said: Tensor, true: Tensor) -> Tensor:
    """The mean over labels, of marks or shares `(n, labels)`."""
    said, true = said.float(), true.float()
    of_label = 5 * (said * true).sum(0) / (said.sum(0) + 4 * true.sum(0)).clamp(min=1e-9)
    return 1 - of_label.mean()


def precision_of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    there = labels.any(0)
    return one_minus_average_precision(logits.T[there], labels.T[there]).mean()


METRICS: dict[str, Metric] = {
    "AP": precision_of_labels,
    "F2": lambda logits, labels: one_minus_f2(logits > 0, labels),
}


def entropy(logits: Tensor, labels: Tensor, _: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, labels)


def of_lists(loss: Callable[..., Tensor]) -> Objective:
    """Of a loss of lists: one a label that occurs."""
    return lambda logits, labels, _: loss(logits.T[labels.any(0)], labels.T[labels.any(0)])


def measured_precision(seed: int) -> Objective:
    def metric(scores: list[Tensor], relevant: list[Tensor]) -> Tensor:
        return one_minus_average_precision(torch.stack(list(scores)), torch.stack(list(relevant)))

    settings = {"task": ranking.Lists(), "batched": True, "higher_is_better": False}
    return of_lists(LearnedSurrogateLoss(metric, seed=seed, **settings))


def measured_f2(noise: float, seed: int) -> Objective:
    task = classification.Sets(noise=noise)
    criterion = LearnedSurrogateLoss(one_minus_f2, task=task, higher_is_better=False, seed=seed)
    return lambda logits, labels, _: criterion(logits, labels)


def of_libauc(_: int) -> Objective:
    """Its loss of mAP remembers every sample, and takes labels that occur in the batch."""
    loss = rival("libauc.losses").mAPLoss(TRAIN, LABELS, device="cpu")
    return lambda logits, labels, samples: loss(
        logits, labels, samples, labels.any(0).nonzero()[:, 0]
    )


def of_proxy_losses(_: int) -> Objective:
    """Its smooth AP of yes and no, one a label, each with a memory of 1,024 scores."""
    smooth = rival("proxy_losses").SmoothAPLoss
    losses = [smooth(num_classes=1) for _ in range(LABELS)]
    return lambda logits, labels, _: torch.stack(
        [loss(z[:, None], y.long()) for loss, z, y in zip(losses, logits.T, labels.T, strict=True)]
    ).mean()


def both(logits: Tensor, labels: Tensor, samples: Tensor) -> Tensor:
    own = of_lists(ranking.average_precision_loss)(logits, labels, samples)
    return own + entropy(logits, labels, samples)


CONTROL = "BCE, continued"
# By metric: of a seed, the loss.
LOSSES: dict[str, dict[str, Callable[[int], Objective]]] = {
    "AP": {
        CONTROL: lambda _: entropy,
        "average_precision_loss": lambda _: of_lists(ranking.average_precision_loss),
        "the same + BCE": lambda _: both,
        "Lists(), measured": measured_precision,
        "SoDeep, sum of ranks": lambda _: of_lists(ranking.rank_sum_loss),
        "libauc mAPLoss": of_libauc,
        "proxy-losses SmoothAPLoss": of_proxy_losses,
    },
    "F2": {
        CONTROL: lambda _: entropy,
        "soft F2": lambda _: lambda z, y, _: one_minus_f2(z.sigmoid(), y),
        "Sets()": partial(measured_f2, 0.3),
        "Sets(noise=1.0)": partial(measured_f2, 1.0),
    },
}


def train(
    model: nn.Module, split: Split, objective: Objective, *, steps: int, rate: float, seed: int
) -> nn.Module:
    """Adam, whose rate falls by a cosine."""
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)
    features, labels = split
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        some = torch.randperm(len(labels), generator=random)[:BATCH]
        optimizer.zero_grad()
        objective(model(features[some]), labels[some], some).backward()
        optimizer.step()
    return model


def best_thresholds(logits: Tensor, labels: Tensor) -> Tensor:
    """By label, the logit above which F2 is best, `(labels,)`."""
    tried = torch.arange(-16, 9) / 4
    rows = [
        [one_minus_f2(each[:, None] > t, true[:, None]) for t in tried]
        for each, true in zip(logits.T, labels.T, strict=True)
    ]
    return tried[torch.tensor(rows).argmin(1)]


@torch.no_grad()
def scores(metric: Metric, models: list[nn.Module], split: str) -> list[float]:
    """By seed."""
    parts = [splits(seed)[split] for seed in range(len(models))]
    return [metric(m(x), y).item() for m, (x, y) in zip(models, parts, strict=True)]


@torch.no_grad()
def with_thresholds(models: list[nn.Module]) -> list[float]:
    """F2 of the test by seed, with thresholds chosen on validation."""
    found = []
    for seed, model in enumerate(models):
        data = splits(seed)
        thresholds = best_thresholds(model(data["validation"][0]), data["validation"][1])
        found.append(METRICS["F2"](model(data["test"][0]) - thresholds, data["test"][1]).item())
    return found


def tuned(
    checkpoints: list[nn.Module], make: Callable[[int], Objective], *, steps: int, rate: float
) -> list[nn.Module]:
    return [
        train(copy.deepcopy(m), splits(s)["train"], make(s), steps=steps, rate=rate, seed=100 + s)
        for s, m in enumerate(checkpoints)
    ]


def main() -> None:
    """Train, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--metrics", nargs="+", choices=list(METRICS), default=list(METRICS))
    add("--seeds", type=int, default=5)
    add("--before", type=int, default=200, help="steps of cross-entropy to the checkpoint")
    add("--steps", type=int, default=60, help="steps of each loss from there")
    add("--rates", type=float, nargs="+", default=[1e-3, 3e-3])
    add("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    keep_committed(parser, options, "seeds", "before", "rates")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    checkpoints = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        model = perceptron(FEATURES, 64, LABELS)
        settings = {"steps": options.before, "rate": 3e-3, "seed": seed}
        checkpoints.append(train(model, splits(seed)["train"], entropy, **settings))
    again = [(metric, options.steps) for metric in options.metrics]
    found = [row for row in read(options.results) if (row["metric"], row["steps"]) not in again]

    def show(metric: str, method: str, test: list[float], rate: float | None = None) -> None:
        key = {"metric": metric, "steps": options.steps, "method": method, "rate": rate}
        found.append(key | {"test": test})
        print(f"{metric} {method:24} {spread(test, 4)}  {rate or ''}", flush=True)
        write(options.results, found)

    for name in options.metrics:
        metric = METRICS[name]
        show(name, "checkpoint", scores(metric, checkpoints, "test"))
        for method, make in LOSSES[name].items():
            tried = {
                r: tuned(checkpoints, make, steps=options.steps, rate=r) for r in options.rates
            }
            rate = min(tried, key=lambda r: sum(scores(metric, tried[r], "validation")))
            show(name, method, scores(metric, tried[rate], "test"), rate)
            if (name, method) == ("F2", CONTROL):
                show(name, "the same, thresholds", with_thresholds(tried[rate]), rate)


if __name__ == "__main__":
    main()
