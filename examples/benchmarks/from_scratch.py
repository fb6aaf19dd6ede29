"""From an untrained model: the metric put in from the first step, its usual loss as `base_loss`.

The proxy's own schedule: with the proxy; with the metric and the proxy as its base loss, which
leads until its signal is spent; the same with a fifth of the proxy afterwards; and, of lists, with
the task for lists, which has their metric in closed form. The question is
whether the metric costs anything where a model knows nothing yet: the mean metric on test samples
at the end, and the step at which the base loss handed over.

- plain tensors: problems of `user_metrics`, at the proxy's rate and number of steps, as in
  `any_metric.py`, whose checkpoints are the control;
- text: the demo recogniser on clean labels, 1,500 steps at one rate; edit distance.

A minute a run of tensors and ten of text, on one core. Writes into results/from_scratch.json.

Example:
    python examples/benchmarks/from_scratch.py --problems ap spearman
    python examples/benchmarks/from_scratch.py --table
"""

import argparse
import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss, ranking, text
from lib.post_tuning import base_loss, post_tune, surrogate_objective
from lib.recogniser import ALPHABET, Head, Recogniser, proxy_loss
from lib.runs import Row, read, spread, write
from lib.scoring import predict, scores as scores_of_text
from lib.word_images import WordImages
from user_metrics import PROBLEMS
from user_metrics.problem import Problem
from user_metrics.training import BATCH, Batches, Stepper, checkpoint, mean_proxy, scores

RESULTS = Path(__file__).parent / "results" / "from_scratch.json"
HEADS: tuple[Head, ...] = ("ctc", "characters")
TEXT_STEPS, TEXT_RATE, TEXT_IMAGES = 1500, 3e-3, 1000
# With the share that the proxy keeps; None is the default.
LOSSES = {"proxy": None, "metric": None, "metric and a fifth": 0.2, "metric of lists": None}
# By problem, the metric that the task of lists has in closed form.
OF_LISTS = {"ap": ranking.average_precision, "spearman": ranking.spearman}


class HandOver:
    """The step at which a base loss handed over; None while it leads."""

    def __init__(self, criterion: LearnedSurrogateLoss):
        self.criterion = criterion
        self.step: int | None = None

    def look(self, step: int) -> None:
        if self.step is None and self.criterion.stats.get("base_loss/share", 1) < 1:
            self.step = step


def of_tensors(problem: Problem, loss: str, seed: int, folder: Path) -> tuple[float, int | None]:
    """The metric on test samples, and the step of the hand-over."""
    if loss == "proxy":
        return scores(checkpoint(problem, seed, folder), problem)[1], None
    torch.manual_seed(seed)
    model = problem.model()
    of_lists = loss == "metric of lists"
    criterion = LearnedSurrogateLoss(
        OF_LISTS[problem.name] if of_lists else problem.metric,
        task=ranking.Lists() if of_lists else None,
        base_loss=mean_proxy(problem),
        base_weight=LOSSES[loss],
        seed=seed,
    )
    hand_over = HandOver(criterion)
    stepper = Stepper(model, criterion, problem.rate, problem.steps)
    batches = Batches(problem.data["train"], BATCH, seed)
    for _ in range(problem.steps):
        stepper.step(*batches.next())
        hand_over.look(stepper.done)
    return scores(model, problem)[1], hand_over.step


def of_text(head: Head, loss: str, seed: int) -> tuple[float, int | None]:
    """The same of a recogniser of words."""
    torch.manual_seed(seed)
    task = text.CTC(ALPHABET) if head == "ctc" else text.PerPosition(ALPHABET)
    criterion = LearnedSurrogateLoss(
        text.edit_distance,
        task=task,
        base_loss=base_loss(head),
        base_weight=LOSSES[loss],
        seed=seed,
    )
    hand_over = HandOver(criterion)
    images, labels = WordImages("test", 2020).batch(TEXT_IMAGES)
    run = post_tune(
        Recogniser(head),
        proxy_loss(head) if loss == "proxy" else surrogate_objective(criterion, head, 0.0),
        WordImages("train", seed),
        (images[:BATCH], labels[:BATCH]),
        steps=TEXT_STEPS,
        rate=TEXT_RATE,
        evaluate_every=TEXT_STEPS,
        after_step=hand_over.look,
    )
    distance = scores_of_text(predict(run.model, images), labels)["TED"] / TEXT_IMAGES
    return distance, hand_over.step


def table(rows: list[Row]) -> str:
    """Markdown: means, each over the seeds that there are."""
    heads = ["", *LOSSES, "handed over at step", "seeds"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in dict.fromkeys(row["problem"] for row in rows):
        of = [by_seed(rows, name, loss) for loss in LOSSES]
        cells = [
            spread([row["test"] for row in found.values()], 3) if found else "" for found in of
        ]
        steps = ", ".join(str(row["handed_over"]) for row in of[1].values())
        seeds = ", ".join(str(len(found)) for found in of)
        sentence = PROBLEMS[name].sentence if name in PROBLEMS else f"edit distance, {name}"
        lines.append("| " + " | ".join([sentence, *cells, steps, seeds]) + " |")
    return "\n".join(lines)


def by_seed(rows: list[Row], name: str, loss: str) -> dict[int, Row]:
    return {row["seed"]: row for row in rows if (row["problem"], row["loss"]) == (name, loss)}


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    choices = [*PROBLEMS, *HEADS]
    add("--problems", nargs="+", choices=choices, default=["ap", "spearman", *HEADS])
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--results", type=Path, default=RESULTS)
    add("--checkpoints", type=Path, default=Path("runs/any_metric"))
    add("--table", action="store_true", help="print what the results come to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = read(options.results)
    for name in [] if options.table else options.problems:
        for seed in options.seeds:
            for loss in LOSSES:
                made = seed in by_seed(rows, name, loss)
                if made or (loss == "metric of lists" and name not in OF_LISTS):
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of a metric that tells nothing at first
                    test, step = (
                        of_tensors(PROBLEMS[name], loss, seed, options.checkpoints)
                        if name in PROBLEMS
                        else of_text(name, loss, seed)
                    )
                row = {"problem": name, "loss": loss, "seed": seed, "test": float(f"{test:.5g}")}
                rows.append(row | {"handed_over": step})
                write(options.results, rows)
                print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
