"""The task of a recogniser with one softmax per character position."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._support.checks import check_number
from .._support.transfer import send
from .._support.warnings import warn
from ._alignment import Labels
from ._alphabet import Alphabet, kept_rows
from ._readings import ReadingTask
from ._scores import takes_classes_second
from ._text_task import TextBatch, as_integers, check_output, padded

STARTS = (
    "all targets begin with the end symbol, class {end}, and have others behind it: a text ends at "
    "its first one, so that all of these are empty. Leave a start symbol out of the targets"
)


class PerPosition(ReadingTask):
    """A recogniser with one softmax per position; the loss is called like `nn.CrossEntropyLoss`.

    `criterion(input, target)`, with

    - `input`: logits `(batch, classes, length)`, or `(classes, length)` for one sample;
      `(batch, length, classes)` and `(length, classes)` with `classes_last`;
    - `target`: class indices `(batch, length)`, or `(length,)`. The text ends at the first end
      symbol; whatever follows it counts as more of the same.

    The metric gets lists of strings: the best class of each position up to the first end symbol,
    and the target's text; in training, random readings: a class drawn for each position. A
    surrogate that is fitted to values sees probabilities and one-hot targets, `(batch, classes,
    length)` each. Positions where the target is `ignore_index` are left out of all, as in
    `nn.CrossEntropyLoss`: pad with the end symbol rather, if the metric shall see what the
    recogniser reads behind the text.

    Args:
        alphabet: the characters without the end symbol, a string or a list of strings. They take
            the classes in order, the end's left out: with `end=0`, `alphabet[0]` is class 1.
        end: class index of the end symbol.
        ignore_index: the target's value at positions to leave out.
        classes_last: whether the classes are the input's last dimension.
        fold: for a metric that does not tell some characters apart, such as `str.lower` where case
            does not count: the edit distance with which the metric is compared takes characters
            of which `fold` makes the same for one. The metric still gets the texts as they are.
        decode: makes a text of class indices, as a tokenizer's `decode` does, where the metric is
            to get something else than the characters joined.
        likeliest: whether the metric is asked about the most probable readings, `draws` different
            ones of each sample, not about random ones; the loss then follows its mean over these.

    Raises:
        TypeError, ValueError: here for an unusable alphabet or end; at a call, for arguments of a
            wrong kind or shape, or targets with an unknown class.

    Example:
        >>> import torch
        >>> from learned_surrogates import LearnedSurrogateLoss
        >>> task = PerPosition("ab")
        >>> criterion = LearnedSurrogateLoss(edit_distance, task=task)
        >>> logits = torch.randn(1, 3, 4, requires_grad=True)
        >>> criterion(logits, torch.tensor([[1, 2, 0, 0]])).backward()
        >>> logits.grad.shape
        torch.Size([1, 3, 4])
    """

    merges = False
    prediction = "input"

    def __init__(
        self,
        alphabet: Sequence[str],
        end: int = 0,
        *,
        ignore_index: int = -100,
        classes_last: bool = False,
        fold: Callable[[str], str] | None = None,
        decode: Callable[[list[int]], str] | None = None,
        likeliest: bool = False,
    ):
        super().__init__(Alphabet(alphabet, end, "end", decode), fold, likeliest=likeliest)
        check_number("ignore_index", ignore_index, -float("inf"))
        self.ignore_index = ignore_index
        self.classes_last = classes_last

    def __repr__(self) -> str:
        return f"PerPosition({len(self.alphabet)} characters, end={self.alphabet.special})"

    @property
    def class_dim(self) -> int:
        return -1 if self.classes_last else -2

    def read(self, input: Tensor, target: Any) -> TextBatch:
        check_output("input", input, self.class_dim, self.alphabet.classes)
        batched = input.ndim == 3
        if batched and self.classes_last and takes_classes_second(self.base_loss):
            raise ValueError(
                "with classes_last=True, input is (batch, length, classes); the base loss, as "
                "nn.CrossEntropyLoss, takes (batch, classes, length): base_loss=lambda input, "
                "target: torch.nn.functional.cross_entropy(input.transpose(1, 2), target)"
            )
        classes = as_integers("target", target)
        length = input.shape[-2 if self.classes_last else -1]
        if not length:
            raise ValueError(f"input has no positions: its shape is {tuple(input.shape)}")
        expected = (len(input), length) if batched else (length,)
        if tuple(classes.shape) != expected:
            raise ValueError(
                f"target must hold class indices of shape {expected} for an input of shape "
                f"{tuple(input.shape)}; its shape is {tuple(classes.shape)}"
            )
        classes = classes if batched else classes[None]
        present = classes != self.ignore_index
        unknown = present & ((classes < 0) | (classes >= self.alphabet.classes))
        if unknown.any():
            sample, place = unknown.nonzero()[0].tolist()
            raise ValueError(
                f"target of sample {sample} has class {classes[sample, place]}; classes are "
                f"0..{self.alphabet.classes - 1}"
            )
        ended = ((classes == self.alphabet.special) & present).cumsum(1) > 0
        if not batched and (ended & present & (classes != self.alphabet.special)).any():
            raise ValueError(
                f"target of shape {tuple(classes.shape[1:])} is one text, but has characters after "
                "its end: is it a flattened batch? Keep the batch dimension, of input and target"
            )
        more = (present & (classes != self.alphabet.special)).any(1)
        classes = classes.where(~ended, self.alphabet.special).where(present, -1)
        labels = self.labels(classes)
        return TextBatch(
            prediction=input,
            logits=self.logits(input.detach()),
            target=send(self._target(classes), input.device),
            batch_dim=0 if batched else None,
            present=send(present, input.device),
            texts=[self.alphabet.decode(text) for text in labels],
            labels=labels,
            unread=not any(labels) and bool(len(more) and more.all()),
        )

    def warn_about(self, batch: TextBatch) -> bool:
        if batch.unread:
            warn(STARTS.format(end=self.alphabet.special))
        return super().warn_about(batch)

    def logits(self, prediction: Tensor) -> Tensor:
        prediction = prediction if prediction.ndim == 3 else prediction[None]
        return prediction.transpose(1, 2) if self.classes_last else prediction

    def as_predicted(self, values: Tensor, prediction: Tensor) -> Tensor:
        values = values.transpose(1, 2) if self.classes_last else values
        return values.reshape(prediction.shape)

    def labels(self, classes: Tensor) -> Labels:
        ended = (classes == self.alphabet.special).cumsum(1) > 0
        return kept_rows(classes, ~ended & (classes >= 0))

    def counts(self, drawn: Tensor, present: Tensor) -> Tensor:
        """Up to the first end: what is behind it changes no text."""
        ends = (drawn == self.alphabet.special) & present
        return present & (ends.cumsum(-1) - ends.long() == 0)

    def chance_to_count(self, p: Tensor, present: Tensor) -> Tensor:
        goes_on = (1 - p[:, self.alphabet.special]).where(present, 1.0)
        started = torch.ones_like(goes_on[:, :1])
        return torch.cat([started, goes_on[:, :-1]], 1).cumprod(1) * present

    def log_likelihood(self, logits: Tensor, labels: Labels, present: Tensor) -> Tensor:
        # The text's classes along the positions that count, then the end, then whatever follows.
        spelt = torch.from_numpy(padded([[*label, self.alphabet.special] for label in labels]))
        place = (present.cumsum(1) - 1).clamp(min=0)
        counts = present & (place < spelt.shape[1])
        classes = send(spelt, logits.device).gather(1, place.clamp(max=spelt.shape[1] - 1))
        counts = counts & (classes >= 0)
        of_classes = logits.log_softmax(1).gather(1, classes.clamp(min=0)[:, None])[:, 0]
        return of_classes.where(counts, 0.0).sum(1)

    def encode(
        self, predictions: list[str], targets: list[str], shape: torch.Size | None
    ) -> tuple[Tensor, Tensor]:
        sides = [[self.alphabet.encode(text) for text in side] for side in (predictions, targets)]
        # Room for every text and its end.
        length = max([shape[1] if shape else 0, *(len(t) + 1 for side in sides for t in side)])
        said, meant = (padded(side, length, self.alphabet.special) for side in sides)
        target = self._target(torch.from_numpy(meant))
        return self.one_hot(said), target

    def _target(self, classes: Tensor) -> Tensor:
        """Targets as replay stores them: a class a position."""
        return self.store(classes.numpy())
