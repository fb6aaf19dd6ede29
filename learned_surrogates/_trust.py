"""How far the surrogate is followed, and how the base loss takes over where it is not."""

import math

import torch
from torch import Tensor

from ._warnings import warn

# So many pairs tell the surrogate's error well enough to end the warm-up by it.
FEWEST_PAIRS = 32
# Weight of the newest call in the running gradient norms.
NORM_MOMENTUM = 0.05
# Updates in a row without any trust after which the user is warned.
PATIENCE = 100

NOT_TRUSTED = (
    "the surrogate has not been trusted for {updates} updates: its error is {error}, on "
    "predictions that it was not yet fitted to, and trust begins below {none:g}. Likely causes: "
    "the metric depends on something that the task does not show the surrogate; too few or too "
    "rare updates (warm_up_updates=, update_every=); predictions that hardly differ in the metric. "
    "{meanwhile}. criterion.check(...) tells whether its gradient lowers the metric all the same"
)
MEANWHILE = {
    True: "Meanwhile the base loss trains the model alone",
    False: "Its gradient is used nonetheless: give base_loss= the loss that trained the model so "
    "far, and that takes over",
}


class Trust:
    """Weighs the surrogate's gradient against the base loss's.

    The level of trust falls linearly from 1, at a relative error of `full` and less, to 0, at one
    of `none` and more. Before they are added, the surrogate's
    gradient is scaled to the base loss's norm, by running means over the batches, so that a
    learning rate keeps its meaning from one to the other.

    Args:
        full: largest relative error with full trust.
        none: smallest relative error without any.
    """

    def __init__(self, full: float, none: float):
        self.full = full
        self.none = none
        #: From 0 to 1.
        self.level = 0.0
        #: Whether there was a relative error to set it by.
        self.judged = False
        self.untrusted_updates = 0
        #: Running means of the norms of a batch's gradients: the surrogate's, the base loss's.
        self.norms = torch.zeros(2, dtype=torch.float32, device="cpu")

    def judge(self, relative_error: float) -> None:
        """Sets the level; an error that is not known leaves it as it is."""
        if not math.isnan(relative_error):
            # In this form, `none` may be infinite.
            share = (relative_error - self.full) / (self.none - self.full)
            self.level = 1 - min(1.0, max(0.0, share))
            self.judged = True

    def warn_if_lost(self, relative_error: float, has_base_loss: bool) -> None:
        """Counts an update without trust, and warns when there were many in a row."""
        self.untrusted_updates = 0 if self.level else self.untrusted_updates + 1
        if self.untrusted_updates == PATIENCE:
            error = f"{relative_error:.2f} of that of a constant predictor"
            if math.isnan(relative_error):
                error = "not known, as the metric does not vary"
            message = NOT_TRUSTED.format(
                updates=PATIENCE,
                error=error,
                none=self.none,
                meanwhile=MEANWHILE[has_base_loss],
            )
            warn(message)

    @property
    def balance(self) -> Tensor:
        """What the surrogate's gradient is multiplied with, `()`: 1 before both norms are known."""
        surrogate, base = self.norms
        return torch.where((surrogate > 0) & (base > 0), base / surrogate, 1.0)

    def blend(self, surrogate: Tensor, base: Tensor | None, weight: float) -> Tensor:
        """The gradient to hand back, from both losses' gradients of the same shape.

        Args:
            surrogate: a batch's.
            base: the base loss's; None if it was not computed, as it has no weight.
            weight: the surrogate's, 0 to 1.
        """
        balanced = surrogate * self.balance.to(surrogate)
        if base is None:
            return balanced
        if not weight:  # 0 times what is not a number would be none either
            return base
        return weight * balanced + (1 - weight) * base

    def follow(self, surrogate: Tensor, base: Tensor | None) -> None:
        """Takes a batch's gradients into the running norms, unless one is not finite or zero."""
        if base is None:
            return
        norms = torch.stack([surrogate.float().norm(), base.float().norm()]).to(self.norms.device)
        known = norms.isfinite() & (norms > 0)
        mean = torch.where(self.norms > 0, torch.lerp(self.norms, norms, NORM_MOMENTUM), norms)
        self.norms = torch.where(known.all(), mean, self.norms)

    def to(self, device: torch.device) -> None:
        self.norms = self.norms.to(device)
