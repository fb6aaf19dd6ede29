"""A recogniser that others trained, post-tuned on the edit distance: docs/models-of-others.md.

PP-OCRv4's recogniser (CTC, 6,625 classes, 2.7 million weights; Apache-2.0), as rapidocr-onnxruntime
carries it, becomes a PyTorch module, is compared with onnxruntime, and is trained on 1,000 images:
printed lines, of which validation and test have other texts and test other fonts, or strings of
handwritten digits, of which they have other digits. Its backbone stays as it is, so that each
image passes it once; neck and head are trained, the head with the classes that the images need.

Labels: `clean`; `edits`, 40 % of them with 1 to 3 typing errors; `readings`, the model's own in
place of labels; `agreed`, what it reads in most of three views (lib/onnx_recogniser/sets.py).

Losses: `proxy`, nn.CTCLoss; `surrogate`, LearnedSurrogateLoss(text.edit_distance) with the proxy as
its base loss; `alone`, without it. Each trains from the same weights with the same batches, and has
the rate that is best on validation for the first seed. Error is characters wrong per character.

Needs `pip install --group recogniser` (pip 25.1, Python below 3.13) and downloads nothing. Runs
that the results have are not made again; features are kept under runs/.

Example:
    python examples/benchmarks/public_recogniser.py --kinds lines --labels edits --seeds 3
    python examples/benchmarks/public_recogniser.py --table
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

EXAMPLES = Path(__file__).parents[1]
sys.path.insert(0, str(EXAMPLES))

from learned_surrogates import LearnedSurrogateLoss, text
from lib.onnx_recogniser.recogniser import FRAME, HEIGHT, Recogniser, path
from lib.onnx_recogniser.sets import KINDS, Labelled, load, training
from lib.post_tuning import stepper
from lib.runs import Row, append, at_best_rate, read, spread

RESULTS = Path(__file__).parent / "results" / "public_recogniser.json"
BATCH = 16
LABELS, LOSSES = ("clean", "edits", "readings", "agreed"), ("proxy", "surrogate", "alone")
# A probability of the module's and onnxruntime's differ by less.
TOLERANCE = 1e-5
# Images of the gradient check.
CHECKED = 256


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--table", action="store_true", help="print what the results have, and run nothing")
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    add("--labels", nargs="+", choices=LABELS, default=["edits"])
    add("--losses", nargs="+", choices=LOSSES, default=["proxy", "surrogate"])
    add("--steps", type=int, default=300)
    add("--rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3])
    add("--seeds", type=int, default=3)
    add("--threads", type=int, default=1)
    add("--results", type=Path, default=RESULTS)
    return parser.parse_args()


@torch.no_grad()
def verify() -> float:
    """The largest difference between a probability of the whole module's and onnxruntime's."""
    import onnxruntime

    model, session = Recogniser(), onnxruntime.InferenceSession(path())
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch, width in ((1, 320), (3, 96)):
        images = torch.rand(batch, 1, HEIGHT, width, generator=generator)
        inputs = (2 * images - 1).expand(-1, 3, -1, -1).numpy()
        (expected,) = session.run(None, {"x": inputs})
        ours = model(model.features(images)).exp().transpose(0, 1)
        assert ours.shape == (batch, width // FRAME, len(model.alphabet) + 1)
        largest = max(largest, float((ours - torch.from_numpy(expected)).abs().max()))
    if largest >= TOLERANCE:
        raise RuntimeError(f"the module and onnxruntime differ by {largest:.1e}")
    return largest


class Study:
    """The runs of one kind of images with one kind of labels."""

    def __init__(self, options: argparse.Namespace, kind: str, labels: str):
        self.options, self.kind, self.labels = options, kind, labels
        self.task = text.CTC(KINDS[kind].alphabet)
        self.start = Recogniser(KINDS[kind].alphabet)
        self.judged = {split: load(kind, split, self.start) for split in ("validation", "test")}

    def run(self) -> None:
        """All losses: rates on the first seed, then the other seeds at the best one."""
        key = {"kind": self.kind, "labels": self.labels, "steps": self.options.steps}
        self.row(key | {"loss": "as it comes", "rate": 0.0, "seed": 0})
        for loss in self.options.losses:
            rates = self.options.rates
            tried = [self.row(key | {"loss": loss, "rate": rate, "seed": 0}) for rate in rates]
            best = min(tried, key=lambda row: row["validation"])["rate"]
            for seed in range(1, self.options.seeds):
                self.row(key | {"loss": loss, "rate": best, "seed": seed})

    def row(self, key: Row) -> Row:
        """One run's figures, from the results if they have them."""
        for row in read(self.options.results):
            if all(row[name] == value for name, value in key.items()):
                return row
        model, seconds = self.trained(key["loss"], key["rate"], key["seed"])
        row = key | {split: self.error(model, judged) for split, judged in self.judged.items()}
        append(self.options.results, row | {"seconds": round(seconds, 1)})
        print(json.dumps(row), flush=True)
        return row

    def trained(self, loss: str, rate: float, seed: int) -> tuple[Recogniser, float]:
        """A model, and how long its steps took."""
        model = Recogniser(KINDS[self.kind].alphabet)
        if not rate:
            return model, 0.0
        images = training(self.kind, self.labels, seed, self.start)
        criterion = self.criterion(loss, seed)
        step = stepper(nn.ModuleList([model.neck, model.head]), self.options.steps, rate)
        start = time.perf_counter()
        for chosen in batches(len(images.texts), self.options.steps, seed):
            texts = [images.texts[i] for i in chosen]
            step(criterion(*self.arguments(model, images.features[chosen], texts)))
        return model, time.perf_counter() - start

    def criterion(self, loss: str, seed: int) -> nn.Module:
        proxy = nn.CTCLoss(zero_infinity=True)
        if loss == "proxy":
            return proxy
        return LearnedSurrogateLoss(
            text.edit_distance,
            task=self.task,
            base_loss=proxy if loss == "surrogate" else None,
            seed=seed,
        )

    def arguments(
        self, model: Recogniser, features: Tensor, texts: list[str]
    ) -> tuple[Tensor, ...]:
        """What `nn.CTCLoss` is called with."""
        log_probs = model(features)
        labels = [torch.tensor(self.task.alphabet.encode(label)) for label in texts]
        lengths = torch.tensor([len(label) for label in labels])
        targets = nn.utils.rnn.pad_sequence(labels, batch_first=True)
        return log_probs, targets, torch.full_like(lengths, len(log_probs)), lengths

    def error(self, model: Recogniser, images: Labelled) -> float:
        """Characters wrong per character, 0 to 1 and more."""
        distance = text.edit_distance(model.read(images.features), images.texts).sum()
        return round(float(distance) / sum(map(len, images.texts)), 5)

    def check(self) -> str:
        """Whether the loss's gradient in the weights lowers the metric, on validation images."""
        model, (features, texts) = self.start, self.judged["validation"]
        arguments = self.arguments(model, features[:CHECKED], texts[:CHECKED])
        weights = [*model.neck.parameters(), *model.head.parameters()]
        outcome = self.criterion("surrogate", 0).check([arguments], parameters=weights)
        return f"{outcome}\ncosine of the truth's halves: {outcome.agreement:.3f}"


