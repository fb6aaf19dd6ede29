"""What the recognisers' heads share."""

import copy
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn

from .._batch import Batch
from .._support.checks import check_tensor
from .._support.transfer import send
from .._surrogate import Conditioned, EmbeddingDistance, PairRegression
from .._task import Task
from ._alignment import Labels
from ._alphabet import Alphabet
from ._char_cnn import CharCNN
from ._generator import RandomEdits
from ._scores import doubt_scores
from ._usual_metrics import USUAL

# Surrogates with which the metric's gradient is measured.
MEASURED = ("auto", "none")


@dataclass(frozen=True, kw_only=True)
class TextBatch(Batch):
    """A batch of texts.

    Attributes:
        logits: the prediction as `(batch, classes, length)`, without its graph.
        present: which positions of each text count, `(batch, length)`, bool.
        texts: the targets.
        labels: their class indices.
        unread: whether all targets end where they begin, though they have more behind that.
    """

    logits: Tensor
    present: Tensor
    texts: list[str]
    labels: Labels
    unread: bool = False

    # All draws of a call are from the same distributions.
    @cached_property
    def probabilities(self) -> Tensor:
        """`(batch, classes, length)`, float32."""
        return self.logits.float().softmax(1)

    @cached_property
    def cumulative(self) -> Tensor:
        """Probabilities, summed up over the classes: `(batch, length, classes)`."""
        return self.logits.float().transpose(1, 2).softmax(2).cumsum(2).contiguous()


