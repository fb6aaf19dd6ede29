"""The supervised contrastive loss."""

import torch
from torch import Tensor, nn

from .._support.checks import check_positive
from .._support.embeddings import labelled, unit
from .._support.warnings import warn


class SupCon(nn.Module):
    r"""The supervised contrastive loss (SupCon): each one's own class near, all else apart.

    The loss is::

        L = mean over i of  log sum_{j != i} exp(z_i.z_j / tau) - mean_{p in P_i} z_i.z_p / tau

    with z the features, normalised here, and P_i the others of the class of i (Eq. 6.4 and 6.5 of
    the thesis). It trains a representation and no classifier: `Tightness` is one to train beside
    it, and `ESupCon` both in one. Several views of a sample are several rows with one label.

    Args:
        tau: temperature, in cosines.

    Raises:
        TypeError, ValueError: here for a tau that is not above 0; at a call, for features that are
            not `(n, d)` numbers, or labels that are not `(n,)` integers.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> round(SupCon()(features, torch.tensor([0, 0, 1, 1])).item(), 5)
        9e-05
        >>> round(SupCon()(features, torch.tensor([0, 1, 0, 1])).item(), 2)
        10.0

    References:
        Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020.
    """

    def __init__(self, tau: float = 0.1):
        super().__init__()
        check_positive("tau", tau)
        self.tau = tau

    def extra_repr(self) -> str:
        return f"tau={self.tau!r}"

    @torch.jit.unused  # a scripted model may hold the loss
    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            features: `(n, d)`, of any length above 1e-6.
            labels: `(n,)` integers. A sample alone with its label is left out of the mean; where
                all are, the loss is zero and a warning says so.
        """
        features, labels = labelled("features", features, labels)
        with torch.autocast(features.device.type, enabled=False):
            losses = of_samples(similarities(unit(features), self.tau), labels)
            if len(losses) == 0:
                warn(
                    "no two samples of the batch have the same label, so that there is nothing to "
                    "bring together and the loss is zero: draw several samples, or views, of each"
                )
                return features.sum() * 0.0
            return losses.mean()


def similarities(features: Tensor, tau: float) -> Tensor:
    """Of features of length one, with each other, over tau: `(n, n)`; with themselves -inf."""
    itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
    return (features @ features.T / tau).masked_fill(itself, -torch.inf)


def of_samples(logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 6.5 of the samples that have a positive, `(some,)`."""
    alike = labels[:, None] == labels
    alike.fill_diagonal_(False)
    positives = alike.sum(1)
    some = positives > 0
    logits, alike, positives = logits[some], alike[some], positives[some]
    tightness = logits.where(alike, 0.0).sum(1) / positives
    return logits.logsumexp(1) - tightness
