"""The metrics to which the usual losses of text lead, and how another one compares with them."""

import numpy as np
import torch
from torch import Tensor

from ._edit_distance import (
    SEPARATORS,
    edit_distance,
    normalized_edit_distance,
    normalized_word_edit_distance,
    word_edit_distance,
)

USUAL = (
    edit_distance,
    normalized_edit_distance,
    word_edit_distance,
    normalized_word_edit_distance,
)
# Squared correlation with one of them from which a metric is akin to the usual losses.
AKIN = 0.8
_SPACED = str.maketrans(dict.fromkeys(SEPARATORS, " "))


def usual_values(pairs: list[tuple[list[str], list[str]]]) -> Tensor:
    """Their values at readings, `(draws, batch, metrics)`.

    Args:
        pairs: readings of a batch and its targets, for each draw.
    """
    said, meant = (
        [text.translate(_SPACED) for pair in pairs for text in pair[side]] for side in (0, 1)
    )
    values = np.stack([metric(said, meant) for metric in USUAL], 1)
    return torch.from_numpy(values).float().view(len(pairs), -1, len(USUAL))
