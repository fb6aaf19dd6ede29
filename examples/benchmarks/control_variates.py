"""How much of a text metric is known before it is asked, on the demo recognisers' outputs.

R2 is the share of the variance, from one random reading of an image to another, that is told
beforehand: by the edit distance alone, and by all that is known of a reading (edit distance,
whether the text is right, what each class is worth). n draws then do the work of n / (1 - R2). It
is learned from some calls, and tested at others' draws before these are learned from.

Example:
    python examples/benchmarks/control_variates.py --learned 40 --tested 20 --threads 1
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rapidfuzz.distance import Levenshtein

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss, text
from learned_surrogates._measured.control_variate import ControlVariate
from learned_surrogates.text._usual_metrics import USUAL
from lib.post_tuning import BATCH, surrogate_arguments
from lib.recogniser import ALPHABET, load
from lib.weights import CHECKPOINTS
from lib.word_images import WordImages

RECOGNISERS = ("characters", "ctc", "characters-noisy", "ctc-noisy")
# Lengths of the character sequences that chrF counts, and how much more recall weighs.
ORDERS, BETA = range(1, 7), 2


def wrong(prediction: str, target: str) -> float:
    """Whether anything is wrong."""
    return float(prediction != target)


def first_character_twice(prediction: str, target: str) -> float:
    """Edit distance, and one more for a wrong start."""
    return Levenshtein.distance(prediction, target) + float(prediction[:1] != target[:1])


def one_minus_chrf(prediction: str, target: str) -> float:
    """1 - chrF of one text (Popović, 2015): mean F-score of character sequences."""
    scores = []
    for order in ORDERS:
        said, meant = (_sequences(each, order) for each in (prediction, target))
        if not meant:
            break
        both = sum(min(count, meant.get(part, 0)) for part, count in said.items())
        precision, recall = both / max(1, sum(said.values())), both / sum(meant.values())
        weighed = BETA**2 * precision + recall
        scores.append((1 + BETA**2) * precision * recall / weighed if weighed else 0.0)
    return 1 - sum(scores) / max(1, len(scores))


def _sequences(string: str, length: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for start in range(len(string) - length + 1):
        part = string[start : start + length]
        counts[part] = counts.get(part, 0) + 1
    return counts


METRICS: dict[str, Callable[..., Any]] = {
    "edit distance over the target's length": text.normalized_edit_distance,
    "whether the word is wrong": wrong,
    "a digit costs 10": text.WeightedEditDistance(characters={"0123456789": 10}),
    "first character counts twice": first_character_twice,
    "1 - chrF": one_minus_chrf,
}


def r2(
    checkpoint: str, metric: Callable[..., Any], learned: int, tested: int
) -> tuple[float, float]:
    """Of the edit distance alone, and of all that is known, in the calls after some."""
    model = load(CHECKPOINTS / f"{checkpoint}.safetensors").eval()
    task = text.CTC(ALPHABET) if model.head == "ctc" else text.PerPosition(ALPHABET)
    criterion = LearnedSurrogateLoss(metric, task=task, draws=4)
    stream = WordImages("train", 0, 0.4 if checkpoint.endswith("noisy") else 0.0)
    estimator = criterion._core.estimator
    for call in range(learned + tested):
        if call == learned:
            estimator.control = ControlVariate(1 + len(USUAL), torch.device("cpu"))
        images, labels = stream.batch(BATCH)
        with torch.no_grad():
            output = model(images)
        criterion(*surrogate_arguments(output.requires_grad_(), labels, model.head))
    of_all, *of_usual = estimator.control.r2.tolist()
    return of_usual[USUAL.index(text.edit_distance)], of_all


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learned", type=int, default=40, help="calls before (%(default)s)")
    parser.add_argument("--tested", type=int, default=20, help="calls (%(default)s)")
    parser.add_argument("--checkpoints", nargs="+", choices=RECOGNISERS, default=RECOGNISERS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"| metric | {' | '.join(options.checkpoints)} |")
    print("|---|" + "---|" * len(options.checkpoints))
    for name, metric in METRICS.items():
        cells = []
        for checkpoint in options.checkpoints:
            of_distance, of_all = r2(checkpoint, metric, options.learned, options.tested)
            cells.append(f"{of_distance:.2f}, {of_all:.2f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
