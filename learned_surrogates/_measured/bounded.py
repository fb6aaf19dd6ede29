"""One wild value counts for no more than some ordinary ones."""

import torch
from torch import Tensor

# Times their mean size up to which differences and slopes are believed.
MOST = 20.0
# Weight of the newest call in the running mean size.
MOMENTUM = 0.02


class DifferenceScale:
    """The running mean size of differences that are not zero.

    What is learned takes a difference for at most `MOST` times it, so that a single one of a
    million is forgotten within calls. The gradient that is handed back is measured by differences
    as they are: bounded, it would not be unbiased.
    """

    def __init__(self) -> None:
        #: NaN before the first difference that is not zero.
        self.mean = float("nan")

    @property
    def most(self) -> float:
        """How large a difference is believed to be; infinite before there is a mean."""
        return MOST * self.mean if self.mean == self.mean else float("inf")

    def bounded(self, differences: Tensor) -> Tensor:
        """Differences as they are believed, and followed by the running mean."""
        sizes = differences.abs()
        sizes = sizes[sizes > 0]
        if not len(sizes):
            return differences
        if self.mean != self.mean:
            # Of few, a single wild one would make up all of the mean.
            self.mean = sizes.median().item()
        believed = differences.clamp(-self.most, self.most)
        self.mean += MOMENTUM * (sizes.clamp(max=self.most).mean().item() - self.mean)
        return believed


def bounded_expansions(expansions: Tensor, most: float) -> Tensor:
    """Expansions that tell no more of a draw than has been measured; zero where not finite.

    Far from what it was fitted to, a surrogate may say anything. As expansions do not see the
    call's draws, the gradient stays unbiased.

    Args:
        expansions: `(forms, functions, n, *sample)`.
        most: the largest length of one: the standard deviation of the differences that it predicts,
            as far as its functions do not correlate.
    """
    forms, _, n, *sample = expansions.shape
    by_sample = expansions.transpose(1, 2).reshape(forms, n, -1)
    lengths = by_sample.norm(dim=2)
    shares = torch.where(lengths > most, most / lengths, 1.0)
    finite = by_sample.isfinite().all(2)
    shape = (forms, 1, n, *[1] * len(sample))
    return (expansions * shares.view(shape)).where(finite.view(shape), 0.0)
