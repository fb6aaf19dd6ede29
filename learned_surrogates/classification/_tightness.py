"""The tightness term: a classifier beside a representation."""

import torch
from torch import Tensor

from .._support.embeddings import unit
from ._prototypes import Prototypes


class Tightness(Prototypes):
    r"""Learns a prototype a class beside another loss; give its parameters to your optimizer.

    The loss is::

        L = -mean over i of  z_i.theta_{y_i}

    with z the features and theta the prototypes, all normalised here (Eq. 6.9 of the thesis). The
    features are detached: only the prototypes are trained, the representation is left to `SupCon`
    or `SPCE`. Each prototype goes to the mean direction of its class::

        optimizer = torch.optim.SGD([*model.parameters(), *tightness.parameters()], lr=0.1)
        loss = supcon(features, labels) + tightness(features, labels)

    Args:
        classes: number of classes.
        dim: of the features.
        tau: temperature of `log_probabilities`; the loss has none.
        seed: of the first prototypes, which are random directions.

    Raises:
        TypeError, ValueError: here for arguments that are none of these; at a call, for features
            that are not `(n, dim)` numbers, or labels that are not `(n,)` integers from 0 to
            `classes - 1`.

    Example:
        >>> import torch
        >>> criterion = Tightness(classes=2, dim=2)
        >>> features, labels = torch.eye(2), torch.tensor([0, 1])
        >>> optimizer = torch.optim.SGD(criterion.parameters(), lr=1.0)
        >>> for _ in range(50):
        ...     optimizer.zero_grad()
        ...     criterion(features, labels).backward()
        ...     optimizer.step()
        >>> criterion.predict(features)
        tensor([0, 1])

    References:
        Aljundi, Patel, Sulc, Olmeda Reino, Chumerin, "Contrastive Classification and Representation
        Learning with Probabilistic Interpretation", AAAI 2023.
    """

    @torch.jit.unused  # a scripted model may hold the loss
    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            features: `(n, dim)`, of any length above 1e-6, n from 1.
            labels: `(n,)` integers.
        """
        features, labels = self._checked(features.detach(), labels)
        with torch.autocast(features.device.type, enabled=False):
            return -(unit(features) * self._directions(features)[labels]).sum(1).mean()
