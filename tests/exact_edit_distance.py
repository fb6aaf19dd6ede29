"""The expected edit distance without approximation, for small cases: slow and plain, in float64.

All that the edit-distance table's row can look like, as the differences of its neighbours, is
numbered; each character read leads from one to another. Which row there is, and which class the
last frame had, is a Markov chain: its probabilities are summed up frame by frame, and autograd has
the gradient.
"""

import itertools

import torch
from torch import Tensor

UNIT = (1, 1, 1)


def rows_of(target: list[int], classes: int, special: int, costs=UNIT) -> tuple[Tensor, Tensor]:
    """Which row each class leads to, `(rows, classes)`, and each one's sum, `(rows,)`."""
    insertion, deletion, substitution = costs
    rows = [(deletion,) * len(target)]
    numbers = {rows[0]: 0}
    leads = []
    for row in rows:  # which grows meanwhile
        following = []
        for read in range(classes):
            if read == special:
                following.append(numbers[row])
                continue
            # Of the table less the row's first number: one column after another.
            above, left, new = 0, insertion, []
            for meant, difference in zip(target, row):
                here = min(
                    above + (0 if meant == read else substitution),
                    above + difference + insertion,
                    left + deletion,
                )
                new.append(here - left)
                above, left = above + difference, here
            after = tuple(new)
            if after not in numbers:
                numbers[after] = len(rows)
                rows.append(after)
            following.append(numbers[after])
        leads.append(following)
    return torch.tensor(leads), torch.tensor([float(sum(row)) for row in rows]).double()


def exact(probabilities: Tensor, target: list[int], ctc: bool, costs=UNIT) -> Tensor:
    """Of probabilities `(frames, classes)`, class 0 the blank or the end."""
    classes = probabilities.shape[1]
    leads, sums = rows_of(target, classes, 0, costs)
    is_read = (torch.arange(classes) > 0).double()
    # Of the row and of the last frame's class; a position's class makes no difference to the next.
    state = torch.zeros(len(sums), classes, dtype=torch.float64)
    state[0, 0] = 1
    number = ended = torch.zeros(())
    goes_to = (leads * classes + torch.arange(classes)).flatten()
    for p in probabilities:
        total = state.sum(1, keepdim=True)
        repeated = state * p * is_read if ctc else 0 * state
        moved = total * p - repeated
        if not ctc:
            ended = ended + (total[:, 0] * p[0] * sums).sum()
            moved = moved * is_read
        number = number + (moved * is_read).sum()
        state = repeated + torch.zeros_like(state).flatten().index_add(
            0, goes_to, moved.flatten()
        ).view_as(state)
    return costs[0] * number + ended + (state.sum(1) * sums).sum()


def over_all_paths(probabilities: Tensor, target: list[int], ctc: bool, distance) -> float:
    """The same, path by path, for a distance of two lists of classes."""
    mean = 0.0
    for path in itertools.product(range(probabilities.shape[1]), repeat=len(probabilities)):
        probability = torch.stack([p[c] for p, c in zip(probabilities, path)]).prod().item()
        merged = [c for c, _ in itertools.groupby(path)] if ctc else list(path)
        if not ctc and 0 in merged:
            merged = merged[: merged.index(0)]
        mean += probability * distance([c for c in merged if c], target)
    return mean
