"""How much of what draws correct by is worth its noise."""

from typing import Any

import torch
from torch import Tensor

from .._batch import Batch
from .._measured.quality import Quality
from .._state.tensors import Faults, check_shapes, negative, not_finite

# Steps over which an optimizer averages.
HORIZON = 30


class Correction:
    r"""Weighs the correction of a known gradient by measured draws, so that their sum errs least.

    Without the correction, a step's gradient is off by its mean b; with it, by its noise, which
    steps average over, as optimizers do over some H. The mean squared error of a share s,
    :math:`(1 - s)^2 |b|^2 + s^2 V / H`, is least at

    .. math:: s = \frac{|b|^2}{|b|^2 + V / H}

    with V the variance of a step's correction. Both are read in the last layer's weights, and of
    the mean's square counts what is more than chance makes of noise: where that is small beside V,
    a correction by chance would be worse than none.
    """

    def __init__(self) -> None:
        self.quality = Quality()
        #: The share s, 0 to 1. Before it is known it is 0: of large sets, such as masks, the draws
        #: of the first steps are noise that can ruin a model.
        self.share = 0.0

    def read(self, batch: Batch, correction: Tensor) -> None:
        """Takes a step's correction, with respect to a batch's prediction, of its shape."""
        if len(batch.target) > 1:
            self.quality.read(batch, correction, None)
        ratio = self.quality.sure_signal_to_noise**2
        if ratio == ratio:
            self.share = ratio / (ratio + 1 / HORIZON)
        else:
            # One sample is held against a mean of others, from which chance cannot be told.
            self.share = 1.0 if len(batch.target) == 1 else 0.0

    # Its state

    def look(self) -> Any:
        # Tensors are replaced, and never written into.
        return self.share, vars(self.quality).copy()

    def restore(self, looked: Any) -> None:
        self.share, quality = looked
        vars(self.quality).update(quality)

    def save(self) -> dict[str, Tensor]:
        share = torch.tensor(self.share, dtype=torch.float64, device="cpu")
        return self.quality.save("correction") | {"correction.share": share}

    def faults(self, state: dict[str, Tensor]) -> Faults:
        shapes = self.quality.shapes("correction") | {"correction.share": ()}
        return check_shapes(state, shapes) + not_finite(state, shapes) + negative(state, shapes)

    def load(self, state: dict[str, Tensor], device: torch.device) -> None:
        self.quality.load(state, "correction", device)
        self.share = float(state["correction.share"])
