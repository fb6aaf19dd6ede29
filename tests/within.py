"""What a loss has inside and its public surface does not tell: tests reach for it here alone."""

import torch

from learned_surrogates import LearnedSurrogateLoss


def core_of(criterion: LearnedSurrogateLoss):
    """What comes to a gradient: a `MeasuredCore` or a `ValueCore`."""
    return criterion._core


def replay_of(criterion: LearnedSurrogateLoss):
    """What the surrogate is fitted to; None where nothing is remembered."""
    return core_of(criterion).replay


def slope_of(criterion: LearnedSurrogateLoss):
    """The forms whose slope is the control variate of draws around tensors."""
    return core_of(criterion).estimator.slope


def surrogates(criterion: LearnedSurrogateLoss) -> list[torch.nn.Module]:
    """The nets that are fitted, as far as they have been made."""
    inside = core_of(criterion)
    if hasattr(inside, "net"):
        made = [inside.net.module]
    else:
        made = slope_of(criterion).forms if hasattr(inside.estimator, "slope") else []
    return [surrogate for surrogate in made if surrogate is not None]
