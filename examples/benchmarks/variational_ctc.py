"""Variational CTC beside CTC: what a recogniser reads, and how far its confidence can be trusted.

The demo's recogniser, trained with CTC on right labels, gets a new last layer. It and the last of
the convolutions below (of four, with `--layers 4`) are trained for 300 steps of 64 words: with CTC,
with Mml-CTC (the blank apart from the characters) and with Variational CTC (the blank told of the
label, too). The rest stays as it is, and what it makes of 6,400 training words is made once. The
control is CTC with the layer that the recogniser has. Each at the rate with the lowest edit
distance on validation words, by the first seed; the test is words and fonts that no training ever
showed.

A reading's confidence is the product over the frames of the largest probability ("path", Eq. 9 of
Chao et al., ECCV 2020), or the probability of the text that is read, the sum over all of its paths,
which every CTC recogniser has ("text"). Recall, with a precision of 98 % among what is kept, is of
the words that are read right; AP is the average precision of the confidence.

Needs scikit-learn. Some minutes on one core. Writes into results/variational_ctc.json; runs
that it has are not made again.

Example:
    python examples/benchmarks/variational_ctc.py
    python examples/benchmarks/variational_ctc.py --layers 4
    python examples/benchmarks/variational_ctc.py --table
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import text
from lib.post_tuning import BATCH, stepper
from lib.recogniser import ALPHABET, CLASSES, Recogniser, encode_targets, load, read
from lib.runs import Row, append, at_best_rate, keep_committed, read as read_runs, spread
from lib.weights import CHECKPOINTS
from lib.word_images import Split, WordImages

RESULTS = Path(__file__).parent / "results" / "variational_ctc.json"
# The same words for all models and seeds.
EVALUATION_SEED = 2020
TRAINING_WORDS = 6400
PRECISION = 0.98


class PlainCTC(nn.Module):
    """A linear layer and CTC, with the methods of `text.VariationalCTC`."""

    def __init__(self, features: int, classes: int, trained: nn.Conv1d | None = None):
        super().__init__()
        self.layer = nn.Linear(features, classes)
        if trained is not None:
            weights = {"weight": trained.weight[:, :, 0], "bias": trained.bias}
            self.layer.load_state_dict(weights)

    def forward(self, features: Tensor, *labels: Tensor) -> Tensor:
        return functional.ctc_loss(self.log_probs(features), *labels)

    def log_probs(self, features: Tensor) -> Tensor:
        return self.layer(features).log_softmax(2)


# How the last layer is made of the recogniser, and the rates to choose from.
METHODS: dict[str, tuple[Callable[[Recogniser], nn.Module], tuple[float, float]]] = {
    "CTC, its layer kept": (lambda r: PlainCTC(r.width, CLASSES, r.reader), (3e-4, 1e-3)),
    "CTC": (lambda r: PlainCTC(r.width, CLASSES), (3e-3, 1e-2)),
    "Mml-CTC": (
        lambda r: text.VariationalCTC(r.width, CLASSES, posterior=False),
        (3e-3, 1e-2),
    ),
    "Variational CTC": (lambda r: text.VariationalCTC(r.width, CLASSES), (3e-3, 1e-2)),
}
# What comes out of the recogniser before its last layers, `(count, width, 32)`, and texts.
Columns = tuple[Tensor, list[str]]


class Reader(nn.Module):
    """Some of the recogniser's last layers, and a last one that has its loss."""

    def __init__(self, method: str, layers: int):
        super().__init__()
        recogniser = load(CHECKPOINTS / "ctc.safetensors")
        self.context, self.head = recogniser.columns[-layers:], METHODS[method][0](recogniser)

    def features(self, columns: Tensor) -> Tensor:
        """`(32, batch, width)`."""
        return self.context(columns).permute(2, 0, 1)

    def loss(self, columns: Tensor, labels: list[str]) -> Tensor:
        targets, lengths = encode_targets(labels, "ctc")
        features = self.features(columns)
        return self.head(features, targets, torch.full_like(lengths, len(features)), lengths)

    @torch.no_grad()
    def log_probs(self, columns: Tensor) -> Tensor:
        """In evaluation mode."""
        self.eval()
        parts = [self.head.log_probs(self.features(part)) for part in columns.split(250)]
        return torch.cat(parts, 1)


@torch.no_grad()
def columns_of(split: Split, count: int, layers: int) -> Columns:
    """What the recogniser makes of a split's words, up to its last layers."""
    model = load(CHECKPOINTS / "ctc.safetensors")
    images, labels = WordImages(split, EVALUATION_SEED).batch(count)
    below = model.columns[:-layers]
    return torch.cat([below(2 * part - 1) for part in images.split(250)]), labels


