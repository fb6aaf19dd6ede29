"""What a CTC loss is called with beside the frames: labels, and how long all of them are."""

from typing import Any

from torch import Tensor

from ._alignment import Labels
from ._text_task import as_integers


def read_lengths(name: str, lengths: Any, batch: int, most: int) -> Tensor:
    """`(batch,)` integers on the CPU.

    Raises:
        TypeError, ValueError: they are none, not as many, or not within 0 to the most.
    """
    values = as_integers(name, lengths).reshape(-1)
    if len(values) != batch:
        raise ValueError(f"{name} has {len(values)} entries for a batch of {batch}")
    bad = (values < 0) | (values > most)
    if bad.any():
        sample = int(bad.nonzero()[0])
        raise ValueError(f"{name} of sample {sample} is {values[sample]}; it must be in 0..{most}")
    return values


def read_labels(targets: Tensor, lengths: Any, batch: int, classes: int, blank: int) -> Labels:
    """Each sample's class indices, of targets that are padded or concatenated.

    Raises:
        TypeError, ValueError: another shape, other lengths, or a class that no label has.
    """
    if targets.ndim == 2:
        if len(targets) != batch:
            raise ValueError(f"targets have {len(targets)} rows for a batch of {batch}")
        counts = read_lengths("target_lengths", lengths, batch, targets.shape[1])
        labels = [row[:n] for row, n in zip(targets.tolist(), counts.tolist(), strict=True)]
    elif targets.ndim == 1:
        counts = read_lengths("target_lengths", lengths, batch, len(targets))
        if counts.sum() != len(targets):
            raise ValueError(
                f"concatenated targets have {len(targets)} entries and target_lengths add up "
                f"to {counts.sum()}"
            )
        labels = [part.tolist() for part in targets.split(counts.tolist())]
    else:
        raise ValueError(
            "targets must be padded, (batch, length), or concatenated, (sum of lengths,); "
            f"their shape is {tuple(targets.shape)}"
        )
    for sample, label in enumerate(labels):
        wrong = [each for each in label if not 0 <= each < classes or each == blank]
        if wrong:
            raise ValueError(
                f"targets of sample {sample} have class {wrong[0]}; within its target length, a "
                f"label has classes of 0..{classes - 1}, without the blank, {blank}"
            )
    return labels
