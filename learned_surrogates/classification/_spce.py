"""Simplified pairwise cross-entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._support.checks import check_number
from .._support.embeddings import labelled, unit
from ._prototypes import as_classes


class SPCE(nn.Module):
    r"""Simplified pairwise cross-entropy (SPCE): the batch's own class sums classify it.

    The loss is::

        L = -mean over i of  log softmax_k(a_i)[y_i],    a_ik = 1/n sum_{j: y_j = k} z_j.z_i

    with z the features, normalised here (Eq. 6.7 of the thesis; the sum has j = i). There are no
    weights and no temperature. At test time, classify by the nearest of the classes' mean features,
    or by what `Tightness` has learned beside it.

    Args:
        classes: number of classes K. With a number, a class that the batch lacks has a_ik = 0, as
            the equation says; None leaves it out of the softmax.

    Raises:
        TypeError, ValueError: here for another number; at a call, for features that are not
            `(n, d)` numbers, or labels that are not `(n,)` integers from 0 to `classes - 1`.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> round(SPCE()(features, torch.tensor([0, 0, 1, 1])).item(), 3)
        0.474
        >>> round(SPCE(classes=10)(features, torch.tensor([0, 0, 1, 1])).item(), 3)
        1.865

    References:
        Boudiaf et al., "A Unifying Mutual Information View of Metric Learning: Cross-Entropy vs.
        Pairwise Losses", ECCV 2020.
    """

    def __init__(self, classes: int | None = None):
        super().__init__()
        if classes is not None:
            check_number("classes", classes, 1)
        self.classes = classes

    def extra_repr(self) -> str:
        return f"classes={self.classes!r}"

    @torch.jit.unused  # a scripted model may hold the loss
    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            features: `(n, d)`, of any length above 1e-6, n from 1.
            labels: `(n,)` integers.
        """
        affinities, own = self._affinities(features, labels)
        return F.cross_entropy(affinities, own)

    def log_probabilities(self, features: Tensor, labels: Tensor) -> Tensor:
        """Logarithms of the posterior of the batch's own samples (Eq. 6.8).

        Returns:
            `(n, classes)`; without a number of classes, columns are those present, in their order.
        """
        affinities, _ = self._affinities(features, labels)
        return affinities.log_softmax(1)

    def _affinities(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """a `(n, classes)`, and the column of each sample's label `(n,)`."""
        features, labels = labelled("features", features, labels)
        if len(features) == 0:
            raise ValueError("features must have at least one sample")
        if self.classes is None:
            present, own = labels.unique(return_inverse=True)
            classes = len(present)
        else:
            own, classes = as_classes(labels, self.classes), self.classes
        with torch.autocast(features.device.type, enabled=False):
            features = unit(features)
            sums = features.new_zeros(classes, features.shape[1]).index_add(0, own, features)
            return features @ sums.T / len(features), own
