"""Edit distances, as metrics ready to hand over."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist

from .._checks import check_number


def edit_distance(predictions: Sequence[str], targets: Sequence[str]) -> NDArray[np.float64]:
    """Levenshtein's distance in characters: additions, deletions and substitutions, each 1.

    Args:
        predictions: `(batch,)` strings.
        targets: `(batch,)` strings.

    Returns:
        `(batch,)`, 0 to the longer string's length.

    Raises:
        TypeError: a string where a list of strings is due.
        ValueError: lists of different lengths.

    Example:
        >>> edit_distance(["kitten", "same"], ["sitting", "same"])
        array([3., 0.])
    """
    return _compare(predictions, targets, Levenshtein.distance)


def normalized_edit_distance(
    predictions: Sequence[str], targets: Sequence[str]
) -> NDArray[np.float64]:
    """`edit_distance` over the longer string's length, 0 to 1; two empty strings have 0.

    The "NED" of text recognition papers is one minus this.

    Example:
        >>> normalized_edit_distance(["abcd", ""], ["abce", ""])
        array([0.25, 0.  ])
    """
    return _compare(predictions, targets, Levenshtein.normalized_distance)


def word_edit_distance(predictions: Sequence[str], targets: Sequence[str]) -> NDArray[np.float64]:
    """Levenshtein's distance in words, which white space separates.

    Example:
        >>> word_edit_distance(["the cat sat"], ["the cats sat down"])
        array([2.])
    """
    return _compare(predictions, targets, Levenshtein.distance, str.split)


def normalized_word_edit_distance(
    predictions: Sequence[str], targets: Sequence[str]
) -> NDArray[np.float64]:
    """`word_edit_distance` over the number of words of the longer string, 0 to 1.

    Example:
        >>> normalized_word_edit_distance(["the cat sat"], ["the cats sat down"])
        array([0.5])
    """
    return _compare(predictions, targets, Levenshtein.normalized_distance, str.split)


class WeightedEditDistance:
    """Edit distance with a cost for each kind of error, such as `WeightedEditDistance(wrong=5)`.

    For readings that are not all worth the same: what is missing is often noticed and typed by
    hand, where a wrong character goes unnoticed.

    Args:
        additional: cost of a character that the prediction has too much, above 0.
        missing: cost of a character of the target that the prediction lacks, above 0.
        wrong: cost of a character in place of another, above 0; where it is more than the two
            others together, they are what counts.

    Raises:
        TypeError, ValueError: a cost is no number, or not above 0.

    Example:
        >>> WeightedEditDistance(wrong=5, additional=5)(["kien", "kitzen"], ["kitten", "kitten"])
        array([2., 5.])
    """

    def __init__(self, *, additional: float = 1, missing: float = 1, wrong: float = 1):
        costs = {"additional": additional, "missing": missing, "wrong": wrong}
        for name, cost in costs.items():
            check_number(name, cost, 0, integer=False)
            if not cost:
                raise ValueError(f"{name} must be above 0; got {cost!r}")
        # RapidFuzz wants whole numbers.
        fractions = [Fraction(float(cost)).limit_denominator(1000) for cost in costs.values()]
        self._unit = lcm(*(fraction.denominator for fraction in fractions))
        whole = tuple(int(fraction * self._unit) for fraction in fractions)
        self._scorer = partial(Levenshtein.distance, weights=whole)
        self.__name__ = f"WeightedEditDistance({additional=}, {missing=}, {wrong=})"

    def __repr__(self) -> str:
        return self.__name__

    def __call__(self, predictions: Sequence[str], targets: Sequence[str]) -> NDArray[np.float64]:
        """Distances, `(batch,)`."""
        # The way from the target to the prediction: insertions are what is additional.
        return _compare(targets, predictions, self._scorer) / self._unit


def _compare(
    predictions: Sequence[str],
    targets: Sequence[str],
    scorer: Callable[..., Any],
    split: Callable[[str], Sequence[str]] = str,
) -> NDArray[np.float64]:
    for name, strings in (("predictions", predictions), ("targets", targets)):
        if isinstance(strings, str):
            raise TypeError(f"{name} must be a list of strings; got the string {strings!r}")
    if len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} targets")
    return cpdist(
        [split(prediction) for prediction in predictions],
        [split(target) for target in targets],
        scorer=scorer,
        dtype=np.float64,
    )
