"""Contrastive losses of classification beside cross-entropy: who says a vowel?

Two Japanese vowels by nine speakers, 640 times, 12 cepstral coefficients over 7 to 29 frames (Kudo,
Toyama, Shimbo, 1999), as the package aeon carries them; dealt anew for each seed into 270 for
training, 100 for validation and 270 for the test. Methods and controls are those of
`digit_classification.py`, the net is convolutional.

Needs `pip install --group rivals`. Minutes on one core.

Example:
    python examples/benchmarks/vowel_classification.py
"""

import sys
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.contrastive import WIDTH, Problem, print_table, with_wrong
from lib.rivals import rival

CLASSES, COEFFICIENTS, FRAMES = 9, 12, 29
TRAIN, VALIDATION = 270, 100


class Backbone(nn.Module):
    """Two convolutions, and the mean over the frames that there are."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Sequential(
            nn.Conv1d(COEFFICIENTS, 64, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(64, 64, 5, padding=2),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, WIDTH)

    def forward(self, utterances: Tensor) -> Tensor:
        there = utterances[:, -1:]
        found = self.frames(utterances[:, :-1]) * there
        return self.head(found.sum(2) / there.sum(2).clamp(min=1))


@cache
def utterances() -> tuple[Tensor, Tensor]:
    """`(640, 13, 29)`, of which the last channel says which frames there are; speakers `(640,)`."""
    folder = files(rival("aeon")) / "datasets" / "data" / "JapaneseVowels"
    samples, speakers = [], []
    for part in ("TRAIN", "TEST"):
        text = (folder / f"JapaneseVowels_{part}.ts").read_text()
        for line in text.partition("@data")[2].split():
            *channels, speaker = line.split(":")
            rows = [[float(value) for value in channel.split(",")] for channel in channels]
            rows.append([1.0] * len(rows[0]))
            samples.append(F.pad(torch.tensor(rows), (0, FRAMES - len(rows[0]))))
            speakers.append(int(speaker) - 1)
    return torch.stack(samples), torch.tensor(speakers)


def vowels(count: int, wrong: float, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    samples, speakers = utterances()
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(speakers), generator=random)
    samples, speakers = samples[order], speakers[order]
    given = with_wrong(speakers[:TRAIN], wrong, CLASSES, random)
    end = TRAIN + VALIDATION
    return {
        "train": (samples[:count], given[:count]),
        "validation": (samples[TRAIN:end], speakers[TRAIN:end]),
        "test": (samples[end:], speakers[end:]),
    }


def view(samples: Tensor, random: torch.Generator) -> Tensor:
    """Noisy, and without a fifth of the frames."""
    kept = torch.rand(len(samples), 1, FRAMES, generator=random) < 0.8
    noise = 0.1 * torch.randn(samples.shape, generator=random)
    noise[:, -1] = 0.0
    return (samples + noise * samples[:, -1:]) * kept


def problem(count: int, wrong: float = 0.0) -> Problem:
    return Problem(CLASSES, Backbone, partial(vowels, count, wrong), view)


SETTINGS = {
    "45 samples": problem(45),
    "90 samples": problem(90),
    "270 samples": problem(270),
    "30 % wrong labels": problem(270, 0.3),
}


if __name__ == "__main__":
    print_table(__doc__.splitlines()[0], SETTINGS, seeds=5)
