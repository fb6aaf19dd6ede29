"""Text losses as the papers have them, and with nothing of ours."""

from collections.abc import Sequence
from typing import Any

from .._learning.fit_values import FitValues, changed
from .._loss import LearnedSurrogateLoss
from .._support.checks import check_number
from .._surrogate import EmbeddingDistance
from ._char_cnn import CharCNN
from ._edit_distance import edit_distance
from ._generator import RandomEdits
from ._per_position import PerPosition

# The papers' mini-batch.
BATCH = 192


def ls_ed(
    alphabet: Sequence[str],
    length: int,
    *,
    words: Sequence[str] | None = None,
    end: int = 0,
    **changes: Any,
) -> LearnedSurrogateLoss:
    r"""LS-ED: an embedding distance fitted to the edit distance, and followed.

    "Learning Surrogates via Deep Embedding" (Patel, Hodaň, Matas, ECCV 2020), section 4.2: a
    Char-CNN h on a fixed length (see `CharCNN`), :math:`\hat e = \|h(z) - h(y)\|_2` fitted by Eq. 6
    to the edit distance of the text as it is read, on the model's predictions and on as many random
    pairs (Algorithm 1), with a gradient penalty of weight 0.1. No draws, no base loss, no share of
    the usual loss.

    How many updates of the surrogate go with one of the model is not published: it is one each
    here, and 500 in the first ten calls, in which the gradient is zero. The papers start with some
    updates of the surrogate alone, too.

    Args:
        alphabet: the characters without the end symbol.
        length: positions of the model's output, the end symbol's included, at least 2.
        words: of the random generator; None are random strings.
        end: class index of the end symbol.
        **changes: other arguments of `LearnedSurrogateLoss` and fields of `FitValues`, in the place
            of these.

    Returns:
        The loss, called as `text.PerPosition` says: `criterion(logits, target)`, logits `(batch,
        classes, length)`.

    Raises:
        TypeError, ValueError: as `PerPosition`, `RandomEdits` and `LearnedSurrogateLoss` do.

    Example:
        >>> import torch
        >>> criterion = ls_ed("abc", 6, warm_up=10, batch_size=8)
        >>> logits = torch.randn(2, 4, 6, requires_grad=True)
        >>> loss = criterion(logits, torch.tensor([[1, 2, 3, 0, 0, 0], [3, 1, 0, 0, 0, 0]]))
        >>> loss.backward()
    """
    check_number("length", length, 2)
    net = CharCNN(len(alphabet) + 1, width=256, embedding_size=1024, bins=length, pooling=False)
    settings: dict[str, Any] = {
        "metric": edit_distance,
        "task": PerPosition(alphabet, end),
        "surrogate": EmbeddingDistance(net),
        "draws": 0,
    }
    fit: dict[str, Any] = {
        "data": "local-global",
        "penalty_weight": 0.1,
        "batch_size": BATCH,
        "every": 1,
    }
    fit, changes = changed(fit, changes)
    if fit["data"] != "local" and "generator" not in fit:
        longest = length - 1
        fit["generator"] = RandomEdits(alphabet, words, max_distance=longest, max_length=longest)
    return LearnedSurrogateLoss(**(settings | {"fit": FitValues(**fit)} | changes))


def feds(
    alphabet: Sequence[str], length: int, *, end: int = 0, **changes: Any
) -> LearnedSurrogateLoss:
    r"""FEDS: LS-ED on the model's predictions alone, and only where the surrogate is right.

    "FEDS - Filtered Edit Distance Surrogate" (Patel, Matas, ICDAR 2021): no random pairs, and a
    sample on which the surrogate is off by more than 0.25 hands back no gradient. Eq. 4.7, taken to
    the letter, minimises :math:`|\hat e - e|`; the text has the surrogate minimised, as it is here
    (see `Filter`).

    Args:
        alphabet: the characters without the end symbol.
        length: positions of the model's output, the end symbol's included, at least 2.
        end: class index of the end symbol.
        **changes: as those of `ls_ed`.

    Returns:
        The loss, called as that of `ls_ed`.

    Raises:
        TypeError, ValueError: as `PerPosition` and `LearnedSurrogateLoss` do.

    Example:
        >>> import torch
        >>> criterion = feds("abc", 6, warm_up=10, batch_size=8)
        >>> logits = torch.randn(2, 4, 6, requires_grad=True)
        >>> loss = criterion(logits, torch.tensor([[1, 2, 3, 0, 0, 0], [3, 1, 0, 0, 0, 0]]))
        >>> loss.backward()
    """
    settings: dict[str, Any] = {"data": "local", "filter": 0.25}
    return ls_ed(alphabet, length, end=end, **(settings | changes))
