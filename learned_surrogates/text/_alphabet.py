"""Class indices and the characters that they stand for."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import pairwise

from torch import Tensor

from .._support.warnings import warn

# How special symbols are written, such as "[GO]", "<unk>" and "{pad}".
SPECIAL = re.compile(r"\[\w+\]|<[\w|/]+>|\{\w+\}")
SEVERAL = (
    "alphabet has {}, which a metric sees as {} characters where the model reads it: give each "
    "special symbol one character that no text has, such as '\\ue000' in the place of {!r}"
)


class Alphabet:
    """The characters of a recogniser, one class each, with one class kept for a special symbol.

    Args:
        characters: a string, or a list of strings (word pieces, say), without the special symbol.
        special: the special symbol's class; the characters take the other classes in order, so
            0 puts it before them and `len(characters)` behind.
        role: what the special symbol is called, for messages.
        decode: makes a text of class indices, where joining the characters does not, as of pieces
            of bytes; None joins them.

    Raises:
        TypeError: the characters are not strings, or in no order; `decode` cannot be called.
        ValueError: no characters, one of them empty or there twice, or a class out of range.
    """

    def __init__(
        self,
        characters: Sequence[str],
        special: int,
        role: str,
        decode: Callable[[list[int]], str] | None = None,
    ):
        if decode is not None and not callable(decode):
            raise TypeError(f"decode must be a function of class indices, or None; got {decode!r}")
        if isinstance(characters, Set | Mapping):
            raise TypeError(
                "alphabet must be a string or a list of strings, in the order of their classes; a "
                f"{type(characters).__name__} says nothing of these. Of a tokenizer's vocabulary: "
                "sorted(vocabulary, key=vocabulary.get)"
            )
        tokens = list(characters) if isinstance(characters, Iterable) else [characters]
        if not all(isinstance(token, str) for token in tokens):
            raise TypeError(f"alphabet must be a string or a list of strings; got {characters!r}")
        if not tokens or not all(tokens):
            raise ValueError("alphabet must hold at least one character, and no empty one")
        repeated = sorted(token for token, count in Counter(tokens).items() if count > 1)
        if repeated:
            raise ValueError(f"alphabet has {', '.join(map(repr, repeated))} more than once")
        # True would be a mask where classes are indexed.
        integer = hasattr(special, "__index__") and not isinstance(special, bool)
        if not integer or not 0 <= special <= len(tokens):
            raise ValueError(
                f"{role} must be a class index in 0..{len(tokens)}, as the {len(tokens)} "
                f"characters take the other classes; got {special!r}"
            )
        self.characters = tokens
        self.special = special = int(special)
        self.decoder = decode
        self.classes = len(tokens) + 1
        self._tokens = [*tokens[:special], "", *tokens[special:]]
        self._classes = {token: index for index, token in enumerate(self._tokens) if token}
        special_names = [token for token in tokens if SPECIAL.fullmatch(token)]
        if special_names and decode is None:
            first = special_names[0]
            warn(SEVERAL.format(", ".join(map(repr, special_names[:5])), len(first), first))
        self._longest = max(map(len, tokens))
        longest_first = sorted(map(re.escape, tokens), key=len, reverse=True)
        self._pattern = re.compile("|".join(longest_first), re.DOTALL)

    def __len__(self) -> int:
        return len(self.characters)

    def decode(self, classes: Iterable[int]) -> str:
        """The text of class indices; the special symbol's is empty.

        Raises:
            ValueError: an index is of no class, such as one of padding.
        """
        classes = list(classes)
        if classes and not 0 <= min(classes) <= max(classes) < self.classes:
            bad = next(index for index in classes if not 0 <= index < self.classes)
            raise ValueError(f"class {bad} is none of the alphabet's, 0 to {self.classes - 1}")
        if self.decoder is not None:
            text = self.decoder([index for index in classes if index != self.special])
            if not isinstance(text, str):
                raise TypeError(f"decode must return a string; it returned {type(text).__name__}")
            return text
        return "".join([self._tokens[index] for index in classes])

    def encode(self, text: str) -> list[int]:
        """The class indices of a text: the longest characters first or, where nothing of the
        alphabet is left for the rest then, as few as will do.

        Raises:
            ValueError: the text has something that is not in the alphabet.
        """
        found = self._pattern.findall(text)
        if sum(map(len, found)) != len(text):
            pieces = self._fewest(text)
            if pieces is None:
                unknown = sorted(set(self._pattern.sub("", text)))
                raise ValueError(f"{text!r} has {unknown} which the alphabet lacks")
            found = pieces
        return [self._classes[token] for token in found]

    def _fewest(self, text: str) -> list[str] | None:
        """As few of the alphabet's strings as make the text; None if none do."""
        # Of the rest of the text from each position on.
        rests: list[list[str] | None] = [None] * len(text) + [[]]
        for start in reversed(range(len(text))):
            for end in range(start + 1, min(start + self._longest, len(text)) + 1):
                rest = rests[end]
                if rest is None or text[start:end] not in self._classes:
                    continue
                best = rests[start]
                if best is None or len(rest) + 1 <= len(best):
                    rests[start] = [text[start:end], *rest]
        return rests[0]

    def folded(self, fold: Callable[[str], str]) -> list[int]:
        """For each class, the first one whose character has the same `fold(character)`.

        Raises:
            TypeError: `fold` returns something else than a string.
        """
        first: dict[str, int] = {}
        folded = []
        for index, token in enumerate(self._tokens):
            of_token = fold(token) if token else token
            if not isinstance(of_token, str):
                raise TypeError(
                    f"fold must return a string, as str.lower does; for {token!r} it returned "
                    f"{type(of_token).__name__}"
                )
            folded.append(first.setdefault(of_token, index) if token else index)
        return folded


def kept_rows(classes: Tensor, kept: Tensor) -> list[list[int]]:
    """Of each row of class indices those that are kept; both `(batch, length)`, on the CPU."""
    together = classes[kept].tolist()
    ends = [0, *kept.sum(1).cumsum(0).tolist()]
    return [together[start:end] for start, end in pairwise(ends)]
