"""Memory and time of recall@k losses and of encoders, for batches that do not fit as a whole.

Each row runs in a process of its own: its peak less what was there before the first tensor. The
similarities of 16,384 embeddings alone would be 1,074 MB in float32. The whole graph of the loss,
which compares every pair of one class with every embedding, would have some 10 GB.

Example:
    python examples/benchmarks/large_batches.py
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from learned_surrogates.retrieval import RecallAtK, large_batch

WAYS = ("whole", "stages", "stages, chunks")


def labels_of(count: int, each: int = 4) -> Tensor:
    return torch.arange(count // each).repeat_interleave(each)


def loss_alone(count: int, chunk: int | None) -> None:
    """Forward and backward of `count` embeddings of 64."""
    embeddings = torch.randn(count, 64, requires_grad=True)
    RecallAtK(chunk=chunk)(embeddings, labels_of(count)).backward()


def with_encoder(count: int, way: str) -> None:
    """The same of images of 32 x 32 through a small convolutional net."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 64),
    )
    images, labels = torch.rand(count, 1, 32, 32), labels_of(count)
    criterion = RecallAtK(chunk=count if way != "stages, chunks" else 100)
    if way == "whole":
        criterion(model(images), labels).backward()
    else:
        large_batch(model, images.split(64), lambda z: criterion(z, labels))


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(function: Callable[..., None], *args: object) -> tuple[float, float]:
    """Megabytes over the start, and seconds, of one call in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    before, start = peak_megabytes(), time.perf_counter()
    function(*args)
    return peak_megabytes() - before, time.perf_counter() - start


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--embeddings", type=int, nargs="+", default=[2000, 4096, 16384])
    add("--images", type=int, nargs="+", default=[2000])
    options = parser.parse_args()
    rows: list[tuple[str, tuple[object, ...]]] = []
    for count in options.embeddings:
        if count <= 2000:
            rows.append((f"loss of {count:,} embeddings, whole", (loss_alone, count, count)))
        rows.append((f"loss of {count:,} embeddings", (loss_alone, count, None)))
    for count in options.images:
        rows += [(f"{count:,} images, {way}", (with_encoder, count, way)) for way in WAYS]
    print("| | peak memory over the start, MB | seconds |\n|---|---|---|")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name, arguments in rows:
            megabytes, seconds = pool.apply(measured, arguments)
            print(f"| {name} | {megabytes:,.0f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
