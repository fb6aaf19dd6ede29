"""Contrastive losses of classification beside cross-entropy, on handwritten digits of scikit-learn.

Few samples, few of half of the classes, or wrong labels in training; clean, balanced digits in
validation and test. Every method trains the same small net from the same start with two augmented
views of each sample, for as many steps, at the better of its learning rates on validation. Controls
are cross-entropy, and cross-entropy for twice as many steps.

Example:
    python examples/benchmarks/digit_classification.py
"""

import argparse
import math
import statistics
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from learned_surrogates.classification import SPCE, ESupCon, SupCon, Tightness

WIDTH, CLASSES, BATCH = 64, 10, 64
Objective = Callable[[Tensor, Tensor], Tensor]


class Classifier(nn.Module):
    """A net, what trains it, and what classifies by its features.

    Args:
        contrast: a loss of features; None is cross-entropy.
        head: classifies by features, and has a loss that leaves them alone or not.
        projects: whether the contrast is of a projection of the features, as SupCon has it.
    """

    def __init__(self, contrast: nn.Module | None, head: nn.Module, *, projects: bool = False):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, WIDTH)
        )
        self.projection = nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, WIDTH)) if projects else None
        self.contrast, self.head = contrast, head

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        features = self.backbone(images)
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
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """In per cent."""
        features = self.backbone(images)
        linear = isinstance(self.head, nn.Linear)
        found = self.head(features).argmax(1) if linear else self.head.predict(features)
        return 100 * (found == labels).float().mean().item()


def linear() -> nn.Module:
    return nn.Linear(WIDTH, CLASSES)


# How a method is made, and its steps as a multiple of the others'.
METHODS: dict[str, tuple[Callable[[], Classifier], int]] = {
    "cross-entropy": (lambda: Classifier(None, linear()), 1),
    "cross-entropy, twice the steps": (lambda: Classifier(None, linear()), 2),
    "SupCon, linear beside it": (lambda: Classifier(SupCon(), linear(), projects=True), 1),
    "SupCon + Tightness": (
        lambda: Classifier(SupCon(), Tightness(CLASSES, WIDTH), projects=True),
        1,
    ),
    "SPCE + Tightness": (lambda: Classifier(SPCE(CLASSES), Tightness(CLASSES, WIDTH)), 1),
    "ESupCon": (lambda: Classifier(None, ESupCon(CLASSES, WIDTH)), 1),
}


def few(number: int) -> Objective:
    return lambda labels, random: torch.arange(number)


def imbalanced(labels: Tensor, random: torch.Generator) -> Tensor:
    """Digits from 5 on, a tenth of them."""
    return ((labels < 5) | (torch.rand(len(labels), generator=random) < 0.1)).nonzero()[:, 0]


# Which training samples there are, and which share of labels is wrong.
SETTINGS: dict[str, tuple[Objective, float]] = {
    "50 samples": (few(50), 0.0),
    "200 samples": (few(200), 0.0),
    "800 samples": (few(800), 0.0),
    "5 to 9 at a tenth": (imbalanced, 0.0),
    "30 % wrong labels": (few(800), 0.3),
    "50 % wrong labels": (few(800), 0.5),
}


def digits(setting: str, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Images `(n, 8, 8)` of about zero mean, and labels: 800, 300 and 697 in a random order."""
    images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=random)
    images, labels = (images[order].float() / 8 - 0.6).view(-1, 8, 8), labels[order]
    choose, wrong = SETTINGS[setting]
    chosen = choose(labels[:800], random)
    given = labels[:800].clone()
    noisy = torch.rand(800, generator=random) < wrong
    given[noisy] = (given[noisy] + torch.randint(1, 10, (800,), generator=random)[noisy]) % 10
    return {
        "train": (images[chosen], given[chosen]),
        "validation": (images[800:1100].flatten(1), labels[800:1100]),
        "test": (images[1100:].flatten(1), labels[1100:]),
    }


def view(images: Tensor, random: torch.Generator) -> Tensor:
    """Each moved by up to a pixel, and noisy: `(n, 64)`."""
    padded = F.pad(images, (1, 1, 1, 1), value=-0.6)
    places = torch.randint(0, 3, (2, len(images)), generator=random)
    index = torch.arange(8)
    rows, columns = places[0, :, None] + index, places[1, :, None] + index
    moved = padded[torch.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None]]
    noise = 0.2 * torch.randn(moved.shape, generator=random)
    return (moved + noise).flatten(1)


def trained(name: str, setting: str, seed: int, rate: float, steps: int) -> tuple[float, float]:
    """Accuracy on validation and test after Adam, whose rate falls by a cosine."""
    data = digits(setting, seed)
    make, multiple = METHODS[name]
    torch.manual_seed(seed)
    model, random = make(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)
    images, labels = data["train"]
    for step in range(multiple * steps):
        optimizer.param_groups[0]["lr"] = (
            rate * (1 + math.cos(math.pi * step / (multiple * steps))) / 2
        )
        some = torch.randint(0, len(labels), (BATCH,), generator=random)
        views = torch.cat([view(images[some], random) for _ in range(2)])
        optimizer.zero_grad()
        model.loss(views, labels[some].repeat(2)).backward()
        optimizer.step()
    return model.accuracy(*data["validation"]), model.accuracy(*data["test"])


def best(name: str, setting: str, rates: Iterable[float], steps: int, seeds: int) -> list[float]:
    """Test accuracies of the seeds at the rate that is best on validation."""
    tried = []
    for rate in rates:
        pairs = [trained(name, setting, seed, rate, steps) for seed in range(seeds)]
        validation, test = zip(*pairs, strict=True)
        tried.append((statistics.mean(validation), list(test)))
    return max(tried)[1]


def main() -> None:
    """Train and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    add("--seeds", type=int, default=3)
    add("--steps", type=int, default=300)
    add("--rates", type=float, nargs="+", default=[1e-3, 3e-3])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| | " + " | ".join(METHODS) + " |\n|---|" + "---|" * len(METHODS))
    for setting in options.settings:
        cells = []
        for name in METHODS:
            scores = best(name, setting, options.rates, options.steps, options.seeds)
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            cells.append(f"{statistics.mean(scores):.1f} ± {spread:.1f}")
        print(f"| {setting} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
