"""The task of a CTC recogniser."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .._support.checks import check_choice
from .._support.transfer import send
from .._support.warnings import warn
from ._alignment import Labels, extend, fit_to_frames, force_align, spread_evenly
from ._alphabet import Alphabet, kept_rows
from ._ctc_labels import read_labels, read_lengths
from ._readings import ReadingTask
from ._text_task import TextBatch, as_integers, check_output, padded

# In the place of log 0 when a generated text, which is certain of itself, is aligned.
LEAST_PROBABILITY = 1e-6
# In the place of that of what is masked.
LEAST_LOG_PROBABILITY = -70.0
# Of a frame, where targets are aligned.
LARGEST_SCORE = 1e30
TOO_SHORT = (
    "input_lengths are less than target_lengths for all samples, {} and {} for the first: no "
    "frames spell these targets. Are they counts of log_probs' frames, and in their place?"
)


class CTC(ReadingTask):
    """A recogniser with CTC outputs; the loss is called exactly like `nn.CTCLoss`.

    `criterion(log_probs, targets, input_lengths, target_lengths)`, with

    - `log_probs`: `(time, batch, classes)`, or `(time, classes)` for one sample;
    - `targets`: class indices, padded `(batch, length)` or concatenated `(sum of lengths,)`;
    - `input_lengths`, `target_lengths`: `(batch,)` tensors, lists or tuples.

    The metric gets lists of strings: the greedy reading (the best class of each frame, repeats
    merged, blanks dropped), and the target's text; in training, random readings: a class drawn for
    each frame. A surrogate that is fitted to values sees the frames' probabilities and the target
    laid over the same frames, `(batch, classes, time)` each. A target that is too long for its
    frames, for which `nn.CTCLoss` is infinite, is laid out as far as it fits.

    Args:
        alphabet: the characters without the blank, a string or a list of strings. They take the
            classes in order, the blank's left out: with `blank=0`, `alphabet[0]` is class 1.
        blank: class index of the blank.
        layout: how a target is laid over the frames, where it is: "aligned", along the most
            probable path that spells it, or "even", evenly spaced.
        fold: for a metric that does not tell some characters apart, such as `str.lower` where case
            does not count: the edit distance with which the metric is compared takes characters
            of which `fold` makes the same for one. The metric still gets the texts as they are.
        decode: makes a text of class indices, as a tokenizer's `decode` does, where the metric is
            to get something else than the characters joined.
        likeliest: whether the metric is asked about the most probable readings, `draws` different
            ones of each sample, not about random ones; the loss then follows its mean over these.

    Raises:
        TypeError, ValueError: here for an unusable alphabet or blank; at a call, for arguments of
            a wrong kind, shape or length, or targets with a blank or an unknown class.

    Example:
        >>> import torch
        >>> from learned_surrogates import LearnedSurrogateLoss
        >>> criterion = LearnedSurrogateLoss(edit_distance, task=CTC("ab"))
        >>> logits = torch.randn(8, 1, 3, requires_grad=True)
        >>> log_probs = logits.log_softmax(dim=-1)
        >>> criterion(log_probs, torch.tensor([[1, 2]]), [8], [2]).backward()
        >>> logits.grad.shape
        torch.Size([8, 1, 3])
    """

    merges = True
    prediction = "log_probs"

    def __init__(
        self,
        alphabet: Sequence[str],
        blank: int = 0,
        *,
        layout: Literal["aligned", "even"] = "aligned",
        fold: Callable[[str], str] | None = None,
        decode: Callable[[list[int]], str] | None = None,
        likeliest: bool = False,
    ):
        check_choice("layout", layout, ("aligned", "even"))
        super().__init__(Alphabet(alphabet, blank, "blank", decode), fold, likeliest=likeliest)
        self.layout = layout

    def __repr__(self) -> str:
        return f"CTC({len(self.alphabet)} characters, blank={self.alphabet.special})"

    def read(
        self, log_probs: Tensor, targets: Any, input_lengths: Any, target_lengths: Any
    ) -> TextBatch:
        check_output("log_probs", log_probs, -1, self.alphabet.classes)
        batched = log_probs.ndim == 3
        frames_first = log_probs.detach() if batched else log_probs.detach()[:, None]
        time, batch = frames_first.shape[:2]
        if not time:
            raise ValueError(f"log_probs has no frames: its shape is {tuple(log_probs.shape)}")
        frames = read_lengths("input_lengths", input_lengths, batch, time)
        classes = as_integers("targets", targets)
        if batch == 1 and classes.ndim == 1:  # padded, without the batch
            classes = classes[None]
        labels = read_labels(
            classes, target_lengths, batch, self.alphabet.classes, self.alphabet.special
        )
        present = torch.arange(time, device="cpu") < frames[:, None]
        return TextBatch(
            prediction=log_probs,
            logits=self.logits(log_probs.detach()),
            target=send(self._target(frames_first, labels, frames.numpy()), log_probs.device),
            batch_dim=1 if batched else None,
            present=send(present, log_probs.device),
            texts=[self.alphabet.decode(text) for text in labels],
            labels=labels,
        )

    def warn_about(self, batch: TextBatch) -> bool:
        frames = batch.present.sum(1).tolist()
        if frames and all(len(label) > n for label, n in zip(batch.labels, frames, strict=True)):
            warn(TOO_SHORT.format(frames[0], len(batch.labels[0])))
        return super().warn_about(batch)

    def logits(self, prediction: Tensor) -> Tensor:
        frames_first = prediction if prediction.ndim == 3 else prediction[:, None]
        return frames_first.permute(1, 2, 0)

    def as_predicted(self, values: Tensor, prediction: Tensor) -> Tensor:
        return values.permute(2, 0, 1).reshape(prediction.shape)

    def labels(self, classes: Tensor) -> Labels:
        new = torch.ones_like(classes, dtype=torch.bool)
        new[:, 1:] = classes[:, 1:] != classes[:, :-1]
        kept = new & (classes != self.alphabet.special) & (classes >= 0)
        return kept_rows(classes, kept)

    def log_likelihood(self, logits: Tensor, labels: Labels, present: Tensor) -> Tensor:
        frames = present.sum(1).cpu()
        # A class that is masked with minus infinity, or a text with more characters than there are
        # frames, would leave no gradient that is a number.
        log_probs = logits.permute(2, 0, 1).log_softmax(2).clamp(min=LEAST_LOG_PROBABILITY)
        lengths = torch.tensor([len(label) for label in labels], device="cpu")
        targets = torch.tensor(padded(labels, 1, self.alphabet.special), device=logits.device)
        loss = F.ctc_loss(
            log_probs,
            targets,
            frames.clamp(min=1),
            lengths,
            blank=self.alphabet.special,
            reduction="none",
            zero_infinity=True,
        )
        repeats = [sum(map(operator.eq, label, label[1:])) for label in labels]
        needed = lengths + torch.tensor(repeats, device="cpu")
        # Without frames nothing is read.
        likelihood = (-loss).where(send(frames > 0, loss.device), 0.0)
        return likelihood.where(send(needed <= frames, loss.device), -torch.inf)

    def encode(
        self, predictions: list[str], targets: list[str], shape: torch.Size | None
    ) -> tuple[Tensor, Tensor]:
        readings = [self.alphabet.encode(text) for text in predictions]
        labels = [self.alphabet.encode(text) for text in targets]
        # Room for every text with a blank around each character.
        length = max([shape[1] if shape else 0, *(2 * len(t) + 1 for t in (*readings, *labels))])
        frames = np.full(len(labels), length)
        z = self.one_hot(spread_evenly(readings, frames, length, self.alphabet.special))
        log_probs = z.clamp(min=LEAST_PROBABILITY).log().permute(2, 0, 1)
        target = self._target(log_probs, labels, frames)
        return z, target

    def _target(self, log_probs: Tensor, labels: Labels, frames: NDArray[np.int64]) -> Tensor:
        """Targets as replay stores them: laid over the frames, or as they are."""
        if self.measured:
            return self.store(padded(labels))
        return self.store(self._lay_out(log_probs, labels, frames))

    def _lay_out(
        self, log_probs: Tensor, labels: Labels, frames: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Each target as a class a frame, `(batch, time)`, -1 beyond a sample's frames."""
        labels = fit_to_frames(labels, frames)
        if self.layout == "even":
            return spread_evenly(labels, frames, len(log_probs), self.alphabet.special)
        extended = extend(labels, self.alphabet.special)
        states = send(torch.from_numpy(extended), log_probs.device)
        # Only the classes that a target has leave the device.
        of_states = log_probs.float().gather(2, states.expand(len(log_probs), -1, -1))
        # A frame that is not a number says nothing about where the target lies; and the sum over
        # all frames must be one.
        scores = of_states.nan_to_num(0.0, 0.0, -1e4).clamp(-LARGEST_SCORE, LARGEST_SCORE)
        counts = np.array([len(text) for text in labels], dtype=np.int64)
        return force_align(scores.cpu().numpy(), extended, counts, frames)
