"""Targets by their distinct characters."""

import numpy as np

from .._alignment import Labels


class Spelling:
    """Targets by their distinct characters, of which each is a state.

    Args:
        labels: class indices of each sample's target.
        special: class of the blank or the end, which stands where a sample has fewer characters.

    Attributes:
        classes: of the distinct characters, `(batch, characters)`.
        of_column: which of them each column has, -1 behind the target, `(batch, columns)`.
    """

    def __init__(self, labels: Labels, special: int):
        distinct = [list(dict.fromkeys(label)) for label in labels]
        self.special = special
        self.lengths = np.array([len(label) for label in labels], dtype=np.int64)
        self.counts = np.array([len(classes) for classes in distinct], dtype=np.int64)
        self.classes = np.full((len(labels), max(self.counts, default=0)), special)
        self.of_column = np.full((len(labels), max(1, max(self.lengths, default=0))), -1)
        for i, (label, classes) in enumerate(zip(labels, distinct, strict=True)):
            place = {character: k for k, character in enumerate(classes)}
            self.classes[i, : len(classes)] = classes
            self.of_column[i, : len(label)] = [place[character] for character in label]
