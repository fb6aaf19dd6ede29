"""SoDeep's learned sorters."""

import torch
from torch import Tensor, nn

from .._support.checks import check_number


class LSTMSorter(nn.Module):
    """A bidirectional LSTM that reads scores one by one and says the rank of each.

    The last affine layer gives the rank over n (SoDeep, figure 3a; its sizes are not published).
    It comes unfitted: `examples/fit_sorter.py` fits it to exact ranks. It is right about lists of
    the length and the scale that it was fitted to, depends on the order in which scores are given,
    takes no ragged lists, and on the GPU has no second derivative. Its gradient is no better for
    its ranks being more exact: `expected_ranks` needs no fit and serves better.

    Args:
        hidden: units in each direction.
        layers: of the LSTM.

    Raises:
        TypeError, ValueError: sizes that are no whole numbers from 1.

    Example:
        >>> import torch
        >>> sorter = LSTMSorter(hidden=16)
        >>> sorter(torch.randn(4, 100)).shape
        torch.Size([4, 100])
    """

    def __init__(self, hidden: int = 128, layers: int = 1):
        super().__init__()
        check_number("hidden", hidden, 1)
        check_number("layers", layers, 1)
        self.lstm = nn.LSTM(1, hidden, layers, batch_first=True, bidirectional=True)
        self.affine = nn.Linear(2 * hidden, 1)

    def forward(self, scores: Tensor) -> Tensor:
        """Ranks `(lists, n)`, descending, of scores `(lists, n)`."""
        with torch.autocast(scores.device.type, enabled=False):
            seen, _ = self.lstm(scores.to(self.affine.weight.dtype)[..., None])
            return self.affine(seen).squeeze(-1) * scores.shape[-1]


class ConvSorter(nn.Module):
    """Convolutions that say the ranks of all scores of a list of one length.

    Blocks of a convolution, batch normalisation and ReLU, with as many channels as scores, and a
    last affine layer (SoDeep, figure 3b). Kernels and strides are not published: here each block
    halves what it sees, so that eight see all of 256 scores. It comes unfitted, as `LSTMSorter`
    does, and what is said there of its gradient holds.

    Args:
        length: of the lists.
        blocks: of convolutions.
        kernel: their size, an odd number.

    Raises:
        TypeError, ValueError: sizes that are no whole numbers from 1, an even kernel; at a call,
            lists of another length.

    Example:
        >>> import torch
        >>> sorter = ConvSorter(length=20)
        >>> sorter(torch.randn(4, 20)).shape
        torch.Size([4, 20])
    """

    def __init__(self, length: int = 100, blocks: int = 8, kernel: int = 5):
        super().__init__()
        for name, value in (("length", length), ("blocks", blocks), ("kernel", kernel)):
            check_number(name, value, 1)
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd; got {kernel}")
        self.length = length
        parts: list[nn.Module] = []
        left = length
        for block in range(blocks):
            inputs = length if block else 1
            parts += [nn.Conv1d(inputs, length, kernel, stride=2, padding=kernel // 2)]
            parts += [nn.BatchNorm1d(length), nn.ReLU()]
            left = (left + 1) // 2
        self.convolutions = nn.Sequential(*parts)
        self.affine = nn.Linear(left * length, length)

    def forward(self, scores: Tensor) -> Tensor:
        """Ranks `(lists, length)`, descending, of scores `(lists, length)`."""
        if scores.ndim != 2 or scores.shape[1] != self.length:
            raise ValueError(
                f"this sorter is for lists (lists, {self.length}); got {tuple(scores.shape)}"
            )
        with torch.autocast(scores.device.type, enabled=False):
            seen = self.convolutions(scores.to(self.affine.weight.dtype)[:, None])
            return self.affine(seen.flatten(1)) * self.length
