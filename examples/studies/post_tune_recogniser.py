"""Post-tune a text recogniser on edit distance, beside the control that could embarrass it.

By default the labels have errors, such as typing errors: 40 % of the training words carry 1 to 3
wrong, missing or additional characters; `--label-noise 0` has clean ones. Validation and test
labels are always clean.

Starts from a checkpoint that was trained with the proxy loss, on labels of the same kind. From
there, the same number of further steps, on the same images, with the same optimizer: once with the
proxy loss (the control), once with `LearnedSurrogateLoss`. Then all three read words and fonts that
were held out. Each run is repeated for every seed; each loss may be given several learning rates,
of which the one with the lowest total edit distance on the validation words is kept.

Writes report.html (pictures of the comparison), surrogate.html (how the loss itself does, with a
gradient check before the tuning) and result.json (every figure) to the output folder.

The expected edit distance is known in closed form, so that the loss neither draws nor learns by
default; `--draws 4` measures it at random readings, as it does for other metrics, and `--surrogate
embedding` fits the net of LS-ED.

Example:
    python examples/studies/post_tune_recogniser.py
    python examples/studies/post_tune_recogniser.py --head ctc
    python examples/studies/post_tune_recogniser.py --surrogate embedding --draws 0 --warm-up 1500
    python examples/studies/post_tune_recogniser.py --steps 1500 --seeds 5 --rates 1e-4 3e-4
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import Fit, FitValues, GradientCheck, LearnedSurrogateLoss, text
from lib.post_tuning import (
    BATCH,
    LabelledImages,
    Objective,
    Run,
    base_loss,
    post_tune,
    surrogate_arguments,
    surrogate_objective,
)
from lib.progress import THREADS, Progress
from lib.recogniser import ALPHABET, Recogniser, load, proxy_loss
from lib.recognition_report import table, verdict, write_report
from lib.scoring import predict, scores
from lib.weights import CHECKPOINTS
from lib.word_images import WordImages

# Apart from every training seed: the same images for all models.
EVALUATION_SEED = 2020
# Readings kept for the report.
SHOWN = 200
# Images of the gradient check.
CHECKED = 256
# Of a step with either loss, on two cores: to say at the start how long all will take.
STEP_SECONDS = 0.2
# Parts of the warm-up, after each of which the surrogate's error is noted.
WARM_UP_PARTS = 20
# Surrogates with which the metric's gradient is measured, and those that are fitted and followed.
MEASURED, FITTED = ("auto", "none"), ("embedding", "conditioned", "pair")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--head", choices=["ctc", "characters"], default="characters", help="default: %(default)s")
    add("--checkpoint", type=Path, help="default: the one in examples/checkpoints that fits")
    add("--steps", type=int, default=600, help="post-tuning steps of 64 images (%(default)s)")
    add("--seeds", type=int, default=1, help="repetitions (default: %(default)s)")
    add("--proxy-rates", type=float, nargs="+", default=[3e-4], metavar="RATE", help="%(default)s")
    add("--rates", type=float, nargs="+", default=[1e-3], metavar="RATE", help="%(default)s")
    add(
        "--proxy-weight",
        type=float,
        default=0.0,
        help="weight of the proxy loss added to the surrogate's (default: %(default)s)",
    )
    add(
        "--label-noise",
        type=float,
        default=0.4,
        choices=[0.0, 0.4],
        help="fraction of training labels with 1 to 3 random edits (default: %(default)s)",
    )
    add("--surrogate", choices=[*MEASURED, *FITTED], default="auto", help="default: %(default)s")
    add("--draws", type=int, help="random readings a sample (default: none are needed)")
    add("--filter", type=float, help="largest error with which a sample has a gradient (none)")
    add("--data", choices=["local", "global", "local-global"], help="default: the task's")
    add("--update-every", type=int, default=4, help="calls a surrogate update (%(default)s)")
    add("--no-base-loss", action="store_true", help="the metric's gradient alone")
    add("--warm-up", type=int, default=0, help="updates of a fitted surrogate before (%(default)s)")
    add("--test-images", type=int, default=3000, help="default: %(default)s")
    add("--threads", type=int, default=THREADS, help="default: %(default)s")
    add("--output", type=Path, default=Path("runs/text_recognition"), help="default: %(default)s")
    return parser.parse_args()


def main() -> None:
    """Post-tune, score, report."""
    options = parse()
    torch.set_num_threads(options.threads)
    print(f"rendering words, on {options.threads} threads ...", flush=True)
    study = Study(options)
    runs = options.seeds * (len(options.proxy_rates) + len(options.rates))
    minutes = math.ceil(runs * options.steps * STEP_SECONDS / 60)
    print(
        f"{options.head} head, {runs} runs of {options.steps} steps from {study.checkpoint.name}: "
        f"about {minutes} min on two cores",
        flush=True,
    )
    result = study.run()
    print("\n" + table(result) + "\n\n" + verdict(result))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "result.json").write_text(json.dumps(result, indent=1))
    report = write_report(options.output / "report.html", result, study.test)
    print(f"\n{report} shows it, surrogate.html beside it how the loss itself does.")


class Study:
    """The runs of one comparison, all on the same images."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        name = options.head + ("-noisy" if options.label_noise else "")
        self.checkpoint = options.checkpoint or CHECKPOINTS / f"{name}.safetensors"
        self.validation: LabelledImages = WordImages("validation", EVALUATION_SEED).batch(1000)
        self.test: LabelledImages = WordImages("test", EVALUATION_SEED).batch(options.test_images)

    def run(self) -> dict[str, Any]:
        """Every figure of the comparison, ready for JSON."""
        model = load(self.checkpoint)
        return {
            "settings": {key: str(value) for key, value in vars(self.options).items()},
            "torch": torch.__version__,
            "checkpoint": self.score(model),
            "control": self.best_rate("proxy loss", self.options.proxy_rates, self.control),
            "surrogate": self.best_rate("surrogate", self.options.rates, self.surrogate),
        }

    def best_rate(self, name: str, rates: list[float], one_run: Any) -> dict[str, Any]:
        """The runs at the learning rate whose mean TED on the validation words is lowest."""
        tried = {}
        for rate in rates:
            runs = []
            for seed in range(self.options.seeds):
                runs.append(one_run(rate, seed))
                ted = runs[-1]["validation"]["TED"]
                pace = 1000 * runs[-1]["seconds"] / self.options.steps
                line = f"{name}, rate {rate:g}, seed {seed}: validation TED {ted:.0f}"
                print(f"{line}, {pace:.0f} ms a step", flush=True)
            tried[rate] = runs
        mean_ted = {
            rate: statistics.mean(run["validation"]["TED"] for run in runs)
            for rate, runs in tried.items()
        }
        best = min(mean_ted, key=mean_ted.__getitem__)
        return {"rate": best, "validation TED by rate": mean_ted, "runs": tried[best]}

    def control(self, rate: float, seed: int) -> dict[str, Any]:
        """The proxy loss for the same number of steps."""
        progress = self.progress("proxy loss")
        run = self.post_tune(proxy_loss(self.options.head), rate, seed, progress)
        return self.figures(run)

    def surrogate(self, rate: float, seed: int) -> dict[str, Any]:
        """`LearnedSurrogateLoss`, with the proxy loss as its base loss."""
        options = self.options
        task = text.CTC(ALPHABET) if options.head == "ctc" else text.PerPosition(ALPHABET)
        fit = Fit(every=options.update_every)
        if options.surrogate in FITTED or (options.filter, options.data) != (None, None):
            fit = FitValues(every=fit.every, filter=options.filter, data=options.data)
        criterion = LearnedSurrogateLoss(
            text.edit_distance,
            task=task,
            base_loss=None if options.no_base_loss else base_loss(options.head),
            surrogate=options.surrogate,
            draws=options.draws,
            fit=fit,
            seed=seed,
        )
        followed, progress = [dict(criterion.stats)], self.progress("surrogate")

        def follow(step: int = 0) -> None:
            if step:
                progress(step)
            if criterion.stats["updates"] > followed[-1]["updates"]:
                followed.append({"step": step} | criterion.stats)

        model = load(self.checkpoint)
        batches = surrogate_batches(model, WordImages("train", seed, options.label_noise))
        with torch.no_grad():
            for _ in range(WARM_UP_PARTS if options.warm_up else 0):
                criterion.warm_up(batches, updates=options.warm_up // WARM_UP_PARTS)
                follow()
        check = self.check(criterion, model) if seed == 0 else None
        objective = surrogate_objective(criterion, options.head, options.proxy_weight)
        run = self.post_tune(objective, rate, seed, follow)
        if check is not None:
            print(check)
            criterion.report(options.output / "surrogate.html", check)
        figures = self.figures(run)
        if options.surrogate in FITTED:
            figures["followed"] = followed[1:]
            figures["held out"] = self.held_out(criterion, run.model)
        return figures

    def check(self, criterion: LearnedSurrogateLoss, model: Recogniser) -> GradientCheck:
        """The gradient check, on the first validation images."""
        print(f"checking the gradient on {CHECKED} words ...", flush=True)
        images, labels = (part[:CHECKED] for part in self.validation)
        arguments = surrogate_arguments(model(images), labels, model.head)
        return criterion.check([arguments], parameters=model.parameters())

    def progress(self, name: str) -> Progress:
        """Tells how far a run is, and how many there are."""
        rates = len(self.options.proxy_rates) + len(self.options.rates)
        return Progress(name, self.options.steps, runs=self.options.seeds * rates)

    def post_tune(
        self, objective: Objective, rate: float, seed: int, after_step: Callable[[int], None]
    ) -> Run:
        """One run from the checkpoint; runs of one seed see the same images."""
        options = self.options
        return post_tune(
            load(self.checkpoint),
            objective,
            WordImages("train", 1000 + seed, options.label_noise),
            self.validation,
            steps=options.steps,
            rate=rate,
            evaluate_every=-(-options.steps // 6),
            after_step=after_step,
        )

    def figures(self, run: Run) -> dict[str, Any]:
        """What is kept of a run."""
        validation = [{"step": step} | score for step, score in run.history]
        return {
            "test": self.score(run.model),
            "validation": validation[-1],
            "validation over steps": validation,
            "seconds": run.seconds,
        }

    def score(self, model: Recogniser) -> dict[str, Any]:
        """Scores on the test split, and the first readings."""
        texts = predict(model, self.test[0])
        return scores(texts, self.test[1]) | {"reads": texts[:SHOWN]}

    def held_out(
        self, criterion: LearnedSurrogateLoss, model: Recogniser
    ) -> dict[str, list[float]]:
        """Fitted surrogate against metric, on the tuned model's outputs for validation words."""
        images, labels = self.validation
        criterion.reduction = "none"
        with torch.no_grad():
            output = model.eval()(images)
            values = criterion.eval()(*surrogate_arguments(output, labels, model.head))
        errors = text.edit_distance(predict(model, images), labels)
        return {"surrogate": values.tolist(), "metric": errors.tolist()}


def surrogate_batches(model: Recogniser, stream: WordImages) -> Iterator[tuple[Tensor, ...]]:
    """What the loss would be called with, without end."""
    while True:
        images, labels = stream.batch(BATCH)
        yield surrogate_arguments(model(images), labels, model.head)


if __name__ == "__main__":
    main()
