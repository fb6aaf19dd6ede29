"""Features and labels of a set of images, computed once and kept under runs/."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.word_images import Split

from . import digits, lines
from .labels import majority, view, with_errors
from .recogniser import Recogniser

KEPT = Path("runs/public_recogniser")
# One set of images each: seeds differ in label errors and in the order of the batches.
SIZES = {"train": 1000, "validation": 300, "test": 600}
# How often each training image is seen, where views of it vote.
VIEWS = 3
SEED = 2020


class Kind(NamedTuple):
    """Images of one kind: how they are made, and the characters that are in them."""

    make: Callable[[Split, int, int], tuple[Tensor, list[str]]]
    alphabet: str


KINDS = {
    "lines": Kind(lines.lines, lines.ALPHABET),
    "digits": Kind(digits.digits, digits.ALPHABET),
}


class Labelled(NamedTuple):
    """Features `(count, 480, 1, frames)`, and a text for each."""

    features: Tensor
    texts: list[str]


def load(kind: str, split: Split, model: Recogniser, seen: int = 0) -> Labelled:
    """A split's images, and their true texts.

    Args:
        kind: of `KINDS`.
        split: which fonts, digits and words.
        model: whose backbone the features are of.
        seen: a view's number; 0 for the images themselves.
    """
    file = KEPT / f"{kind}-{split}-{SEED}-{seen}.pt"
    if not file.exists():
        images, texts = KINDS[kind].make(split, SIZES[split], SEED)
        if seen:
            images = view(images, torch.Generator().manual_seed(SEED + seen))
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save((model.features(images).half(), texts), file)
    features, texts = torch.load(file)
    return Labelled(features.float(), texts)


def training(kind: str, labels: str, seed: int, model: Recogniser) -> Labelled:
    """The training set with one of these labels.

    - clean: the truth;
    - edits: two in five with typing errors;
    - readings: what the model reads by itself;
    - agreed: each image is seen three times; what is read in two of them is the label of all three,
      and images without such a reading are left out.
    """
    features, texts = load(kind, "train", model)
    if labels == "clean":
        return Labelled(features, texts)
    if labels == "edits":
        rng = np.random.default_rng([seed, 3])
        return Labelled(features, with_errors(texts, KINDS[kind].alphabet, rng))
    seen = [features]
    if labels == "agreed":
        seen += [load(kind, "train", model, i).features for i in range(1, VIEWS)]
    voted = majority([model.read(each) for each in seen])
    kept = [i for i, text in enumerate(voted) if text]
    of_kept = [text for text in voted if text]
    return Labelled(torch.cat([each[kept] for each in seen]), of_kept * len(seen))
