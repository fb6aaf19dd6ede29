"""What the recognisers' heads share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .._surrogate import EmbeddingDistance
from .._task import Batch, Task
from ._alphabet import Alphabet
from ._char_cnn import CharCNN
from ._generator import RandomEdits


@dataclass(frozen=True, kw_only=True)
class TextBatch(Batch):
    """A batch of texts: the positions of each sample that count, and its text."""

    present: Tensor
    texts: list[str]


class TextTask(Task[TextBatch]):
    """A recogniser's output as distributions over classes, `(batch, classes, length)`.

    z holds probabilities and y one-hot columns; a column of zeros is padding. Replay stores a
    target as its class indices plus one, so that the zeros that it pads with are padding here too.
    """

    penalty_weight = 0.1
    ragged = True
    alphabet: Alphabet

    def expand(self, target: Tensor) -> Tensor:
        one_hot = F.one_hot(target.long(), self.alphabet.classes + 1)[..., 1:]
        return one_hot.transpose(1, 2)

    def generator(self) -> RandomEdits:
        return RandomEdits(self.alphabet.characters)

    def build_surrogate(self, z: Tensor, y: Tensor) -> nn.Module:
        return EmbeddingDistance(CharCNN(self.alphabet.classes))

    def store(self, classes: NDArray[np.int64]) -> Tensor:
        """Class indices `(batch, length)`, -1 for padding, as replay stores them."""
        return torch.from_numpy(classes + 1).to(
            torch.int16 if self.alphabet.classes < 2**15 else torch.int32
        )


def check_output(name: str, output: object, class_dim: int, classes: int) -> None:
    """Checks a recogniser's output: a floating-point tensor with so many classes.

    Raises:
        TypeError, ValueError
    """
    if not isinstance(output, Tensor):
        raise TypeError(f"{name} must be a tensor; got {type(output).__name__}")
    if output.ndim not in (2, 3):
        raise ValueError(
            f"{name} must have three dimensions, or two for one sample; its shape is "
            f"{tuple(output.shape)}"
        )
    if not output.is_floating_point():
        raise TypeError(f"{name} must be floating point; it is {output.dtype}")
    if output.shape[class_dim] != classes:
        raise ValueError(
            f"{name} has shape {tuple(output.shape)}, with {output.shape[class_dim]} classes in "
            f"dimension {class_dim % output.ndim}; the alphabet and its special symbol make "
            f"{classes}"
            + (". Two dimensions are one sample, not a flattened batch" if output.ndim == 2 else "")
        )


def as_integers(name: str, values: object) -> Tensor:
    """Integers of any container as an int64 tensor on the CPU.

    Raises:
        TypeError: they are not integers.
    """
    try:
        tensor = torch.as_tensor(values, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be integers; got {values!r}") from error
    # An empty list makes a float tensor.
    if tensor.numel() and (tensor.is_floating_point() or tensor.dtype == torch.bool):
        raise TypeError(f"{name} must be integers; they are {tensor.dtype}")
    return tensor.long()


def check_classes(name: str, sample: int, classes: Sequence[int], alphabet: Alphabet) -> None:
    """Checks a text's class indices.

    Raises:
        ValueError: one that the alphabet lacks.
    """
    if classes and not 0 <= min(classes) <= max(classes) < alphabet.classes:
        wrong = next(c for c in classes if not 0 <= c < alphabet.classes)
        raise ValueError(
            f"{name} of sample {sample} has class {wrong}; classes are 0..{alphabet.classes - 1}"
        )
