"""The most probable readings of a recogniser's outputs, and the gradient of the metric's mean."""

from functools import cached_property

import torch
from torch import Tensor

from .._estimator import Draws
from .._evaluation.measurement import Measurement
from .._support.transfer import send
from ._beam_search import likeliest_readings
from ._text_task import TextBatch, TextTask


class LikeliestDraws(Draws):
    r"""The most probable distinct readings, in the place of random ones.

    With K readings s of a sample, of shares :math:`q_k = p(s_k) / \sum_j p(s_j)`, the metric's mean
    over these, :math:`\bar e = \sum_k q_k e_k`, and its gradient,
    :math:`\sum_k q_k (e_k - \bar e) \nabla \log p(s_k)` (Prabhavalkar et al., "Minimum Word Error
    Rate Training for Attention-based Sequence-to-sequence Models", ICASSP 2018, Eq. 4). Without
    noise, but of another mean than that over all readings: it says nothing of the others.

    Args:
        task: the task.
        batch: of a call.
        count: readings a sample.
    """

    def __init__(self, task: TextTask, batch: TextBatch, count: int):
        self.task = task
        self.batch = batch
        self.labels, own = likeliest_readings(task, batch, count)
        self.pairs = task.pairs(self.labels, batch)
        with torch.no_grad():
            likelihood = torch.stack([self._likelihood(self._logits, each) for each in self.labels])
        #: q, `(readings, batch)`.
        self.shares = likelihood.where(send(own, likelihood.device), -torch.inf).softmax(0)
        self.seen = (self.shares.cpu(),)

    @cached_property
    def _logits(self) -> Tensor:
        # What is no number in padding must not reach anything.
        return self.batch.logits.float().where(self.batch.present[:, None], 0.0)

    def _likelihood(self, logits: Tensor, labels: list[list[int]]) -> Tensor:
        return self.task.log_likelihood(logits, labels, self.batch.present)

    def known_gradient(self) -> None:
        return None

    def gradient(self, measured: Measurement) -> tuple[Tensor, Tensor]:
        """Nothing, and the gradient of the mean over the readings."""
        # What all errors have in common is no matter, and shares do not sum to 1 exactly.
        differences = measured.by_sample - measured.by_sample[:1]
        errors, stands_for = measured.stand_in(differences)
        errors, stands_for = send(errors, self.shares), send(stands_for, self.shares)
        weights = self.shares * (errors - (self.shares * errors).sum(0)) * stands_for
        gradient = torch.zeros_like(self._logits)
        # One by one: together they would be as many times as large as the prediction.
        for of_draw, labels in zip(weights, self.labels, strict=True):
            logits = self._logits.detach().requires_grad_()
            with torch.enable_grad():
                likelihood = self._likelihood(logits, labels)
                (score,) = torch.autograd.grad(likelihood, logits, of_draw)
            gradient += score
        gradient = self.task.as_predicted(gradient, self.batch.prediction)
        return torch.zeros_like(gradient), gradient
