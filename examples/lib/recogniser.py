"""A small convolutional recogniser of word images, with one of two heads.

- ctc: log-probabilities of 32 frames, for `nn.CTCLoss`; class 0 is the blank.
- characters: logits of 11 positions, for `nn.CrossEntropyLoss`; class 0 is the end symbol, which
  fills every position after the word.

For both, class i + 1 is `ALPHABET[i]`.
"""

import os
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .weights import read_weights, save_weights
from .word_images import ALPHABET, LENGTHS

Head = Literal["ctc", "characters"]
ProxyLoss = Callable[[Tensor, Sequence[str]], Tensor]

CLASSES = len(ALPHABET) + 1
POSITIONS = LENGTHS.stop  # the longest word and the end symbol
FRAMES = 32


class Recogniser(nn.Module):
    """Reads word images; 32 columns of features, then the head.

    Args:
        head: "ctc" or "characters".
        width: channels of the columns.
    """

    def __init__(self, head: Head = "ctc", width: int = 112):
        super().__init__()
        self.head = head
        self.width = width
        self.columns = nn.Sequential(
            _convolution(1, 24, kernel=(4, 3), stride=(2, 1), padding=(1, 1)),
            _convolution(24, 48, kernel=(3, 5), stride=(2, 3), padding=(1, 1)),
            _convolution(48, 48, kernel=(3, 3), padding=(1, 1)),
            _convolution(48, 80, kernel=(3, 3), stride=(2, 1), padding=(1, 1)),
            _convolution(80, width, kernel=(3, 1)),
            nn.Flatten(2),
            *(_Context(width, dilation) for dilation in (1, 2, 4, 8)),
        )
        self.reader = nn.Conv1d(width, CLASSES, 1) if head == "ctc" else _Positions(width)

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities `(32, batch, 37)` or logits `(batch, 37, 11)`, as the head has it.

        Args:
            images: `(batch, 1, 24, 96)` in [0, 1].
        """
        output: Tensor = self.reader(self.columns(2 * images - 1))
        return output.permute(2, 0, 1).log_softmax(2) if self.head == "ctc" else output


def _convolution(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class _Context(nn.Module):
    """A residual convolution along the columns `(batch, width, 32)`."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.convolution = nn.Conv1d(
            width, width, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.relu(self.norm(self.convolution(x)))


class _Positions(nn.Module):
    """Each position looks for its character among the columns: logits `(batch, 37, 11)`.

    A running count of the characters tells the columns' places in the word; each position attends
    where the count nears its own number, corrected by what the columns show.
    """

    def __init__(self, width: int):
        super().__init__()
        self.increments = nn.Conv1d(width, 1, 1)
        # A word of seven letters over 32 columns, to begin with.
        nn.init.constant_(cast(Tensor, self.increments.bias), -1.3)
        self.correction = nn.Conv1d(width, POSITIONS, 1)
        self.classes = nn.Sequential(
            nn.Conv1d(width, width, 1), nn.ReLU(), nn.Conv1d(width, CLASSES, 1)
        )
        self.register_buffer("numbers", torch.arange(POSITIONS).view(-1, 1) + 0.5, persistent=False)

    def forward(self, columns: Tensor) -> Tensor:
        count = self.increments(columns).sigmoid().cumsum(2)
        near = -4 * (count - self.numbers) ** 2
        shares = (near + self.correction(columns)).softmax(2)
        logits: Tensor = self.classes(columns @ shares.transpose(1, 2))
        return logits


def encode_targets(labels: Sequence[str], head: Head) -> tuple[Tensor, ...]:
    """The labels as class indices, int64, as the proxy loss takes them.

    Returns:
        ctc: targets `(batch, longest)`, padded with 0, and their lengths `(batch,)`.
        characters: targets `(batch, 11)`, end symbols after the word.

    Raises:
        ValueError: a character that the alphabet lacks, or more than 10 of them.
    """
    classes = [[ALPHABET.index(character) + 1 for character in label] for label in labels]
    lengths = torch.tensor([len(label) for label in labels])
    if len(labels) and int(lengths.max()) >= POSITIONS:
        raise ValueError(f"labels must have at most {POSITIONS - 1} characters")
    columns = POSITIONS if head == "characters" else max(map(len, labels), default=0)
    targets = torch.tensor([[*row, *[0] * (columns - len(row))] for row in classes])
    return (targets, lengths) if head == "ctc" else (targets,)


def proxy_loss(head: Head) -> ProxyLoss:
    """The head's usual loss, a mean over the batch: `loss(output, labels)`."""

    def ctc(output: Tensor, labels: Sequence[str]) -> Tensor:
        targets, lengths = encode_targets(labels, "ctc")
        frames = torch.full_like(lengths, output.shape[0])
        return functional.ctc_loss(output, targets, frames, lengths, zero_infinity=True)

    def characters(output: Tensor, labels: Sequence[str]) -> Tensor:
        (targets,) = encode_targets(labels, "characters")
        return functional.cross_entropy(output, targets.to(output.device))

    return ctc if head == "ctc" else characters


def read(output: Tensor, head: Head) -> list[str]:
    """The likeliest texts: best path for ctc, best class up to the end symbol for characters."""
    if head == "ctc":
        paths = output.argmax(2).T.tolist()
        merged = [[index for index, _ in groupby(path)] for path in paths]
        return ["".join(ALPHABET[index - 1] for index in path if index) for path in merged]
    rows = [[*row, 0] for row in output.argmax(1).tolist()]
    return ["".join(ALPHABET[index - 1] for index in row[: row.index(0)]) for row in rows]


def save(model: Recogniser, path: str | os.PathLike[str]) -> None:
    """Write the weights in half precision, with the head and the width as metadata."""
    save_weights(model, path, head=model.head, width=model.width)


def load(path: str | os.PathLike[str]) -> Recogniser:
    """A recogniser that `save` wrote: float32, in evaluation mode."""
    weights, metadata = read_weights(path)
    model = Recogniser(cast(Head, metadata["head"]), int(metadata["width"]))
    model.load_state_dict(weights)
    return model.eval()
