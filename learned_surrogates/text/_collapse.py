"""What CTC's frames say about the characters of the text: an expectation over all paths."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._match_grid import first_columns
from ._scan import Scan

# Readings longer than the target by more characters than this share their last position.
MOST_ADDITIONAL = 4


def collapse(probabilities: Tensor, labels: Tensor, blank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The distribution of each character of the collapsed text, frames being independent.

    The k-th character that the frames emit is y_j with probability

    `P[k, j] = sum_t p_t(y_j) (a_t(k) - a_t(k, y_j))`

    where `a_t(k)` is the probability of k characters before frame t, and `a_t(k, c)` that of these
    and c in the frame just before: then c is a repetition and emits nothing (Graves et al., ICML
    2006, the map B). Characters that the target lacks are taken together; whether two of them in
    neighbouring frames are the same one is taken to be independent of the rest. Exact where at
    most one such character has any probability.

    Args:
        probabilities: `(batch, classes, time)`; a column of zeros is no frame.
        labels: class indices plus one, `(batch, characters)`, 0 for padding.
        blank: class index.

    Returns:
        The probability of each target character at each position of the text, `(batch, positions,
        characters)`; that of any other character, `(batch, positions)`; and which positions exist,
        `(batch, positions)`, bool. A sample has as many positions as its target has characters, and
        four more, of which the last one also holds what comes after.
    """
    time = probabilities.shape[2]
    count = labels.shape[1]
    # A character that the target has twice is one character: its first column stands for all.
    first, own = first_columns(labels)
    known = labels > 0

    classes = (labels.long() - 1).clamp(min=0)[:, :, None].expand(-1, -1, time)
    # (time, batch, characters); absent frames are blanks.
    match = (probabilities.gather(1, classes) * own[:, :, None]).permute(2, 0, 1)
    absent = probabilities.detach().sum(1) == 0
    blanks = (probabilities[:, blank] + absent.to(probabilities)).T
    other = (1 - blanks - match.sum(2)).clamp(min=0)
    is_character = torch.arange(probabilities.shape[1], device=labels.device) != blank
    characters = probabilities * is_character[:, None]
    same = (characters[:, :, 1:] * characters[:, :, :-1]).sum(1).T
    same = (same - (match[1:] * match[:-1]).sum(2)).clamp(min=0)
    repeats = (same / (other[1:] * other[:-1]).clamp(min=1e-12)).clamp(max=1)
    repeats = F.pad(repeats, (0, 0, 1, 0))

    emitting = torch.cat([other[:, :, None], match], 2)
    # How much of a character's weight in the frame before makes the same one a repetition.
    sticks = torch.cat([repeats[:, :, None], torch.ones_like(match)], 2)
    repeating = emitting * sticks
    emitted = Scan.apply(emitting, repeating, blanks, count + MOST_ADDITIONAL - 1)

    # What the last position holds is what all frames emit, less what comes before it.
    last = known.sum(1)[:, None] + MOST_ADDITIONAL - 1
    place = torch.arange(count + MOST_ADDITIONAL, device=labels.device)
    before = F.pad(emitted, (0, 0, 0, 1)) * (place < last)[:, :, None]
    of_all = emitting.sum(0) - (repeating[1:] * emitting[:-1]).sum(0)
    rest = of_all - before.sum(1)
    emitted = before + rest[:, None] * (place == last)[:, :, None]
    columns = (first + 1)[:, None].expand(-1, len(place), -1)
    return emitted.gather(2, columns) * known[:, None], emitted[:, :, 0], place <= last
