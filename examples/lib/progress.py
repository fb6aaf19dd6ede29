"""How far a run is, printed now and then."""

import time

import torch

#: Threads of the demos: their models are small, and more of them wait for each other.
THREADS = min(4, torch.get_num_threads())
# Steps by which the time of all is told, and seconds between two lines.
FIRST = 20
SECONDS = 15.0


class Progress:
    """Prints, after some steps, how long all will take, and then how many are done.

    Args:
        name: of what is done.
        steps: there will be.
        runs: alike, of which this is one.
    """

    def __init__(self, name: str, steps: int, runs: int = 1):
        self.name = name
        self.steps = steps
        self.runs = runs
        self.start = self.printed = 0.0

    def __call__(self, step: int) -> None:
        """After each step, by its number, from 1."""
        now = time.perf_counter()
        if step == 1:
            self.start = now
            return
        left = (now - self.start) / (step - 1) * (self.steps - step)
        if step == FIRST:
            others = f", {self.runs} runs of about as long" * (self.runs > 1)
            print(f"  {self.name}: {self.steps} steps, about {_time(left)}{others}", flush=True)
            self.printed = now
        elif step > FIRST and now - self.printed >= SECONDS:
            print(f"  {self.name}: step {step}, about {_time(left)} left", flush=True)
            self.printed = now


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
