"""Step time with the expected edit distance in closed form over step time with the proxy loss.

Steps of the demo recogniser alternate between the losses, so that a machine that slows down slows
them all; the ratio of each round's times is taken, then the median over the rounds. With one thread
on the CPU it is the thread's own time that counts, which other processes' turns are no part of.

Example:
    python examples/benchmarks/expected_edit_distance.py --threads 1
    python examples/benchmarks/expected_edit_distance.py --threads 1 --heads ctc --device cuda
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from step_time import step
from torch import Tensor

from learned_surrogates import text
from learned_surrogates.text._closed_form import row_passes as passes
from lib.post_tuning import BATCH, Objective
from lib.recogniser import ALPHABET, Head, encode_targets, load, proxy_loss
from lib.weights import CHECKPOINTS
from lib.word_images import WordImages


def objective(head: Head, share: float, compiled: bool) -> Objective:
    """The closed form, and so much of the proxy beside it."""
    task = text.CTC(ALPHABET) if head == "ctc" else text.PerPosition(ALPHABET)
    criterion = text.ExpectedEditDistance(task)
    proxy = proxy_loss(head)

    def loss(output: Tensor, labels: Sequence[str]) -> Tensor:
        passes.KERNELS.failed_on = set() if compiled else {passes.CPU}
        targets = encode_targets(labels, head)
        lengths = (torch.full((output.shape[1],), output.shape[0]),) if head == "ctc" else ()
        value: Tensor = criterion(output, targets[0], *lengths, *targets[1:])
        return share * proxy(output, labels) + (1 - share) * value if share else value

    return loss


def seconds(work: Callable[[], None], repeat: int, own: bool, finish: Callable[[], None]) -> float:
    """Mean time of a call."""
    clock = time.thread_time if own else time.perf_counter
    start = clock()
    for _ in range(repeat):
        work()
    finish()
    return (clock() - start) / repeat


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", choices=["characters", "ctc"], nargs="+")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=8, help="steps a round and loss")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    ways = {"PyTorch": False}
    if options.device == "cpu" and passes.KERNELS.module is not None:
        ways["compiled"] = True
    own = options.device == "cpu" and options.threads == 1
    place = "CUDA" if options.device != "cpu" else f"{options.threads} threads"
    print(f"batch {BATCH}, {place}, {'its own' if own else 'wall'} time")
    print("| head | loss | ms a step, median | over the proxy's, median (least to most) |")
    print("|---|---|---|---|")
    for head in options.heads or ("characters", "ctc"):
        images, labels = WordImages("train", 0).batch(BATCH)
        model = load(CHECKPOINTS / f"{head}.safetensors").train()
        model, images = model.to(options.device), images.to(options.device)
        finish = torch.cuda.synchronize if images.is_cuda else lambda: None
        cases: dict[str, Objective] = {"proxy": proxy_loss(head)}
        for way, compiled in ways.items():
            cases[f"closed form, {way}"] = objective(head, 0, compiled)
            cases[f"with half the proxy, {way}"] = objective(head, 0.5, compiled)
        times: dict[str, list[float]] = {name: [] for name in cases}
        for round_ in range(options.rounds + 1):
            for name, loss in cases.items():
                work = lambda o=loss: step(model, o, images, labels)  # noqa: B023, E731
                took = seconds(work, options.repeat, own, finish)
                if round_:  # the first round warms up
                    times[name].append(took)
        for name, took in times.items():
            ratios = sorted(a / b for a, b in zip(took, times["proxy"], strict=True))
            middle = statistics.median(ratios)
            spread = f"{middle:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
            print(f"| {head} | {name} | {1000 * statistics.median(took):.1f} | {spread} |")


if __name__ == "__main__":
    main()
