"""Where post-tuning on the metric pays: the study behind docs/when-it-helps.md.

Every run starts from the demo recogniser's checkpoint and trains it for the same number of steps on
the same images, with one of these:

- proxy: CTC or cross-entropy, the control;
- ceiling: the proxy on the labels before errors were put into them, so what there is to gain;
- gce30, gce70: generalised cross-entropy, with q = 0.3 and 0.7; smoothing: cross-entropy with
  label smoothing of 0.1: proxies that are made for labels with errors; weighted: cross-entropy with
  ten times the weight on digits, a proxy that knows of their cost (the last two, here and below,
  for one softmax a position);
- surrogate: `LearnedSurrogateLoss` with its defaults and the proxy as `base_loss`;
- surrogate-0, -25, -50, -75: the same with so many per cent of the proxy (`base_weight`);
  surrogate-alone: without `base_loss`; surrogate-draws: with `draws=4`, also where the expected
  metric is known in closed form; surrogate-light: with that, and a quarter of the samples measured;
  surrogate-measured: with that, and nothing known of the readings (`surrogate="none"`);
  surrogate-likeliest: the defaults, but over the most probable readings (`likeliest=True`);
  surrogate-likeliest-25: that with a quarter of the proxy;
  surrogate-gce30, -gce70, -smoothing, -weighted: with half of that proxy in place of the usual one;
- paper: LS-ED (embedding distance, metric of the decoded text), warmed up for 1,500 updates; ls-ed
  and feds: `text.ls_ed` and `text.feds`, as they are, for one softmax a position;
- mwer4, mwer16: minimum-risk training, the expected metric's gradient from 4 or 16 draws a sample
  with a leave-one-out baseline, plus 0.1 times the proxy; mwer4-half, mwer16-half: half of it and
  half of the proxy, brought to one norm;
- nbest5, group5, group64, soft10, soft30, in the same two ways: minimum risk over the 5 most
  probable readings; the group-relative policy gradient of 5 or 64 draws; the soft edit distance at
  a temperature of 0.1 or 0.3 (whatever the metric is).

Regimes: `clean` labels; `noisy` ones (40 % of the training words with 1 to 3 wrong characters);
`words`, noisy labels and, as the metric, whether the word is wrong; and, with clean labels, metrics
that the proxy does not know: `asymmetric`, a wrong or additional character costs 5, a missing one
1, and `digits`, an error in a digit costs 10, in a letter 1; `noisy-digits` is that with noisy
labels. There a simple trick rivals training: a bias on the logit of the blank (or
the end), which makes the recogniser leave out what it is unsure of, or on those of the digits. So
each model is also scored with the bias that serves it best on the validation words ("with bias").

A method's learning rate is the one with the lowest mean error on the validation words for the first
seed; the other seeds run at that rate alone. Test words, in the training's fonts ("familiar") and
in fonts of their own, are read once a run, and only to be written down. Runs that the results file
already has are not made again: begin another one when the package changes. From the committed one,
when_it_helps_page.py writes the tables of the page.

Example:
    python examples/benchmarks/when_it_helps.py --regime noisy --head ctc --seeds 5
    python examples/benchmarks/when_it_helps_page.py
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import FitValues, LearnedSurrogateLoss, text
from lib.minimum_risk import HalfAndHalf, expected_metric
from lib.nbest_risk import nbest_risk
from lib.post_tuning import (
    BATCH,
    Objective,
    base_loss,
    post_tune,
    surrogate_arguments,
    surrogate_objective,
)
from lib.recogniser import ALPHABET, POSITIONS, Head, Recogniser, load, proxy_loss, read as decode
from lib.rival_losses import (
    generalized_cross_entropy,
    smoothed_cross_entropy,
    weighted_cross_entropy,
)
from lib.runs import Row, append, keep_committed, read
from lib.scoring import predict, scores
from lib.soft_edit_distance import soft_edit_distance
from lib.weights import CHECKPOINTS
from lib.word_images import WordImages

RESULTS = Path(__file__).parent / "results" / "when_it_helps.json"
# Arguments of the loss that are not its defaults.
SETTINGS: dict[str, dict[str, Any]] = {
    "surrogate": {},
    **{f"surrogate-{share}": {"base_weight": share / 100} for share in (0, 25, 50, 75)},
    "surrogate-alone": {"base_loss": None},
    "surrogate-draws": {"draws": 4},
    "surrogate-light": {"draws": 4, "metric_budget": 0.25},
    "surrogate-measured": {"draws": 4, "surrogate": "none"},
    "surrogate-likeliest": {},
    "surrogate-likeliest-25": {"base_weight": 0.25},
}
PUBLISHED: dict[str, Callable[..., LearnedSurrogateLoss]] = {"ls-ed": text.ls_ed, "feds": text.feds}
RISKS: dict[str, Callable[..., Tensor]] = {
    **{f"mwer{draws}": partial(expected_metric, draws=draws) for draws in (4, 16)},
    **{f"group{n}": partial(expected_metric, draws=n, relative=True) for n in (5, 64)},
    "nbest5": partial(nbest_risk, count=5),
}
SOFT = {f"soft{t}": partial(soft_edit_distance, temperature=t / 100) for t in (10, 30)}
HALVED = {f"{risk}-half": risk for risk in (*RISKS, *SOFT)}
METRICS: dict[str, Callable[..., Any]] = {
    "clean": text.edit_distance,
    "noisy": text.edit_distance,
    "asymmetric": text.WeightedEditDistance(additional=5, wrong=5),
    "digits": text.WeightedEditDistance(characters={"0123456789": 10}),
    "noisy-digits": text.WeightedEditDistance(characters={"0123456789": 10}),
    "words": text.word_edit_distance,
}
NOISE = dict.fromkeys(METRICS, 0.0) | dict.fromkeys(("noisy", "noisy-digits", "words"), 0.4)
# Classes of which a bias rivals training.
DIGITS = [ALPHABET.index(digit) + 1 for digit in "0123456789"]
BIASED = {"asymmetric": [0], "digits": DIGITS, "noisy-digits": DIGITS}
# Proxies that are made for labels with errors, or that know of the digits' cost.
RIVALS: dict[str, Callable[[Head], Callable[..., Tensor]]] = {
    **{f"gce{q}": partial(generalized_cross_entropy, q=q / 100) for q in (30, 70)},
    "smoothing": lambda head: smoothed_cross_entropy(),
    "weighted": lambda head: weighted_cross_entropy(DIGITS, 10),
}
BLENDS = {f"surrogate-{rival}": rival for rival in RIVALS}
METHODS = (
    *("proxy", "ceiling", *RIVALS, *SETTINGS, *BLENDS),
    *("paper", *PUBLISHED, *RISKS, *SOFT, *HALVED),
)
EVALUATION_SEED = 2020
# The last two have the same words, which no other has, and the last one fonts of its own.
SPLITS = ("validation", "familiar", "test")
BIASES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
PAPER_UPDATES = 1500
MWER_PROXY = 0.1


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--regime", choices=list(METRICS), default="noisy")
    add("--head", choices=["ctc", "characters"], default="characters")
    add("--methods", nargs="+", choices=METHODS, default=["proxy", "surrogate", "mwer16"])
    add("--steps", type=int, default=600)
    add("--seeds", type=int, default=5)
    add("--rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3])
    add("--test-images", type=int, default=3000)
    add("--threads", type=int, default=1)
    add("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    for method in options.methods:
        if options.head == "ctc" and method.endswith(("smoothing", "weighted", *PUBLISHED)):
            parser.error(f"{method} is for one softmax a position: --head characters")
    keep_committed(parser, options, "test_images")
    return options


class Study:
    """The runs of one regime and head."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.head, self.regime = options.head, options.regime
        self.metric = METRICS[self.regime]
        self.noise = NOISE[self.regime]
        name = self.head + ("-noisy" if self.noise else "")
        self.checkpoint = CHECKPOINTS / f"{name}.safetensors"
        self.splits = {
            "validation": WordImages("validation", EVALUATION_SEED).batch(2000),
            "familiar": WordImages("test", EVALUATION_SEED, familiar=True).batch(
                options.test_images
            ),
            "test": WordImages("test", EVALUATION_SEED).batch(options.test_images),
        }

    def run(self) -> None:
        """All methods: rates on the first seed, then the other seeds at the best one."""
        self.row("checkpoint", 0.0, 0)
        for method in self.options.methods:
            tried = {rate: self.row(method, rate, 0)["validation"] for rate in self.options.rates}
            best = min(tried, key=tried.__getitem__)
            for seed in range(1, self.options.seeds):
                self.row(method, best, seed)

    def row(self, method: str, rate: float, seed: int) -> Row:
        """One run's figures, from the results file if it has them."""
        key = {
            "regime": self.regime,
            "head": self.head,
            "steps": self.options.steps,
            "method": method,
            "rate": rate,
            "seed": seed,
        }
        for row in read(self.options.results):
            if all(row[name] == value for name, value in key.items()):
                return row
        row = key | self.tuned(method, rate, seed)
        append(self.options.results, row)
        print(f"{method} {rate:g} seed {seed}: validation {row['validation']:.4f}", flush=True)
        return row

    def tuned(self, method: str, rate: float, seed: int) -> dict[str, Any]:
        """Trains and scores."""
        model = load(self.checkpoint)
        if method == "checkpoint":
            return self.figures(model)
        torch.manual_seed(seed)
        run = post_tune(
            model,
            self.objective(method, seed),
            WordImages("train", 1000 + seed, 0.0 if method == "ceiling" else self.noise),
            self.splits["validation"],
            steps=self.options.steps,
            rate=rate,
            evaluate_every=self.options.steps,
        )
        return self.figures(run.model)

    def objective(self, method: str, seed: int) -> Objective:
        """The method's loss of a batch, `(output, labels) -> ()`."""
        proxy = proxy_loss(self.head)
        if method in ("proxy", "ceiling"):
            return proxy
        if method in RIVALS:
            rival = RIVALS[method](self.head)
            return lambda *args: rival(*surrogate_arguments(*args, self.head))
        risk = HALVED.get(method, method)
        if risk in RISKS or risk in SOFT:
            of_metric = partial(RISKS[risk], metric=self.metric) if risk in RISKS else SOFT[risk]
            blend = HalfAndHalf() if method in HALVED else None

            def risked(output: Tensor, labels: list[str]) -> Tensor:
                loss = of_metric(output, labels, self.head)
                base = proxy(output, labels)
                return blend(loss, base, output) if blend else loss + MWER_PROXY * base

            return risked
        head = text.CTC if self.head == "ctc" else text.PerPosition
        task = head(ALPHABET, likeliest="likeliest" in method)
        if method in PUBLISHED:
            words = {"words": WordImages("train", seed).words} if method == "ls-ed" else {}
            criterion = PUBLISHED[method](
                ALPHABET, POSITIONS, metric=self.metric, seed=seed, **words
            )
        elif method == "paper":
            words = text.RandomEdits(ALPHABET, WordImages("train", seed).words)
            criterion = LearnedSurrogateLoss(
                self.metric,
                task=task,
                surrogate="embedding",
                draws=0,
                fit=FitValues(generator=words),
                seed=seed,
            )
            stream, model = WordImages("train", seed, self.noise), load(self.checkpoint)
            with torch.no_grad():
                criterion.warm_up(
                    (
                        surrogate_arguments(model(images), labels, self.head)
                        for images, labels in iter(lambda: stream.batch(BATCH), None)
                    ),
                    updates=PAPER_UPDATES,
                )
        else:
            arguments = {"base_loss": base_loss(self.head)} | SETTINGS.get(method, {})
            if method in BLENDS:
                rival = RIVALS[BLENDS[method]](self.head)
                arguments = {"base_loss": rival, "base_weight": 0.5}
            criterion = LearnedSurrogateLoss(self.metric, task=task, seed=seed, **arguments)
        return surrogate_objective(criterion, self.head, 0.0)

    def figures(self, model: Recogniser) -> dict[str, Any]:
        """The metric's mean on all splits, and the share of words that are right in new fonts."""
        figures: dict[str, Any] = {}
        for split, (images, labels) in self.splits.items():
            texts = predict(model, images)
            figures[split] = round(float(self.metric(texts, labels).mean()), 5)
            if split == "test":
                figures["accuracy"] = round(scores(texts, labels)["accuracy"], 5)
        if self.regime in BIASED:
            figures |= self.biased(model)
        return figures

    @torch.no_grad()
    def biased(self, model: Recogniser) -> dict[str, Any]:
        """The mean metric with the bias of some classes that is best on the validation words."""
        class_dim = 2 if self.head == "ctc" else 1
        errors: dict[str, dict[float, float]] = {}
        for split, (images, labels) in self.splits.items():
            batch_dim = 1 if self.head == "ctc" else 0
            output = torch.cat([model.eval()(part) for part in images.split(250)], batch_dim)
            errors[split] = {}
            for bias in BIASES:
                moved = output.movedim(class_dim, -1).clone()
                moved[..., BIASED[self.regime]] += bias
                moved = moved.movedim(-1, class_dim)
                errors[split][bias] = float(self.metric(decode(moved, self.head), labels).mean())
        best = min(BIASES, key=errors["validation"].__getitem__)
        return {"bias": best, "with bias": {split: e[best] for split, e in errors.items()}}


def main() -> None:
    """Run what the results lack."""
    options = parse()
    torch.set_num_threads(options.threads)
    Study(options).run()


if __name__ == "__main__":
    main()
