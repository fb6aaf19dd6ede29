"""Edit distance where errors are not all worth the same."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import isclose, lcm

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from .._support.checks import check_positive
from ._edit_distance import check_strings, compare

# Of RapidFuzz's weights: the sums over a text have room in its 64 bits.
LARGEST = 2**31


class WeightedEditDistance:
    """Edit distance with a cost for each kind of error, such as `WeightedEditDistance(wrong=5)`.

    For readings that are not all worth the same: what is missing is often noticed and typed by
    hand, where a wrong character goes unnoticed; and a digit of an amount is worth more than a
    letter of the remark beside it.

    Args:
        additional: cost of a character that the prediction has too much, above 0.
        missing: cost of a character of the target that the prediction lacks, above 0.
        wrong: cost of a character in place of another, above 0; where it is more than the two
            others together, they are what counts.
        characters: how many times as much some characters count, each above 0, such as
            `{"0123456789": 10}`; others count once. It is the target's character that counts where
            one is missing or wrong, and the additional one where there is none.

    Raises:
        TypeError, ValueError: a cost is no number, or not above 0; a character that has two.

    Example:
        >>> WeightedEditDistance(wrong=5, additional=5)(["kien", "kitzen"], ["kitten", "kitten"])
        array([2., 5.])
        >>> digits = WeightedEditDistance(characters={"0123456789": 10})
        >>> digits(["a1O", "b10"], ["a10", "a10"])
        array([10.,  1.])
    """

    def __init__(
        self,
        *,
        additional: float = 1,
        missing: float = 1,
        wrong: float = 1,
        characters: Mapping[str, float] | None = None,
    ):
        costs = {"additional": additional, "missing": missing, "wrong": wrong}
        if not isinstance(characters, Mapping | None):
            raise TypeError(
                'characters must be a dict of texts and what they count, such as {"0123": 10}; '
                f"got {characters!r}"
            )
        characters = dict(characters or {})
        for some in characters:
            if not isinstance(some, str) or not some:
                raise (ValueError if some == "" else TypeError)(
                    f"a key of characters must be a string of one character or more; got {some!r}"
                )
        of_characters = {f"characters[{some!r}]": cost for some, cost in characters.items()}
        for name, cost in (costs | of_characters).items():
            check_positive(name, cost)
        each = [character for some in characters for character in some]
        if len(set(each)) < len(each):
            twice = next(character for character in each if each.count(character) > 1)
            raise ValueError(f"characters has more than one cost for {twice!r}")
        self._costs = costs
        self._characters = {c: float(cost) for some, cost in characters.items() for c in some}
        # RapidFuzz wants whole numbers.
        fractions = [Fraction(float(cost)).limit_denominator(1000) for cost in costs.values()]
        self._unit = lcm(*(fraction.denominator for fraction in fractions))
        whole = tuple(int(fraction * self._unit) for fraction in fractions)
        rounded = zip(fractions, costs.values(), strict=True)
        exact = all(isclose(fraction, cost, rel_tol=1e-6) for fraction, cost in rounded)
        fits = exact and max(whole) <= LARGEST
        self._weights = whole if fits and not characters else None
        of_each = f", {characters=}" if characters else ""
        self.__name__ = f"WeightedEditDistance({additional=}, {missing=}, {wrong=}{of_each})"

    def __repr__(self) -> str:
        return self.__name__

    @property
    def whole(self) -> tuple[int, int, int] | None:
        """Costs of what is additional, missing and wrong; None if one is no whole number."""
        costs = [self._costs[kind] for kind in ("additional", "missing", "wrong")]
        if self._characters or not all(float(cost).is_integer() for cost in costs):
            return None
        additional, missing, wrong = map(int, costs)
        return additional, missing, wrong

    def __call__(self, predictions: Sequence[str], targets: Sequence[str]) -> NDArray[np.float64]:
        """Distances, `(batch,)`."""
        check_strings(predictions, targets)
        if self._weights is None:
            return self._table(predictions, targets)
        # The way from the target to the prediction: insertions are what is additional.
        distances = compare(targets, predictions, Levenshtein.distance, weights=self._weights)
        return distances / self._unit

    def _table(self, predictions: Sequence[str], targets: Sequence[str]) -> NDArray[np.float64]:
        """Wagner and Fischer's table (JACM 1974), row by row, of all pairs at once."""
        if not len(targets):
            return np.zeros(0)
        read, worth_read = self._spelt(predictions)
        meant, worth_meant = self._spelt(targets)
        # Of the target's first characters, all missing: (batch, characters + 1).
        missing = np.pad((self._costs["missing"] * worth_meant).cumsum(1), ((0, 0), (1, 0)))
        lengths, ends = _lengths(predictions), _lengths(targets)
        row = missing
        distances = np.take_along_axis(row, ends, 1)
        for i in range(read.shape[1]):
            wrong = (read[:, i, None] != meant) * self._costs["wrong"] * worth_meant
            best = row + self._costs["additional"] * worth_read[:, i, None]
            best[:, 1:] = np.minimum(best[:, 1:], row[:, :-1] + wrong)
            # And characters missing behind the best way so far.
            row = np.minimum.accumulate(best - missing, 1) + missing
            distances = np.where(lengths == i + 1, np.take_along_axis(row, ends, 1), distances)
        return distances[:, 0]

    def _spelt(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Code points and costs, `(batch, longest text)`; -1 and 0 for padding."""
        codes = np.full((len(texts), max(map(len, texts))), -1)
        worth = np.zeros(codes.shape)
        for row, costs, text in zip(codes, worth, texts, strict=True):
            row[: len(text)] = [ord(character) for character in text]
            costs[: len(text)] = [self._characters.get(character, 1.0) for character in text]
        return codes, worth


def _lengths(texts: Sequence[str]) -> NDArray[np.int64]:
    """`(batch, 1)`."""
    return np.array([[len(text)] for text in texts])
