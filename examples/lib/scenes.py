"""Scenes with rotated words, rendered on the fly and without end, and the words' boxes.

An image shows 1 to 4 words, at angles of up to 60 degrees, on a cluttered background, among rows of
bars that could be taken for words from afar. Words and fonts are those of `word_images.py`, with
its splits: test scenes show words and fonts that training scenes never do.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from learned_surrogates import boxes

from .distortion import blur
from .word_images import Split, WordImages

# Of an image, in pixels.
SIZE = 128
MOST_WORDS = 4
MOST_DISTRACTORS = 2
LARGEST_ANGLE = math.pi / 3
# Sides of a box in pixels.
THINNEST, LONGEST = 7.0, 100.0
# Between a word's ink and its box, and between a box and the next, in pixels.
PADDING, GAP = 1.0, 3.0
TRIES = 12


class Scenes:
    """An endless stream of scenes with the boxes of their words.

    Args:
        split: which words and fonts to draw from.
        seed: the same seed gives the same scenes; batches of another size make another stream.
    """

    def __init__(self, split: Split, seed: int):
        self._words = WordImages(split, seed)
        streams = ["train", "validation", "test"]
        self._random = torch.Generator().manual_seed(3 * seed + streams.index(split) + 10**6)
        self._bars = np.random.default_rng([seed, streams.index(split), 2])

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """The next scenes.

        Returns:
            Images `(size, 1, 128, 128)` in [0, 1]; boxes `(size, 4, 5)` as centre, width along the
            text, height and angle (see `boxes.Rotated`); and which of them are there, `(size, 4)`.
        """
        image, paper = self._background(size)
        counts = torch.randint(1, MOST_WORDS + 1, (size, 1), generator=self._random)
        others = torch.randint(0, MOST_DISTRACTORS + 1, (size, 1), generator=self._random)
        slots = torch.arange(MOST_WORDS + MOST_DISTRACTORS)
        wanted = torch.where(slots < MOST_WORDS, slots < counts, slots - MOST_WORDS < others)
        placed = torch.zeros(size, len(slots), 5)
        present = torch.zeros(size, len(slots), dtype=torch.bool)
        for slot in range(len(slots)):
            masks = self._masks(size) if slot < MOST_WORDS else self._rows_of_bars(size)
            box, present[:, slot] = self._place(masks, placed, present, wanted[:, slot])
            placed[:, slot] = torch.where(present[:, slot, None], box, 0.0)
            ink = self._seen(masks, box) * present[:, slot, None, None, None]
            contrast = self._uniform(size, 0.25, 0.8)
            tone = torch.where(paper + contrast > 1, paper - contrast, paper + contrast)
            image = image.lerp(tone.clamp(0, 1), ink)
        image = blur(image, self._uniform(size, 0.3, 0.9))
        noise = torch.randn(image.shape, generator=self._random)
        image = (image + noise * self._uniform(size, 0.01, 0.08)).clamp(0, 1)
        return image, placed[:, :MOST_WORDS], present[:, :MOST_WORDS]

    def _uniform(self, size: int, low: float, high: float) -> Tensor:
        return torch.rand(size, 1, 1, 1, generator=self._random) * (high - low) + low

    def _background(self, size: int) -> tuple[Tensor, Tensor]:
        """Clouds and stripes, `(size, 1, 128, 128)`, and the tone that they are about."""
        paper = self._uniform(size, 0.1, 0.9)
        image = paper.expand(-1, -1, SIZE, SIZE)
        for cells, strength in ((3, 0.08), (16, 0.05)):
            coarse = torch.randn(size, 1, cells, cells, generator=self._random)
            image = image + strength * functional.interpolate(coarse, SIZE, mode="bicubic")
        at = torch.arange(SIZE) - SIZE / 2
        for _ in range(3):
            angle = self._uniform(size, 0, math.pi)
            across = at * angle.cos() + at[:, None] * angle.sin() - self._uniform(size, -60, 60)
            line = (self._uniform(size, 0.5, 3) - across.abs()).clamp(0, 1)
            image = image.lerp(self._uniform(size, 0, 1), line * (self._uniform(size, -1, 1) > 0))
        return image, paper

    def _masks(self, size: int) -> Tensor:
        masks = [self._words.render(self._words.word()) for _ in range(size)]
        return torch.from_numpy(np.stack(masks)).unsqueeze(1).float() / 255

    def _rows_of_bars(self, size: int) -> Tensor:
        """Rows of bars as high as a word is, in masks of the same size."""
        rng, masks = self._bars, torch.zeros(size, 1, 40, 112)
        for mask in masks:
            pen, top, bottom = 16, int(rng.integers(12, 16)), int(rng.integers(23, 28))
            while pen < rng.integers(40, 96):
                width = int(rng.integers(1, 6))
                mask[
                    0, top + rng.integers(0, 4) : bottom - rng.integers(0, 4), pen : pen + width
                ] = 1
                pen += width + int(rng.integers(1, 5))
        return masks

    def _place(
        self, masks: Tensor, placed: Tensor, present: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Boxes `(size, 5)` for masks, inside the image and clear of those placed before."""
        (size, slots), (width, height) = present.shape, ink_box(masks)[:, 2:].unbind(1)
        box, free = torch.zeros(size, 5), torch.zeros(size, dtype=torch.bool)
        for _ in range(TRIES):
            least = (THINNEST / height).clamp(max=1.5)
            scale = least + (1.2 - least).clamp(min=0) * self._uniform(size, 0, 1).flatten()
            scale = torch.minimum(scale, LONGEST / width)
            centre = SIZE * torch.rand(size, 2, generator=self._random)
            angle = LARGEST_ANGLE * self._uniform(size, -1, 1).flatten()
            sides = torch.stack([scale * width, scale * height], 1)
            tried = torch.cat([centre, sides, angle[:, None]], 1)
            fits = (sides[:, 1] >= THINNEST) & inside(tried)
            wide = tried + tried.new_tensor([0, 0, 2 * GAP, 2 * GAP, 0])
            overlap = boxes.rotated_iou(wide.repeat_interleave(slots, 0), placed.flatten(0, 1))
            fits &= ~((overlap.view(size, slots) > 0) & present).any(1)
            box = torch.where((fits & ~free)[:, None], tried, box)
            free |= fits
            if free.all():
                break
        return box, free & wanted

    def _seen(self, masks: Tensor, box: Tensor) -> Tensor:
        """Masks as they lie in the image, `(size, 1, 128, 128)`."""
        ink = ink_box(masks)
        x, y, width, _, angle = box[:, :, None, None].unbind(1)
        at = torch.arange(SIZE) + 0.5
        across, down = at - x, at[:, None] - y
        u = across * angle.cos() + down * angle.sin()
        v = down * angle.cos() - across * angle.sin()
        scale = ink[:, 2, None, None] / width.clamp(min=1.0)
        grid = torch.stack(
            [
                (ink[:, 0, None, None] + u * scale) * 2 / masks.shape[3] - 1,
                (ink[:, 1, None, None] + v * scale) * 2 / masks.shape[2] - 1,
            ],
            3,
        )
        return functional.grid_sample(masks, grid, align_corners=False)

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream."""
        return {
            "words": self._words.state_dict(),
            "random": self._random.get_state(),
            "bars": self._bars.bit_generator.state,
        }


def rendered(stream: Scenes, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """So many scenes at once, as `Scenes.batch` gives them, but images as uint8, 0 to 255."""
    parts = [stream.batch(min(64, count - start)) for start in range(0, count, 64)]
    images = torch.cat([(255 * part[0]).round().to(torch.uint8) for part in parts])
    return images, torch.cat([part[1] for part in parts]), torch.cat([part[2] for part in parts])


def ink_box(masks: Tensor) -> Tensor:
    """Centre and padded size of what masks `(batch, 1, height, width)` show, `(batch, 4)`."""
    sides = []
    for dim in (2, 3):
        some = (masks > 0.3).any(dim).squeeze(1).float()  # over columns, then over rows
        first = some.argmax(1)
        last = some.shape[1] - some.flip(1).argmax(1)
        sides.append((first, last))
    (left, right), (top, bottom) = sides
    centre = torch.stack([left + right, top + bottom], 1) / 2
    size = torch.stack([right - left, bottom - top], 1) + 2 * PADDING
    return torch.cat([centre, size.float()], 1)


def inside(rectangles: Tensor) -> Tensor:
    """Which boxes `(batch, 5)` lie within the image, `(batch,)`."""
    x, y, width, height, angle = rectangles.unbind(1)
    reach_x = (width * angle.cos().abs() + height * angle.sin().abs()) / 2
    reach_y = (width * angle.sin().abs() + height * angle.cos().abs()) / 2
    return (x > reach_x) & (x < SIZE - reach_x) & (y > reach_y) & (y < SIZE - reach_y)
