"""What is known of labels and masks under noise: the means of hits and claims, and their scores."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .known import Parts

# Nodes of the integral over the highest of several noisy logits, in units of the noise. The sum
# over equal distances is exact to 1e-7: the integrand is smooth and ends within them.
NODES = torch.linspace(-5.4, 6.6, 21, dtype=torch.float64)
# Noises between the two highest logits that never change places: once in 1e9 draws.
REACH = 9.0
# Of a count: what keeps ratios finite where nothing is claimed.
LEAST = 0.5
# Of no claim of an item that is claimed.
LEAST_CHANCE = 1e-6
# Of an IoU's standard deviation under noise.
LEAST_DEVIATION = 1e-3


class Hits(Parts):
    """Expected hits and claims of each class, exactly, and the usual scores of them.

    A claim is an item that is said to be of a class, a hit one that is so. Items are counted in
    zones: all of them in the first.

    Args:
        laid_out: makes of a prediction logits `(sets, classes, items)`.
        marked: which items are of which class, `(sets, classes, items)`, bool, nowhere where
            nothing is present.
        zones: which items count in which zone, `(sets, zones, items)`, bool.
        width: of the noise, to be broadcast to `(sets, classes, items)`.
        threshold: above which a logit claims its class; None is for the class with the highest.
    """

    columns = 9

    def __init__(
        self,
        laid_out: Callable[[Tensor], Tensor],
        marked: Tensor,
        zones: Tensor,
        width: Tensor,
        threshold: float | None,
    ):
        self.laid_out = laid_out
        self.width = width
        self.threshold = threshold
        self.marked, self.zones = marked.to(width), zones.to(width)
        self.positives = self._counted(self.marked)
        self.items = self.zones.sum(2)[:, :, None]
        # Of hits and of claims, `(sets, 2, zones, classes)`; nothing varies before `means`.
        self._variances = self.positives.new_zeros(1, 2, 1, 1)

    def means(self, z: Tensor) -> Tensor:
        logits = self.laid_out(z)
        if self.threshold is None:
            chances = chances_of_highest(logits, self.width)
        else:
            chances = torch.special.ndtr((logits - self.threshold) / self.width)
        # Items have noise of their own, so that their variances add up.
        self._variances = self._hits_and_claims((chances * (1 - chances)).detach())
        return self._numbers(chances)

    def of(self, drawn: Tensor) -> Tensor:
        logits = self.laid_out(drawn)
        said = claims(logits, self.threshold)
        return self._numbers(said.to(self.width))

    def scores(self, numbers: Tensor) -> Tensor:
        """Accuracy, recall, precision, F1, IoU, chance that it is above one half, correlation.

        Each the mean over the classes that occur; F1 of all classes together; and, of those that do
        not occur, that none is claimed. By zones.
        """
        hits, said, none = numbers.unflatten(1, (3, *self.positives.shape[1:])).unbind(1)
        true, items = self.positives, self.items
        union = true + said - hits + LEAST
        iou = hits / union
        spread = true * (items - true) * (said + LEAST) * (items - said + LEAST)
        found = [
            1 - (true + said - 2 * hits) / items.clamp(min=1),
            hits / true.clamp(min=1),
            hits / (said + LEAST),
            2 * hits / (true + said + LEAST),
            iou,
            torch.special.ndtr((iou - 0.5) / self._deviation(iou, union)),
            (items * hits - true * said) / spread.clamp(min=1).sqrt(),
        ]
        occurs = (true > 0).to(hits)
        means = [(each * occurs).sum(2) / occurs.sum(2).clamp(min=1) for each in found]
        means.append(2 * hits.sum(2) / (true + said).sum(2).clamp(min=LEAST))
        means.append((none * (1 - occurs)).sum(2) / (1 - occurs).sum(2).clamp(min=1))
        return torch.stack(means, 2).flatten(1)

    def _deviation(self, iou: Tensor, union: Tensor) -> Tensor:
        """The IoU's standard deviation under noise, to first order in hits and false alarms."""
        of_hits, of_claims = self._variances.unbind(1)
        variance = of_hits + (of_claims - of_hits) * iou.square()
        return (variance / union.square()).detach().sqrt().clamp(min=LEAST_DEVIATION)

    def _numbers(self, said: Tensor) -> Tensor:
        """`(sets, numbers)`: hits, claims, and whether there is no claim, by zone and class.

        Of chances of claims, which are independent, these are the means.
        """
        none = self._counted(torch.log1p(-said.clamp(max=1 - LEAST_CHANCE))).exp()
        return torch.cat([self._hits_and_claims(said), none[:, None]], 1).flatten(1)

    def _hits_and_claims(self, said: Tensor) -> Tensor:
        return torch.stack([self._counted(said * self.marked), self._counted(said)], 1)

    def _counted(self, items: Tensor) -> Tensor:
        return torch.einsum("bzi,bci->bzc", self.zones, items)


def claims(logits: Tensor, threshold: float | None) -> Tensor:
    """Which classes are claimed `(sets, classes, items)`, bool, by `Hits`'s threshold."""
    if threshold is not None:
        return logits > threshold
    highest = logits.argmax(1, keepdim=True)
    return torch.zeros_like(logits, dtype=torch.bool).scatter(1, highest, True)


def chances_of_highest(logits: Tensor, width: Tensor) -> Tensor:
    r"""The probability that a class's logit is the highest under noise, `(sets, classes, items)`.

    With :math:`F_c` and :math:`f_c` distribution and density of class c's noisy logit, it is the
    integral of :math:`f_c \prod_{j \ne c} F_j`.

    Args:
        logits: `(sets, classes, items)`.
        width: to be broadcast to them.
    """
    rows = (logits / width).movedim(1, 2)
    top = rows.detach().topk(2, dim=2).values
    near = top[..., 0] - top[..., 1] < REACH
    certain = claims(logits, None).movedim(1, 2).to(rows)
    return certain.masked_scatter(near[..., None], _chances(rows[near])).movedim(2, 1)


def _chances(rows: Tensor) -> Tensor:
    """Of logits in units of the noise, `(n, classes)`."""
    nodes = NODES.to(rows)
    highest = rows.detach().amax(1, keepdim=True)
    above = highest[..., None] + nodes - rows[..., None]
    below = torch.special.log_ndtr(above)
    density = -above.square() / 2 - math.log(2 * math.pi) / 2
    each = (density - below + below.sum(1, keepdim=True)).exp()
    return each.sum(2) * (nodes[1] - nodes[0])
