"""Contrastive losses of classification and their controls: what is trained, and how."""

import argparse
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learned_surrogates.classification import SPCE, ESupCon, SupCon, Tightness

# Of features, and of a batch.
WIDTH, BATCH = 64, 64


@dataclass(frozen=True)
class Problem:
    """Samples of classes, and a net for them.

    Attributes:
        classes: how many there are.
        backbone: makes a net whose features are `(n, WIDTH)`.
        splits: samples and labels of "train", "validation" and "test", by seed.
        view: a random view of training samples, as the net takes them.
    """

    classes: int
    backbone: Callable[[], nn.Module]
    splits: Callable[[int], dict[str, tuple[Tensor, Tensor]]]
    view: Callable[[Tensor, torch.Generator], Tensor]


class Classifier(nn.Module):
    """A net, what trains it, and what classifies by its features.

    Args:
        backbone: makes features `(n, WIDTH)`.
        contrast: a loss of features; None is cross-entropy.
        head: classifies by features, and has a loss that leaves them alone or not.
        projects: whether the contrast is of a projection of the features, as SupCon has it.
    """

    def __init__(
        self,
        backbone: nn.Module,
        contrast: nn.Module | None,
        head: nn.Module,
        *,
        projects: bool = False,
    ):
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, WIDTH)) if projects else None
        self.contrast, self.head = contrast, head

    def loss(self, samples: Tensor, labels: Tensor) -> Tensor:
        features = self.backbone(samples)
        if isinstance(self.head, ESupCon):
            return self.head(features, labels)
        if self.contrast is None:
            return F.cross_entropy(self.head(features), labels)
        seen = features if self.projection is None else self.projection(features)
        loss = self.contrast(seen, labels)
        if isinstance(self.head, Tightness):
            return loss + self.head(features, labels)
        return loss + F.cross_entropy(self.head(features.detach()), labels)

    @torch.no_grad()
    def accuracy(self, samples: Tensor, labels: Tensor) -> float:
        """In per cent."""
        features = self.backbone(samples)
        linear = isinstance(self.head, nn.Linear)
        found = self.head(features).argmax(1) if linear else self.head.predict(features)
        return 100 * (found == labels).float().mean().item()


def cross_entropy(problem: Problem) -> Classifier:
    return Classifier(problem.backbone(), None, nn.Linear(WIDTH, problem.classes))


def supcon(problem: Problem) -> Classifier:
    head = nn.Linear(WIDTH, problem.classes)
    return Classifier(problem.backbone(), SupCon(), head, projects=True)


def supcon_tightness(problem: Problem) -> Classifier:
    head = Tightness(problem.classes, WIDTH)
    return Classifier(problem.backbone(), SupCon(), head, projects=True)


def spce_tightness(problem: Problem) -> Classifier:
    head = Tightness(problem.classes, WIDTH)
    return Classifier(problem.backbone(), SPCE(problem.classes), head)


def esupcon(problem: Problem) -> Classifier:
    return Classifier(problem.backbone(), None, ESupCon(problem.classes, WIDTH))


# How a method is made, and its steps as a multiple of the others'.
METHODS: dict[str, tuple[Callable[[Problem], Classifier], int]] = {
    "cross-entropy": (cross_entropy, 1),
    "cross-entropy, twice the steps": (cross_entropy, 2),
    "SupCon, linear beside it": (supcon, 1),
    "SupCon + Tightness": (supcon_tightness, 1),
    "SPCE + Tightness": (spce_tightness, 1),
    "ESupCon": (esupcon, 1),
}


def with_wrong(labels: Tensor, share: float, classes: int, random: torch.Generator) -> Tensor:
    """Labels of which this share is another class's."""
    wrong = torch.rand(len(labels), generator=random) < share
    others = torch.randint(1, classes, (len(labels),), generator=random)
    return torch.where(wrong, (labels + others) % classes, labels)


def trained(problem: Problem, name: str, seed: int, rate: float, steps: int) -> tuple[float, float]:
    """Accuracy on validation and test after Adam, whose rate falls by a cosine."""
    data = problem.splits(seed)
    make, multiple = METHODS[name]
    torch.manual_seed(seed)
    model, random = make(problem), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)
    samples, labels = data["train"]
    for step in range(multiple * steps):
        optimizer.param_groups[0]["lr"] = (
            rate * (1 + math.cos(math.pi * step / (multiple * steps))) / 2
        )
        some = torch.randint(0, len(labels), (BATCH,), generator=random)
        views = torch.cat([problem.view(samples[some], random) for _ in range(2)])
        optimizer.zero_grad()
        model.loss(views, labels[some].repeat(2)).backward()
        optimizer.step()
    return model.accuracy(*data["validation"]), model.accuracy(*data["test"])


def best(
    problem: Problem, name: str, rates: Iterable[float], steps: int, seeds: int
) -> list[float]:
    """Test accuracies of the seeds at the rate that is best on validation."""
    tried = []
    for rate in rates:
        pairs = [trained(problem, name, seed, rate, steps) for seed in range(seeds)]
        validation, test = zip(*pairs, strict=True)
        tried.append((statistics.mean(validation), list(test)))
    return max(tried)[1]


def print_table(description: str, settings: Mapping[str, Problem], *, seeds: int) -> None:
    """Trains with every method in each setting, and prints accuracies."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--settings", nargs="+", choices=list(settings), default=list(settings))
    add("--seeds", type=int, default=seeds)
    add("--steps", type=int, default=300)
    add("--rates", type=float, nargs="+", default=[1e-3, 3e-3])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| | " + " | ".join(METHODS) + " |\n|---|" + "---|" * len(METHODS))
    for setting in options.settings:
        cells = []
        for name in METHODS:
            scores = best(settings[setting], name, options.rates, options.steps, options.seeds)
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            cells.append(f"{statistics.mean(scores):.1f} ± {spread:.1f}")
        print(f"| {setting} | {' | '.join(cells)} |", flush=True)
