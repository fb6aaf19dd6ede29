"""The task of predictions that are distributions to draw from, and what measures its gradient."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ._batch import BatchType
from ._contract import hooks
from ._estimator import Draws
from ._evaluation.measurement import Measurement
from ._learning.sync import Sync
from ._measured.regressed import Regressed
from ._measured.score_function import centred
from ._metric.metric import Metric
from ._recipe import Recipe
from ._support.transfer import send
from ._task import MeasuredTask


class SampledTask(MeasuredTask[BatchType]):
    r"""Predictions are distributions, from which draws can be had with their score.

    The base of a task of your own, with three methods: `read`, `decode` and `sample_with_score`.
    The loss then follows the metric's mean over draws, :math:`E_{s \sim p_z}[e(s, y)]`: unbiased,
    by the score function with a sample's other draws as its baseline. Nothing is fitted, so that
    nothing need be represented.

    Attributes:
        draws: metric calls a sample where the user gives no number: 4.

    Example:
        >>> import torch
        >>> from learned_surrogates import Batch, LearnedSurrogateLoss, SampledTask
        >>> class Choices(SampledTask):
        ...     "Logits `(batch, classes)` and class indices; the metric gets indices."
        ...     target_is_best = True  # no prediction is better than one that equals its target
        ...     def read(self, logits, target):
        ...         return Batch(prediction=logits, target=target)
        ...     def decode(self, batch):
        ...         return batch.prediction.argmax(1), batch.target.clone()
        ...     def sample_with_score(self, batch, random):
        ...         p = batch.prediction.softmax(1)
        ...         drawn = torch.multinomial(p.cpu(), 1, generator=random)[:, 0].to(p.device)
        ...         score = torch.nn.functional.one_hot(drawn, p.shape[1]) - p
        ...         return drawn, batch.target.clone(), score
        >>> costs = torch.tensor([[0.0, 1, 5], [1, 0, 1], [9, 1, 0]])  # [said, meant]
        >>> criterion = LearnedSurrogateLoss(lambda said, meant: costs[said, meant], task=Choices())
        >>> logits = torch.randn(8, 3, requires_grad=True)
        >>> criterion(logits, torch.randint(0, 3, (8,))).backward()
        >>> logits.grad.shape
        torch.Size([8, 3])

    References:
        - Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist
          Reinforcement Learning", Machine Learning, 1992.
        - Kool, van Hoof, Welling, "Buy 4 REINFORCE Samples, Get a Baseline for Free!", ICLR
          workshop, 2019.
    """

    has_score = True
    draws = 4

    @abstractmethod
    def sample_with_score(
        self, batch: BatchType, random: torch.Generator
    ) -> tuple[Any, Any, Tensor]:
        """What `decode` returns, for a random draw from each prediction's distribution; its score.

        Args:
            batch: as `read` gave it.
            random: a generator on the CPU, the only source of chance.

        Returns:
            Predictions and targets as the metric takes them, and the gradient of the draws'
            log-likelihood with respect to the prediction, of its shape.
        """

    def estimator(
        self,
        metric: Metric,
        recipe: Recipe,
        surrogate: str | nn.Module,
        sync: Sync,
        random: torch.Generator,
    ) -> "Sampled[BatchType]":
        self.refuse_module(surrogate)
        return Sampled(self, recipe, sync, random)

    def check_draws(self, count: int, metric: Metric) -> None:
        if count < 2:
            raise ValueError(
                f"draws={count}: draws are compared with each other, so that there must be 2 or "
                "more"
            )


class ScoredDraws(Draws):
    """Draws from predictions' distributions, and their scores.

    Args:
        batch: of a call.
        pairs: what the metric gets of each draw.
        scores: of each draw, `(draws, *prediction)`.
    """

    def __init__(self, batch: BatchType, pairs: list[tuple[Any, Any]], scores: Tensor):
        self.batch = batch
        self.pairs = pairs
        self.scores = scores

    def known_gradient(self) -> None:
        return None

    def gradient(self, measured: Measurement) -> tuple[Tensor, Tensor]:
        r"""Nothing, and :math:`\frac{1}{K - 1} \sum_k (e_k - \bar e) \nabla \log p_z(s_k)`."""
        count = len(self.pairs)
        rest, stands_for = measured.stand_in(centred(measured.by_sample))
        weights = send(stands_for * rest / (count - 1), self.scores)
        dims = self.scores.ndim - 1
        weights = torch.stack([self.batch.per_sample(each, dims) for each in weights])
        # A score that is not a number is no matter where nothing was measured.
        gradient = torch.where(weights != 0, weights * self.scores, 0.0).sum(0)
        return torch.zeros_like(gradient), gradient


class Sampled(Regressed[BatchType]):
    """Measures the gradient of the metric's mean over a task's draws; nothing is known of them."""

    unit, known_of = "draws a sample", "draws"

    def __init__(
        self, task: SampledTask[BatchType], recipe: Recipe, sync: Sync, random: torch.Generator
    ):
        super().__init__(torch.zeros(0, device="cpu"), recipe, sync, random)
        self.task = task

    def draw(self, batch: BatchType, count: int) -> ScoredDraws:
        drawn = [self.sample_with_score(batch, self.random) for _ in range(count)]
        pairs = [(said, meant) for said, meant, _ in drawn]
        return ScoredDraws(batch, pairs, torch.stack([score for *_, score in drawn]))

    def sample_with_score(
        self, batch: BatchType, random: torch.Generator
    ) -> tuple[Any, Any, Tensor]:
        with torch.no_grad():
            said, meant, score = hooks.sample_with_score(self.task, batch, random)
        return said, meant, score.float()

    def finite(self, batch: BatchType) -> Tensor:
        # What cannot be drawn may be masked with minus infinity.
        z = batch.samples_first(batch.prediction.detach())
        return (z < torch.inf).all(1)

    @property
    def silent_advice(self) -> str:
        return "its outputs may be so sure that all draws are the same"

    def describe(self) -> list[str]:
        return [f"draws: {self.recipe.draws} a sample", "surrogate: none, measured only"]
