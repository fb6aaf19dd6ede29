"""How near the gradients of set metrics come to those of their means: lists, masks, sets of labels.

Linear models on random features, fitted to their targets; lists of 100, masks of 16 x 16, sets of
64 labels, 16 of each a batch. The truth is the loss's own unbiased gradient by 20,000 draws a set.
For each metric, after 100 calls:

- R2: what is known of draws tells so much of the metric's differences;
- known: cosine of the known part alone with the truth, of a batch's gradient with respect to the
  predictions, and in the model's weights;
- one call: the same of the gradient of one call, at the task's number of draws;
- unbiased: of such a one with all of what draws correct by (`correction=1`);
- draws alone: the same with `surrogate="none"`;
- nets: R2 of what plain tensors learn (`Tensors()`), of metrics that have a value a sample;
- truth: the cosine of its two halves.

Example:
    python examples/benchmarks/set_gradients.py
"""

import argparse
import functools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import one_hot

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss, classification, ranking, segmentation
from user_metrics.lists import (
    cost_of_a_page,
    one_minus_average_precision,
    one_minus_ndcg_at_5,
    one_minus_spearman,
)
from user_metrics.masks import one_minus_boundary_f1, one_minus_iou

SETS, FEATURES = 16, 8


def missed(prediction: Tensor, target: Tensor) -> Tensor:
    return (one_minus_iou(prediction, target) > 0.5).float()


def one_minus_f(said: Tensor, true: Tensor, beta: float = 1.0) -> Tensor:
    hits, factor = (said & true).sum(1), 1 + beta**2
    return 1 - factor * hits / (said.sum(1) + beta**2 * true.sum(1)).clamp(min=1)


def one_minus_macro_f1(said: Tensor, true: Tensor) -> Tensor:
    each = [one_minus_f(said == label, true == label) for label in range(5)]
    return torch.stack(each).mean(0)


def one_minus_kappa(said: Tensor, true: Tensor, power: int) -> Tensor:
    """Of five grades: one minus Cohen's kappa, weighted by distances to this power."""
    grades = torch.arange(5)
    far = (grades[:, None] - grades).abs().float() ** power
    by_chance = far[said[:, :, None], true[:, None]].mean((1, 2))
    return far[said, true].mean(1) / by_chance.clamp(min=1e-9)


def one_minus_mcc(said: Tensor, true: Tensor) -> Tensor:
    said, true = said.double(), true.double()
    said, true = (part - part.mean(1, keepdim=True) for part in (said, true))
    return 1 - (said * true).sum(1) / (said.norm(dim=1) * true.norm(dim=1)).clamp(min=1e-9)


# Metrics of batches, by name: the kind of problem, and what its lists or labels are made of.
METRICS: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "1 - Spearman": ("list of numbers", one_minus_spearman),
    "1 - AP": ("marked list", one_minus_average_precision),
    "cost of a page": ("marked list", cost_of_a_page),
    "1 - NDCG@5": ("graded list", one_minus_ndcg_at_5),
    "1 - IoU": ("mask", one_minus_iou),
    "missed at IoU .5": ("mask", missed),
    "1 - F1 of the outline": ("mask", one_minus_boundary_f1),
    "1 - F1": ("marks", one_minus_f),
    "1 - F2": ("marks", functools.partial(one_minus_f, beta=2.0)),
    "1 - MCC": ("marks", one_minus_mcc),
    "1 - macro F1 of 5": ("classes", one_minus_macro_f1),
    "1 - linear kappa": ("grades", functools.partial(one_minus_kappa, power=1)),
    "1 - quadratic kappa": ("grades", functools.partial(one_minus_kappa, power=2)),
}


