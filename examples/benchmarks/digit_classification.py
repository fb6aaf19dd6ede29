"""Contrastive losses of classification beside cross-entropy, on handwritten digits of scikit-learn.

Few samples, few of half of the classes, or wrong labels in training; clean, balanced digits in
validation and test. Every method trains the same small net from the same start with two augmented
views of each sample, for as many steps, at the better of its learning rates on validation. Controls
are cross-entropy, and cross-entropy for twice as many steps.

Example:
    python examples/benchmarks/digit_classification.py
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.contrastive import WIDTH, Problem, print_table, with_wrong

CLASSES = 10
Choice = Callable[[Tensor, torch.Generator], Tensor]


def backbone() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, WIDTH)
    )


def few(number: int) -> Choice:
    return lambda labels, random: torch.arange(number)


def imbalanced(labels: Tensor, random: torch.Generator) -> Tensor:
    """Digits from 5 on, a tenth of them."""
    return ((labels < 5) | (torch.rand(len(labels), generator=random) < 0.1)).nonzero()[:, 0]


def digits(choose: Choice, wrong: float, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Images `(n, 8, 8)` of about zero mean, and labels: 800, 300 and 697 in a random order."""
    images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=random)
    images, labels = (images[order].float() / 8 - 0.6).view(-1, 8, 8), labels[order]
    chosen = choose(labels[:800], random)
    given = with_wrong(labels[:800], wrong, CLASSES, random)
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


def problem(choose: Choice, wrong: float = 0.0) -> Problem:
    """With these of 800 training samples, of whose labels this share is wrong."""
    return Problem(CLASSES, backbone, partial(digits, choose, wrong), view)


SETTINGS = {
    "50 samples": problem(few(50)),
    "200 samples": problem(few(200)),
    "800 samples": problem(few(800)),
    "5 to 9 at a tenth": problem(imbalanced),
    "30 % wrong labels": problem(few(800), 0.3),
    "50 % wrong labels": problem(few(800), 0.5),
}


if __name__ == "__main__":
    print_table(__doc__.splitlines()[0], SETTINGS, seeds=3)
