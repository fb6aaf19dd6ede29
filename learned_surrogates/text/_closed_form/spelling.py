"""Targets by their distinct characters."""

from collections.abc import Sequence

import numpy as np

from .._alignment import Labels

# The letter of what is none of the target's.
NONE = -2


class Spelling:
    """Targets by their distinct letters, each of which has a state for each class that it may be.

    A letter is one class, unless some are folded: then `a` and `A` are one letter, and two classes,
    which CTC merges with nothing but themselves.

    Args:
        labels: class indices of each sample's target, the one that stands for its letter each.
        special: class of the blank or the end, which stands where a sample has fewer states.
        folded: for each class, the one that stands for its letter; None if each is its own.

    Attributes:
        classes: of the states, `(batch, states)`.
        letters: of the states and, behind them, of what is none, `(batch, states + 1)`.
        of_column: which letter each column has, -1 behind the target, `(batch, columns)`.
        counts: of states, `(batch,)`.
        lengths: of the targets, `(batch,)`.
        folds: whether a letter has several states.
    """

    def __init__(self, labels: Labels, special: int, folded: Sequence[int] | None = None):
        distinct = [list(dict.fromkeys(label)) for label in labels]
        alike: dict[int, list[int]] = {}
        for index, letter in enumerate(folded or ()):
            alike.setdefault(letter, []).append(index)
        states = [
            [(n, c) for n, letter in enumerate(own) for c in alike.get(letter, [letter])]
            for own in distinct
        ]
        self.special = special
        self.lengths = np.array([len(label) for label in labels], dtype=np.int64)
        self.counts = np.array([len(own) for own in states], dtype=np.int64)
        self.folds = any(len(own) > len(only) for own, only in zip(states, distinct, strict=True))
        most = max(self.counts, default=0)
        self.classes = np.full((len(labels), most), special)
        self.letters = np.full((len(labels), most + 1), NONE)
        self.of_column = np.full((len(labels), max(1, max(self.lengths, default=0))), -1)
        for i, (label, own) in enumerate(zip(labels, states, strict=True)):
            place = {letter: n for n, letter in enumerate(distinct[i])}
            self.letters[i, : len(own)] = [letter for letter, _ in own]
            self.classes[i, : len(own)] = [c for _, c in own]
            self.of_column[i, : len(label)] = [place[letter] for letter in label]
