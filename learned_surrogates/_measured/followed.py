"""The gradient that is handed back: of draws, of what is known of them, and of the base loss."""

import torch
from torch import Tensor

from .._base_loss import Base
from .._batch import Batch
from .._estimator import Draws
from .._evaluation.measurement import Measurement
from .._recipe import Recipe
from .record import Record


class Followed:
    """Mixes what a call's gradient is made of.

    Args:
        record: whose estimator draws, and who leads.
        recipe: the shares that the user gives.
    """

    def __init__(self, record: Record, recipe: Recipe):
        self.record = record
        self.estimator = record.estimator
        self.recipe = recipe

    @property
    def correction(self) -> float:
        """Share of what draws correct by."""
        return self.estimator.correction(self.recipe.correction)

    @property
    def base_share(self) -> float:
        """Share of the base loss's gradient in a call.

        All while it leads; then as given, or as the estimator has it.
        """
        if not self.record.has_base_loss:
            return 0.0
        if self.record.leading:
            return 1.0
        given = self.recipe.base_weight
        return self.estimator.base_weight if given is None else given

    def gradient(
        self,
        batch: Batch,
        finite: Tensor,
        draws: Draws,
        measured: Measurement | None,
        base: Base,
        *,
        learning: bool,
    ) -> Tensor:
        """The gradient of a call's samples.

        Where nothing was measured, what was learned, as far as it was confirmed, and the base loss
        for the rest; and of both, the base loss has its share.

        Args:
            batch: of the call.
            finite: where its prediction is, `(batch,)`; elsewhere the gradient is NaN.
            draws: around the predictions.
            measured: what the metric said of them, if it has by now.
            base: gives the base loss's gradient; None without one.
            learning: whether the loss learns from the call.
        """
        correction, sure = None, draws.values is not None
        if measured is not None and measured.usable.any():
            sure = True
            gradient, correction = draws.gradient(measured)
            weight = 1.0
        else:
            told = draws.known_gradient()
            gradient, weight = told or (torch.zeros_like(batch.prediction.float()), 0.0)
            if told is None and base is None and measured is None:
                self.record.warn_of_nothing()
        given = 0.0 if base is None else self.base_share
        share = 0.0 if base is None else 1 - (1 - given) * weight
        reading = learning and sure and (self.record.calls + 1) % self.recipe.fit.every == 0
        # The user's, which may raise: before anything is read.
        other = base().to(gradient) if base is not None and (share or reading) else None
        if correction is not None:
            # Before it is read: a share that knows of these draws would be biased.
            gradient = gradient + self.correction * correction
            if learning and self.recipe.correction is None:
                self.estimator.weigh(batch, correction)
        if reading:
            self.record.quality.read(batch, gradient, other)
        # 0 times what is not a number would be none either.
        if other is not None and share == 1:
            return other
        gradient = gradient.where(batch.per_sample(finite, gradient.ndim), torch.nan)
        return gradient if other is None else (1 - given) * gradient + share * other
