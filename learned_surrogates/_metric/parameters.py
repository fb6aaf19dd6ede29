"""What the names of a metric's parameters tell: which comes first, and one text or many."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from .._support.partials import given, whole

# Parts of names, in the singular.
PREDICTED = set(
    re.findall(
        r"\w+",
        "pred prediction predicted hyp hypothesis candidate cand output guess hat yhat logit "
        "estimate estimated est decoded generated recognized recognised simulated sim forecast "
        "fcst submission reconstructed reconstruction denoised enhanced simulation modelled "
        "modeled out ypred retrieved recommended",
    )
)
TRUE = set(
    re.findall(
        r"\w+",
        "ref reference target tgt true truth gt gold golden label expected groundtruth correct "
        "annotation observed obs observation clean ytrue relevant",
    )
)
TEXT = {"s", "str", "string", "text", "word"}
# What says nothing beside such parts.
NEUTRAL = TEXT | set(
    re.findall(r"\w+", "y ground sentence sequence seq mask box bbox point image img tensor list")
)
# Predictions beside a reference; alone, what is chosen from.
CANDIDATES = {"candidate", "cand"}
# Libraries that compare any sequences, and a tensor's elements by where they lie in memory.
OF_SEQUENCES = {"rapidfuzz", "Levenshtein", "editdistance"}
# What texts are annotated as; where more is allowed, a tensor may be, too.
ANNOTATED = {"str", "list", "sequence", "iterable", "tuple", "collection", "union", "optional"}
ANNOTATED |= {"none", "typing", "collections", "abc"}
MANY = re.compile(r"list|sequence|iterable|tuple|collection|array|series", re.IGNORECASE)


class Reversed:
    """A metric of `(target, prediction)`, called as `(prediction, target)`."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, prediction: Any, target: Any) -> Any:
        return self.function(target, prediction)


def first_two(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the first two parameters; empty where there are none, or not known."""
    return tuple(parameter.name for parameter in _first_two(function))


def is_reversed(function: Callable[..., Any]) -> bool:
    """Whether the names say that the target comes first, as jiwer's and scikit-learn's do.

    Both of them, as (reference, hypothesis) and (y_true, y_pred); or one that says nothing else:
    (target, x), but not (target_scores, x).
    """
    names = [_parts(name) for name in first_two(function)]
    if not names:
        return False
    # Of (true_tags, tags), what both are called tells nothing of either.
    alike = set.intersection(*({_singular(part) for part in name} for name in names))
    of_first, of_second = [[p for p in name if _singular(p) not in alike] for name in names]
    first, second = _role(of_first), _role(of_second)
    if first == TRUE and second != TRUE:
        return second == PREDICTED or _only(of_first, TRUE)
    # What is called `actual` is the truth beside a prediction, and the outcome beside a truth.
    return second == PREDICTED != first and _only(of_second, PREDICTED - CANDIDATES)


def takes_texts(function: Callable[..., Any]) -> bool:
    """Whether the prediction is annotated as a text, or as texts; or the library compares these.

    Not where it may be something else, too, or the user turns it into what the library takes.
    """
    for parameter in _first_two(function)[:1]:
        words = {word.lower() for word in re.findall(r"\w+", _annotation(parameter))}
        if "str" in words and words <= ANNOTATED:
            return True
    own = hasattr(whole(function), "__wrapped__") or "processor" in given(function)
    library = str(getattr(whole(function), "__module__", "")).partition(".")[0]
    return library in OF_SEQUENCES and not own


def takes_many(function: Callable[..., Any]) -> bool | None:
    """Whether the signature speaks of lists of texts, or of a text; None if of neither."""
    parameters = _first_two(function)
    annotations = [_annotation(parameter) for parameter in parameters]
    if any(MANY.search(annotation) for annotation in annotations):
        return True
    if any(annotation == "str" for annotation in annotations):
        return False
    parts = [part for parameter in parameters for part in _parts(parameter.name)]
    known = PREDICTED | TRUE | TEXT - {"s"}
    if any(part not in known and _singular(part) in known for part in parts):
        return True
    # Of what is called `y_true`, there may be many.
    return False if set(parts) & TEXT else None


def _first_two(function: Callable[..., Any]) -> list[inspect.Parameter]:
    if isinstance(function, Reversed):
        return _first_two(function.function)[::-1]
    # Of a module, `__call__` hides what `forward` takes.
    called = function.forward if isinstance(function, nn.Module) else function
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    # What is called is a wrapper; what it wraps tells only where that takes anything, `*args`.
    for follow in (False, True):
        try:
            parameters = inspect.signature(called, follow_wrapped=follow).parameters.values()
        except (TypeError, ValueError):  # a builtin need not have one
            return []
        first = [parameter for parameter in parameters if parameter.kind in positional][:2]
        if len(first) == 2:
            return first
    return []


def _annotation(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return ""
    return annotation.__name__ if annotation is str else str(annotation)


def _parts(name: str) -> list[str]:
    """`groundTruth_2` is ground and truth."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return re.findall(r"[a-z]+", spaced.lower())


def _singular(part: str) -> str:
    if part == "hypotheses":
        return "hypothesis"
    return part.removesuffix("es" if re.search(r"(x|ss|sh|ch)es$", part) else "s")


def _only(parts: list[str], role: set[str]) -> bool:
    """Whether a name is made of such parts, and of what says nothing."""
    return all({part, _singular(part)} & (role | NEUTRAL) for part in parts)


def _role(parts: list[str]) -> set[str]:
    """`PREDICTED`, `TRUE`, or nothing, also of a name with parts of both, as `labels_pred`."""
    kinds = {kind for part in parts for kind in (part, _singular(part))}
    roles = [role for role in (PREDICTED, TRUE) if kinds & role]
    return roles[0] if len(roles) == 1 else set()
