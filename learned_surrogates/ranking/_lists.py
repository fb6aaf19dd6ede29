"""Lists of scores, and what each item is worth: what the losses read, and how they answer."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._support.checks import Reduction, check_reduction, check_tensor
from .._support.precision import at_least_float32


@dataclass(frozen=True)
class ReadLists:
    """Lists one below the other, those of a ragged batch padded.

    Attributes:
        scores: `(lists, n)`, float32 or float64, 0 where there is no item.
        targets: `(lists, n)`, of their own type, 0 where there is no item.
        present: where there is one, `(lists, n)`, bool.
        shape: of the user's lists, without their items.
    """

    scores: Tensor
    targets: Tensor
    present: Tensor
    shape: torch.Size

    @property
    def places(self) -> Tensor:
        """Numbers in the order of a list's targets, equal ones for equal ones: `(lists, n)`.

        Of the scores' type, in which targets themselves may be equal that are not: times in
        seconds have no digits left in float32.
        """
        in_order, where = self.targets.sort(1)
        steps = (in_order[:, 1:] != in_order[:, :-1]).cumsum(1).to(self.scores)
        return torch.zeros_like(self.scores).scatter(1, where[:, 1:], steps)

    def reduce(self, losses: Tensor, defined: Tensor, reduction: Reduction) -> Tensor:
        """The lists' losses as the user wants them.

        Args:
            losses: `(lists,)`, finite also where the metric is not defined.
            defined: where it is, `(lists,)`; elsewhere the loss is 0, and a mean leaves it out.
            reduction: "none", "mean" or "sum".
        """
        losses = losses.where(defined, 0.0)
        if reduction == "none":
            return losses.reshape(self.shape)
        total = losses.sum()
        return total / defined.sum().clamp(min=1) if reduction == "mean" else total


def read_lists(
    scores: Tensor, targets: Tensor, mask: Tensor | None, reduction: Reduction
) -> ReadLists:
    """The lists of a call.

    Raises:
        TypeError: scores that are no tensor of floating-point numbers, targets that are no tensor,
            a mask that is not bool.
        ValueError: shapes that differ, targets that are not finite, an unknown reduction.
    """
    check_reduction(reduction)
    rows, present, shape = read_scores(scores, mask)
    _check_like("targets", targets, scores.shape)
    marks = targets.detach().to(rows.device).reshape(rows.shape)
    if not marks.is_floating_point():
        marks = marks.long()
    marks = marks.where(present, torch.zeros_like(marks))
    wild = ~marks.isfinite()
    if wild.any():
        raise ValueError(
            f"targets must be finite; one is {marks[wild][0]:g}. An item of which nothing is known "
            "is left out by mask="
        )
    return ReadLists(rows, marks, present, shape)


def read_scores(scores: Any, mask: Tensor | None) -> tuple[Tensor, Tensor, torch.Size]:
    """Scores `(lists, n)` in 32 or 64 bits, where there are any, and the shape without items."""
    if isinstance(scores, (list, tuple)):
        raise TypeError(
            f"scores must be a tensor; got {type(scores).__name__}. Pad lists of several lengths, "
            "scores and targets alike, and give a mask= that is true where there is an item"
        )
    check_tensor("scores", scores)
    if not scores.is_floating_point():
        raise TypeError(f"scores must be floating-point numbers; they are {scores.dtype}")
    if scores.ndim == 0:
        raise ValueError("scores must be (n,) for one list, or (..., n); got a single number")
    shape, items = scores.shape[:-1], scores.shape[-1]
    rows = at_least_float32(scores.reshape(math.prod(shape), items))
    if mask is None:
        return rows, torch.ones_like(rows, dtype=torch.bool), shape
    _check_like("mask", mask, scores.shape)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, true where there is an item; it is {mask.dtype}")
    present = mask.to(rows.device).reshape(rows.shape)
    return rows.where(present, 0.0), present, shape


def _check_like(name: str, tensor: Any, shape: torch.Size) -> None:
    check_tensor(name, tensor)
    if tensor.shape != shape:
        raise ValueError(
            f"{name} must have the shape of scores, {tuple(shape)}; got {tuple(tensor.shape)}"
        )
