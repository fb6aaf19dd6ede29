"""What a recogniser is trained on: labels with typing errors, and its own readings."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# Of the labels with typing errors.
WRONG = 0.4


def with_errors(texts: Sequence[str], alphabet: str, rng: np.random.Generator) -> list[str]:
    """Two texts in five get 1 to 3 random edits, independent of what anyone reads."""
    return [edited(text, alphabet, rng) if rng.random() < WRONG else text for text in texts]


def edited(text: str, alphabet: str, rng: np.random.Generator) -> str:
    """Another text, 1 to 3 substitutions, insertions or deletions away."""
    label = text
    while label == text or not label:
        for _ in range(rng.integers(1, 4)):
            place, kind = int(rng.integers(len(label) + 1)), rng.integers(3)
            new = "" if kind == 0 else alphabet[rng.integers(len(alphabet))]
            label = label[:place] + new + label[place + (kind != 1) :]
    return label


def view(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images `(batch, 1, height, width)`, a little moved and scaled, and noisier."""
    batch = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(batch, generator=generator) * (high - low) + low

    moves = torch.zeros(batch, 2, 3)
    moves[:, 0, 0], moves[:, 1, 1] = uniform(0.96, 1.0), uniform(0.85, 1.15)
    moves[:, 0, 2], moves[:, 1, 2] = uniform(-0.03, 0.03), uniform(-0.12, 0.12)
    moves[:, 0, 1] = uniform(-0.05, 0.05)
    grid = functional.affine_grid(moves, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    noise = torch.randn(images.shape, generator=generator)
    return (moved + 0.03 * noise).clamp(0, 1)


def majority(readings: Sequence[Sequence[str]]) -> list[str | None]:
    """The reading that most of an image's views have in common; None where there is none.

    Args:
        readings: of each view, the texts of all images.
    """
    votes = [Counter(texts).most_common(1)[0] for texts in zip(*readings, strict=True)]
    return [text if 2 * count > len(readings) and text else None for text, count in votes]
