"""Sentences, spoken by many voices at many speeds in noise, as features: rendered into memory."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.word_images import Split

from .espeak import RATE, Synthesiser, Voice
from .features import log_mel
from .sentences import sentences

ACCENTS = ("en-us", "en-us-nyc", "en-gb-x-rp", "en")
# eSpeak NG's variants. Those of one number or letter less, such as klatt2 beside klatt, can be near
# to each other: none of them is in another split.
VARIANTS: dict[Split, tuple[str, ...]] = {
    "train": (
        *("f1", "f2", "m1", "m2", "m3", "m4", "adam", "Andy", "belinda", "boris", "david", "ed"),
        *("Gene", "grandma", "john", "klatt", "klatt2", "linda", "max", "Mike", "norbert"),
        *("pablo", "quincy", "robert", "sandro", "steph", "travis", "victor", "Reed", "Annie"),
    ),
    "validation": ("f3", "m5", "m6", "Alex", "Henrique", "shelby", "paul", "zac"),
    "test": ("f4", "f5", "m7", "m8", "Michael", "marcelo", "aunty", "iven", "Lee", "Hugo"),
}
BATCH = 16
# Sentences of so many batches are sorted by length, so that little of a batch is padding.
SORTED = 10
# Words a minute, pitch, and decibels from speech to noise.
SPEEDS, PITCHES, RATIOS = (140, 210), (30, 70), (5.0, 25.0)


class Spoken(NamedTuple):
    """Features of each sentence, `(bands, frames)` in half precision, and the sentences."""

    features: list[Tensor]
    texts: list[str]


def spoken(split: Split, count: int, seed: int) -> Spoken:
    """Sentences that no other split has, by voices that no other split has.

    Each band has mean 0 and variance 1 over a sentence's frames.

    Args:
        split: which sentences and voices.
        count: how many sentences.
        seed: the same one gives the same features.

    Raises:
        ModuleNotFoundError: eSpeak NG is not installed.
    """
    synthesiser = Synthesiser()
    rng = np.random.default_rng([seed, list(VARIANTS).index(split)])
    texts = sentences(split, count, rng)
    features = []
    for text in texts:
        wave = noisy(synthesiser.say(text, any_voice(split, rng)), rng)
        bands = log_mel(torch.from_numpy(wave))
        variance, mean = torch.var_mean(bands, 1, keepdim=True)
        features.append(((bands - mean) / (variance + 1e-3).sqrt()).half())
    return Spoken(features, texts)


def any_voice(split: Split, rng: np.random.Generator) -> Voice:
    accent, variant = rng.choice(ACCENTS), rng.choice(VARIANTS[split])
    return Voice(f"{accent}+{variant}", int(rng.integers(*SPEEDS)), int(rng.integers(*PITCHES)))


def noisy(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With a tenth of a second before and behind it, and noise from white to brown over all."""
    wave = np.pad(wave, RATE // 10)
    # A power of two, of which the transform is quick.
    spectrum = np.fft.rfft(rng.standard_normal(1 << len(wave).bit_length()))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20) ** -rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum)[: len(wave)]
    loudness = np.sqrt((wave**2).mean() / (noise**2).mean()) * 10 ** (-rng.uniform(*RATIOS) / 20)
    return (wave + loudness * noise).astype(np.float32)


def batches(features: list[Tensor], steps: int, seed: int) -> Iterator[list[int]]:
    """Indices of `BATCH` sentences that are about as long, shuffled anew whenever all have been.

    Raises:
        ValueError: fewer than `SORTED * BATCH` sentences.
    """
    if len(features) < SORTED * BATCH:
        raise ValueError(f"at least {SORTED * BATCH} sentences are needed; got {len(features)}")
    rng = np.random.default_rng([seed, 5])
    lengths = np.array([each.shape[1] for each in features])
    while True:
        order = rng.permutation(len(features))
        for start in range(0, len(order) - SORTED * BATCH + 1, SORTED * BATCH):
            near = order[start : start + SORTED * BATCH]
            by_length = near[lengths[near].argsort(kind="stable")].reshape(SORTED, BATCH)
            for chosen in rng.permutation(by_length).tolist():
                if not steps:
                    return
                steps -= 1
                yield chosen
