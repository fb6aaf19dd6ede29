"""How well the surrogate fits edit distance on predictions that it was not fitted to.

The demo recogniser's predictions for training images fit it; those for validation images test it.
Rows: data "local", "global", "local-global" (the comparison of LS, figure 3), and what else is
asked for. `relative` is the mean absolute error over that of the best constant; below 1 the
surrogate knows something. `cosine` compares, over a batch, the gradient of the surrogate with
respect to the recogniser's weights with that of the *expected* edit distance under the
recogniser's own output distribution, estimated from samples (REINFORCE with a leave-one-out
baseline); the proxy loss has a cosine too, and a useful surrogate's is higher.

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

EXAMPLES = Path(__file__).parents[1]
sys.path.insert(0, str(EXAMPLES))

from post_tuning import BATCH, surrogate_arguments
from recogniser import ALPHABET, Recogniser, load, proxy_loss, read
from word_images import WordImages

from learned_surrogates import LearnedSurrogateLoss, text

Batch = tuple[tuple[Tensor, ...], list[str]]


def batches(model: Recogniser, stream: WordImages, count: int) -> list[Batch]:
    """Loss arguments and labels for `count` batches of predictions."""
    made = []
    with torch.no_grad():
        for _ in range(count):
            images, labels = stream.batch(BATCH)
            made.append((surrogate_arguments(model(images), labels, model.head), labels))
    return made


def agreement(criterion: LearnedSurrogateLoss, test: list[Batch], head: str) -> dict[str, float]:
    """Absolute and relative error on batches that the surrogate has not seen."""
    criterion.reduction = "none"
    with torch.no_grad():
        values = torch.cat([criterion.eval()(*arguments) for arguments, _ in test])
    criterion.train()
    reads = [(read(arguments[0], head), labels) for arguments, labels in test]
    errors = torch.cat([torch.tensor(text.edit_distance(*pair)) for pair in reads])
    absolute = (values - errors).abs().mean().item()
    constant = (errors - errors.median()).abs().mean().item()
    return {"absolute": absolute, "constant": constant, "relative": absolute / constant}


def weight_gradient(model: Recogniser, loss: Tensor) -> Tensor:
    """The gradient with respect to all weights, as one vector."""
    gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


def expected_metric_gradient(output: Tensor, labels: list[str], head: str, draws: int) -> Tensor:
    """A loss whose gradient estimates that of the expected edit distance."""
    class_dim = 2 if head == "ctc" else 1
    log_probs = output.log_softmax(class_dim).movedim(class_dim, -1)  # (time, batch, ..) or
    samples = torch.distributions.Categorical(logits=log_probs.detach()).sample((draws,))
    metric = []
    for sample in samples:
        one_hot = torch.nn.functional.one_hot(sample, output.shape[class_dim])
        reads = read(one_hot.movedim(-1, class_dim), head)
        metric.append(torch.tensor(text.edit_distance(reads, labels)))
    errors = torch.stack(metric).float()
    advantage = (errors - errors.mean(0)) * draws / (draws - 1)
    chosen = log_probs.expand(draws, *log_probs.shape).gather(-1, samples[..., None]).squeeze(-1)
    log_likelihood = chosen.sum(1 if head == "ctc" else 2)
    return (advantage * log_likelihood).mean()


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
    add("--surrogate", nargs="+", default=["embedding"], help="embedding, grid")
    add("--draws", type=int, nargs="+", default=[0])
    add("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    torch.manual_seed(0)  # of the draws that estimate the truth
    model = load(EXAMPLES / "checkpoints" / f"{options.head}.safetensors")
    train = batches(model, WordImages("train", 77), 150)
    test = batches(model, WordImages("validation", 2020), 16)
    images, labels = WordImages("validation", 2021).batch(256)
    output = model(images)
    truth = [
        weight_gradient(
            model, expected_metric_gradient(output, labels, model.head, options.truth_draws)
        )
        for _ in range(2)
    ]
    cosine = torch.nn.functional.cosine_similarity
    proxy = weight_gradient(model, proxy_loss(model.head)(output, labels))
    print(f"two estimates of the truth agree to {cosine(*truth, dim=0):.3f}")
    true_gradient = truth[0] + truth[1]
    print(f"proxy loss: cosine {cosine(proxy, true_gradient, dim=0):.3f}\n")
    print("| surrogate | draws | data | layout | penalty | abs. | relative | cosine | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    swept = (options.surrogate, options.draws, options.data, options.layout, options.penalty)
    for surrogate, draws, data, layout, penalty in itertools.product(*swept):
        rows: list[dict[str, Any]] = []
        for seed in range(options.seeds):
            task = (
                text.CTC(ALPHABET, layout=layout)
                if options.head == "ctc"
                else text.Characters(ALPHABET)
            )
            criterion = LearnedSurrogateLoss(
                text.edit_distance,
                task=task,
                surrogate=surrogate,
                draws=draws,
                data=data,
                generator=text.RandomEdits(ALPHABET, WordImages("train", 0).words),
                penalty_weight=penalty,
                penalty_every=options.penalty_every,
                seed=seed,
            )
            start = time.perf_counter()
            criterion.warm_up((arguments for arguments, _ in train), updates=options.updates)
            took = time.perf_counter() - start
            row = agreement(criterion, test, options.head)
            criterion.reduction = "mean"
            loss = criterion.eval()(*surrogate_arguments(output, labels, model.head))
            row["cosine"] = cosine(weight_gradient(model, loss), true_gradient, dim=0).item()
            rows.append(row | {"seconds": took})
        cells = [
            f"{statistics.mean(r[key] for r in rows):.3f} ± "
            f"{statistics.stdev([r[key] for r in rows]) if len(rows) > 1 else 0:.3f}"
            for key in ("absolute", "relative", "cosine")
        ]
        took = statistics.mean(row["seconds"] for row in rows)
        settings = f"{surrogate} | {draws} | {data} | {layout} | {penalty}"
        print(f"| {settings} | {' | '.join(cells)} | {took:.0f} |", flush=True)
    print(f"\na constant predictor's error: {rows[0]['constant']:.3f}")


if __name__ == "__main__":
    main()
