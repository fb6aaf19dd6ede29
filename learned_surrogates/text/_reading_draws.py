"""Draws of readings from a recogniser's own outputs, and the gradient that they tell."""

from functools import cached_property

import torch
from torch import Tensor

from .._estimator import Draws
from .._evaluation.measurement import Measurement
from .._measured.score_function import centred
from .._support.transfer import send
from ._controls import Controls
from ._text_task import TextBatch, TextTask


class ReadingDraws(Draws):
    """Random readings of a batch, and what is known of them.

    Args:
        task: the task.
        batch: of a call.
        drawn: a class a position, `(draws, batch, length)`.
        controls: what is known.
        weights: of the controls' columns, `(columns,)`.
        share: how far these were confirmed, 0 to 1.
    """

    def __init__(
        self,
        task: TextTask,
        batch: TextBatch,
        drawn: Tensor,
        controls: Controls | None,
        weights: Tensor,
        share: float,
    ):
        self.task = task
        self.batch = batch
        self.drawn = drawn
        self.controls = controls
        self.share = share
        self._weights = weights
        readings = task.readings(drawn, batch)
        self.pairs = task.pairs(readings, batch)
        self.columns = torch.zeros(*drawn.shape[:2], 0, dtype=torch.float32, device="cpu")
        if controls is not None:
            self.columns = controls.columns(drawn, readings).cpu()
        self.seen = (self.columns,)

    def known_gradient(self) -> tuple[Tensor, float] | None:
        return self._told

    @cached_property
    def _told(self) -> tuple[Tensor, float] | None:
        if self.controls is None or not self.share:
            return None
        gradient = self.share * self.controls.gradient(self._weights)
        return self.task.as_predicted(gradient, self.batch.prediction), self.share

    def gradient(self, measured: Measurement) -> tuple[Tensor, Tensor]:
        r"""The score function's, with the others of a sample as its baseline, and the controls.

        With K readings s of a sample, errors e less their mean, and h what the controls make of
        them, less its mean, too:

        .. math::

            c \nabla E[h] + \frac{1}{K - 1} \sum_k (e_k - c h_k) \nabla \log p(s_k)

        which has the same mean for every h and c (see `score_function.estimate`; the leave-one-out
        baseline: Kool, van Hoof, Welling, 2019).
        """
        count = len(self.drawn)
        rest, stands_for = measured.stand_in(centred(measured.values))
        if self.columns.shape[2]:
            rest = rest - self.share * (self.columns @ self._weights.float())
        rest = torch.where(stands_for > 0, stands_for * rest, 0.0) / (count - 1)
        # The score is one_hot(drawn) - p, where what is drawn counts.
        p = self.batch.probabilities.where(self.batch.present[:, None], 0.0)
        of_draws = send(rest, p)[:, :, None] * self.task.counts(self.drawn, self.batch.present)
        gradient = -p * of_draws.sum(0)[:, None]
        gradient.scatter_add_(1, self.drawn.transpose(0, 1), of_draws.transpose(0, 1))
        gradient = self.task.as_predicted(gradient, self.batch.prediction)
        told = self.known_gradient()
        return torch.zeros_like(gradient) if told is None else told[0], gradient
