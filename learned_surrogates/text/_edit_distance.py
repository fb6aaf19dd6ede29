"""Edit distances, as metrics ready to hand over."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist


def edit_distance(predictions: Sequence[str], targets: Sequence[str]) -> NDArray[np.float64]:
    """Levenshtein's distance in characters: additions, deletions and substitutions, each 1.

    Args:
        predictions: `(batch,)` strings.
        targets: `(batch,)` strings.

    Returns:
        `(batch,)`, 0 to the longer string's length.

    Raises:
        TypeError: a string where a list of strings is due, or a list of something else.
        ValueError: lists of different lengths.

    Example:
        >>> edit_distance(["kitten", "same"], ["sitting", "same"])
        array([3., 0.])
    """
    return compare(predictions, targets, Levenshtein.distance)


def normalized_edit_distance(
    predictions: Sequence[str], targets: Sequence[str]
) -> NDArray[np.float64]:
    """`edit_distance` over the longer string's length, 0 to 1; two empty strings have 0.

    The "NED" of text recognition papers is one minus this.

    Example:
        >>> normalized_edit_distance(["abcd", ""], ["abce", ""])
        array([0.25, 0.  ])
    """
    return compare(predictions, targets, Levenshtein.normalized_distance)


def word_edit_distance(predictions: Sequence[str], targets: Sequence[str]) -> NDArray[np.float64]:
    """Levenshtein's distance in words, which white space separates.

    Example:
        >>> word_edit_distance(["the cat sat"], ["the cats sat down"])
        array([2.])
    """
    return compare(predictions, targets, Levenshtein.distance, str.split)


def normalized_word_edit_distance(
    predictions: Sequence[str], targets: Sequence[str]
) -> NDArray[np.float64]:
    """`word_edit_distance` over the number of words of the longer string, 0 to 1.

    Example:
        >>> normalized_word_edit_distance(["the cat sat"], ["the cats sat down"])
        array([0.5])
    """
    return compare(predictions, targets, Levenshtein.normalized_distance, str.split)


def compare(
    predictions: Sequence[str],
    targets: Sequence[str],
    scorer: Callable[..., Any],
    split: Callable[[str], Sequence[str]] = str,
) -> NDArray[np.float64]:
    """RapidFuzz's score of each pair, `(batch,)`."""
    check_strings(predictions, targets)
    return cpdist(
        [split(prediction) for prediction in predictions],
        [split(target) for target in targets],
        scorer=scorer,
        dtype=np.float64,
    )


def check_strings(predictions: Sequence[str], targets: Sequence[str]) -> None:
    """Checks that they are two lists of as many strings.

    Raises:
        TypeError, ValueError
    """
    for name, strings in (("predictions", predictions), ("targets", targets)):
        if isinstance(strings, str):
            raise TypeError(f"{name} must be a list of strings; got the string {strings!r}")
        others = [type(each).__name__ for each in strings if not isinstance(each, str)]
        if others:
            raise TypeError(
                f"{name} must be strings; got {others[0]}. The loss reads strings from "
                "a model's output with a task: task=text.CTC(...) or text.Characters(...)"
            )
    if len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} targets")
