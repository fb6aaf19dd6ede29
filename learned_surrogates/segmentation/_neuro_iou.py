"""NeuroIoU: a net that learns the IoU loss from counts of probabilities."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .._learning.gradient_step import seeded
from .._support.checks import check_choice, check_number, check_seed, read_tensor
from .._surrogate import Standardise
from ._counts import check_masks, neuro_counts, soft_counts

Form = Literal["neuro-3", "neuro-6", "hinge", "counts"]


class NeuroIoU(nn.Module):
    r"""A surrogate `S(z, y)` of an image's IoU loss that sees counts: NeuroIoU.

    It is handed over as a surrogate, which fits it to the metric and lets the model follow it::

        criterion = LearnedSurrogateLoss(
            segmentation.iou,
            task=Tensors(smoothing=0),
            surrogate=segmentation.NeuroIoU(logits, masks),
            base_loss=nn.BCEWithLogitsLoss(),
        )

    A net of four hidden layers of 100 is fitted, by squared error (Eq. 3), to the metric from

    - "neuro-3": TP_pr, FP_pr and FN_pr, the sums over true positives, false positives and false
      negatives of the probability of the class that is predicted there (Eq. 2). The paper has P(x);
      read as the foreground's probability, misses are pushed further down.
    - "neuro-6": the same, and their means over the three sets.
    - "hinge": sums of the hinge loss in place of probabilities (section 3.3).
    - "counts": expected counts over all pixels, which is not in the paper. The only form that has a
      gradient for correct background, and for images where nothing is predicted and nothing true.

    The sets are those of the hard prediction, and constants. Sums are divided by the number of
    pixels, and standardised by the samples given here.

    "neuro-6" and "hinge" are there as published, and not to be recommended: they fit the metric's
    values and may push pixels the wrong way. A mean goes up with a pixel less, and a sum of hinges
    over true positives is large where these are many, or where they are unsure. Look at `check`.

    Args:
        logits: `(images, ...)` of the model to be tuned, by which inputs are standardised.
        masks: `(images, ...)` of the same shape: what is above 0 is foreground.
        form: what the net sees.
        hidden: units of a hidden layer.
        layers: hidden layers.
        seed: of the net's weights.

    Raises:
        TypeError, ValueError: arguments that are none of these, masks of another shape.

    Example:
        >>> import torch
        >>> from learned_surrogates import FitValues, LearnedSurrogateLoss, Tensors
        >>> from learned_surrogates.segmentation import iou
        >>> logits, masks = torch.randn(8, 1, 16, 16), (torch.rand(8, 1, 16, 16) < 0.3).float()
        >>> surrogate = NeuroIoU(logits, masks)
        >>> criterion = LearnedSurrogateLoss(
        ...     iou, task=Tensors(smoothing=0), surrogate=surrogate, fit=FitValues(warm_up=20)
        ... )
        >>> logits.requires_grad_()
        tensor(...
        >>> criterion(logits, masks).backward()
        >>> logits.grad.shape
        torch.Size([8, 1, 16, 16])

    References:
        Nagendar, Singh, Balasubramanian, Jawahar, "NeuroIoU: Learning a Surrogate Loss for Semantic
        Segmentation", BMVC 2018.
    """

    def __init__(
        self,
        logits: Tensor,
        masks: Tensor,
        *,
        form: Form = "neuro-3",
        hidden: int = 100,
        layers: int = 4,
        seed: int = 0,
    ):
        super().__init__()
        check_choice("form", form, get_args(Form))
        for name, value in (("hidden", hidden), ("layers", layers)):
            check_number(name, value, 1)
        logits, masks = read_tensor("logits", logits), read_tensor("masks", masks)
        check_masks(logits, masks)
        if not len(logits):
            raise ValueError("logits must have an image: by some, the net's inputs are scaled")
        self.form = form
        with torch.no_grad():
            seen = self.inputs(logits.detach(), masks).cpu().float()
        with seeded(check_seed(seed)):
            parts: list[nn.Module] = [Standardise(seen, least=1e-3)]
            width = seen.shape[1]
            for _ in range(layers):
                parts += [nn.Linear(width, hidden), nn.ReLU()]
                width = hidden
            self.net = nn.Sequential(*parts, nn.Linear(width, 1))

    def inputs(self, z: Tensor, y: Tensor) -> Tensor:
        """What the net sees of logits and masks: `(images, 3)`, or `(images, 6)`."""
        pixels = z[0].numel()
        if self.form == "counts":
            return soft_counts(z, y) / pixels
        sums, sizes = neuro_counts(z, y, hinge=self.form == "hinge")
        if self.form != "neuro-6":
            return sums / pixels
        return torch.cat([sums / pixels, sums / sizes.clamp(min=1)], 1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Values `(images,)` for logits z and masks y, `(images, ...)` each."""
        return self.net(self.inputs(z, y)).squeeze(1)