def confidences(log_probs: Tensor, readings: list[str]) -> dict[str, Tensor]:
    """Logarithms `(batch,)`, of the best path and of the text, over all of its paths."""
    encode = text.CTC(ALPHABET).alphabet.encode
    targets = [torch.tensor(encode(reading), dtype=torch.long) for reading in readings]
    lengths = torch.tensor([len(target) for target in targets])
    frames = torch.full_like(lengths, len(log_probs))
    labels = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True)
    losses = functional.ctc_loss(log_probs, labels, frames, lengths, reduction="none")
    return {"path": log_probs.amax(2).sum(0), "text": -losses}


def figures(log_probs: Tensor, labels: list[str]) -> Row:
    """Edit distance a word, share of words right; recall and AP of each confidence."""
    readings = read(log_probs, "ctc")
    distances = text.edit_distance(readings, labels)
    right = distances == 0
    found: Row = {"distance": float(distances.mean()), "accuracy": float(right.mean())}
    for name, confidence in confidences(log_probs, readings).items():
        found[f"recall, {name}"] = recall_at(right, confidence.numpy(), PRECISION)
        found[f"AP, {name}"] = float(average_precision_score(right, confidence))
    return found


def recall_at(right: np.ndarray, confidence: np.ndarray, precision: float) -> float:
    """The largest share of what is right that is kept with at least this precision."""
    precisions, recalls, _ = precision_recall_curve(right, confidence)
    return float(recalls[precisions >= precision].max())


def trained(method: str, rate: float, seed: int, data: Columns, steps: int, layers: int) -> Reader:
    torch.manual_seed(seed)
    model = Reader(method, layers)
    step = stepper(model, steps, rate)
    model.train()
    columns, labels = data
    for _ in range(steps):
        chosen = torch.randint(len(labels), (BATCH,))
        step(model.loss(columns[chosen], [labels[i] for i in chosen]))
    return model


class Study:
    """The runs, on the same words; those that the results have are not made again."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.rows = options, read_runs(options.results)
        self.train = columns_of("train", TRAINING_WORDS, options.layers)
        self.validation = columns_of("validation", 1000, options.layers)
        self.test = columns_of("test", options.test_words, options.layers)

    def run(self) -> None:
        """Every method and rate with the first seed, and the best rate with the others."""
        for seed in range(self.options.seeds):
            for method, (_, rates) in METHODS.items():
                if seed:
                    rates = (best(self.rows, method, self.options.layers)[0]["rate"],)
                for rate in rates:
                    self.one(method, rate, seed)

    def one(self, method: str, rate: float, seed: int) -> None:
        options = self.options
        about: Row = {"layers": options.layers, "method": method, "rate": rate, "seed": seed}
        if any(about.items() <= row.items() for row in self.rows):
            return
        start = time.process_time()
        model = trained(method, rate, seed, self.train, options.steps, options.layers)
        row = about | {"seconds": round(time.process_time() - start, 1)}
        for name, (columns, labels) in (("validation", self.validation), ("test", self.test)):
            row[name] = rounded(figures(model.log_probs(columns), labels))
        print(json.dumps(row), flush=True)
        self.rows.append(row)
        append(options.results, row)


def rounded(found: Row) -> Row:
    return {key: round(value, 5) for key, value in found.items()}


def best(rows: list[Row], method: str, layers: int) -> list[Row]:
    """The seeds' runs at the method's best rate, by the first seed's on validation."""
    of_method = [row for row in rows if (row["method"], row["layers"]) == (method, layers)]
    return at_best_rate(of_method, lambda row: row["validation"]["distance"])


def table(rows: list[Row], layers: int) -> str:
    """Markdown: mean and standard deviation over the seeds, on the test."""
    columns = list(rows[0]["test"])
    lines = ["| loss | rate | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for method in METHODS:
        runs = best(rows, method, layers)
        cells = [f"{runs[0]['rate']:g}"]
        for column in columns:
            scale, digits = (1, 3) if column == "distance" else (100, 1)
            cells.append(spread([scale * row["test"][column] for row in runs], digits))
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, default=3)
    add("--steps", type=int, default=300)
    add("--layers", type=int, default=1, help="below the last, trained with it (%(default)s)")
    add("--test-words", type=int, default=3000)
    add("--results", type=Path, default=RESULTS)
    add("--table", action="store_true", help="print what the results have, and run nothing")
    options = parser.parse_args()
    keep_committed(parser, options, "steps", "test_words")
    torch.set_num_threads(1)
    if not options.table:
        Study(options).run()
    rows = [row for row in read_runs(options.results) if row["layers"] == options.layers]
    if not rows:
        parser.error(f"{options.results} has no runs of --layers {options.layers}")
    print(table(rows, options.layers))


if __name__ == "__main__":
    main()
