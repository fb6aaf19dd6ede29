"""Edit distances, as metrics ready to hand over."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist

from .._support.warnings import warn

# What stands between words in the alphabets of speech recognisers, of word pieces, of GPT-2's
# pieces, and of transcripts that show a space.
SEPARATORS = ("|", "▁", "Ġ", "␣")
ONE_WORD = (
    "no text has white space, but some have {!r} between characters: a word edit distance sees one "
    "word a text. If that is what stands between words, give "
    "functools.partial(text.word_edit_distance, separator={!r})"
)


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


def word_edit_distance(
    predictions: Sequence[str], targets: Sequence[str], *, separator: str | None = None
) -> NDArray[np.float64]:
    """Levenshtein's distance in words.

    Args:
        predictions: `(batch,)` strings.
        targets: `(batch,)` strings.
        separator: what stands between words; None is white space. For an alphabet in which it is
            another character, `functools.partial(text.word_edit_distance, separator="|")`.

    Raises:
        TypeError, ValueError: as `edit_distance` does; an empty separator.

    Example:
        >>> word_edit_distance(["the cat sat"], ["the cats sat down"])
        array([2.])
        >>> word_edit_distance(["the|cat|sat"], ["the|cats|sat|down"], separator="|")
        array([2.])
    """
    return _compare_words(predictions, targets, Levenshtein.distance, separator)


def normalized_word_edit_distance(
    predictions: Sequence[str], targets: Sequence[str], *, separator: str | None = None
) -> NDArray[np.float64]:
    """`word_edit_distance` over the number of words of the longer string, 0 to 1.

    Example:
        >>> normalized_word_edit_distance(["the cat sat"], ["the cats sat down"])
        array([0.5])
    """
    return _compare_words(predictions, targets, Levenshtein.normalized_distance, separator)


def compare(
    predictions: Sequence[str], targets: Sequence[str], scorer: Callable[..., Any], **options: Any
) -> NDArray[np.float64]:
    """RapidFuzz's score of each pair, `(batch,)`."""
    check_strings(predictions, targets)
    said, meant = list(predictions), list(targets)
    return cpdist(said, meant, scorer=scorer, scorer_kwargs=options, dtype=np.float64)


def _compare_words(
    predictions: Sequence[str],
    targets: Sequence[str],
    scorer: Callable[..., Any],
    separator: str | None,
) -> NDArray[np.float64]:
    """The same, of their words."""
    check_strings(predictions, targets)
    if separator is not None and not (isinstance(separator, str) and separator):
        raise ValueError(f"separator must be a string that is not empty; got {separator!r}")
    # As white space, a separator may stand before the first word, or be several.
    said, meant = (
        [[word for word in text.split(separator) if word] for text in side]
        for side in (predictions, targets)
    )
    if separator is None and max(map(len, said + meant), default=0) == 1:
        _doubt([*predictions, *targets])
    return cpdist(said, meant, scorer=scorer, dtype=np.float64)


def _doubt(texts: list[str]) -> None:
    """Warns of texts of one word each that other marks than white space seem to separate."""
    for mark in SEPARATORS:
        if any(len(text.strip(mark).split(mark)) > 1 for text in texts):
            warn(ONE_WORD.format(mark, mark))
            return


def check_strings(predictions: Sequence[str], targets: Sequence[str]) -> None:
    """Raises unless they are two lists of as many strings."""
    for name, strings in (("predictions", predictions), ("targets", targets)):
        if isinstance(strings, str):
            raise TypeError(f"{name} must be a list of strings; got the string {strings!r}")
        others = [type(each).__name__ for each in strings if not isinstance(each, str)]
        if others:
            raise TypeError(
                f"{name} must be strings; got {others[0]}. The loss reads strings from "
                "a model's output with a task: task=text.CTC(...) or text.PerPosition(...)"
            )
    if len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} targets")
