"""Class logits and the index of the true class."""

import math

import torch
from torch import Tensor, nn

from ..smoothing import SHARE
from .net import flat, mlp, spread

SHARPNESS = 3.0
# The sigmoid of so many times x is nearly the normal distribution function of x.
PROBIT = 1.702
# Numbers that a class is known by.
CODE = 16
# Times the others' by which figures that all classes share are learned.
PACE = 20.0


class Classes(nn.Module):
    r"""S of probabilities, the true class's own figures, and a cost for each pair of classes.

    With q a softmax whose sharpness is learned, `S = mean (sum_k q_k M[y, k] + n(...))` over the
    tokens of a sample; n sees the true class's log-probability, probability and soft rank, the
    largest probability, and a code of both classes. M is a cost for each pair, and three that all
    share: of being wrong, of how far apart the classes are in order, and of its square.

    Args:
        z: logits `(batch, classes)`, `(batch, classes, ...)` or `(batch, ..., classes)`.
        y: class indices, z's shape without that dimension; those that are none, such as -100 or
            255, are left out.
        width: the noise's standard deviation, as large as z: q begins as sharp as that makes it.
            None is what `Smoothing` makes of logits that vary alike.
        last: whether the classes are last, where they may be in dimension 1, too.
    """

    scale: Tensor

    def __init__(
        self,
        z: Tensor,
        y: Tensor,
        width: Tensor | None = None,
        last: bool = False,
        hidden: int = 32,
    ):
        super().__init__()
        dims = class_dims(z, y)
        if not dims:
            raise ValueError(
                "the prediction has to have the classes in a dimension beyond the target"
            )
        #: Of the classes.
        self.dim = dims[-1] if last else dims[0]
        tokens = self._tokens(z)
        classes = tokens.shape[2]
        self.register_buffer("scale", spread(tokens, width))
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(PROBIT / (2**0.5 * SHARE))))
        # Of true class and said class: by how much the metric is lower or higher.
        self.costs = nn.Parameter(torch.zeros(classes, classes))
        # The same by how far apart in order these are: not at all or at all, linear, squared.
        self.by_order = nn.Parameter(torch.zeros(3))
        self.truth = nn.Embedding(classes, CODE)
        self.said = nn.Linear(classes, CODE, bias=False)
        self.net = mlp(5 + 2 * CODE, hidden, hidden, 1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Values `(batch,)`."""
        tokens, labels = self._tokens(z), flat(y)
        counted = (labels >= 0) & (labels < tokens.shape[2])
        labels = labels.long().where(counted, 0)
        own = tokens.gather(2, labels[..., None])
        log_probabilities = tokens.log_softmax(2)
        probabilities = log_probabilities.exp()
        sharp = (tokens / self.scale * self.log_sharpness.exp()).softmax(2)
        above = ((tokens - own) * (SHARPNESS / self.scale)).sigmoid().sum(2) - 0.5
        own_log = log_probabilities.gather(2, labels[..., None]).squeeze(2)
        own_sharp = sharp.gather(2, labels[..., None]).squeeze(2)
        figures = [own_log, own_log.exp(), own_sharp, above.log1p(), probabilities.amax(2)]
        seen = torch.cat([torch.stack(figures, 2), self.truth(labels), self.said(probabilities)], 2)
        classes = torch.arange(tokens.shape[2], device=z.device)
        apart = (classes - labels[..., None]).abs().to(tokens) / max(1, len(classes) - 1)
        wrong, far = 1 - own_sharp, sharp * apart
        by_order = torch.stack([wrong, far.sum(2), (far * apart).sum(2)], 2)
        value = self.net(seen).squeeze(2) + (sharp * self.costs[labels]).sum(2)
        value = value + by_order @ (PACE * self.by_order)
        return (value * counted).sum(1) / counted.sum(1).clamp(min=1)

    def _tokens(self, z: Tensor) -> Tensor:
        """`(batch, tokens, classes)`."""
        return z.movedim(self.dim, -1)[:, None].flatten(1, -2)


def class_dims(z: Tensor, y: Tensor) -> list[int]:
    """The dimensions that z may have beyond y: 1 and the last, where they are not one."""
    dims = (1, z.ndim - 1) if z.ndim > 1 else ()
    return [dim for dim in sorted({*dims}) if z.shape[:dim] + z.shape[dim + 1 :] == y.shape]


def are_last(z: Tensor, y: Tensor) -> bool:
    """Whether, of as many tokens as classes, the logits' last dimension is that of the classes.

    As that is where true classes have larger logits, as an assignment's pairs have.
    """
    dims = class_dims(z, y)
    if len(dims) < 2:
        return False
    labels = y.long().clamp(0, z.shape[-1] - 1)
    first, last = (
        z.float().log_softmax(dim).gather(dim, labels.unsqueeze(dim)).mean() for dim in dims
    )
    return bool(last > first)
