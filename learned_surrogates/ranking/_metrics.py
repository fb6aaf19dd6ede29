"""Metrics of one list."""

from torch import Tensor

from ._lists import ReadLists, read_lists
from ._ranks import centred_ranks, ranks


def average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    """Average precision of one list, ready to hand over as a metric; higher is better.

    Items of one score share their ranks' mean.

    Args:
        scores: `(n,)`.
        targets: `(n,)`: items above 0 are relevant.

    Returns:
        `()`, 0 to 1; NaN without a relevant item, and where a score is NaN.

    Raises:
        TypeError, ValueError: scores or targets of the wrong kind or shape.

    Example:
        >>> import torch
        >>> average_precision(torch.tensor([0.1, 0.7, 0.4, 0.9]), torch.tensor([0, 1, 1, 0]))
        tensor(0.5833)
    """
    one = _one_list(scores, targets)
    relevant = one.targets > 0
    among, all_ranks = ranks(one.scores, mask=relevant), ranks(one.scores)
    return (among / all_ranks)[relevant].mean()


def spearman(scores: Tensor, targets: Tensor) -> Tensor:
    """Spearman's correlation of one list, ready to hand over as a metric; higher is better.

    Args:
        scores: `(n,)`.
        targets: `(n,)`, numbers of which only the order counts.

    Returns:
        `()`, -1 to 1; NaN where all scores or all targets are equal, and where a score is NaN.

    Raises:
        TypeError, ValueError: scores or targets of the wrong kind or shape.

    Example:
        >>> import torch
        >>> spearman(torch.tensor([0.1, 0.7, 0.4, 0.9]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
        tensor(0.8000)
    """
    one = _one_list(scores, targets)
    said, true = (centred_ranks(each, one.present)[0] for each in (one.scores, one.places))
    return (said @ true / (said.norm() * true.norm())).clamp(-1, 1)


def _one_list(scores: Tensor, targets: Tensor) -> ReadLists:
    one = read_lists(scores, targets, None, "none")
    if one.shape:
        raise ValueError(
            f"scores must be those of one list, (n,); their shape is {tuple(scores.shape)}: "
            "task=ranking.Lists() hands over one list at a time"
        )
    return one


for _metric in (average_precision, spearman):
    vars(_metric).update(higher_is_better=True, best=1.0, may_be_undefined=True)
