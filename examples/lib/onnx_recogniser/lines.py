"""Images of printed lines: serials, dates, and lines of receipts, in fonts that packages carry."""

import string
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from lib.word_images import (
    HELD_OUT_FAMILIES,
    TRAINING_FAMILIES,
    Split,
    english_words,
    font_files,
    in_split,
)

from .recogniser import HEIGHT

WIDTH = 256
ALPHABET = string.digits + string.ascii_letters + " -./:"
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def lines(split: Split, count: int, seed: int) -> tuple[Tensor, list[str]]:
    """Images `(count, 1, 48, 256)` in [0, 1], and their texts.

    "train" and "validation" have the same fonts, "test" other ones; no two splits share a text, nor
    a word of a receipt.
    """
    rng = np.random.default_rng([seed, ["train", "validation", "test"].index(split)])
    words = [
        word.capitalize() for word in english_words() if in_split(word, split) and len(word) < 8
    ]
    fonts = font_files(HELD_OUT_FAMILIES if split == "test" else TRAINING_FAMILIES)
    texts: list[str] = []
    while len(texts) < count:
        text = KINDS[rng.integers(len(KINDS))](rng, words)
        if in_split(text, split):
            texts.append(text)
    masks = np.stack([render(text, fonts[rng.integers(len(fonts))], rng) for text in texts])
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return photograph(torch.from_numpy(masks).unsqueeze(1).float() / 255, generator), texts


def serial(rng: np.random.Generator, words: list[str]) -> str:
    signs = list(string.digits + string.ascii_uppercase)
    groups = ["".join(rng.choice(signs, rng.integers(3, 6))) for _ in range(rng.integers(2, 4))]
    return "-/."[rng.integers(3)].join(groups)


def date(rng: np.random.Generator, words: list[str]) -> str:
    year, month, day = rng.integers(1990, 2040), rng.integers(1, 13), rng.integers(1, 29)
    hour, minute = rng.integers(24), rng.integers(60)
    return [
        f"{year}-{month:02}-{day:02} {hour:02}:{minute:02}",
        f"{day:02}.{month:02}.{year} {hour}:{minute:02}",
        f"{day} {MONTHS[month - 1]} {year}",
        f"{month:02}/{day:02}/{year % 100:02} {hour:02}:{minute:02}",
    ][rng.integers(4)]


def receipt(rng: np.random.Generator, words: list[str]) -> str:
    return f"{rng.choice(words)} {rng.integers(1, 10)}x {rng.integers(100)}.{rng.integers(100):02}"


KINDS: tuple[Callable[[np.random.Generator, list[str]], str], ...] = (serial, date, receipt)


def render(text: str, font: str, rng: np.random.Generator) -> np.ndarray:
    """White on black, `(48, 256)`, from the left to where the text ends."""
    largest = ImageFont.truetype(font, 64).getlength(text) / 64
    size = min(rng.uniform(24, 36), (WIDTH - 16) / largest)
    face = ImageFont.truetype(font, size)
    image = Image.new("L", (WIDTH, HEIGHT))
    left = rng.uniform(4, max(5.0, WIDTH - 8 - face.getlength(text)))
    ImageDraw.Draw(image).text((left, HEIGHT / 2), text, fill=255, font=face, anchor="lm")
    return np.asarray(image)


def photograph(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Grey images of masks, as a cheap camera sees them: askew, coarse, badly lit, noisy.

    Args:
        masks: `(batch, 1, height, width)` in [0, 1].
        generator: of all that is random.
    """
    batch, _, height, width = masks.shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(batch, 1, 1, 1, generator=generator) * (high - low) + low

    y = torch.linspace(-1, 1, height).view(1, 1, -1, 1)
    x = torch.linspace(-1, 1, width).view(1, 1, 1, -1)
    bend = uniform(-0.12, 0.12) * x + uniform(-0.12, 0.12) * x**2
    down = uniform(0.85, 1.2) * y + bend + uniform(-0.1, 0.1)
    across = x + uniform(-0.04, 0.04) * y
    grid = torch.stack([across.expand(-1, -1, height, -1), down.expand(-1, -1, -1, width)], -1)
    ink = functional.grid_sample(masks, grid.squeeze(1), align_corners=False)
    coarse = [
        functional.interpolate(
            functional.interpolate(one[None], scale_factor=scale, mode="area"),
            (height, width),
            mode="bilinear",
        )
        for one, scale in zip(ink, uniform(0.3, 0.9).flatten().tolist(), strict=True)
    ]
    light = functional.interpolate(
        torch.randn(batch, 1, 3, 6, generator=generator), (height, width), mode="bicubic"
    )
    contrast = uniform(0.25, 0.8)
    paper = uniform(0.8, 1.0) + 0.08 * light
    noise = torch.randn(masks.shape, generator=generator) * uniform(0.01, 0.08)
    return (paper - contrast * torch.cat(coarse) + noise).clamp(0, 1)
