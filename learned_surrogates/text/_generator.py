"""The random data generator R for text."""

import random
from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from .._support.checks import check_number
from .._support.warnings import warn

# After so many rounds of edits a pair's distance is taken as it is: only where an alphabet of a few
# characters leaves hardly any word at the distance drawn.
MOST_ROUNDS = 400


class RandomEdits:
    """Pairs of words whose true edit distance is uniform over 0..`max_distance`.

    A word is drawn, then distorted by random additions, deletions and substitutions of characters
    until its edit distance to the original is the one drawn for the pair (LS, section 4.2: uniform
    over the error, lest the surrogate overfits to a part of its range). The original is the
    target and the distorted word the prediction.

    Args:
        alphabet: the characters to add and substitute, a string or a list of strings.
        words: a list of words to start from; None draws random strings over the alphabet. Words
            that are too long or have other characters are left out.
        max_distance: the largest edit distance, in characters of the alphabet (word pieces, if it
            has those); at most `max_length`.
        max_length: the most characters of a word, distorted or not.

    Raises:
        TypeError: a length or distance is no integer.
        ValueError: no word is left, or the distance cannot be reached.

    Example:
        >>> import numpy as np
        >>> generator = RandomEdits("abcdefgh", max_distance=4)
        >>> predictions, targets = generator(100, np.random.default_rng(0))
        >>> from learned_surrogates.text import edit_distance
        >>> np.unique(edit_distance(predictions, targets))
        array([0., 1., 2., 3., 4.])
    """

    def __init__(
        self,
        alphabet: Sequence[str],
        words: Sequence[str] | None = None,
        *,
        max_distance: int = 10,
        max_length: int = 10,
    ):
        check_number("max_distance", max_distance, 1)
        check_number("max_length", max_length, 1)
        if max_distance > max_length:
            raise ValueError(
                f"max_distance must be at most max_length={max_length}, as no two words of that "
                f"length are further apart; got {max_distance}"
            )
        if not len(alphabet):
            raise ValueError("alphabet must hold at least one character")
        self.alphabet = list(alphabet)
        known = set(self.alphabet)
        words = None if words is None else list(words)
        self.words = words and [
            word for word in words if len(word) <= max_length and known.issuperset(word)
        ]
        if words is not None and not self.words:
            raise ValueError(
                f"no word has at most max_length={max_length} characters, all of the alphabet"
            )
        given, left_out = len(words or ()), len(words or ()) - len(self.words or ())
        if left_out > given / 2:
            warn(
                f"of {given:,} words, RandomEdits leaves out {left_out:,}: they have more than "
                f"max_length={max_length} characters, or some that are not in the alphabet (of "
                "another case, say)"
            )
        self.max_distance = max_distance
        self.max_length = max_length

    def __repr__(self) -> str:
        source = "random strings" if self.words is None else f"{len(self.words):,} words"
        return (
            f"RandomEdits({source}, {len(self.alphabet)} characters, "
            f"max_distance={self.max_distance}, max_length={self.max_length})"
        )

    def __call__(self, count: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
        """`count` predictions and their targets."""
        # The standard library draws single numbers several times faster than numpy.
        draw = random.Random(int(rng.integers(2**62)))
        pairs = [self._pair(draw) for _ in range(count)]
        return ["".join(prediction) for prediction, _ in pairs], ["".join(t) for _, t in pairs]

    def _pair(self, draw: random.Random) -> tuple[list[str], list[str]]:
        if self.words is None:
            target = draw.choices(self.alphabet, k=draw.randint(1, self.max_length))
        else:
            target = list(draw.choice(self.words))
        wanted = draw.randint(0, self.max_distance)
        prediction, distance = target, 0
        for _ in range(MOST_ROUNDS):
            if distance == wanted:
                break
            # An edit changes the distance by at most 1: so many cannot pass the one wanted.
            edited = list(prediction)
            for _ in range(wanted - distance):
                self._edit(edited, draw)
            reached = Levenshtein.distance(edited, target)
            if reached >= distance:
                prediction, distance = edited, reached
        return prediction, target

    def _edit(self, word: list[str], draw: random.Random) -> None:
        """One random addition, deletion or substitution, where the length allows it."""
        kind = int(3 * draw.random())
        position = int((len(word) + (kind == 0)) * draw.random())
        if kind == 0 and len(word) < self.max_length:
            word.insert(position, draw.choice(self.alphabet))
        elif kind == 1 and word:
            del word[position]
        elif kind == 2 and word:
            word[position] = draw.choice(self.alphabet)
