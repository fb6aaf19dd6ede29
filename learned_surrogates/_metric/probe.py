"""A metric, asked in several ways what it makes of a few samples."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .error import NoNumbers, ReturnedError
from .values import as_numbers, as_values, ask, shape_of_samples

# How far values may differ by rounding from batch to batch, relative to the larger one.
ROUNDING = 1e-3
# So many samples at most are asked for a number alone.
SOME = 16
# So many characters of the batch's own texts make other texts.
CHARACTERS = 8

Pair = tuple[Any, Any]


class Answer:
    """What the metric says of some samples.

    Args:
        function: the metric.
        predictions: as it may take them.
        targets: as many.
    """

    def __init__(self, function: Callable[..., Any], predictions: Any, targets: Any):
        #: Why there are no values.
        self.error: Exception | None = None
        self._result: Any = None
        self._shape = shape_of_samples(predictions)
        try:
            self._result = ask(function, predictions, targets)
        except Exception as error:  # noqa: BLE001 - whatever a user's metric raises
            self.error = error

    def values(self, count: int) -> Tensor | None:
        """`(count,)`, one a sample, or more behind that; None if it has not given so many."""
        if self.error is None:
            try:
                return as_values(self._result, count, self._shape)
            except Exception as error:  # noqa: BLE001 - of whatever it has returned
                self.error = error
        return None

    @cached_property
    def number(self) -> float | None:
        """The one number that it is; None if it is none."""
        try:
            number = float(as_values(self._result, None))
        except Exception:  # noqa: BLE001 - of whatever it has returned
            return None
        return number if math.isfinite(number) else None

    @property
    def mean(self) -> tuple[float, str] | None:
        """The mean of all that it gives, and what that is in words; None if it is no number."""
        try:
            values = as_numbers(self._result)
        except Exception:  # noqa: BLE001 - of whatever it has returned
            return None
        mean = values.mean().item()
        what = "one number of a whole batch, {:g} here"
        if values.numel() > 1:
            what = f"values of shape {tuple(values.shape)} of a whole batch, {{:g}} in the mean"
        return (mean, what.format(mean)) if math.isfinite(mean) else None


class Probe:
    """Asks a metric about samples of a batch.

    Args:
        function: the metric.
        predictions: a batch of them.
        targets: as many.
    """

    def __init__(self, function: Callable[..., Any], predictions: Any, targets: Any):
        self.function = function
        self.predictions, self.targets = predictions, targets
        self.texts = isinstance(predictions, list) and all(
            isinstance(text, str) for text in (*predictions, *targets)
        )
        middle, last = len(targets) // 2, len(targets) - 1
        #: Of the batch's first, middle and last sample, as far as they are several.
        self.pairs = [(predictions[i], targets[i]) for i in sorted({0, middle, last})]

    def alone(self, pair: Pair) -> Answer:
        return Answer(self.function, *pair)

    def batch(self, *pairs: Pair) -> Answer:
        predictions, targets = zip(*pairs)
        return Answer(
            self.function, _like(self.predictions, predictions), _like(self.targets, targets)
        )

    def answers_one(self) -> bool:
        """Whether there is a number for one sample, in a batch of one or alone, among some."""
        count = len(self.targets)
        few = [(self.predictions[i], self.targets[i]) for i in range(0, count, -(-count // SOME))]
        answers = (ask(pair) for pair in few for ask in (self.batch, self.alone))
        return any(answer.number is not None for answer in answers)

    def is_random(self, pair: Pair) -> bool:
        """Whether a batch of one has another value when it is asked for once more."""
        first, second = self.batch(pair).number, self.batch(pair).number
        return first is not None and second is not None and not same(first, second)

    def minds_order(self) -> bool:
        """Whether the number for a list of texts changes with their order."""
        x, y, z = (prediction for prediction, _ in self.other_pairs()[:3])
        batches = [
            [(x, y), (y, z), (z, x + y)],
            [(x, x), (y, z), (z, y)],
            [(x, y), (y, x), (z, z)],
        ]
        return any(map(self._minds_order, batches))

    def scores_batches(self) -> bool:
        """Whether the number for a batch is between its samples' or their sum, in any order."""
        pairs = self.pairs[0], self.pairs[-1]
        numbers, two = [self.batch(pair).number for pair in pairs], self.batch(*pairs).number
        known = [number for number in numbers if number is not None]
        if two is None or len(known) < 2 or self._minds_order([*self.pairs, pairs[0]][:3]):
            return False
        between = min(known) <= two <= max(known)
        return between or any(same(two, number) for number in (*known, sum(known)))

    @property
    def telling(self) -> bool:
        """Whether the texts have different characters, without which other texts tell little."""
        return len({c for pair in self.pairs for text in pair for c in text.strip()}) > 1

    def other_pairs(self) -> list[Pair]:
        """Pairs of texts of which the first ones differ much, little and in length; two are equal.

        Made of the batch's own, whose characters the metric knows.
        """
        own = sorted({text for pair in self.pairs for text in pair}, key=len, reverse=True)
        text = "".join(own)[:CHARACTERS] or "a"
        several = " ".join([text, text[1:] or text * 2, text[::-1], text * 2, text[:-1] or text])
        return [
            (text[1:], text),
            (text + text[:1], text),
            (f"{text} {text} {text}", text),
            (text[::-1], text),
            (text[:1], text),
            (text, text),
            (several, several),
        ]

    def _minds_order(self, pairs: list[Pair]) -> bool:
        ordered, turned = self.batch(*pairs).number, self.batch(pairs[-1], *pairs[:-1]).number
        return ordered is not None and turned is not None and not same(ordered, turned)


def fault_of_all(
    function: Callable[..., Any], predictions: Any, targets: Any, cause: Exception | None
) -> ReturnedError | None:
    """What is wrong with what a metric returns of a batch, where that is no one sample's fault.

    Neither the batch nor its first and last samples alone give numbers. Where the batch gives
    something else than numbers, a sample alone may raise: it is none of what the metric is for.

    Args:
        function: the metric.
        predictions: a batch of them.
        targets: as many.
        cause: why the first sample has no value.
    """
    whole = Answer(function, predictions, targets)
    last = Answer(function, predictions[-1], targets[-1])
    if len(targets) == 1 or whole.values(len(targets)) is not None or last.number is not None:
        return None
    error = whole.error
    raised = last.error is not None or not isinstance(cause, ReturnedError)
    if not isinstance(error, ReturnedError) or (raised and not isinstance(error, NoNumbers)):
        return None
    return error


def same(a: float, b: float) -> bool:
    """Whether values differ by rounding at most."""
    return a == b or math.isclose(a, b, rel_tol=ROUNDING) or (math.isnan(a) and math.isnan(b))


def varies(values: Sequence[float]) -> bool:
    return any(not same(value, values[0]) for value in values)


def _like(container: Any, samples: Sequence[Any]) -> Any:
    """Samples in a container of this kind."""
    if isinstance(container, Tensor):
        return torch.stack(list(samples))
    if isinstance(container, np.ndarray):
        return np.stack(samples)
    return list(samples)
