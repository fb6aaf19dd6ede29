"""How well a detector finds words: recall, precision, F1 and mean IoU."""

import torch
from torch import Tensor

from learned_surrogates import boxes

from .detector import Detections

#: IoU from which a word counts as found.
THRESHOLDS = (0.5, 0.7)


def scores(
    found: Detections, words: Tensor, present: Tensor, least_score: float
) -> dict[str, float]:
    """Recall, precision and F1 at each IoU of `THRESHOLDS`, and mean IoU; 0 to 1, higher is better.

    Mean IoU is over all words, of the detection that overlaps it most, whatever its score.

    Args:
        found: detections.
        words: boxes `(batch, words, 5)`.
        present: which of them are there, `(batch, words)`.
        least_score: of a detection that counts.
    """
    kept = found.scores >= least_score
    overlap = _overlaps(found.boxes, words) * (found.scores[:, :, None] > 0) * present[:, None]
    result = {}
    for threshold in THRESHOLDS:
        hits = matched(overlap * kept[:, :, None], threshold)
        recall = hits.sum().item() / present.sum().item()
        precision = hits.sum().item() / max(1, kept.sum().item())
        f1 = 2 * recall * precision / (recall + precision) if recall else 0.0
        part = {"recall": recall, "precision": precision, "F1": f1}
        result |= {f"{name} at {threshold:g}": value for name, value in part.items()}
    return result | {"mean IoU": overlap.amax(1)[present].mean().item()}


def best_score(found: Detections, words: Tensor, present: Tensor) -> float:
    """The least score of a detection with which F1 at an IoU of 0.5 is best."""
    overlap = _overlaps(found.boxes, words) * present[:, None]
    # The best detections are matched first, so a threshold changes nothing above it.
    hits = matched(overlap, THRESHOLDS[0])
    order = found.scores.flatten().argsort(descending=True)
    true = hits.flatten()[order].cumsum(0)
    f1 = 2 * true / (present.sum() + torch.arange(1, len(order) + 1))
    return float(found.scores.flatten()[order][f1.argmax()])


def matched(overlap: Tensor, threshold: float) -> Tensor:
    """Which detections hit a word, `(batch, detections)`; the best first, each word once.

    Args:
        overlap: IoU with each word, `(batch, detections, words)`, best detection first.
        threshold: least IoU of a hit.
    """
    free = torch.ones_like(overlap[:, 0], dtype=torch.bool)
    hits = torch.zeros_like(overlap[:, :, 0], dtype=torch.bool)
    for rank in range(overlap.shape[1]):
        best, word = (overlap[:, rank] * free).max(1)
        hits[:, rank] = best >= threshold
        free[hits[:, rank], word[hits[:, rank]]] = False
    return hits


def _overlaps(found: Tensor, words: Tensor) -> Tensor:
    """IoU of each detection with each word, `(batch, detections, words)`."""
    count, others = found.shape[1], words.shape[1]
    one = found.repeat_interleave(others, 1).flatten(0, 1)
    other = words.repeat(1, count, 1).flatten(0, 1)
    return boxes.rotated_iou(one, other).view(-1, count, others)
