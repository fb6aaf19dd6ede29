"""A recogniser of speech, post-tuned on edit distances: the study behind docs/models-of-others.md.

It reads log-mel features with CTC, what eSpeak NG's voices say: words, prices, appointments.
Validation and test have voices, sentences and words of their own. The checkpoint was trained with
labels of which 40 % had errors (studies/train_speech_recogniser.py), and so is each run: on 2,400
other sentences, in 40 % of which are 1 to 3 typing errors.

Losses: `proxy`, nn.CTCLoss; `characters`, LearnedSurrogateLoss(text.edit_distance), known in closed
form; `words`, LearnedSurrogateLoss(text.word_edit_distance), measured at 4 draws; both with the
proxy as their base loss. Each trains from the same weights with the same batches. Errors are
characters wrong per character and words wrong per word; for each of the two, a loss has the rate
that is best on validation for the first seed.

Needs `pip install --group speech` (pip 25.1) and downloads nothing. Runs that the results have are
not made again.

Example:
    python examples/benchmarks/speech_recogniser.py --seeds 3
    python examples/benchmarks/speech_recogniser.py --table
"""

import argparse
import json
import statistics
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

EXAMPLES = Path(__file__).parents[1]
sys.path.insert(0, str(EXAMPLES))

from learned_surrogates import LearnedSurrogateLoss, text
from lib.onnx_recogniser.labels import with_errors
from lib.post_tuning import stepper
from lib.runs import Row, append, at_best_rate, read, spread
from lib.speech.recogniser import Recogniser, arguments, load
from lib.speech.scoring import errors
from lib.speech.sentences import ALPHABET
from lib.speech.sets import Spoken, batches, spoken
from lib.weights import CHECKPOINTS

RESULTS = Path(__file__).parent / "results" / "speech_recogniser.json"
CHECKPOINT = CHECKPOINTS / "speech-noisy.safetensors"
SENTENCES = 2400
METRICS = {"characters": text.edit_distance, "words": text.word_edit_distance}
LOSSES, ERRORS = ("proxy", *METRICS), tuple(METRICS)
SPLITS = {"validation": 400, "test": 1000}
# Apart from the checkpoint's.
TRAINING_SEED, EVALUATION_SEED = 1000, 2020


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--table", action="store_true", help="print what the results have, and run nothing")
    add("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    add("--steps", type=int, default=300)
    add("--rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3])
    add("--seeds", type=int, default=3)
    add("--threads", type=int, default=1)
    add("--results", type=Path, default=RESULTS)
    return parser.parse_args()


class Study:
    """The runs from one checkpoint."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.judged = {
            split: spoken(split, count, EVALUATION_SEED) for split, count in SPLITS.items()
        }

    def run(self) -> None:
        """All losses: rates on the first seed, then the other seeds at the best ones."""
        self.row("as it comes", 0.0, 0)
        for loss in self.options.losses:
            tried = [self.row(loss, rate, 0) for rate in self.options.rates]
            for rate in dict.fromkeys(best(tried, error)[0]["rate"] for error in ERRORS):
                for seed in range(1, self.options.seeds):
                    self.row(loss, rate, seed)

    def row(self, loss: str, rate: float, seed: int) -> Row:
        """One run's figures, from the results if they have them."""
        key = {"steps": self.options.steps, "loss": loss, "rate": rate, "seed": seed}
        for row in read(self.options.results):
            if all(row[name] == value for name, value in key.items()):
                return row
        model, seconds = self.trained(loss, rate, seed)
        row = key | {split: errors(model, judged) for split, judged in self.judged.items()}
        row["seconds"] = round(seconds, 1)
        append(self.options.results, row)
        print(json.dumps(row), flush=True)
        return row

    def trained(self, loss: str, rate: float, seed: int) -> tuple[Recogniser, float]:
        """A model, and the seconds of the processor that its steps took."""
        model = load(CHECKPOINT)
        if not rate:
            return model, 0.0
        features, labels = training(seed)
        criterion = loss_of(loss, seed)
        step = stepper(model.train(), self.options.steps, rate)
        start = time.process_time()
        for chosen in batches(features, self.options.steps, seed):
            shown, meant = [features[i] for i in chosen], [labels[i] for i in chosen]
            step(criterion(*arguments(model, shown, meant)))
        return model, time.process_time() - start


@cache
def training(seed: int) -> Spoken:
    """Sentences with their labels, of which 40 % have errors."""
    features, texts = spoken("train", SENTENCES, TRAINING_SEED + seed)
    return Spoken(features, with_errors(texts, ALPHABET, np.random.default_rng([seed, 3])))


def loss_of(name: str, seed: int) -> nn.Module:
    proxy = nn.CTCLoss(zero_infinity=True)
    if name == "proxy":
        return proxy
    task = text.CTC(ALPHABET)
    return LearnedSurrogateLoss(METRICS[name], task=task, base_loss=proxy, seed=seed)


def best(rows: list[Row], error: str) -> list[Row]:
    """A loss's runs at the rate that is best for one of the errors, with that error alone."""
    return at_best_rate([row | {split: row[split][error] for split in SPLITS} for row in rows])


def table(rows: list[Row]) -> str:
    """Test errors of each loss, mean and standard deviation over the seeds."""
    lines = [
        "| error | steps | loss | rate | seeds | test | against the proxy | lower in | ms a step |",
        "|---" * 9 + "|",
    ]
    for error in ERRORS:
        for steps in dict.fromkeys(row["steps"] for row in rows):
            of_loss = {
                loss: best([r for r in rows if (r["loss"], r["steps"]) == (loss, steps)], error)
                for loss in dict.fromkeys(row["loss"] for row in rows if row["steps"] == steps)
            }
            proxy = {run["seed"]: run["test"] for run in of_loss.get("proxy", [])}
            for loss, runs in of_loss.items():
                line = f"| {error} | {steps} | {loss} | {runs[0]['rate']:g} | {len(runs)} |"
                line += f" {spread([100 * run['test'] for run in runs], 2)} % |"
                shared = [run for run in runs if run["seed"] in proxy and loss in METRICS]
                if shared:
                    change = sum(run["test"] for run in shared)
                    change /= sum(proxy[run["seed"]] for run in shared)
                    wins = sum(run["test"] < proxy[run["seed"]] for run in shared)
                    line += f" {change - 1:+.1%} | {wins} of {len(shared)} |"
                else:
                    line += " | |"
                pace = statistics.mean(1000 * run["seconds"] / steps for run in runs)
                lines.append(line + f" {pace:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Run, and print the table."""
    options = parse()
    torch.set_num_threads(options.threads)
    if not options.table:
        Study(options).run()
    print(table(read(options.results)))


if __name__ == "__main__":
    main()
