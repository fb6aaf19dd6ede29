"""Metrics of lists, sets and masks from a converged checkpoint: tasks of sets, and their rivals.

With the models, data and protocol of `any_metric.py`: from the proxy's checkpoints, Adam with a
cosine to zero, and every method at one rate.

- page: cost of the five best of 20 items, an irrelevant one 1, and 5 in the first place;
- f2: 1 - F2 of a label that 29 % have, over the whole test set; sets are batches of 64;
- macro: 1 - macro F1 of six classes, likewise;
- outline: 1 - F1 of the outlines of masks of 16 x 16.

Methods: the proxy continued; `Tensors()`, two calls a sample (where there is a value a sample);
the task of the domain, with noise of 0.3 and of 1 standard deviation; the closed form next to the
metric (AP, soft F2 and F1, soft IoU). Writes into results/set_metrics.json.

Example:
    python examples/benchmarks/set_metrics.py
"""

import argparse
import dataclasses
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss, classification, ranking, segmentation
from lib.runs import keep_committed, read, spread, write
from user_metrics import PROBLEMS
from user_metrics.labels import rare_labels
from user_metrics.lists import cost_of_a_page
from user_metrics.masks import soft_iou
from user_metrics.problem import Problem, binary_cross_entropy, perceptron
from user_metrics.training import checkpoint, tune

RESULTS = Path(__file__).parent / "results" / "set_metrics.json"
METHODS = ("proxy continued", "Tensors", "set task", "set task, noise 1", "closed form")

Loss = Callable[[Tensor, Tensor], Tensor]


def one_minus_f2(said: Tensor, true: Tensor) -> Tensor:
    """Of one set, of marks or of shares."""
    said, true = said.double(), true.double()
    return 1 - 5 * (said * true).sum() / (said.sum() + 4 * true.sum()).clamp(min=1e-9)


def one_minus_macro_f1(said: Tensor, true: Tensor) -> Tensor:
    """Of one set, of classes `(n,)`."""
    return soft_macro_f1(*(functional.one_hot(part, 6).double() for part in (said, true)))


def soft_macro_f1(said: Tensor, true: Tensor) -> Tensor:
    """One minus it, of shares `(n, classes)`."""
    return 1 - (2 * (said * true).sum(0) / (said.sum(0) + true.sum(0)).clamp(min=1e-9)).mean()


def one_label() -> dict[str, tuple[Tensor, Tensor]]:
    data = rare_labels(2, 8000, 12, 12, 3.5)
    return {split: (inputs, targets[:, :1]) for split, (inputs, targets) in data.items()}


OUTLINE = PROBLEMS["boundary"]
SET_PROBLEMS = {
    "page": dataclasses.replace(PROBLEMS["ap"], name="ap", metric=cost_of_a_page),
    "f2": Problem(
        name="one-label",
        sentence="1 - F2 of a label",
        kind="sets",
        make_data=one_label,
        model=lambda: perceptron(12, 16, 1),
        proxy=binary_cross_entropy,
        metric=lambda prediction, target: one_minus_f2(prediction > 0, target),
    ),
    "macro": dataclasses.replace(
        PROBLEMS["costs"],
        metric=lambda prediction, target: one_minus_macro_f1(prediction.argmax(1), target),
    ),
    "outline": dataclasses.replace(OUTLINE, name="iou"),
}


def outline_of_masks(said: Tensor, true: Tensor) -> Tensor:
    """Of hard masks `(images, height, width)`."""
    return OUTLINE.metric(said[:, None].float() - 0.5, true[:, None].float())


def make_loss(problem: str, method: str, seed: int) -> Loss | None:
    """A method's loss; None where it has none."""
    own = SET_PROBLEMS[problem]
    if method == "proxy continued":
        return lambda prediction, target: own.proxy(prediction, target).mean()
    if method == "Tensors":
        return None if problem in ("f2", "macro") else LearnedSurrogateLoss(own.metric, seed=seed)
    if method.startswith("set task"):
        noise = 1.0 if method.endswith("1") else 0.3
        if problem == "page":
            return LearnedSurrogateLoss(cost_of_a_page, task=ranking.Lists(noise=noise), seed=seed)
        if problem in ("f2", "macro"):
            metric = {"f2": one_minus_f2, "macro": one_minus_macro_f1}[problem]
            return LearnedSurrogateLoss(metric, task=classification.Sets(noise=noise), seed=seed)
        task = segmentation.Masks(noise=noise)
        return LearnedSurrogateLoss(outline_of_masks, task=task, batched=True, seed=seed)
    return {
        "page": ranking.average_precision_loss,
        "f2": lambda prediction, target: one_minus_f2(prediction.sigmoid(), target),
        "macro": lambda prediction, target: soft_macro_f1(
            prediction.softmax(1), functional.one_hot(target, 6)
        ),
        "outline": lambda prediction, target: soft_iou(prediction, target).mean(),
    }[problem]


def main() -> None:
    """Train, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", default=list(SET_PROBLEMS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--checkpoints", type=Path, default=Path("runs/any_metric"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    keep_committed(parser, options, "seeds", "steps", "rate")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = read(options.results)
    for name in options.problems:
        problem = SET_PROBLEMS[name]
        for method in options.methods:
            runs = []
            for seed in range(options.seeds):
                loss = make_loss(name, method, seed)
                if loss is not None:
                    model = checkpoint(problem, seed, options.checkpoints)
                    runs.append(
                        tune(
                            model, problem, loss, rate=options.rate, seed=seed, steps=options.steps
                        )
                    )
            if not runs:
                continue
            test = [run.test for run in runs]
            found = [f for f in found if (f["problem"], f["method"]) != (name, method)]
            found.append(
                {"problem": name, "method": method, "steps": options.steps, "rate": options.rate}
                | {"test": test, "stats": [run.stats for run in runs]}
            )
            print(f"{name:8} {method:16} {spread(test, 4)}", flush=True)
            write(options.results, found)


if __name__ == "__main__":
    main()
