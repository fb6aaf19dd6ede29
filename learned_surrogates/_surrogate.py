"""The surrogate of the papers, the distance of two embeddings, and nets for plain tensors."""

import torch
from torch import Tensor, nn

# The gradient of a norm at zero, where prediction and target agree, is NaN without it; under the
# root, 1e-12 is lost beside any distance above 1e-5.
EPSILON = 1e-12


def norm(vectors: Tensor) -> Tensor:
    """Euclidean norm over the last dimension, with a finite gradient of every order at zero."""
    return (vectors.square().sum(-1) + EPSILON).sqrt()


class EmbeddingDistance(nn.Module):
    """`S(z, y) = ||h(z) - h(y)||_2`: LS (Patel, Hodaň, Matas, ECCV 2020), Eq. 3.

    Args:
        net: the embedding h, `(batch, ...) -> (batch, embedding)`.
        target_net: the embedding of targets, where they need one of their own; None shares `net`.

    Example:
        >>> import torch
        >>> surrogate = EmbeddingDistance(torch.nn.Linear(4, 16))
        >>> surrogate(torch.randn(8, 4), torch.randn(8, 4)).shape
        torch.Size([8])
    """

    def __init__(self, net: nn.Module, target_net: nn.Module | None = None):
        super().__init__()
        self.net = net
        self.target_net = target_net

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Distances `(batch,)` of predictions z and targets y, `(batch, ...)` each."""
        # Not one call for both: where only z needs a gradient, none is computed for y.
        of_targets = self.net if self.target_net is None else self.target_net
        return norm(self.net(z) - of_targets(y))


class Conditioned(nn.Module):
    """`S(z, y) = ||n([z - y, y]) - n([0, y])||_2`: zero at z = y, and not forced to be a metric.

    The embedding distance measures all pairs with one ruler; here the target sets the ruler.

    Args:
        net: n, `(batch, 2 x features, ...) -> (batch, embedding)`.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Values `(batch,)` for z and y, `(batch, features, ...)` both."""
        origin = torch.cat([torch.zeros_like(y), y], 1)
        return norm(self.net(torch.cat([z - y, y], 1)) - self.net(origin))


class PairRegression(nn.Module):
    """`S(z, y) = n([z, y])`: regression on the pair, as in the surrogate losses of Grabocka et al.

    Args:
        net: n, `(batch, features of z and y, ...) -> (batch, 1)`.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Values `(batch,)` for z and y, `(batch, features, ...)` each."""
        return self.net(torch.cat([z, y], 1)).squeeze(1)


class Standardise(nn.Module):
    """`(x - mean) / std` over the batch (and all positions), features and channels apart.

    The statistics are those of the samples given at construction, and are part of the state.
    A feature that did not vary there keeps its scale.

    Args:
        samples: `(batch, features, ...)`.
        least: the smallest standard deviation of a feature that varies: what few samples happen to
            have in common is then not blown up.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, samples: Tensor, least: float = 0.0):
        super().__init__()
        dims = [0, *range(2, samples.ndim)]
        std = samples.std(dims, keepdim=True, correction=0)[0]
        self.register_buffer("mean", samples.mean(dims, keepdim=True)[0])
        self.register_buffer(
            "std", torch.where(std > 0, std.clamp(min=least), torch.ones_like(std))
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def embedding_distance(z: Tensor, y: Tensor) -> EmbeddingDistance:
    """For such samples, with one net where both have one shape."""
    if z.shape[1:] == y.shape[1:]:
        return EmbeddingDistance(embedding_net(torch.cat([z, y])))
    return EmbeddingDistance(embedding_net(z), embedding_net(y))


def conditioned(z: Tensor, y: Tensor) -> Conditioned:
    """For such samples.

    Raises:
        ValueError: their shapes differ.
    """
    if z.shape != y.shape:
        raise _unlike("conditioned", z, y)
    return Conditioned(embedding_net(torch.cat([z - y, y], 1)))


def pair_regression(z: Tensor, y: Tensor) -> PairRegression:
    """For such samples, `(batch, features, ...)`.

    Raises:
        ValueError: their shapes differ behind the features.
    """
    if z.shape[2:] != y.shape[2:]:
        raise _unlike("pair", z, y)
    return PairRegression(embedding_net(torch.cat([z, y], 1), embedding_size=1))


def _unlike(name: str, z: Tensor, y: Tensor) -> ValueError:
    return ValueError(
        f"surrogate={name!r} needs predictions and targets of one shape; they are "
        f"{tuple(z.shape[1:])} and {tuple(y.shape[1:])}"
    )


def embedding_net(
    samples: Tensor, width: int = 128, embedding_size: int = 32, least: float = 0.0
) -> nn.Module:
    """An embedding net for samples of such a shape, standardised by these samples.

    Five layers of 128, the last to 32 features, served rotated boxes best among those tried.

    Args:
        samples: `(batch, features)`, `(batch, channels, length)` or
            `(batch, channels, height, width)`, floating point.
        width: units of a hidden layer.
        embedding_size: features of the embedding.
        least: the smallest standard deviation by which an input is divided, if it varies.

    Raises:
        ValueError: samples of more than three dimensions.
    """
    if samples.ndim == 2:
        hidden: list[nn.Module] = [nn.Linear(samples.shape[1], width), nn.LeakyReLU()]
        for _ in range(3):
            hidden += [nn.Linear(width, width), nn.LeakyReLU()]
    elif samples.ndim in (3, 4):
        line = samples.ndim == 3
        convolution = nn.Conv1d if line else nn.Conv2d
        channels, bins = width // 2, 8 if line else 4 * 4
        hidden = []
        for inputs in (samples.shape[1], channels, channels):
            hidden += [convolution(inputs, channels, 3, padding=1, stride=2), nn.LeakyReLU()]
        hidden += [nn.AdaptiveAvgPool1d(8) if line else nn.AdaptiveAvgPool2d(4), nn.Flatten()]
        hidden += [nn.Linear(channels * bins, width), nn.LeakyReLU()]
    else:
        raise ValueError(
            f"there is no default embedding net for samples of shape {tuple(samples.shape[1:])}: "
            "give one, surrogate=EmbeddingDistance(net), or reshape to (channels, height, width)"
        )
    return nn.Sequential(Standardise(samples, least), *hidden, nn.Linear(width, embedding_size))
