"""The mean of IoU under Gaussian noise on the logits."""

import torch
from torch import Tensor

from .._support.independent_events import mean_ratio


def expected_iou(logits: Tensor, masks: Tensor, width: Tensor, threshold: float = 0.0) -> Tensor:
    r"""Expected intersection over union under independent noise on each logit, `(images,)`.

    Pixels of the mask make up the intersection I, and others add to the union U, so that the two
    are independent, and :math:`E[I / U] = E[I]\, E[1 / U]`. U is the mask's size and the number of
    independent events that happen (`mean_ratio`): to 0.005 of a mask of one pixel, and to 0.001 of
    one of three or more. Without a mask, IoU is 1 where nothing is said, and 0 otherwise: exact.

    Args:
        logits: `(images, ...)`.
        masks: of the same shape, bool.
        width: standard deviation of the noise, to be broadcast to the logits.
        threshold: above which a logit is foreground.
    """
    unit = ((logits - threshold) / width).flatten(1)
    chances, true = torch.special.ndtr(unit), masks.flatten(1)
    of_mask, of_rest = chances.where(true, 0.0), chances.where(~true, 0.0)
    size = true.sum(1)
    found = of_mask.sum(1) * mean_ratio(of_rest, size=size.clamp(min=1))
    nothing = torch.special.log_ndtr(-unit).sum(1).exp()
    return torch.where(size > 0, found, nothing)
