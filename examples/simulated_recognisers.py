"""Outputs of recognisers that never were: texts of any alphabet, read with doubts and mistakes.

A simulated recogniser weighs a few readings of a text, the right one or distorted ones, and is more
or less sure at each position; with the CTC head, characters lie on frames, for one to three of
them, somewhat earlier in one reading and later in another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learned_surrogates import Task, text

Head = Literal["ctc", "characters"]
Reading = list[int]

READINGS = 4
# Any characters do; a surrogate that names none cannot tell.
FIRST_CHARACTER = 0x4E00
LARGEST_ALPHABET = 200
LONGEST_TEXT = 20
SPECIAL = 0


@dataclass(frozen=True)
class Outputs:
    """What one simulated recogniser says of a batch of texts.

    Attributes:
        task: `text.CTC` or `text.Characters`, with the recogniser's alphabet.
        arguments: what the loss is called with.
        texts: the targets.
    """

    task: Task
    arguments: tuple[Tensor, ...]
    texts: list[str]


def simulate(
    head: Head, count: int, rng: np.random.Generator, *, alphabet_size: int | None = None
) -> Outputs:
    """A new recogniser's outputs for `count` random texts.

    Args:
        head: "ctc" or "characters".
        count: texts.
        rng: the only source of chance.
        alphabet_size: characters; None draws 2 to 200.
    """
    size = alphabet_size or int(np.exp(rng.uniform(np.log(2), np.log(LARGEST_ALPHABET + 1))))
    longest = int(rng.integers(3, LONGEST_TEXT + 1))
    frequencies = rng.dirichlet(np.full(size, rng.uniform(0.3, 3)))
    texts = [_text(rng, longest, frequencies) for _ in range(count)]
    lay_out = _characters if head == "characters" else _frames
    slack = int(rng.integers(1, 5)) if head == "characters" else int(rng.integers(3, 20))
    length = longest + slack if head == "characters" else 2 * longest + slack
    # Class of each position in each reading: (count, READINGS, length).
    mistakes = rng.uniform(0, 0.7)
    readings = [_readings(rng, text, size, mistakes) for text in texts]
    single = rng.uniform(0.4, 1)
    classes = np.stack([lay_out(rng, of_text, length, single) for of_text in readings])

    doubt = rng.uniform(0.2, 3)
    weights = rng.normal(0, doubt, (count, READINGS, 1)) + rng.normal(0, 1, classes.shape)
    weights[:, 0] += rng.uniform(0, 10) * rng.random((count, 1))
    weights = np.exp(weights)
    weights /= weights.sum(1, keepdims=True)
    probabilities = np.zeros((count, size + 1, length))
    rows = np.arange(count)[:, None], np.arange(length)[None]
    for reading in range(READINGS):
        np.add.at(probabilities, (rows[0], classes[:, reading], rows[1]), weights[:, reading])
    # A frame that is wrongly not blank adds a character, so a recogniser of frames must be surer of
    # what is blank. What a character is, it may doubt as much as the other head.
    most = -1.3 if head == "characters" else -2.0
    floor = 10 ** rng.uniform(-6, most) / (size + 1)
    noise = rng.normal(0, 1, probabilities.shape) * rng.uniform(0.2, 1.5)
    sharpness = rng.uniform(0.5, 2) if head == "characters" else rng.uniform(0.8, 2)
    if head == "ctc":
        doubt = 10 ** (rng.uniform(0, 1.3) * (1 - probabilities[:, SPECIAL, None]))
        floor = (floor * doubt) ** (1 / sharpness)
    logits = np.log(probabilities + floor) * sharpness + noise
    return _arguments(head, torch.from_numpy(logits).float(), texts, size)


def _text(rng: np.random.Generator, longest: int, frequencies: NDArray[np.float64]) -> Reading:
    """Class indices, 1 for the first character."""
    length = int(rng.integers(0, longest + 1))
    return [int(c) + 1 for c in rng.choice(len(frequencies), length, p=frequencies)]


def _readings(rng: np.random.Generator, text: Reading, size: int, mistakes: float) -> list[Reading]:
    """The recogniser's hypotheses, the first one with most weight."""
    wrong = rng.random() < mistakes
    first = _distorted(rng, text, size) if wrong else text
    # Others are near the first, as different readings of one image are, or near the truth.
    return [first] + [
        _distorted(rng, text if rng.random() < 0.5 else first, size) for _ in range(READINGS - 1)
    ]


def _distorted(rng: np.random.Generator, text: Reading, size: int) -> Reading:
    most = 3 if rng.random() < 0.8 else len(text) + 2
    reading = list(text)
    for _ in range(int(rng.integers(0, most + 1))):
        kind, place = rng.integers(3), int(rng.integers(len(reading) + 1))
        new = int(rng.integers(1, size + 1))
        if rng.random() < 0.2 and reading:  # a character doubled, or beside its place
            new = reading[min(place, len(reading) - 1)]
        if kind == 0:
            reading.insert(place, new)
        elif place < len(reading):
            reading[place : place + 1] = [] if kind == 1 else [new]
    return reading


def _characters(
    rng: np.random.Generator, readings: Sequence[Reading], length: int, single: float
) -> NDArray[np.int64]:
    """A class for each position: the text, then the end symbol."""
    classes = np.full((len(readings), length), SPECIAL)
    for row, reading in zip(classes, readings):
        row[: len(reading)] = reading[:length]
    return classes


def _frames(
    rng: np.random.Generator, readings: Sequence[Reading], length: int, single: float
) -> NDArray[np.int64]:
    """A class for each frame: characters for one to three frames, a share for a single one."""
    classes = np.full((len(readings), length), SPECIAL)
    # The text covers a part of the frames, the same one in all readings.
    first, last = np.sort(rng.uniform(0, 1, 2) * [0.2, 0.2] + [0, 0.8]) * length
    durations = rng.choice([1, 2, 3], 64, p=[single, 0.7 * (1 - single), 0.3 * (1 - single)])
    for row, reading in zip(classes, readings):
        starts = np.linspace(first, last, len(reading) + 1)[:-1] + rng.uniform(-0.7, 0.7)
        starts = np.round(starts + rng.uniform(-0.3, 0.3, len(reading))).astype(int)
        for place, (start, character) in enumerate(zip(starts, reading)):
            start = max(start, 0)
            row[start : start + durations[place % 64]] = character
            if place and reading[place - 1] == character and start and rng.random() < 0.9:
                row[start - 1 : start] = SPECIAL
    return classes


def _arguments(head: Head, logits: Tensor, texts: list[Reading], size: int) -> Outputs:
    alphabet = [chr(FIRST_CHARACTER + i) for i in range(size)]
    spelt = ["".join(alphabet[c - 1] for c in classes) for classes in texts]
    count, _, length = logits.shape
    target = torch.full((count, length), SPECIAL)
    for row, classes in zip(target, texts):
        row[: len(classes)] = torch.tensor(classes, dtype=torch.int64)[:length]
    if head == "characters":
        return Outputs(text.Characters(alphabet), (logits, target), spelt)
    lengths = torch.tensor([len(classes) for classes in texts])
    frames = torch.full((count,), length)
    return Outputs(
        text.CTC(alphabet),
        (logits.permute(2, 0, 1).log_softmax(2), target, frames, lengths),
        spelt,
    )
