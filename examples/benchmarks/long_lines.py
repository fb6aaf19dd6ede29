"""What a call on long lines costs, beside `nn.CTCLoss`: time, and memory of a pair in replay.

Example:
    python examples/benchmarks/long_lines.py
    python examples/benchmarks/long_lines.py --device cuda --no-kernels
"""

import argparse
import time

import torch
from torch import Tensor, nn

from learned_surrogates import LearnedSurrogateLoss, text
from learned_surrogates.text import _scan

# Lines, frames, characters a line, alphabet.
SIZES = ((64, 32, 9, 36), (32, 128, 25, 80), (16, 256, 50, 80), (8, 512, 100, 80))
REPEATS = 3


def milliseconds(loss: nn.Module, arguments: tuple[Tensor, ...]) -> float:
    """The fastest of some calls, forward and backward."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        loss(*arguments).backward()
        if arguments[0].is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--kernels", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    if not options.kernels:
        _scan.kernels = lambda: None
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| lines | frames | characters | ms | ms of nn.CTCLoss | kB a pair | pairs in 64 MiB |")
    print("|---|---|---|---|---|---|---|")
    for lines, frames, characters, size in SIZES:
        scores = 4 * torch.randn(frames, lines, size + 1)
        arguments = (
            scores.to(options.device).log_softmax(-1).requires_grad_(),
            torch.randint(1, size + 1, (lines, characters)),
            torch.full((lines,), frames),
            torch.full((lines,), characters),
        )
        alphabet = [chr(0x4E00 + i) for i in range(size)]
        # Updates cost the same for all, and are left out.
        criterion = LearnedSurrogateLoss(
            text.edit_distance, task=text.CTC(alphabet), warm_up_updates=0, update_every=10**6
        )
        took, of_ctc = milliseconds(criterion, arguments), milliseconds(nn.CTCLoss(), arguments)
        replay = criterion._core.learner.pairs.replay
        print(
            f"| {lines} | {frames} | {characters} | {took:.0f} | {of_ctc:.0f} | "
            f"{replay.sample_bytes / 1000:.0f} | {replay.capacity} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
