"""A small convolutional recogniser of speech, for CTC.

Class 0 is the blank, class i + 1 is `ALPHABET[i]`.
"""

import os
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from lib.weights import read_weights, save_weights

from .features import BANDS
from .sentences import ALPHABET

#: Frames of features for one of the recogniser's, which is 30 ms.
STRIDE = 3


class Recogniser(nn.Module):
    """Reads log-mel features.

    Args:
        width: channels.
    """

    def __init__(self, width: int = 96):
        super().__init__()
        self.width = width
        self.first = _Convolution(BANDS, width, 5)
        self.second = _Convolution(width, width, 5, stride=STRIDE)
        self.contexts = nn.ModuleList(
            _Convolution(width, width, 3, dilation=dilation) for dilation in (1, 2, 4, 8, 1, 2, 4)
        )
        self.reader = nn.Conv1d(width, len(ALPHABET) + 1, 1)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities `(frames, batch, 28)` and their lengths, as `nn.CTCLoss` takes them.

        Args:
            features: `(batch, 40, frames)`, every 10 ms.
            lengths: frames of each, `(batch,)`; what is behind them changes nothing in evaluation.
        """
        present = mask(lengths, features.shape[2])
        x = self.first(features * present, present)
        lengths = -(-lengths // STRIDE)
        present = mask(lengths, -(-features.shape[2] // STRIDE))
        x = self.second(x, present)
        for context in self.contexts:
            x = x + context(x, present)
        return self.reader(x).permute(2, 0, 1).log_softmax(2), lengths


class _Convolution(nn.Module):
    """A convolution along time, normalised and rectified; zeros behind each one's end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        padding = dilation * (kernel // 2)
        self.convolution = nn.Conv1d(
            inputs, outputs, kernel, stride, padding, dilation=dilation, bias=False
        )
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        return functional.relu(self.norm(self.convolution(x))) * present


def mask(lengths: Tensor, frames: int) -> Tensor:
    """1 where there is something, `(batch, 1, frames)`."""
    return (torch.arange(frames) < lengths[:, None])[:, None].float()


def batch(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """`(batch, 40, frames)`, float32, zeros behind the end; and the frames of each."""
    padded = pad_sequence([each.T for each in features], batch_first=True)
    return padded.transpose(1, 2).float(), torch.tensor([each.shape[1] for each in features])


def arguments(
    model: Recogniser, features: Sequence[Tensor], labels: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `nn.CTCLoss` is called with."""
    log_probs, lengths = model(*batch(features))
    classes = [torch.tensor([ALPHABET.index(c) + 1 for c in label]) for label in labels]
    target_lengths = torch.tensor([len(label) for label in labels])
    return log_probs, pad_sequence(classes, batch_first=True), lengths, target_lengths


@torch.no_grad()
def read(model: Recogniser, features: Sequence[Tensor]) -> list[str]:
    """The best path of each, in evaluation mode."""
    training = model.training
    model.eval()
    texts = []
    for start in range(0, len(features), 100):
        log_probs, lengths = model(*batch(features[start : start + 100]))
        for path, length in zip(log_probs.argmax(2).T.tolist(), lengths.tolist(), strict=True):
            texts.append("".join(ALPHABET[i - 1] for i, _ in groupby(path[:length]) if i))
    model.train(training)
    return texts


def save(model: Recogniser, path: str | os.PathLike[str]) -> None:
    """Write the weights in half precision, with the width as metadata."""
    save_weights(model, path, width=model.width)


def load(path: str | os.PathLike[str]) -> Recogniser:
    """A recogniser that `save` wrote: float32, in evaluation mode."""
    weights, metadata = read_weights(path)
    model = Recogniser(int(metadata["width"]))
    model.load_state_dict(weights)
    return model.eval()
