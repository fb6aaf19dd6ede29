"""What is known of random readings before a metric is asked: how they differ, and the gradients.

A metric of texts has much in common with the edit distance, with whether a text is right, and with
which classes are read where. Of the expected value of all these, the gradient is known, so that
what the metric has in common with them needs no draws.
"""

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist
from torch import Tensor

from .._support.transfer import send
from ._alignment import Labels
from ._expected_edit_distance import expected_distances
from ._text_task import TextBatch, TextTask

# With more classes than these, it is not learned what each of them is worth.
MOST_CLASSES = 256
# Less probable classes are hardly ever drawn, and their share in a gradient is not known well.
LEAST_PROBABILITY = 1e-4
# In the place of log 0.
LEAST_OF_FOLDED = 1e-30
# What one output is taken to add to an edit distance, at most.
MOST_ADDED = 2.0
# Penalties on weights: of the edit distance and whether a text is right, which matter to most
# metrics, and of the classes.
RIDGE, RIDGE_OF_CLASSES = 1.0, 100.0
# What a column is multiplied with, so that its weight may depend on the sample.
FACTORS = 3


class Controls:
    """Functions of a reading, and the gradients of their expected values.

    The columns are the edit distance, times 1, over the target's length, and times what is near 1
    where a text is likely to be right; whether the text is wrong, times the same; and for each
    class two sums, over the positions, of what the class that is read there adds to the edit
    distance: one over those where it is that class, one weighed with how probable that class was.

    Args:
        task: the task.
        batch: of a call.
    """

    def __init__(self, task: TextTask, batch: TextBatch):
        self.task = task
        self.batch = batch
        self.labels = task.letters(batch.labels)
        # CTC's sum over paths knows classes, not letters: folded or not, a text is right as it is.
        self.spelt = batch.labels if task.merges else self.labels
        # What is no number in padding must not reach anything.
        logits = batch.logits.float().where(batch.present[:, None], 0.0).requires_grad_()
        with torch.enable_grad():
            distance = expected_distances(task, replace(batch, logits=logits))
            alike = logits if task.merges else _folded(task, logits)
            right = task.log_likelihood(alike, self.spelt, batch.present).exp()
            (self._d_distance,) = torch.autograd.grad(distance.sum(), logits)
            (self._d_right,) = torch.autograd.grad(right.sum(), logits)
        self._logits = logits
        self._p = batch.probabilities.where(batch.present[:, None], 0.0)
        #: Expected edit distance and probability of being right, `(batch,)`.
        self.distance, self.right = distance.detach(), right.detach()
        lengths = torch.tensor(
            [max(1.0, len(label)) for label in self.labels], dtype=torch.float32, device="cpu"
        )
        likely = (-self.distance).exp()
        lengths = send(lengths, likely)
        self._factors = torch.stack([torch.ones_like(likely), 1 / lengths, likely], 1)

    @staticmethod
    def ridge(task: TextTask) -> Tensor:
        """The penalty on each column's weight (see `Regression`)."""
        classes = task.alphabet.classes
        ridge = torch.full((2 * FACTORS + 2 * classes,), RIDGE, dtype=torch.float32, device="cpu")
        ridge[2 * FACTORS :] = RIDGE_OF_CLASSES
        return ridge if classes <= MOST_CLASSES else ridge[: 2 * FACTORS]

    def columns(self, drawn: Tensor, readings: list[Labels]) -> Tensor:
        """Of readings, less their mean over the draws: `(draws, batch, columns)`.

        Args:
            drawn: a class a position, `(draws, batch, length)`.
            readings: what these read.
        """
        count, size = drawn.shape[:2]
        read = [label for labels in readings for label in labels]
        same = self.task.letters(read)
        said, meant = list(map(_as_string, same)), list(map(_as_string, self.labels)) * count
        distances = cpdist(said, meant, scorer=Levenshtein.distance, dtype=np.float32)
        spelt = read if self.task.merges else same
        wrong = [a != b for a, b in zip(spelt, self.spelt * count, strict=True)]
        known = torch.stack(
            [torch.from_numpy(distances), torch.tensor(wrong, dtype=torch.float32, device="cpu")]
        )
        known = send(known.view(2, count, size, 1), drawn) * self._factors
        parts = [*known]
        if self.task.alphabet.classes <= MOST_CLASSES:
            parts += self._by_class(drawn)
        columns = torch.cat(parts, 2)
        return columns - columns.mean(0)

    def gradient(self, weights: Tensor) -> Tensor:
        """Of the weighed columns' expected value, `(batch, classes, length)`.

        Args:
            weights: `(columns,)`.
        """
        weights = send(weights.float(), self._factors)
        of_distance, of_wrong = weights[: 2 * FACTORS].view(2, FACTORS) @ self._factors.T
        gradient = of_distance[:, None, None] * self._d_distance
        gradient -= of_wrong[:, None, None] * self._d_right
        if len(weights) > 2 * FACTORS:
            read, probable = weights[2 * FACTORS :].view(2, -1)
            worth = self._added * (read[:, None] + (probable @ self._p)[:, None])
            gradient += self._gradient_by_class(worth)
        return gradient

    def _gradient_by_class(self, worth: Tensor) -> Tensor:
        """Of the expected sum, over what counts, of what the classes that are drawn are worth."""
        with torch.enable_grad():
            p = self._logits.softmax(1)
            expected = self.task.chance_to_count(p, self.batch.present) * (p * worth).sum(1)
            (gradient,) = torch.autograd.grad(expected.sum(), self._logits)
        return gradient

    def _by_class(self, drawn: Tensor) -> list[Tensor]:
        count, p = len(drawn), self._p
        added = self._added.expand(count, -1, -1, -1).gather(2, drawn[:, :, None]).squeeze(2)
        added = added * self.task.counts(drawn, self.batch.present)
        read = added.new_zeros(*drawn.shape[:2], p.shape[1]).scatter_add(2, drawn, added)
        return [read, torch.einsum("kbl,bcl->kbc", added, p)]

    @cached_property
    def _added(self) -> Tensor:
        """What each class adds to the edit distance, `(batch, classes, length)`; 0 in padding.

        The gradient of logits is p times what the class adds, less the mean over classes.
        """
        p = self._p
        added = (self._d_distance / p.clamp(min=LEAST_PROBABILITY)).clamp(-MOST_ADDED, MOST_ADDED)
        return added.where(p > LEAST_PROBABILITY, 0.0)


def _folded(task: TextTask, logits: Tensor) -> Tensor:
    """Logits where the first class of each kind that the metric tells apart stands for all."""
    if task.folded is None:
        return logits
    probabilities = logits.softmax(1)
    together = torch.zeros_like(probabilities)
    together = together.index_add(1, send(task.folded, logits.device), probabilities)
    return together.clamp(min=LEAST_OF_FOLDED).log()


def _as_string(label: list[int]) -> str:
    """Class indices as characters, which are compared faster."""
    # Beyond the surrogates, whose code points are no characters, by far.
    return "".join([chr(0x10000 + index) for index in label])
