"""Sets, and means under noise written out: products of normal distributions, summed by loops."""

import itertools
import math

import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from learned_surrogates import LearnedSurrogateLoss


def random_lists(count=6, n=12, seed=0, dtype=torch.float32):
    """Scores, marks of which each list has at least one, and a ragged mask."""
    random = torch.Generator().manual_seed(seed)
    marks = torch.rand(count, n, generator=random) < 0.3
    marks[:, 0] = True
    scores = torch.randn(count, n, generator=random, dtype=dtype) + marks
    mask = torch.arange(n) < torch.randint(4, n + 1, (count, 1), generator=random)
    return scores.requires_grad_(), marks, mask


def random_masks(count=6, side=6, channels=1, seed=0, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, channels, side, side, generator=random) < 0.4
    logits = 2 * torch.randn(masks.shape, generator=random, dtype=dtype) + 2 * masks - 1
    return logits.requires_grad_(), masks


def random_labels(count=24, classes=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=random)
    one_hot = torch.nn.functional.one_hot(labels, classes)
    return (torch.randn(one_hot.shape, generator=random) + one_hot).requires_grad_(), labels


def chance_of_highest(logits, width, label):
    """That this one of `(classes,)` noisy logits is the highest, by an integral."""

    def integrand(x):
        others = [norm.cdf((x - z) / width) for c, z in enumerate(logits) if c != label]
        return norm.pdf((x - logits[label]) / width) / width * math.prod(others)

    return quad(integrand, min(logits) - 10 * width, max(logits) + 10 * width, epsabs=1e-11)[0]


def expected_of_marks(z: Tensor, width: float, metric) -> Tensor:
    """E of a metric of marks `(n,)`, over all that n noisy logits may say; differentiable."""
    chances = torch.special.ndtr(z / width)
    total = torch.zeros((), dtype=z.dtype)
    for said in itertools.product((0, 1), repeat=len(z)):
        said = torch.tensor(said)
        total = total + torch.where(said > 0, chances, 1 - chances).prod() * float(metric(said))
    return total


def mean_gradient(criterion: LearnedSurrogateLoss, arguments, sets: int, calls: int):
    """Mean of the gradient over sets, which are all alike, and over calls; its standard error."""
    found = []
    for _ in range(calls):
        prediction = arguments[0].detach().clone().requires_grad_()
        criterion(prediction, *arguments[1:]).backward()
        found.append(prediction.grad.reshape(sets, -1) * sets)
    found = torch.cat(found).double()
    return found.mean(0), found.std(0) / math.sqrt(len(found))
