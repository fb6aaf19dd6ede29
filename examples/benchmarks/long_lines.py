"""What a call costs as lines and alphabets grow: time and memory, forward and backward.

The closed form, `LearnedSurrogateLoss` with four draws of the edit distance over the target's
length, and `nn.CTCLoss` with its log-softmax take turns on the same outputs. Memory is what a call
takes at its peak, its gradient included, in a process of its own (on Linux).

Example:
    python examples/benchmarks/long_lines.py
    python examples/benchmarks/long_lines.py --losses "closed form" --device cuda
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from learned_surrogates import LearnedSurrogateLoss, text

# Lines, frames, classes, characters a line.
SIZES = (
    (64, 32, 37, 9),
    (32, 128, 81, 25),
    (16, 256, 81, 50),
    (8, 512, 81, 100),
    (8, 1000, 81, 250),
    (1, 2000, 81, 250),
    (32, 32, 10_001, 8),
    (32, 32, 50_001, 8),
)
LOSSES = ("closed form", "4 draws", "nn.CTCLoss")
REPEATS = 3

Size = tuple[int, int, int, int]
Arguments = tuple[Tensor, ...]


def made(name: str, classes: int) -> nn.Module:
    """The loss of this name."""
    if name == "nn.CTCLoss":
        return nn.CTCLoss()
    task = text.CTC([chr(0x4E00 + i) for i in range(classes - 1)])
    if name == "closed form":
        return text.ExpectedEditDistance(task)
    return LearnedSurrogateLoss(text.normalized_edit_distance, task=task)


def outputs(size: Size, device: str) -> Arguments:
    """Logits of a recogniser that is unsure of what it reads, targets and both lengths."""
    lines, frames, classes, characters = size
    torch.manual_seed(0)
    targets = torch.randint(1, classes, (lines, characters))
    path = torch.zeros(frames, lines, dtype=torch.long)
    path[torch.arange(characters) * frames // characters] = targets.T
    logits = 3 * torch.randn(frames, lines, classes)
    logits += (8 + torch.tensor(float(classes)).log()) * one_hot(path, classes)
    lengths = torch.full((lines,), frames), torch.full((lines,), characters)
    return logits.to(device).requires_grad_(), targets, *lengths


def call(loss: nn.Module, arguments: Arguments) -> None:
    """Forward and backward."""
    logits, *rest = arguments
    logits.grad = None
    loss(logits.log_softmax(2) if isinstance(loss, nn.CTCLoss) else logits, *rest).backward()
    if logits.is_cuda:
        torch.cuda.synchronize()


def peak(name: str, size: Size, device: str) -> float:
    """Bytes that a call takes on top of its outputs."""
    torch.set_num_threads(1)
    loss, small = made(name, size[2]), (2, 8, size[2], 2)
    call(loss, outputs(small, device))  # compiled, and threads begun
    arguments = outputs(size, device)
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call(loss, arguments)
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    call(loss, arguments)
    return resident("VmHWM") - before


def resident(which: str) -> int:
    """Bytes of memory of this process, as Linux says."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = (line for line in lines if line.startswith(which))
    return 1024 * int(found.split()[1])


def seconds(work: Callable[[], None]) -> float:
    """Time of a call, of its own thread on a CPU."""
    clock = time.perf_counter if torch.cuda.is_available() else time.thread_time
    start = clock()
    work()
    return clock() - start


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    head = " | ".join(f"{name}, ms | MB" for name in options.losses)
    print(f"| lines | frames | classes | characters | {head} |")
    print("|---" * (4 + 2 * len(options.losses)) + "|")
    # Each in a fresh process: what one took stays its own.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for size in SIZES:
            losses = {name: made(name, size[2]) for name in options.losses}
            arguments = outputs(size, options.device)
            times: dict[str, list[float]] = {name: [] for name in losses}
            for _ in range(REPEATS):
                for name, loss in losses.items():
                    times[name].append(seconds(lambda: call(loss, arguments)))  # noqa: B023
            cells = []
            for name, took in times.items():
                memory = pool.apply(peak, (name, size, options.device))
                cells.append(f"{1000 * min(took[1:]):.0f} | {memory / 1e6:.0f}")
            print(f"| {' | '.join(map(str, size))} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
