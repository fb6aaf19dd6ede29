"""A classifier by prototypes: a vector a class, in the space of the features."""

import torch
from torch import Tensor, nn

from .._support.checks import check_number, check_positive, check_seed
from .._support.embeddings import labelled, unit


class Prototypes(nn.Module):
    """Prototypes theta `(classes, dim)`, whose directions count: a linear classifier without bias.

    Args:
        classes: number of classes.
        dim: of the features.
        tau: temperature, in cosines.
        seed: of the first prototypes, which are random directions.
    """

    def __init__(self, classes: int, dim: int, *, tau: float = 0.1, seed: int = 0):
        super().__init__()
        check_number("classes", classes, 1)
        check_number("dim", dim, 1)
        check_positive("tau", tau)
        self.tau = tau
        random = torch.Generator().manual_seed(check_seed(seed))
        self.prototypes = nn.Parameter(unit(torch.randn(classes, dim, generator=random)))

    def extra_repr(self) -> str:
        classes, dim = self.prototypes.shape
        return f"classes={classes}, dim={dim}, tau={self.tau!r}"

    def predict(self, features: Tensor) -> Tensor:
        """The class of the nearest prototype: `(n, d)` to `(n,)`."""
        return self.log_probabilities(features).argmax(1)

    def log_probabilities(self, features: Tensor) -> Tensor:
        """`log softmax_k(z.theta_k / tau)`: `(n, d)` to `(n, classes)`."""
        labels = torch.zeros(len(features), dtype=torch.long, device=features.device)
        features, _ = self._checked(features, labels)
        with torch.autocast(features.device.type, enabled=False):
            return (unit(features) @ self._directions(features).T / self.tau).log_softmax(1)

    def _directions(self, features: Tensor) -> Tensor:
        """The prototypes `(classes, dim)` of length one, in the features' type."""
        return unit(self.prototypes.to(features.dtype))

    def _checked(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Features in float32 or float64, and labels, that there are prototypes for."""
        features, labels = labelled("features", features, labels)
        classes, dim = self.prototypes.shape
        if features.shape[1] != dim:
            raise ValueError(
                f"features must have shape (n, {dim}); their shape is {tuple(features.shape)}"
            )
        if features.device != self.prototypes.device:
            raise ValueError(
                f"features are on {features.device}, the prototypes on {self.prototypes.device}: "
                "move the criterion, criterion.to(device), before the optimizer is made"
            )
        return features, as_classes(labels, classes)


def as_classes(labels: Tensor, classes: int) -> Tensor:
    """Labels as indices of classes; raises a ValueError at one that is none."""
    labels = labels.long()
    bad = (labels < 0) | (labels >= classes)
    if bad.any():
        sample = int(bad.nonzero()[0])
        raise ValueError(
            f"labels must be 0 to {classes - 1}, as there are {classes} classes; "
            f"label {sample} is {labels[sample].item()}"
        )
    return labels