class Problem:
    """Random batches of one kind, a model's predictions for them, and how metrics take them."""

    def __init__(self, kind: str, seed: int = 0):
        self.kind, self.random = kind, torch.Generator().manual_seed(seed)
        self.items = {"mask": 256, "marks": 64, "classes": 64, "grades": 64}.get(kind, 100)
        self.direction = torch.randn(FEATURES, 5, generator=self.random)
        inputs, wanted = self._items()
        inputs, wanted = inputs.flatten(0, 1), wanted.flatten(0, 1).float()
        self.weights = 6 * torch.linalg.lstsq(inputs, wanted - wanted.mean(0)).solution
        told, true = inputs @ self.weights, wanted > wanted.mean(0)
        # The threshold is half way between what a yes and a no get.
        self.bias = -(told[true].mean() + told[~true].mean()) / 2
        if kind == "grades":
            # Which logit is the highest depends on a number by thresholds half way between grades.
            grades = torch.arange(5.0)
            worth = torch.linalg.lstsq(inputs, wanted @ grades[:, None] - 2).solution
            self.weights, self.bias = 3 * worth * grades, 3 * (2 - grades / 2) * grades
        # Noise is read in them.
        self.weights.requires_grad_()
        self.task = {
            "mask": segmentation.Masks(),
            "marks": classification.Sets(size=64),
            "classes": classification.Sets(size=64),
            "grades": classification.Sets(size=64),
        }.get(kind, ranking.Lists())

    def _items(self) -> tuple[Tensor, Tensor]:
        """Features `(sets, items, features)`, and what is to be told `(sets, items, outputs)`."""
        inputs = torch.randn(SETS, self.items, FEATURES, generator=self.random)
        worth = inputs @ self.direction / FEATURES**0.5
        worth = worth + 0.7 * torch.randn(worth.shape, generator=self.random)
        if self.kind == "classes":
            return inputs, one_hot(worth.argmax(2), 5)
        if self.kind == "grades":
            grades = (1.2 * worth[..., 0] + 2).round().long().clamp(0, 4)
            return inputs, one_hot(grades, 5)
        if self.kind == "graded list":
            return inputs, (1.5 * worth[..., :1].exp()).floor().clamp(0, 4)
        if self.kind == "list of numbers":
            return inputs, worth[..., :1]
        if self.kind != "mask":
            return inputs, worth[..., :1] > 1
        rows = torch.arange(16.0)
        centre, radius = (
            low + high * torch.rand(2, SETS, 1, generator=self.random)
            for low, high in ((4, 8), (2, 3))
        )
        far = [((rows - c) / r).square() for c, r in zip(centre, radius)]
        masks = far[0][:, :, None] + far[1][:, None] < 1
        inputs = inputs + 1.6 * masks.reshape(SETS, -1, 1) * self.direction[:, 0]
        return inputs, masks.reshape(SETS, -1, 1)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Features, predictions, targets, as the loss is called."""
        inputs, wanted = self._items()
        z = inputs @ self.weights + self.bias
        if self.kind in ("classes", "grades"):
            return inputs, z.flatten(0, 1), wanted.argmax(2).flatten()
        if self.kind == "mask":
            return inputs, z.view(SETS, 1, 16, 16), wanted.view(SETS, 1, 16, 16).float()
        if self.kind == "marks":
            return inputs, z.flatten(), wanted.flatten()
        return inputs, z[..., 0], wanted[..., 0].float()

    def metric(self, of_batches: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
        """As the loss calls it: with lists of sets, or hard masks of images."""

        def metric(said, true):
            said, true = (torch.stack(list(part)) for part in (said, true))
            if self.kind == "mask":
                said, true = said[:, None].float() - 0.5, true[:, None].float()
            if self.kind == "marks":
                said, true = said.bool(), true.bool()
            return of_batches(said, true)

        return metric


def gradient(criterion: LearnedSurrogateLoss, z: Tensor, targets: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(criterion(z, targets), z, retain_graph=True)
    return found * SETS


def cosines(found: Tensor, true: Tensor, inputs: Tensor) -> str:
    """With respect to predictions, and in the weights."""
    both = [each.reshape(*inputs.shape[:2], -1) for each in (found, true)]
    in_weights = [torch.einsum("sif,sio->fo", inputs, each) for each in both]
    of_predictions, of_weights = (
        torch.cosine_similarity(*(each.flatten() for each in pair), dim=0)
        for pair in (both, in_weights)
    )
    return f"{of_predictions:.3f} / {of_weights:.3f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metrics", nargs="+", default=list(METRICS), choices=list(METRICS))
    parser.add_argument("--draws", type=int, default=20_000, help="of the truth, in two halves")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("cosines with respect to predictions / in the weights")
    for name in options.metrics:
        kind, of_batches = METRICS[name]
        problem = Problem(kind)
        settings = {"task": problem.task, "batched": True, "higher_is_better": False}
        metric = problem.metric(of_batches)
        losses = {
            "known": LearnedSurrogateLoss(metric, correction=0.0, **settings),
            "one call": LearnedSurrogateLoss(metric, **settings),
            "unbiased": LearnedSurrogateLoss(metric, correction=1.0, **settings),
            "draws alone": LearnedSurrogateLoss(metric, surrogate="none", **settings),
        }
        nets = LearnedSurrogateLoss(of_batches, higher_is_better=False)
        for _ in range(100):
            _, *arguments = problem.batch()
            for criterion in losses.values():
                gradient(criterion, *arguments)
            if problem.items > 64:
                gradient(nets, *arguments)
        inputs, *arguments = problem.batch()
        draws = options.draws // 2
        quiet = LearnedSurrogateLoss(metric, draws=draws, correction=1.0, **settings)
        quiet.load_state_dict(losses["unbiased"].state_dict())
        first, second = (gradient(quiet, *arguments) for _ in range(2))
        columns = {
            label: cosines(gradient(criterion, *arguments), first + second, inputs)
            for label, criterion in losses.items()
        }
        columns["truth"] = cosines(first, second, inputs)
        r2 = losses["one call"].stats["surrogate/r2"]
        row = "   ".join(f"{label} {value}" for label, value in columns.items())
        learned = nets.stats["surrogate/r2"]
        share = losses["one call"].stats["gradient/correction"]
        print(f"{name:22} R2 {r2:.3f}   {row}   nets {learned:.3f}   share {share:.2f}", flush=True)


if __name__ == "__main__":
    main()
