"""How well a fitted surrogate knows the edit distance of predictions that it was not fitted to.

The demo recogniser's predictions for training images fit it; those for validation images test it.

`relative` is the mean absolute error over that of the best constant; below 1 the surrogate knows
something. `expected` is the same against the mean over 512 draws, which is what it is fitted to
with draws. `cosine` compares, over a batch, the gradient of the surrogate with respect to the
recogniser's weights with that of the *expected* edit distance under the recogniser's own output
distribution, estimated from samples (REINFORCE with a leave-one-out baseline); the proxy loss has a
cosine too, and a useful surrogate's is higher.

Example:
    python examples/benchmarks/surrogate_error.py --head ctc --seeds 3
"""

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import FitValues, LearnedSurrogateLoss, text
from lib.minimum_risk import expected_metric
from lib.post_tuning import BATCH, surrogate_arguments
from lib.recogniser import ALPHABET, Recogniser, load, proxy_loss, read
from lib.weights import CHECKPOINTS
from lib.word_images import WordImages

# Draws of the expected metric a sample, for the relative error.
VALUE_DRAWS = 512

Batch = tuple[tuple[Tensor, ...], list[str]]


def batches(model: Recogniser, stream: WordImages, count: int) -> list[Batch]:
    """Loss arguments and labels for `count` batches of predictions."""
    made = []
    with torch.no_grad():
        for _ in range(count):
            images, labels = stream.batch(BATCH)
            made.append((surrogate_arguments(model(images), labels, model.head), labels))
    return made


def agreement(
    criterion: LearnedSurrogateLoss, test: list[Batch], head: str, draws: int
) -> dict[str, float]:
    """Relative errors on batches that the surrogate has not seen.

    Against the edit distance of the reading, and against its mean over some draws.
    """
    criterion.reduction = "none"
    task, random = criterion.task, torch.Generator().manual_seed(0)
    values, of_readings, expected = [], [], []
    with torch.no_grad():
        for arguments, labels in test:
            values.append(criterion.eval()(*arguments))
            of_readings.append(torch.tensor(text.edit_distance(read(arguments[0], head), labels)))
            batch = task.read(*arguments)
            drawn = [text.edit_distance(*task.sample(batch, random)) for _ in range(draws)]
            expected.append(torch.tensor(sum(drawn) / draws))
    criterion.train()
    value = torch.cat(values)
    figures = {"absolute": (value - torch.cat(of_readings)).abs().mean().item()}
    for name, parts in (("relative", of_readings), ("expected", expected)):
        errors = torch.cat(parts)
        constant = (errors - errors.median()).abs().mean().item()
        figures[name] = (value - errors).abs().mean().item() / constant
        figures.setdefault("constant", constant)
    return figures


def weight_gradient(model: Recogniser, loss: Tensor) -> Tensor:
    """The gradient with respect to all weights, as one vector."""
    gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--head", choices=["ctc", "characters"], default="ctc")
    add("--updates", type=int, default=1000)
    add("--seeds", type=int, default=3)
    add("--truth-draws", type=int, default=192, help="samples of the expected metric, twice")
    add("--data", nargs="+", default=["local", "global", "local-global"])
    add("--layout", nargs="+", default=["aligned"], help="of CTC targets: aligned, even")
    add("--penalty", type=float, nargs="+", default=[None], help="default: the task's")
    add("--penalty-every", type=int, default=1)
    add("--rate", type=float, help="of the surrogate's Adam; default: the task's")
    add("--surrogate", nargs="+", default=["embedding"], help="embedding, conditioned, pair")
    add("--draws", type=int, nargs="+", default=[0])
    add("--noisy", action="store_true", help="the recogniser that was trained on noisy labels")
    add("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    torch.manual_seed(0)  # of the draws that estimate the truth
    name = options.head + ("-noisy" if options.noisy else "")
    model = load(CHECKPOINTS / f"{name}.safetensors")
    train = batches(model, WordImages("train", 77, 0.4 if options.noisy else 0.0), 150)
    test = batches(model, WordImages("validation", 2020), 16)
    images, labels = WordImages("validation", 2021).batch(256)
    output = model(images)
    truth = [
        weight_gradient(model, expected_metric(output, labels, model.head, options.truth_draws))
        for _ in range(2)
    ]
    cosine = torch.nn.functional.cosine_similarity
    proxy = weight_gradient(model, proxy_loss(model.head)(output, labels))
    print(f"two estimates of the truth agree to {cosine(*truth, dim=0):.3f}")
    true_gradient = truth[0] + truth[1]
    print(f"proxy loss: cosine {cosine(proxy, true_gradient, dim=0):.3f}\n")
    print(
        "| surrogate | draws | data | layout | penalty | abs. | relative | expected | cosine | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    swept = (options.surrogate, options.draws, options.data, options.layout, options.penalty)
    for surrogate, draws, data, layout, penalty in itertools.product(*swept):
        rows: list[dict[str, Any]] = []
        for seed in range(options.seeds):
            task = (
                text.CTC(ALPHABET, layout=layout)
                if options.head == "ctc"
                else text.PerPosition(ALPHABET)
            )
            criterion = LearnedSurrogateLoss(
                text.edit_distance,
                task=task,
                surrogate=surrogate,
                draws=draws,
                fit=FitValues(
                    data=data,
                    generator=text.RandomEdits(ALPHABET, WordImages("train", 0).words),
                    penalty_weight=penalty,
                    penalty_every=options.penalty_every,
                    warm_up=0,
                    learning_rate=options.rate,
                ),
                seed=seed,
            )
            start = time.perf_counter()
            criterion.warm_up((arguments for arguments, _ in train), updates=options.updates)
            took = time.perf_counter() - start
            row = agreement(criterion, test, options.head, VALUE_DRAWS)
            criterion.reduction = "mean"
            loss = criterion.eval()(*surrogate_arguments(output, labels, model.head))
            row["cosine"] = cosine(weight_gradient(model, loss), true_gradient, dim=0).item()
            rows.append(row | {"seconds": took})
        cells = [
            f"{statistics.mean(r[key] for r in rows):.3f} ± "
            f"{statistics.stdev([r[key] for r in rows]) if len(rows) > 1 else 0:.3f}"
            for key in ("absolute", "relative", "expected", "cosine")
        ]
        took = statistics.mean(row["seconds"] for row in rows)
        settings = f"{surrogate} | {draws} | {data} | {layout} | {penalty}"
        print(f"| {settings} | {' | '.join(cells)} | {took:.0f} |", flush=True)
    print(f"\na constant predictor's error: {rows[0]['constant']:.3f}")


if __name__ == "__main__":
    main()
