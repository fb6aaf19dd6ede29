"""Which way a loss of the boxes moves the detector's weights."""

import torch
from torch import Tensor

from learned_surrogates import LearnedSurrogateLoss

from .detector import Detector, RegressionLoss, assigned, positives

BATCH = 16
BATCHES = 16


class LossGradient:
    """The gradient of a loss with respect to a model's weights, over the first 256 of some scenes.

    Args:
        model: in evaluation mode.
        scenes: images as uint8, boxes, and which of these are there.
    """

    def __init__(self, model: Detector, scenes: tuple[Tensor, Tensor, Tensor]):
        self.model = model
        self.pairs = []
        for start in range(0, min(len(scenes[0]), BATCH * BATCHES), BATCH):
            images, words, present = (part[start : start + BATCH] for part in scenes)
            word, _ = assigned(words, present)
            self.pairs.append(positives(model(images.float() / 255)[1], words, word))

    def __call__(self, loss_of: RegressionLoss) -> Tensor:
        """One vector. A surrogate learns nothing from it."""
        surrogate = loss_of if isinstance(loss_of, LearnedSurrogateLoss) else None
        if surrogate is not None:
            surrogate.eval()
        total = torch.zeros(())
        for pair in self.pairs:
            parts = torch.autograd.grad(
                loss_of(*pair), list(self.model.parameters()), retain_graph=True, allow_unused=True
            )
            total = total + torch.cat([part.flatten() for part in parts if part is not None])
        if surrogate is not None:
            surrogate.train()
        return total / len(self.pairs)
