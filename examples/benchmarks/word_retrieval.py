"""Words found by their picture: recall@1 of words and fonts that were never trained on.

A small net embeds pictures of words; pictures of one word belong together. It is trained with the
supervised contrastive loss, then tuned by as many steps with each loss from the same checkpoint,
each at the best of its learning rates on validation words. The control is the contrastive loss
continued. SmoothAP (Brown et al., ECCV 2020) is the rival.

Example:
    python examples/benchmarks/word_retrieval.py
"""

import argparse
import copy
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates.classification import SupCon
from learned_surrogates.retrieval import RecallAtK, recall_at_k
from lib.distortion import MARGIN
from lib.word_images import Split, WordImages

# What the paper takes with SiMix.
WITH_SIMIX = (1, 2, 4, 8, 12, 16, 20, 24, 28, 32)
EACH = 4  # pictures of a word in a batch
Objective = Callable[[Tensor, Tensor], Tensor]


def smooth_ap(embeddings: Tensor, labels: Tensor, tau: float = 0.01) -> Tensor:
    """1 - AP with sigmoids in the place of its steps."""
    unit = F.normalize(embeddings)
    itself = torch.eye(len(unit), dtype=torch.bool)
    similarities = (unit @ unit.T).masked_fill(itself, -math.inf)
    alike = (labels[:, None] == labels) & ~itself
    rows, columns = alike.nonzero(as_tuple=True)
    above = ((similarities[rows] - similarities[rows, columns, None]) / tau).sigmoid()
    before = (above * alike[rows]).sum(1) + 0.5  # itself counts a half and is to count one
    precision = before / (above.sum(1) + 0.5)
    found = torch.zeros(len(unit)).index_add(0, rows, precision)
    return 1 - (found / alike.sum(1)).mean()


CONTROL = "SupCon, continued"
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    CONTROL: SupCon,
    "SmoothAP": lambda: smooth_ap,
    "RecallAtK": RecallAtK,
    "RecallAtK, only k = 16": lambda: RecallAtK((16,)),
    "RecallAtK with SiMix": lambda: RecallAtK(simix=True),
    "RecallAtK with SiMix, k to 32": lambda: RecallAtK(WITH_SIMIX, simix=True),
}


def pictures(split: Split, words: int, each: int, seed: int) -> Tensor:
    """`(words, each, 1, 24, 96)`, white on black: each in its own font, size, case and place."""
    stream = WordImages(split, seed)
    chosen = list(dict.fromkeys(stream.word() for _ in range(2 * words)))[:words]
    masks = np.stack([stream.render(word) for word in chosen for _ in range(each)])
    middle = masks[:, None, MARGIN:-MARGIN, MARGIN:-MARGIN]
    return (torch.from_numpy(middle).float() / 128 - 0.2).unflatten(0, (words, each))


def make_model() -> nn.Module:
    layers: list[nn.Module] = []
    for narrow, wide in ((1, 16), (16, 32), (32, 64)):
        convolution = nn.Conv2d(narrow, wide, 3, stride=2, padding=1)
        layers += [convolution, nn.GroupNorm(4, wide), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 3 * 12, 64))


def train(
    model: nn.Module,
    images: Tensor,
    objective: Objective,
    *,
    batch: int,
    steps: int,
    rate: float,
    seed: int,
) -> nn.Module:
    """Adam, whose rate falls by a cosine; batches of `EACH` pictures of each of some words."""
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)
    labels = torch.arange(batch // EACH).repeat_interleave(EACH)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        words = torch.randperm(len(images), generator=random)[: batch // EACH]
        shown = torch.randperm(images.shape[1], generator=random)[:EACH]
        optimizer.zero_grad()
        objective(model(images[words][:, shown].flatten(0, 1)), labels).backward()
        optimizer.step()
    return model


@torch.no_grad()
def score(model: nn.Module, images: Tensor) -> float:
    """Recall@1 in per cent."""
    labels = torch.arange(len(images)).repeat_interleave(images.shape[1])
    embeddings = torch.cat([model(part) for part in images.flatten(0, 1).split(500)])
    return 100 * recall_at_k(embeddings, labels).item()


def main() -> None:
    """Train, tune and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seeds", type=int, default=3)
    add("--batches", type=int, nargs="+", default=[32, 128])
    add("--before", type=int, default=800, help="steps of SupCon to the checkpoint")
    add("--steps", type=int, default=150, help="steps of each loss from there")
    add("--rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3])
    add("--losses", nargs="+", choices=list(OBJECTIVES), default=list(OBJECTIVES))
    add("--words", type=int, nargs=3, default=[1200, 300, 500], help="train, validation, test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    numbers = zip(("train", "validation", "test"), options.words, (8, EACH, EACH), strict=True)
    data = {split: pictures(split, words, each, 0) for split, words, each in numbers}
    checkpoints = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        model = make_model()
        settings = {"batch": 128, "steps": options.before, "rate": 2e-3, "seed": seed}
        checkpoints.append(train(model, data["train"], SupCon(), **settings))
    scores = [score(model, data["test"]) for model in checkpoints]
    print("| batch | loss | recall@1, % | over SupCon continued | rate |")
    print("|---|---|---|---|---|")
    print(f"| | checkpoint | {spread(scores)} | | |", flush=True)
    for batch in options.batches:
        control: list[float] = []
        # The control comes first.
        for name in dict.fromkeys([CONTROL, *options.losses]):
            tried = {}
            for rate in options.rates:
                settings = {"batch": batch, "steps": options.steps, "rate": rate}
                tuned = [
                    train(
                        copy.deepcopy(model),
                        data["train"],
                        OBJECTIVES[name](),
                        seed=100 + seed,
                        **settings,
                    )
                    for seed, model in enumerate(checkpoints)
                ]
                means = [[score(model, data[s]) for model in tuned] for s in ("validation", "test")]
                tried[statistics.mean(means[0])] = means[1], rate
            scores, rate = tried[max(tried)]
            control = control or scores
            gains = [ours - theirs for ours, theirs in zip(scores, control, strict=True)]
            gain = spread(gains, "+") if scores is not control else ""
            print(f"| {batch} | {name} | {spread(scores)} | {gain} | {rate:g} |", flush=True)


def spread(values: list[float], sign: str = "") -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{sign}.1f} ± {deviation:.1f}"


if __name__ == "__main__":
    main()
