"""A small detector of rotated words: a dense head without anchors, and what trains and reads it.

Each of the 32 x 32 cells of an image has a score and a box. Cells in the core of a word are
positive, the rest of a word's cells count for nothing, all others are negative: as in FCOS, with
rotated boxes.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from learned_surrogates import boxes

from .scenes import SIZE
from .weights import read_weights, save_weights

#: Loss of a box regression: `(pred, target) -> ()`, boxes `(positives, 5)`.
RegressionLoss = Callable[[Tensor, Tensor], Tensor]

STRIDE = 4
CELLS = SIZE // STRIDE
# Of a box whose outputs are zero, in pixels.
TYPICAL_WIDTH, TYPICAL_HEIGHT = 50.0, 11.0
# The core of a word, in shares of its sides, and at least so many pixels from the centre: a cell
# centre is within 2.83 pixels of any point.
CORE, LEAST_CORE = 0.2, 3.0
# Boxes of an image that come to non-maximum suppression, and the IoU with a better one that ends
# there. Words do not overlap.
CANDIDATES = 64
LARGEST_OVERLAP = 0.1


@dataclass(frozen=True)
class Detections:
    """What the detector found in images, best first.

    Attributes:
        boxes: `(batch, 64, 5)`.
        scores: `(batch, 64)`, 0 to 1; 0 where a better box overlaps.
    """

    boxes: Tensor
    scores: Tensor


class Detector(nn.Module):
    """Finds words.

    Args:
        width: channels of the body.
    """

    def __init__(self, width: int = 48):
        super().__init__()
        self.width = width
        half = width // 2
        self.fine = nn.Sequential(_convolution(1, 16, stride=2), _convolution(16, half, stride=2))
        self.coarse = nn.Sequential(
            _convolution(half, width, stride=2),
            *(_Context(width, dilation) for dilation in (1, 2, 4, 1)),
        )
        self.lateral = nn.Conv2d(width, half, 1)
        self.merge = _convolution(half, width)
        self.head = nn.Conv2d(width, 6, 1)
        # Few cells are positive: RetinaNet's start.
        nn.init.constant_(self.head.bias[:1], -math.log(99))  # type: ignore[index]
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and boxes of the cells, row by row.

        Args:
            images: `(batch, 1, 128, 128)` in [0, 1].

        Returns:
            Logits `(batch, 1024)` and boxes `(batch, 1024, 5)` in pixels and radians.
        """
        fine = self.fine(2 * images - 1)
        context = functional.interpolate(self.lateral(self.coarse(fine)), scale_factor=2)
        output = self.head(self.merge(fine + context)).flatten(2).transpose(1, 2)
        return output[..., 0], decoded(output[..., 1:])


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class _Context(nn.Module):
    """A residual convolution `(batch, width, 16, 16)`."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.convolution = nn.Conv2d(
            width, width, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.relu(self.norm(self.convolution(x)))


def cell_centres() -> Tensor:
    """In pixels, `(1024, 2)`."""
    at = STRIDE * (torch.arange(CELLS) + 0.5)
    return torch.stack([at.repeat(CELLS), at.repeat_interleave(CELLS)], 1)


def decoded(output: Tensor) -> Tensor:
    """Boxes from what the head gives, `(batch, 1024, 5)` both."""
    centre = cell_centres() + STRIDE * output[..., :2]
    typical = output.new_tensor([TYPICAL_WIDTH, TYPICAL_HEIGHT])
    sides = typical * output[..., 2:4].clamp(-4, 2).exp()
    return torch.cat([centre, sides, output[..., 4:]], 2)


def assigned(words: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Which word each cell is to find.

    Args:
        words: boxes `(batch, words, 5)`.
        present: which of them are there, `(batch, words)`.

    Returns:
        The word's index `(batch, 1024)`, -1 for none, and which cells count for the score.
    """
    x, y, width, height, angle = words[:, None].unbind(3)
    across, down = (
        part.unsqueeze(2) - whole
        for part, whole in zip(cell_centres().expand(len(words), -1, -1).unbind(2), (x, y))
    )
    u = (across * angle.cos() + down * angle.sin()).abs()
    v = (down * angle.cos() - across * angle.sin()).abs()
    core = (u <= (CORE * width).clamp(min=LEAST_CORE)) & (
        v <= (CORE * height).clamp(min=LEAST_CORE)
    )
    core &= present[:, None]
    within = (2 * u <= width) & (2 * v <= height) & present[:, None]
    # Cores of words side by side may overlap: the nearer word wins.
    distance = torch.where(core, u.square() + v.square(), torch.inf)
    word = torch.where(core.any(2), distance.argmin(2), -1)
    return word, (word >= 0) | ~within.any(2)


def positives(predicted: Tensor, words: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted boxes of the positive cells and the words' own, `(positives, 5)` each."""
    image, cell = (word >= 0).nonzero(as_tuple=True)
    return predicted[image, cell], words[image, word[image, cell]]


def score_loss(logits: Tensor, word: Tensor, counts: Tensor) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017) over the cells that count, a positive cell."""
    target = (word >= 0).to(logits)
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    missed = (target - logits.sigmoid()).abs()
    balance = torch.where(target > 0, 0.25, 0.75)
    return (balance * missed.square() * losses * counts).sum() / target.sum().clamp(min=1)


def smooth_l1(pred: Tensor, target: Tensor, beta: float = 1 / 9) -> Tensor:
    """Smooth L1 of what the head regresses, summed over the five numbers, a mean over boxes.

    Centres are compared in strides, sides as logarithms, angles in radians.
    """
    differences = torch.cat(
        [
            (pred[:, :2] - target[:, :2]) / STRIDE,
            (pred[:, 2:4] / target[:, 2:4]).log(),
            pred[:, 4:] - target[:, 4:],
        ],
        1,
    )
    nothing = torch.zeros_like(differences)
    return (
        functional.smooth_l1_loss(differences, nothing, beta=beta, reduction="none").sum(1).mean()
    )


@torch.no_grad()
def detect(model: Detector, images: Tensor) -> Detections:
    """Boxes after non-maximum suppression by rotated IoU, in evaluation mode."""
    training = model.training
    model.eval()
    parts = [_suppressed(*model(part)) for part in images.split(50)]
    model.train(training)
    return Detections(*(torch.cat(part) for part in zip(*parts)))


def _suppressed(logits: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    scores, best = logits.sigmoid().topk(CANDIDATES, 1)
    found = predicted.gather(1, best[..., None].expand(-1, -1, 5))
    one = found.repeat_interleave(CANDIDATES, 1).flatten(0, 1)
    other = found.repeat(1, CANDIDATES, 1).flatten(0, 1)
    overlap = boxes.rotated_iou(one, other).view(-1, CANDIDATES, CANDIDATES) > LARGEST_OVERLAP
    kept = torch.ones_like(scores, dtype=torch.bool)
    for rank in range(1, CANDIDATES):
        kept[:, rank] = ~(overlap[:, rank, :rank] & kept[:, :rank]).any(1)
    return found, scores * kept


def save(model: Detector, path: str | os.PathLike[str]) -> None:
    """Write the weights in half precision, with the width as metadata."""
    save_weights(model, path, width=model.width)


def load(path: str | os.PathLike[str]) -> Detector:
    """A detector that `save` wrote: float32, in evaluation mode."""
    weights, metadata = read_weights(path)
    model = Detector(int(metadata["width"]))
    model.load_state_dict(weights)
    return model.eval()
