"""What a slope is worth as a control variate, by what draws said that it had not seen."""

import torch
from torch import Tensor

# Weight of the newest call in the running sums: they tell of some 50 calls.
MOMENTUM = 0.02
# Calls without any measurement from which on what was learned counts for less and less.
PATIENCE = 50


class ControlVariate:
    """Regresses measured differences d on those h that slopes predict, for several slopes.

    Args:
        count: how many slopes.
    """

    def __init__(self, count: int, device: torch.device):
        #: Running means of d h, h h and d d, `(slopes, 3)`.
        self.sums = torch.zeros(count, 3, dtype=torch.float32, device=device)
        #: Calls since the last measurement.
        self.age = 0

    def take(self, differences: Tensor, predicted: Tensor) -> None:
        """Takes a call's differences `(n,)` and what the slopes made of them, `(slopes, n)`."""
        self.age = 0
        d = differences.to(predicted)
        usable = d.isfinite() & predicted.isfinite().all(0)
        d, h = d.where(usable, 0.0), predicted.where(usable, 0.0)
        new = torch.stack([h @ d, h.square().sum(1), d.square().sum().expand(len(h))], 1)
        new = new / usable.sum().clamp(min=1)
        # One wild sample must not spoil the sums for good.
        self.sums = torch.where(
            new.isfinite().all(), torch.lerp(self.sums, new, MOMENTUM), self.sums
        )

    @property
    def weights(self) -> Tensor:
        """The regression's coefficients c, 0 to 1, `(slopes,)`.

        Without measurements for long, they fall: no evidence is not old evidence.
        """
        fresh = (1 - MOMENTUM) ** max(0, self.age - PATIENCE)
        dh, hh, _ = self.sums.unbind(1)
        return torch.where(hh > 0, dh / hh, 0.0).clamp(0, 1) * fresh

    @property
    def r2(self) -> Tensor:
        """Squared correlations with their signs, `(slopes,)`: 1 tells all of d, 0 nothing."""
        dh, hh, dd = self.sums.unbind(1)
        return torch.where(hh * dd > 0, dh * dh.abs() / (hh * dd), 0.0)

    def to(self, device: torch.device) -> None:
        self.sums = self.sums.to(device)
