"""How a metric is called: with a batch, with a batch of one, or with a sample alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from .error import CallingFormError
from .parameters import takes_many
from .probe import Answer, Pair, Probe, same, varies
from .values import CLASSES_LAST, DIAGONAL

# Batches whose number is held against their samples' values, and whose values against those alone.
WATCHED = 100
WATCHED_VALUES = 10

PAIRWISE = (
    "metric {0!r} gives one value for each prediction with each target. Return those of a "
    "prediction with its own target, the diagonal: metric=lambda predictions, targets: "
    "{0}(predictions, targets).diagonal()"
)
BROADCAST = (
    "metric {!r} gives {} values for {} samples: predictions of shape {} and targets of shape {} "
    "are broadcast against each other. Hand over both in one shape: prediction.squeeze(1), or "
    "target[:, None]"
)
AS_A_SAMPLE = (
    "If a batch or a list is what it judges, that is the sample: give task=classification.Sets() "
    "or ranking.Lists(), or call criterion(prediction[None], target[None])"
)
WHOLE = (
    f"metric {{!r}} makes one number of several samples, and none of one. {AS_A_SAMPLE}. Else "
    "return one number a sample"
)
OF_TEXTS = (
    "metric {!r} takes strings, by its library or its parameters' annotations, and would get "
    "tensors: give the loss a task that reads strings from a model's output, task=text.CTC(...) or "
    "text.PerPosition(...)"
)
UNCLEAR = (
    "metric {!r} answers two texts, as lists of characters, and two lists of texts, but gives "
    "{:g} for {!r} and {!r}, and {:g} for a list of each. Say batched=False if it is meant for a "
    "prediction and a target alone; else return one number a sample"
)
LISTS = (
    "metric {!r} gives {:g} for the texts {!r} and {!r}, and {:g} for a list of each. By its "
    "parameters it is meant for lists: it is called with lists of one"
)


@dataclass(frozen=True)
class Form:
    """What a metric is called with.

    Attributes:
        takes: a batch, a batch of one, or a sample alone.
        watched: how many batches more are compared with their samples alone, until one has told.
            Where it takes a batch: whether a sample has the same value alone. Where it takes one
            sample: whether a whole batch's number is the mean of its samples'.
    """

    takes: Literal["batch", "one", "sample"]
    watched: int = 0


@dataclass(frozen=True)
class Finding:
    """What a first batch tells about a metric.

    Attributes:
        form: how to call it with this batch.
        settled: whether other batches are to be called so, too.
        refusal: what it said against a batch.
        word: for the user.
    """

    form: Form
    settled: bool = True
    refusal: Exception | None = None
    word: str | None = None


@dataclass(frozen=True)
class _Two:
    """The number for a batch of one, and that for the sample alone; None where there is none."""

    pair: Pair
    of_one: float | None
    alone: float | None

    @property
    def differ(self) -> bool:
        both = self.of_one is not None and self.alone is not None
        return both and not same(self.of_one or 0.0, self.alone or 0.0)


def find_form(function: Callable[..., Any], name: str, predictions: Any, targets: Any) -> Finding:
    """Finds out how a function is called.

    It takes a batch if it gives a batch of one and of two as many values. Else it takes a batch of
    one or a sample alone: whichever it answers; either, where both answers are the same; and where
    they are not, see `_of_two_answers`.

    Args:
        function: the metric.
        name: its name.
        predictions: a batch of them.
        targets: as many.

    Raises:
        CallingFormError: it is meant for neither, or nothing tells for which.
    """
    probe = Probe(function, predictions, targets)
    ones = [probe.batch(pair) for pair in probe.pairs]
    ends = (probe.pairs[0], ones[0]), (probe.pairs[-1], ones[-1])
    # The other one may be a sample that the metric cannot take.
    answered = [pair for pair, one in ends if one.values(1) is not None]
    refusal = ones[0].error or ones[-1].error
    if answered:
        together, one = probe.batch(answered[0], answered[-1]), probe.batch(answered[0]).values(1)
        two = together.values(2)
        if two is not None and one is not None and two.shape[1:] == one.shape[1:]:
            return Finding(Form("batch", watched=WATCHED_VALUES), refusal=refusal)
        # Two for each of two, and one for one alone.
        refusal = refusal or together.error or ValueError(DIAGONAL)
    if DIAGONAL in str(refusal) and (shapes := _broadcast(predictions, targets)):
        count = len(targets)
        raise CallingFormError(BROADCAST.format(name, count**2, count, *shapes)) from refusal
    alone = [probe.alone(pair) for pair in probe.pairs]
    if all(answer.number is None for answer in alone):
        if DIAGONAL in str(refusal):
            raise CallingFormError(PAIRWISE.format(name)) from refusal
        if CLASSES_LAST in str(refusal):
            raise CallingFormError(f"metric {name!r} {refusal}") from refusal
        if answered and together.number is not None and not probe.answers_one():
            raise CallingFormError(WHOLE.format(name)) from refusal
    return replace(_one_or_sample(probe, name, ones), refusal=refusal)


def _broadcast(predictions: Any, targets: Any) -> list[tuple[int, ...]] | None:
    """Shapes `(batch, 1)` and `(batch,)`, one of each, that are broadcast to `(batch, batch)`."""
    if not (isinstance(predictions, Tensor) and isinstance(targets, Tensor)):
        return None
    shapes = [tuple(each.shape) for each in (predictions, targets)]
    count = len(targets)
    return shapes if count > 1 and sorted(shapes) == [(count,), (count, 1)] else None


def _one_or_sample(probe: Probe, name: str, ones: list[Answer]) -> Finding:
    """How to call what takes no batches; `ones` is what it makes of each pair in a batch of one."""
    if all(answer.number is None for answer in ones):
        return Finding(Form("sample", watched=WATCHED))
    answers = [
        _Two(pair, one.number, probe.alone(pair).number) for pair, one in zip(probe.pairs, ones)
    ]
    if probe.texts:
        for pair in probe.other_pairs():
            answers.append(_Two(pair, probe.batch(pair).number, probe.alone(pair).number))
    if all(answer.alone is None for answer in answers):
        return Finding(Form("one", watched=WATCHED))
    differing = [answer for answer in answers if answer.differ]
    both = [a for a in answers if a.of_one is not None and a.alone is not None]
    if differing and not probe.is_random(differing[0].pair):
        return _of_two_answers(probe, name, both, differing[0])
    only_of_one = any(a.alone is None and a.of_one is not None for a in answers)
    only_alone = any(a.of_one is None and a.alone is not None for a in answers)
    if only_of_one and not only_alone:
        return Finding(Form("one", watched=WATCHED))
    unequal = [a.of_one or 0.0 for a in both if not probe.texts or a.pair[0] != a.pair[1]]
    # What only says whether two texts are the same makes nothing else of lists.
    watched = WATCHED if not probe.texts or varies(unequal) else 0
    settled = bool(unequal) and (not probe.texts or probe.telling)
    return Finding(Form("sample", watched=watched), settled=settled)


def _of_two_answers(probe: Probe, name: str, answers: list[_Two], differing: _Two) -> Finding:
    """How to call what gives a batch of one another number than the sample alone.

    Texts are sequences, of characters, as lists are, of texts. A function of any sequences only
    sees whether elements are the same: then a text alone is meant if the order of elements counts,
    as in an edit distance, since that of samples never does. What looks into the elements is meant
    for lists. A share of equal elements, say, may mean either, and only its signature can tell.

    Of tensors, the score of a batch does not depend on the order of samples, and lies between
    theirs or is their sum.
    """
    unequal = [a.of_one or 0.0 for a in answers if not (probe.texts and a.pair[0] == a.pair[1])]
    equal = [a.of_one or 0.0 for a in answers if probe.texts and a.pair[0] == a.pair[1]]
    looks_inside = varies(unequal)
    if not probe.texts:
        if looks_inside and probe.scores_batches():
            return Finding(Form("one", watched=WATCHED))
        return Finding(Form("sample"), settled=len(unequal) > 1)
    if looks_inside:
        return Finding(Form("one", watched=WATCHED))
    if not unequal or not equal:
        return Finding(Form("sample"), settled=False)
    if same(equal[0], unequal[0]) or probe.minds_order():
        return Finding(Form("sample"))
    many = takes_many(probe.function)
    numbers = differing.alone, *differing.pair, differing.of_one
    if many is None:
        raise CallingFormError(UNCLEAR.format(name, *numbers))
    if not many:
        return Finding(Form("sample"))
    return Finding(Form("one", watched=WATCHED), word=LISTS.format(name, *numbers))