class TextTask(Task[TextBatch]):
    """A recogniser's output as distributions over classes, `(batch, classes, length)`.

    With the surrogates "auto" and "none", the metric's mean over random readings is followed. To
    the others, z is the probabilities, and y one-hot columns of the same length; a column of zeros
    is padding. Replay stores a target as its class indices plus one, so that the zeros that it pads
    with are padding here too.
    """

    surrogates = (*MEASURED, "embedding", "conditioned", "pair")
    draws = 4
    #: Share of the base loss's gradient where the user gives no number, for metrics that it leads
    #: to, such as those below: better than none where labels are wrong, and level with the proxy
    #: where they are not.
    base_weight = 0.5
    proxy_metrics = (*USUAL, Levenshtein.distance)
    #: Whether a class that is read several times in a row counts once.
    merges: bool
    #: What the loss's first argument is called.
    prediction: str
    #: That of the loss; None if it has none.
    base_loss: Callable[..., Tensor] | None = None
    fits_values = "surrogate='embedding'"
    ragged = True
    target_is_best = True
    can_sample = has_score = True

    def __init__(
        self, alphabet: Alphabet, fold: Callable[[str], str] | None, *, likeliest: bool = False
    ):
        if fold is not None and not callable(fold):
            raise TypeError(f"fold must be a function of a character, or None; got {fold!r}")
        if not isinstance(likeliest, bool):
            raise TypeError(f"likeliest must be True or False; got {likeliest!r}")
        self.alphabet = alphabet
        #: Whether the metric is asked about the most probable readings, not about random ones.
        self.likeliest = likeliest
        #: For each class, the one that stands for it; None if each is on its own.
        self.folded = None if fold is None else torch.tensor(alphabet.folded(fold), device="cpu")

    @property
    def class_dim(self) -> int:
        """The dimension of that argument which has the classes."""
        return -1

    @property
    def penalty_weight(self) -> float:
        # The papers' is for the distance of two embeddings, in the probabilities.
        return 0.1 if self.surrogate == "embedding" else 0.0

    @abstractmethod
    def logits(self, prediction: Tensor) -> Tensor:
        """The prediction as `(batch, classes, length)`, unnormalised."""

    @abstractmethod
    def as_predicted(self, values: Tensor, prediction: Tensor) -> Tensor:
        """`(batch, classes, length)`, laid out as the prediction is: the inverse of `logits`."""

    @abstractmethod
    def labels(self, classes: Tensor) -> Labels:
        """What a class a position reads, `(batch, length)` on the CPU, -1 where there is none."""

    @abstractmethod
    def log_likelihood(self, logits: Tensor, labels: Labels, present: Tensor) -> Tensor:
        """Log-probabilities `(batch,)` that the labels are read.

        Args:
            logits: `(batch, classes, length)`.
            labels: class indices of each.
            present: which positions count, `(batch, length)`, bool.
        """

    def texts(self, classes: Tensor) -> list[str]:
        """`labels`, as texts."""
        return [self.alphabet.decode(label) for label in self.labels(classes)]

    def letters(self, labels: Labels) -> Labels:
        """Class indices, where the first of each kind stands for all."""
        if self.folded is None:
            return labels
        same = self.folded.tolist()
        return [[same[index] for index in label] for label in labels]

    def readings(self, drawn: Tensor, batch: TextBatch) -> list[Labels]:
        """What each draw reads, of a class a position `(draws, batch, length)`."""
        labels = self.labels(drawn.where(batch.present, -1).flatten(0, 1).cpu())
        size = len(batch.texts)
        return [labels[i * size : (i + 1) * size] for i in range(len(drawn))]

    def pairs(self, readings: list[Labels], batch: TextBatch) -> list[tuple[list[str], list[str]]]:
        """Each draw's readings and the targets, as the metric takes them."""
        decode = self.alphabet.decode
        return [(list(map(decode, labels)), list(batch.texts)) for labels in readings]

    def for_surrogate(self, surrogate: str) -> Self:
        task = super().for_surrogate(surrogate)
        task.measured = surrogate in MEASURED
        return task

    def for_base_loss(self, base_loss: Callable[..., Tensor] | None) -> Self:
        task = copy.copy(self)
        task.base_loss = base_loss
        return task

    def warn_about(self, batch: TextBatch) -> bool:
        name, dim = self.prediction, self.class_dim
        return doubt_scores(batch.logits, batch.present, name, dim, self.base_loss)

    def represent(self, prediction: Tensor, batch: TextBatch) -> Tensor:
        present = batch.present[:, None]
        # Before the softmax: what is not a number in padding reaches neither value nor gradient.
        probabilities = self.logits(prediction).where(present, 0.0).softmax(1)
        return probabilities * present

    def decode(self, batch: TextBatch) -> tuple[list[str], list[str]]:
        best = batch.logits.argmax(1)
        return self.texts(best.where(batch.present, -1).cpu()), batch.texts

    def sample(self, batch: TextBatch, random: torch.Generator) -> tuple[list[str], list[str]]:
        return self.draw(batch, 1, random)[0]

    def draw(
        self, batch: TextBatch, count: int, random: torch.Generator
    ) -> list[tuple[list[str], list[str]]]:
        if not count:
            return []
        return self.pairs(self.readings(self.random_classes(batch, count, random), batch), batch)

    def sample_with_score(
        self, batch: TextBatch, random: torch.Generator
    ) -> tuple[list[str], list[str], Tensor]:
        drawn = self.random_classes(batch, 1, random)[0]
        chosen = F.one_hot(drawn, self.alphabet.classes).transpose(1, 2)
        # d log softmax(x)[k] / dx = one_hot(k) - softmax(x)
        counts = self.counts(drawn, batch.present)
        score = (chosen - batch.probabilities).where(counts[:, None], 0.0)
        texts = self.texts(drawn.where(batch.present, -1).cpu())
        return texts, batch.texts, self.as_predicted(score, batch.prediction)

    def random_classes(self, batch: TextBatch, count: int, random: torch.Generator) -> Tensor:
        """Random readings, a class a position: `(count, batch, length)`."""
        cumulative = batch.cumulative
        size = (count, *cumulative.shape[:2])
        shares = torch.rand(size, generator=random, dtype=torch.float32, device="cpu")
        # The draw is the class within whose part of 0..1 the random number falls.
        shares = send(shares, cumulative).permute(1, 2, 0) * cumulative[:, :, -1:]
        drawn = torch.searchsorted(cumulative, shares.contiguous())
        return drawn.clamp(max=self.alphabet.classes - 1).permute(2, 0, 1)

    def counts(self, drawn: Tensor, present: Tensor) -> Tensor:
        """Where a drawn class `(..., batch, length)` has a part in the text, bool."""
        return present.expand_as(drawn)

    def chance_to_count(self, p: Tensor, present: Tensor) -> Tensor:
        """How probable that is, `(batch, length)`, with probabilities `(batch, classes, length)`.

        Whether a position counts and what is drawn there are independent.
        """
        return present.to(p)

    def expand(self, target: Tensor) -> Tensor:
        one_hot = F.one_hot(target.long(), self.alphabet.classes + 1)[..., 1:]
        return one_hot.transpose(1, 2)

    def generator(self) -> RandomEdits | None:
        # What a decoder makes of classes cannot be taken apart again.
        fits = not self.measured and self.alphabet.decoder is None
        return RandomEdits(self.alphabet.characters) if fits else None

    def build_surrogate(self, z: Tensor, y: Tensor) -> nn.Module:
        classes = self.alphabet.classes
        if self.surrogate == "conditioned":
            return Conditioned(CharCNN(2 * classes))
        if self.surrogate == "pair":
            return PairRegression(CharCNN(2 * classes, outputs=1))
        return EmbeddingDistance(CharCNN(classes))

    def one_hot(self, classes: NDArray[np.int64]) -> Tensor:
        """Certain predictions: `(batch, classes, length)` of class indices `(batch, length)`."""
        columns = F.one_hot(torch.from_numpy(classes), self.alphabet.classes)
        return columns.transpose(1, 2).float()

    def store(self, classes: NDArray[np.int64]) -> Tensor:
        """Class indices `(batch, length)`, -1 for padding, as replay stores them."""
        return torch.from_numpy(classes + 1).to(
            torch.int16 if self.alphabet.classes < 2**15 else torch.int32
        )


def padded(labels: Labels, length: int = 0, value: int = -1) -> NDArray[np.int64]:
    """Texts as class indices `(batch, length)`, the value behind them.

    The length is that of the longest text, if that is more.
    """
    length = max([length, *map(len, labels)])
    classes = np.full((len(labels), length), value)
    for row, text in zip(classes, labels, strict=True):
        row[: len(text)] = text
    return classes


def check_output(name: str, output: Any, class_dim: int, classes: int) -> None:
    """Raises unless a recogniser's output is a floating-point tensor with so many classes."""
    check_tensor(name, output)
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
    if isinstance(values, Tensor):
        check_tensor(name, values)
    try:
        tensor = torch.as_tensor(values, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be integers; got {values!r}") from error
    # An empty list makes a float tensor.
    real = tensor.is_floating_point() or tensor.is_complex()
    if tensor.numel() and (real or tensor.dtype == torch.bool):
        raise TypeError(f"{name} must be integers; they are {tensor.dtype}")
    return tensor.long()
