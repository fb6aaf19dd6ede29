"""How many of some independent events happen, as what something is divided by."""

import torch
from torch import Tensor


def mean_ratio(chances: Tensor, alike: Tensor | None = None, size: Tensor | int = 1) -> Tensor:
    r"""The mean of (1 + A) / (m + N), where N of the events happen, and A of these are alike.

    That none happens has a probability that is known exactly, and leaves 1 / m; near there, a
    series in N's moments would have the wrong slope. Given that some happen, it is

    .. math:: E[(1 + A) / (m + N)] = a / b - c / b^2 + a v / b^3 + ...,

    with a and b the means of both sides, v the variance of N and c its covariance with A: to 0.005
    where m is 1, and closer where it is larger.

    Args:
        chances: of the events, `(..., events)`.
        alike: which events count in A, to be broadcast to them, bool; None is none.
        size: m, `(...)`, 1 or more.

    Returns:
        `(...)`.
    """
    squares = chances.square()
    mean = chances.sum(-1)
    variance = mean - squares.sum(-1)
    least = torch.finfo(chances.dtype).eps
    some = -torch.expm1(torch.log1p(-chances.clamp(max=1 - least)).sum(-1))
    # Where next to nothing happens, neither does it matter what.
    given = some.clamp(min=least)
    happened = mean / given
    b = size + happened
    v = ((variance + mean.square()) / given - happened.square()).clamp(min=0)
    ratio = 1 / b + v / b**3
    if alike is not None:
        counted = alike.to(chances)
        hits = (chances * counted).sum(-1)
        spread = hits - (squares * counted).sum(-1)
        a = hits / given
        covariance = (hits * mean + spread) / given - a * happened
        ratio = ratio * (1 + a) - covariance / b**2
    return (1 - some) / size + some * ratio
