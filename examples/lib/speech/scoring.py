"""How well a recogniser of speech reads."""

from learned_surrogates import text

from .recogniser import Recogniser, read
from .sets import Spoken


def errors(model: Recogniser, judged: Spoken) -> dict[str, float]:
    """Characters wrong per character, and words wrong per word: 0 to 1 and more."""
    texts = read(model, judged.features)
    characters = text.edit_distance(texts, judged.texts).sum()
    words = text.word_edit_distance(texts, judged.texts).sum()
    return {
        "characters": round(float(characters) / sum(map(len, judged.texts)), 5),
        "words": round(float(words) / sum(len(each.split()) for each in judged.texts), 5),
    }
