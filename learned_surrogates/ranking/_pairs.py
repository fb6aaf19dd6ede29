"""Each item beside all others of its list, in as much memory as there is."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._sets.spread import Spread
from .._support.moderate import bounded

# Numbers that a block of items makes of its pairs; of more, the backward pass makes them anew.
MOST_NUMBERS = 2**24


def standardised(scores: Tensor, present: Tensor) -> Tensor:
    """Scores with a mean of 0 and a standard deviation of 1 in each list, `(lists, n)`.

    The order does not change, and the noise that is added gets a unit. A list that does not vary,
    but for rounding, keeps its scale. Marks, such as -1e9 in masked places, count in neither.
    """
    # What is infinite must show as NaN: beside it, others would seem to be surely ranked.
    scores = bounded(scores.where(scores.isfinite(), torch.nan))
    spread = Spread(scores, present)
    return (scores - spread.mean).where(present, 0.0) / spread.deviation


def for_each_item(
    function: Callable[[Tensor, Tensor, Tensor], Tensor],
    scores: Tensor,
    present: Tensor,
    chosen: Tensor,
    numbers: int = 1,
) -> Tensor:
    """What a function makes of the chosen items, in the order of `chosen.nonzero()`.

    Args:
        function: of `gaps`, by how much each item of the list stands above the chosen one, `(rows,
            n)`; `others`, which of them there are, without itself, `(rows, n)`, bool; and the
            number of the list, `(rows,)`. Returns `(rows, ...)`.
        scores: `(lists, n)`.
        present: `(lists, n)`, bool.
        chosen: `(lists, n)`, bool.
        numbers: that the function makes of each pair.
    """

    def call(lists: Tensor, items: Tensor) -> Tensor:
        others = present[lists].scatter(1, items[:, None], False)
        return function(scores[lists] - scores[lists, items][:, None], others, lists)

    lists, items = chosen.nonzero(as_tuple=True)
    block = max(1, MOST_NUMBERS // max(1, scores.shape[1] * numbers))
    if len(lists) <= block:
        return call(lists, items)
    blocks = zip(lists.split(block), items.split(block))
    parts = [
        checkpoint(call, *part, use_reentrant=False, preserve_rng_state=False) for part in blocks
    ]
    return torch.cat(parts)
