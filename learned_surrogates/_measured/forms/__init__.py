"""Nets whose slope stands in for the metric's: what each sees of a prediction and its target.

The form decides what can be learned: a plain net on a hundred outputs tells nothing of the metric's
differences where one small net for all of them tells most.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ..._surrogate import conditioned, embedding_distance
from .classes import Classes, are_last, class_dims
from .counts import Counts
from .cyclic import Cyclic
from .elements import Elements
from .maps import Maps
from .pair import Pair

# The most numbers of a prediction and its target that one plain net is given.
MOST_NUMBERS = 128
# Numbers of a target of another size up to which it is tried whether they go round.
FEW_TARGETS = 4
# Outputs up to which a plain net is tried beside one for all outputs.
FEW = 32
# The most classes whose confusions are told apart one by one.
MOST_CLASSES = 2048
# Of samples of more numbers, whatever form takes many times as long as most metrics.
LARGE = 2**15


class Numbers(nn.Module):
    """A surrogate of the papers' kind, shown predictions and targets as numbers."""

    def __init__(self, build: Callable[[Tensor, Tensor], nn.Module], z: Tensor, y: Tensor):
        super().__init__()
        self.surrogate = build(z, _as_numbers(y, z))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Values `(batch,)`."""
        return self.surrogate(z, _as_numbers(y, z))


def _as_numbers(y: Tensor, z: Tensor) -> Tensor:
    return (y[:, None] if y.ndim == 1 else y).to(z)


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "pair": Pair,
    "elements": Elements,
    "lists": partial(Elements, ranks=True),
    "classes": Classes,
    "counts": Counts,
    "maps": Maps,
    "cyclic": Cyclic,
    "embedding": partial(Numbers, embedding_distance),
    "conditioned": partial(Numbers, conditioned),
    "classes-last": partial(Classes, last=True),
}
NAMES = tuple(BUILDERS)
# Those with thresholds or ranks that are as sharp as the noise makes them.
SHARP = ("classes", "classes-last", "counts", "lists")


def suited(z: Tensor, y: Tensor) -> tuple[str, ...]:
    """Names of the forms that fit predictions `(batch, *sample)` and targets `(batch, ...)`.

    Recognised from shapes, types and values; several where it takes a trial to tell.
    """
    if z[0].numel() > LARGE:
        return ()
    numbers = z[0].numel() + y[0].numel()
    if _are_classes(z, y):
        return ("classes-last",) if are_last(z, y) else ("classes",)
    if z.shape != y.shape:
        cyclic = ("cyclic",) if y[0].numel() <= FEW_TARGETS else ()
        return ("pair", *cyclic) if numbers <= MOST_NUMBERS else ()
    few = ("pair",) if z[0].numel() <= FEW else ()
    if z[0].numel() == 1:
        return few
    lists = ("lists",) if z.ndim == 2 else ()
    if _are_marks(y):
        maps = ("maps",) if z.ndim == 4 else ()
        return ("counts", "elements", *lists, *maps, *few)
    if z.ndim == 4:
        return ("maps", *few)
    return (*few, "elements", *lists)


def build(name: str, z: Tensor, y: Tensor, width: Tensor | None = None) -> nn.Module:
    """A form, standardised by these samples and, if it is known, the noise's standard deviation.

    Raises:
        ValueError: the form does not take such samples.
    """
    try:
        form = BUILDERS[name](z, y, width) if name in SHARP else BUILDERS[name](z, y)
        form(z[:1], y[:1])
    except Exception as error:  # of whatever does not go together, deep within
        raise ValueError(
            f"surrogate={name!r} does not take predictions {tuple(z.shape[1:])} with targets "
            f"{tuple(y.shape[1:])}, {y.dtype}: {error}"
        ) from error
    return form


def _are_classes(z: Tensor, y: Tensor) -> bool:
    """Class logits and indices; one value beyond the classes, such as 255, marks what is none."""
    dims = class_dims(z, y)
    if y.is_floating_point() or y.dtype == torch.bool or not dims:
        return False
    classes = z.shape[dims[0]]
    beyond = y[y >= classes].unique()
    # Of grades, cumulative logits are one fewer.
    grades = z.ndim == 2 and classes in beyond
    return 1 < classes <= MOST_CLASSES and len(beyond) <= 1 and not grades


def _are_marks(y: Tensor) -> bool:
    """Whether targets are marks of yes and no: bool, 0 and 1, or -1 and 1."""
    if y.dtype == torch.bool:
        return True
    few = y[:256]
    return any(bool(((few == 1) | (few == other)).all()) for other in (0, -1))
