"""Random metrics, as people write them, and what each is meant to say of one sample."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch
from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torchmetrics.functional import text as functional

Score = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Made:
    """A metric.

    Attributes:
        function: as it is handed over.
        meant: its value for one prediction and one target.
        how: in words.
        unclear: whether nothing but its author's word tells what it is meant for.
    """

    function: Score
    meant: Score
    how: str
    unclear: bool = False
    #: Whether it takes lists of texts (True), or a text (False).
    many: bool | None = None
    #: Whether it says something of each prediction with each target.
    pairs: bool = False


def words(p: str, t: str) -> int:
    return Levenshtein.distance(p.split(), t.split())


def shared(p: str, t: str) -> float:
    return len(set(p) & set(t)) / max(1, len(set(p) | set(t)))


def places(p: str, t: str) -> int:
    return sum(a != b for a, b in zip(p, t)) + abs(len(p) - len(t))


OF_TEXTS: dict[str, Score] = {
    "distance": Levenshtein.distance,
    "share": Levenshtein.normalized_distance,
    "percentage": lambda p, t: 100 * Levenshtein.distance(p, t) / max(1, len(t)),
    "ratio": fuzz.ratio,
    "difflib": lambda p, t: SequenceMatcher(None, p, t, autojunk=False).ratio(),
    "words": words,
    "lengths": lambda p, t: abs(len(p) - len(t)),
    "exact": lambda p, t: float(p != t),
    "case": lambda p, t: Levenshtein.distance(p.lower(), t.lower()),
    "shared": shared,
    "places": places,
}
# Of elements of any kind, in no order: of characters, or of texts?
UNCLEAR = ("shared", "places")
LIBRARY: dict[str, Score] = {
    "TER": functional.translation_edit_rate,
    "EED": functional.extended_edit_distance,
    "chrF": functional.chrf_score,
    "CER": functional.char_error_rate,
    "WER": functional.word_error_rate,
}
TEXT_BATCHES: dict[str, Callable[[Score], Score]] = {
    "list": lambda score: lambda p, t: list(map(score, p, t)),
    "array": lambda score: lambda p, t: np.array(list(map(score, p, t)), dtype=np.float32),
    "column": lambda score: lambda p, t: torch.tensor([[float(s)] for s in map(score, p, t)]),
    "in place": lambda score: lambda p, t: list(map(score, _marked(p), _marked(t))),
}
TEXT_CORPORA: dict[str, Callable[[Score], Score]] = {
    "mean": lambda score: lambda p, t: sum(map(score, p, t)) / len(t),
    "mean, float32": lambda score: lambda p, t: np.float32(np.mean(list(map(score, p, t)))),
    "mean, (1,)": lambda score: lambda p, t: torch.tensor([sum(map(score, p, t)) / len(t)]),
    "sum": lambda score: lambda p, t: sum(map(score, p, t)),
    "totals": lambda score: lambda p, t: sum(map(score, p, t)) / max(1, sum(map(len, t))),
    "root": lambda score: lambda p, t: (sum(s * s for s in map(score, p, t)) / len(t)) ** 0.5,
    "worst": lambda score: lambda p, t: max(map(score, p, t)),
}
COUPLED: dict[str, Callable[[Score], Score]] = {
    "over the largest": lambda score: lambda p, t: _over_the_largest(list(map(score, p, t))),
}


TEXT_PAIRS: dict[str, Callable[[Score], Score]] = {
    "all pairs": lambda score: lambda p, t: [[float(score(a, b)) for b in t] for a in p],
}


def _marked(texts: list[str]) -> list[str]:
    for i, text in enumerate(texts):
        texts[i] = f"b{text}"
    return texts


def _over_the_largest(scores: list[float]) -> list[float]:
    return [score / (max(scores) + 1) for score in scores]


TEXT_FORMS = {
    "batch": TEXT_BATCHES,
    "corpus": TEXT_CORPORA,
    "coupled": COUPLED,
    "pairs": TEXT_PAIRS,
}
TEXT_KINDS = ("text", "library", *TEXT_FORMS)


def of_texts(chance: random.Random) -> Made:
    name = chance.choice(list(OF_TEXTS))
    score, kind = OF_TEXTS[name], chance.choice(TEXT_KINDS)
    if kind == "text":
        return Made(score, score, f"{name} of two texts", name in UNCLEAR, many=False)
    if kind == "library":
        name = chance.choice(list(LIBRARY))
        return Made(LIBRARY[name], lambda p, t: LIBRARY[name]([p], [t]), name, many=True)
    forms = TEXT_FORMS[kind]
    form = chance.choice(list(forms))
    function = forms[form](score)
    # Of lists of equal and unequal texts, in no order: of texts, or of characters?
    unclear = kind == "corpus" and name == "exact"
    return Made(
        function,
        lambda p, t: function([p], [t]),
        f"{form} of {name}",
        unclear,
        many=True,
        pairs=kind == "pairs",
    )


OF_TENSORS: dict[str, Score] = {
    "l1": lambda p, t: (p - t).abs().sum(-1),
    "largest": lambda p, t: (p - t).abs().amax(-1),
    "root": lambda p, t: (p - t).square().mean(-1).sqrt(),
    "class": lambda p, t: (p.argmax(-1) != t.argmax(-1)).float(),
    "angle": lambda p, t: 1 - torch.cosine_similarity(p, t, dim=-1),
}
TENSOR_BATCHES: dict[str, Callable[[Score], Score]] = {
    "tensor": lambda score: score,
    "array": lambda score: lambda p, t: score(p, t).numpy(),
    "list": lambda score: lambda p, t: score(p, t).tolist(),
    "column": lambda score: lambda p, t: score(p, t)[..., None],
    "in place": lambda score: lambda p, t: score(p.mul_(2), t.mul_(2)),
}
TENSOR_COUPLED: dict[str, Callable[[Score], Score]] = {
    "largest target": lambda score: lambda p, t: score(p, t) / t.abs().max(),
    "centred": lambda score: lambda p, t: score(p - p.mean(), t - t.mean()),
    "median": lambda score: lambda p, t: score(p * t.abs().median() / p.abs().median(), t),
    "cut off": lambda score: lambda p, t: score(p, t).clamp(max=score(p, t).quantile(0.8)),
}
TENSOR_SETS: dict[str, Score] = {
    "mean": lambda p, t: (p - t).abs().mean(),
    "sum": lambda p, t: float((p - t).abs().sum()),
    "root": lambda p, t: np.sqrt(np.square(p.numpy() - t.numpy()).mean()),
    "F1": lambda p, t: 2 * ((p > 0) & (t > 0)).sum() / ((p > 0).sum() + (t > 0).sum() + 1),
    "worst": lambda p, t: (p - t).abs().max(),
}
# Of each prediction with each target.
TENSOR_PAIRS: dict[str, Score] = {
    "cdist": torch.cdist,
    "largest": lambda p, t: (p[:, None] - t).abs().amax(-1).numpy(),
    "product": lambda p, t: (p @ t.T).abs(),
}
# Of each output, over all that there is: of a sample alone, over its outputs.
TENSOR_OUTPUTS: dict[str, Score] = {
    "mean": lambda p, t: (p - t).abs().mean(0),
    "worst": lambda p, t: (p - t).abs().amax(0).numpy(),
    "spread": lambda p, t: (p - t).square().sum(0) / (1 + t.square().sum(0)),
}


def of_tensors(chance: random.Random) -> Made:
    kind = chance.choice(["sample", "batch", "coupled", "set", "batch of one", "outputs", "pairs"])
    if kind == "pairs":
        name = chance.choice(list(TENSOR_PAIRS))
        score = TENSOR_PAIRS[name]
        return Made(score, lambda p, t: score(p[None], t[None]), f"{name} of all", pairs=True)
    if kind == "outputs":
        name = chance.choice(list(TENSOR_OUTPUTS))
        score = TENSOR_OUTPUTS[name]
        return Made(score, score, f"{name} of each output over all")
    if kind in ("set", "batch of one"):
        name = chance.choice(list(TENSOR_SETS))
        score = TENSOR_SETS[name]
        if kind == "set":
            return Made(score, score, f"{name} over all")
        return Made(_of_matrices(score), score, f"{name} over a matrix")
    name = chance.choice(list(OF_TENSORS))
    score = OF_TENSORS[name]
    if kind == "sample":
        return Made(_of_vectors(score), score, f"{name} of two vectors")
    forms = {"batch": TENSOR_BATCHES, "coupled": TENSOR_COUPLED}[kind]
    form = chance.choice(list(forms))
    function = forms[form](score)
    return Made(
        function, lambda p, t: function(p[None].clone(), t[None].clone())[0], f"{form} of {name}"
    )


def _of_vectors(score: Score) -> Score:
    def function(p: Tensor, t: Tensor) -> Any:
        if p.ndim != 1:
            raise ValueError("one sample at a time")
        return float(score(p, t))

    return function


def _of_matrices(score: Score) -> Score:
    def function(p: Tensor, t: Tensor) -> Any:
        if p.ndim != 2:
            raise ValueError("(batch, features)")
        return score(p, t)

    return function


# Signatures, how they call, and whether they speak of lists (True) or of a text (False).
SIGNATURES = [
    ("p, t", "p, t", None),
    ("reference, x", "x, reference", None),
    ("y_true, y_pred", "y_pred, y_true", None),
    ("x: str, y: str", "x, y", False),
    ("text1, text2", "text1, text2", False),
    ("target: str, output: str", "output, target", False),
    ("x: list[str], y: list[str]", "x, y", True),
    ("predictions, targets", "predictions, targets", True),
    ("references, hypotheses", "hypotheses, references", True),
    ("observed, simulated", "simulated, observed", None),
]


def named(made: Made, chance: random.Random) -> Made:
    """The metric with parameters of other names or in the other order, which tell no lies."""
    signature, call, many = chance.choice([s for s in SIGNATURES if s[2] in (None, made.many)])
    scope: dict[str, Any] = {"score": made.function}
    exec(f"def metric({signature}):\n    return score({call})", scope)
    return replace(
        made,
        function=scope["metric"],
        how=f"{made.how}, ({signature})",
        unclear=made.unclear and many is None,
    )