def batches(count: int, steps: int, seed: int) -> Iterator[list[int]]:
    """Indices of the images, shuffled anew whenever all have been."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    for _ in range(steps):
        while len(order) < BATCH:
            order += torch.randperm(count, generator=generator).tolist()
        chosen, order = order[:BATCH], order[BATCH:]
        yield chosen


def table(rows: list[Row]) -> str:
    """Test error of each loss at its best rate, mean and standard deviation over the seeds."""
    lines = [
        "| images | labels | steps | loss | rate | seeds | error | against the proxy | lower in |",
        "|---" * 9 + "|",
    ]
    for kind, labels, steps in dict.fromkeys((r["kind"], r["labels"], r["steps"]) for r in rows):
        here = [
            row
            for row in rows
            if (row["kind"], row["labels"], row["steps"]) == (kind, labels, steps)
        ]
        losses = dict.fromkeys(row["loss"] for row in here)
        best = {loss: at_best_rate([r for r in here if r["loss"] == loss]) for loss in losses}
        proxy = {row["seed"]: row["test"] for row in best.get("proxy", [])}
        for loss, runs in best.items():
            errors = spread([100 * row["test"] for row in runs], 2)
            line = f"| {kind} | {labels} | {steps} | {loss} | {runs[0]['rate']:g} | {len(runs)} |"
            line += f" {errors} % |"
            shared = [row for row in runs if row["seed"] in proxy and loss in LOSSES[1:]]
            if shared:
                own = sum(row["test"] for row in shared)
                other = sum(proxy[row["seed"]] for row in shared)
                wins = sum(row["test"] < proxy[row["seed"]] for row in shared)
                line += f" {own / other - 1:+.1%} | {wins} of {len(shared)} |"
            else:
                line += " | |"
            lines.append(line)
    return "\n".join(lines)


def main() -> None:
    """Verify, check, run, and print the table."""
    options = parse()
    torch.set_num_threads(options.threads)
    if not options.table:
        print(f"largest difference from onnxruntime: {verify():.1e}", flush=True)
        for kind in options.kinds:
            for labels in options.labels:
                study = Study(options, kind, labels)
                print(f"{kind}, {labels}\n{study.check()}", flush=True)
                study.run()
    print(table(read(options.results)))


if __name__ == "__main__":
    main()
