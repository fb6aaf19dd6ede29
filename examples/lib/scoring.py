"""What a recogniser reads, and how well."""

from collections.abc import Sequence

import torch
from torch import Tensor

from learned_surrogates import text

from .recogniser import Recogniser, read


def predict(model: Recogniser, images: Tensor) -> list[str]:
    """The texts that the model reads, batch by batch, in evaluation mode."""
    training = model.training
    model.eval()
    with torch.no_grad():
        texts = [text for part in images.split(250) for text in read(model(part), model.head)]
    model.train(training)
    return texts


def scores(texts: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Word accuracy (0 to 1), NED (mean of 1 - normalised distance, 0 to 1), total edit distance.

    Accuracy and NED are better when higher, TED is better when lower.
    """
    distances = text.edit_distance(texts, labels)
    return {
        "accuracy": float((distances == 0).mean()),
        "NED": float(1 - text.normalized_edit_distance(texts, labels).mean()),
        "TED": float(distances.sum()),
    }
