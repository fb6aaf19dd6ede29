"""The mean of IoU under Gaussian noise on the logits."""

import torch
from torch import Tensor


def expected_iou(logits: Tensor, masks: Tensor, width: Tensor, threshold: float = 0.0) -> Tensor:
    r"""Expected intersection over union under independent noise on each logit, `(images,)`.

    Pixels of the mask make up the intersection I, and others add to the union U, so that the two
    are independent. U is the mask's size and a sum of independent events, whose mean b and variance
    v give

    .. math:: E[I / U] = E[I]\, E[1 / U], \quad E[1 / U] = 1 / b + v / b^3 + ...

    to about 0.001. Without a mask, IoU is 1 where nothing is said, and 0 otherwise: exact.

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
    union = size + of_rest.sum(1)
    variance = (of_rest * (1 - of_rest)).sum(1)
    safe = union.where(size > 0, 1.0)
    found = of_mask.sum(1) * (1 / safe + variance / safe**3)
    nothing = torch.special.log_ndtr(-unit).sum(1).exp()
    return torch.where(size > 0, found, nothing)
