"""The Char-CNN of LS-ED."""

import torch
from torch import Tensor, nn


class CharCNN(nn.Module):
    """Embeds text: five 1D convolutions with LeakyReLU, then two fully connected layers.

    LS (Patel, Hodaň, Matas, ECCV 2020), section 4.2, after Zhang, Zhao, LeCun (NeurIPS 2015). The
    papers' text has one fixed length: `pooling=False`. Else a sample's own length is divided into
    `bins` equal parts, over which the convolutions' output is averaged, so texts of any length
    share one net and padding changes nothing: up to `bins` characters, each has at least a bin to
    itself.

    Args:
        classes: number of classes, special symbol included.
        width: channels of the convolutions.
        embedding_size: features of the embedding; 1024 is the paper's.
        bins: parts of the length that the fully connected layers tell apart.
        outputs: features of the last layer; None makes it as wide as the one before.
        pooling: False takes texts of exactly `bins` positions, and each as it is.

    Raises:
        ValueError: at a call without pooling, the text has another length.
    """

    def __init__(
        self,
        classes: int,
        width: int = 64,
        embedding_size: int = 256,
        bins: int = 16,
        outputs: int | None = None,
        *,
        pooling: bool = True,
    ):
        super().__init__()
        self.pooling = pooling
        self.bins = bins
        self.convolutions = nn.ModuleList(
            nn.Conv1d(inputs, width, kernel_size=3, padding=1)
            for inputs in (classes, width, width, width, width)
        )
        self.head = nn.Sequential(
            nn.Linear(width * bins, embedding_size),
            nn.LeakyReLU(),
            nn.Linear(embedding_size, outputs or embedding_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings `(batch, embedding_size)`.

        Args:
            x: distributions over classes, `(batch, classes, length)`; a column of zeros is
                padding.
        """
        present = (x.detach().abs().sum(1, keepdim=True) > 0).to(x)
        for convolution in self.convolutions:
            x = nn.functional.leaky_relu(convolution(x)) * present
        if self.pooling:
            x = x @ self._shares(present)
        elif x.shape[2] != self.bins:
            raise ValueError(f"texts must have {self.bins} positions; they have {x.shape[2]}")
        return self.head(x.flatten(1))

    def _shares(self, present: Tensor) -> Tensor:
        """The weight of each position in each bin's mean, `(batch, length, bins)`.

        Bin b covers the positions from b n / bins to (b + 1) n / bins of a sample's n.
        """
        count = present.sum(2, keepdim=True).clamp(min=1)
        end = present.cumsum(2).transpose(1, 2)
        width = count / self.bins
        edge = width * torch.arange(self.bins, device=present.device)
        overlap = torch.minimum(end, edge + width) - torch.maximum(end - 1, edge)
        return overlap.clamp(min=0) / width * present.transpose(1, 2)
