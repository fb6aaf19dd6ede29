"""What is spoken: words, prices and appointments, in small letters, numbers written out."""

import string
from collections.abc import Callable
from functools import cache

import numpy as np
from english_words import get_english_words_set

from lib.word_images import Split, english_words, in_split

ALPHABET = " " + string.ascii_lowercase
LONGEST = 7  # letters a word or name
ONES = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"),
    *("sixteen", "seventeen", "eighteen", "nineteen"),
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ORDINALS = [
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh"),
    *("eighth", "ninth", "tenth", "eleventh", "twelfth", "thirteenth", "fourteenth"),
    *("fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth", "twentieth"),
]
MONTHS = [
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
]


def sentences(split: Split, count: int, rng: np.random.Generator) -> list[str]:
    """So many. No two splits share one, nor a word or a name out of the word lists in one."""
    words, names = ([each for each in listed() if in_split(each, split)] for listed in LISTS)
    found: list[str] = []
    while len(found) < count:
        sentence = KINDS[rng.integers(len(KINDS))](rng, words, names)
        if in_split(sentence, split):
            found.append(sentence)
    return found


def some_words(rng: np.random.Generator, words: list[str], names: list[str]) -> str:
    return " ".join(pick(rng, words) for _ in range(rng.integers(2, 5)))


def price(rng: np.random.Generator, words: list[str], names: list[str]) -> str:
    amount, unit = number(int(rng.integers(2, 1000))), pick(rng, ["dollars", "pounds", "euros"])
    return f"{pick(rng, ['the', 'each', 'our'])} {pick(rng, words)} costs {amount} {unit}"


def appointment(rng: np.random.Generator, words: list[str], names: list[str]) -> str:
    day, hour = pick(rng, ORDINALS), number(int(rng.integers(1, 13)))
    what = pick(rng, ["meets", "calls", "leaves"])
    return f"{pick(rng, names)} {what} {pick(rng, MONTHS)} {day} at {hour}"


def number(value: int) -> str:
    """0 to 999, in words.

    Example:
        >>> number(342)
        'three hundred forty two'
    """
    if value < 20:
        return ONES[value]
    head, rest = divmod(value, 100)
    if head:
        return f"{ONES[head]} hundred" + (f" {number(rest)}" if rest else "")
    head, rest = divmod(value, 10)
    return TENS[head - 2] + (f" {ONES[rest]}" if rest else "")


def pick(rng: np.random.Generator, among: list[str]) -> str:
    return among[rng.integers(len(among))]


@cache
def short_words() -> list[str]:
    """Those of the word images, of 3 to 7 letters; sorted."""
    return [word for word in english_words() if len(word) <= LONGEST]


@cache
def short_names() -> list[str]:
    """What the same list writes with a capital, in small letters; sorted."""
    listed = get_english_words_set(["web2"])
    capitals = (word for word in listed if word.istitle() and 3 <= len(word) <= LONGEST)
    return sorted({name.lower() for name in capitals if set(name.lower()) <= set(ALPHABET)})


LISTS: tuple[Callable[[], list[str]], ...] = (short_words, short_names)
KINDS: tuple[Callable[[np.random.Generator, list[str], list[str]], str], ...] = (
    some_words,
    price,
    appointment,
)
