"""Step time with the surrogate loss over step time with the proxy loss, side by side in one run.

Steps of the demo recogniser alternate between the losses, so that a machine that slows down slows
them all; the ratio of each round's times is taken, then the median over the rounds.

Example:
    python examples/benchmarks/step_time.py --head ctc --every 1 4 16
    python examples/benchmarks/step_time.py --head ctc --device cuda
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import Fit, FitValues, LearnedSurrogateLoss, text
from lib.post_tuning import BATCH, Objective, base_loss, surrogate_objective
from lib.recogniser import ALPHABET, Recogniser, load, proxy_loss
from lib.weights import CHECKPOINTS
from lib.word_images import WordImages


def step(model: Recogniser, objective: Objective, images: torch.Tensor, labels: list[str]) -> None:
    """One training step, rendering apart."""
    loss = objective(model(images), labels)
    model.zero_grad()
    loss.backward()


def seconds(work: Callable[[], None], repeat: int, finish: Callable[[], None]) -> float:
    """Mean wall time of a call."""
    start = time.perf_counter()
    for _ in range(repeat):
        work()
    finish()
    return (time.perf_counter() - start) / repeat


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--head", choices=["ctc", "characters"], default="ctc")
    parser.add_argument("--every", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    task = text.CTC(ALPHABET) if options.head == "ctc" else text.PerPosition(ALPHABET)
    images, labels = WordImages("train", 0).batch(BATCH)
    model = load(CHECKPOINTS / f"{options.head}.safetensors").train()
    model, images = model.to(options.device), images.to(options.device)
    finish = torch.cuda.synchronize if images.is_cuda else lambda: None
    cases: dict[str, Objective] = {"proxy loss": proxy_loss(options.head)}
    paper = {"surrogate": "embedding", "draws": 0}
    forms: dict[str, dict[str, Any]] = {
        "closed form, base loss": {"base_loss": base_loss(options.head)},
        "closed form": {},
        "4 draws, base loss": {"base_loss": base_loss(options.head), "draws": 4},
        "as in the paper": paper,
    }
    for form, arguments in forms.items():
        for every in options.every:
            fit = FitValues(every=every, warm_up=0) if arguments is paper else Fit(every=every)
            criterion = LearnedSurrogateLoss(text.edit_distance, task=task, fit=fit, **arguments)
            cases[f"{form}, k = {every}"] = surrogate_objective(criterion, options.head, 0.0)
    # Whole cycles: every case makes as many updates as its k asks for.
    repeat = max(16, *options.every)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for round_ in range(options.rounds + 1):
        for name, objective in cases.items():
            took = seconds(lambda o=objective: step(model, o, images, labels), repeat, finish)
            if round_:  # the first round warms up
                times[name].append(took)
    proxy = times["proxy loss"]
    place = torch.cuda.get_device_name() if images.is_cuda else f"{options.threads} threads"
    print(f"{options.head} head, batch {BATCH}, {place}")
    print("| loss | ms a step, median | over the proxy's, median (least to most) |\n|---|---|---|")
    for name, took in times.items():
        ratios = sorted(a / b for a, b in zip(took, proxy, strict=True))
        median = statistics.median(ratios)
        spread = f"{median:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"| {name} | {1000 * statistics.median(took):.1f} | {spread} |")


if __name__ == "__main__":
    main()
