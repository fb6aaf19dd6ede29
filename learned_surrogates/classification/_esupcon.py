"""The extended supervised contrastive loss."""

import torch
from torch import Tensor

from .._support.embeddings import unit
from ._contrastive import of_samples, similarities
from ._prototypes import Prototypes


class ESupCon(Prototypes):
    r"""Extended supervised contrastive loss (ESupCon); give its parameters to your optimizer.

    It learns a prototype a class, which is the classifier, together with the representation::

        L = ( sum_k mean_{i: y_i = k} l(z_i, theta_k) + sum_i l_SupCon(z_i, P_i) ) / (n + K)
        l(z_i, theta_k) = -z_i.theta_k / tau
            + log( sum_c exp(z_i.theta_c / tau) + sum_{j != i} exp(z_i.z_j / tau) )

    with z the features and theta the prototypes, all normalised here (Eq. 6.12 to 6.15 of the
    thesis). For one pair, `exp(l) = exp(l_CE) + exp(l_SupCon) - 1`: the larger of cross-entropy and
    SupCon counts (Eq. 6.17). K is the number of classes in the batch, and n that of samples that
    have another one of their class: with printed constants, the loss's scale would depend on what
    the batch lacks::

        optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], lr=0.1)

    Args:
        classes: number of classes.
        dim: of the features.
        tau: temperature, in cosines. The thesis leaves it out of its equations; 0.1 is SupCon's.
        seed: of the first prototypes, which are random directions.

    Raises:
        TypeError, ValueError: here for arguments that are none of these; at a call, for features
            that are not `(n, dim)` numbers, or labels that are not `(n,)` integers from 0 to
            `classes - 1`.

    Example:
        >>> import torch
        >>> features, labels = torch.eye(2)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])
        >>> criterion = ESupCon(classes=2, dim=2)
        >>> optimizer = torch.optim.SGD(criterion.parameters(), lr=1.0)
        >>> for _ in range(50):
        ...     optimizer.zero_grad()
        ...     criterion(features, labels).backward()
        ...     optimizer.step()
        >>> criterion.predict(features)
        tensor([0, 0, 1, 1])
        >>> criterion.log_probabilities(features).shape
        torch.Size([4, 2])

    References:
        Aljundi, Patel, Sulc, Olmeda Reino, Chumerin, "Contrastive Classification and Representation
        Learning with Probabilistic Interpretation", AAAI 2023.
    """

    @torch.jit.unused  # a scripted model may hold the loss
    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            features: `(n, dim)`, of any length above 1e-6, n from 1; all views of all samples.
            labels: `(n,)` integers.
        """
        features, labels = self._checked(features, labels)
        with torch.autocast(features.device.type, enabled=False):
            features = unit(features)
            of_prototypes = features @ self._directions(features).T / self.tau
            of_others = similarities(features, self.tau)
            own = of_prototypes.gather(1, labels[:, None])[:, 0]
            pairs = torch.cat([of_prototypes, of_others], 1).logsumexp(1) - own
            counts = labels.bincount(minlength=len(self.prototypes))
            samples = of_samples(of_others, labels)
            total = (pairs / counts[labels]).sum() + samples.sum()
            return total / ((counts > 0).sum() + len(samples))
