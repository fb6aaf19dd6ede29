"""The loss of boxes as the paper has it, and with nothing of ours."""

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from .._learning.fit_values import FitValues, changed
from .._loss import LearnedSurrogateLoss
from .._surrogate import EmbeddingDistance
from ._box_task import EMBEDDING
from ._generator import RandomDistortions
from ._iou import rotated_iou
from ._rotated import Rotated

# The paper's; its layers' widths are not published.
PAIRS, WIDTHS = 3_000_000, (6, 128, 128, 128, 128, EMBEDDING)


def ls_iou(labels: Tensor, image_size: tuple[float, float], **changes: Any) -> LearnedSurrogateLoss:
    r"""LS-IoU: an embedding distance fitted to 1 - IoU of rotated boxes, and followed.

    "Learning Surrogates via Deep Embedding" (Patel, Hodaň, Matas, ECCV 2020), section 4.3: five
    linear layers h, 6 to 16 numbers, of a box's centre and size in shares of the image, and of its
    angle's cosine and sine; :math:`\hat e = \|h(z) - h(y)\|_2` fitted by Eq. 6 to 1 - IoU (the
    paper says that the IoU is the distance, which of equal boxes is 0), on the model's boxes and as
    many random ones, with a gradient penalty of weight 0.1. No base loss, no noise. The metric gets
    boxes in pixels.

    The layers' width and how many updates of the surrogate go with one of the model are not
    published: 128, and one each here, after 500 in the first ten calls, in which the gradient is
    zero.

    Args:
        labels: training boxes `(count, 5)` for the random generator, whose 3 million pairs are made
            at the first call: `generator=RandomDistortions(labels, pool=...)` makes fewer.
        image_size: width and height, in the boxes' units.
        **changes: other arguments of `LearnedSurrogateLoss` and fields of `FitValues`, in the place
            of these.

    Returns:
        The loss, called as `Rotated` says.

    Raises:
        TypeError, ValueError: as `Rotated`, `RandomDistortions` and `LearnedSurrogateLoss` do.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[50.0, 41.0, 32.0, 10.0, 0.25], [8.0, 9.0, 5.0, 5.0, 0.0]])
        >>> few = RandomDistortions(labels, pool=1000)
        >>> criterion = ls_iou(labels, (64, 64), generator=few, warm_up=10)
        >>> pred = (labels + 0.5).requires_grad_()
        >>> criterion(pred, labels).backward()
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(WIDTHS):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    settings: dict[str, Any] = {
        "metric": rotated_iou,
        "task": Rotated(image_size=image_size, canonical=False),
        "surrogate": EmbeddingDistance(nn.Sequential(*layers[:-1])),
    }
    fit: dict[str, Any] = {
        "data": "local-global",
        "penalty_weight": 0.1,
        "batch_size": 64,
        "every": 1,
    }
    fit, changes = changed(fit, changes)
    if "generator" not in fit:
        fit["generator"] = RandomDistortions(labels, pool=PAIRS)
    return LearnedSurrogateLoss(**(settings | {"fit": FitValues(**fit)} | changes))
