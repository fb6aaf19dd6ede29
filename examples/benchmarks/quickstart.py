"""The README's first example, beside the control: as many further steps with CTC.

Runs the example as it stands, and once more with CTC in the surrogate's place, for a few seeds;
then reads 960 more words with each model.

Example:
    python examples/benchmarks/quickstart.py
"""

import re
import statistics
from pathlib import Path
from typing import Any

import torch

from learned_surrogates import text

README = Path(__file__).parents[2] / "README.md"
SEEDS = 3


def distance(snippet: str, seed: int) -> float:
    """Mean edit distance after the example's steps."""
    names: dict[str, Any] = {}
    exec(snippet.replace("manual_seed(0)", f"manual_seed({seed})"), names)
    task, distances = names["surrogate"].task, []
    for _ in range(30):
        frames, *targets_and_lengths = names["batch"]()
        log_probs = names["model"](frames).permute(2, 0, 1).log_softmax(dim=-1)
        readings = task.decode(task.read(log_probs, *targets_and_lengths))
        distances.append(text.edit_distance(*readings).mean())
    return statistics.mean(map(float, distances))


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    found = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    example = found[1].replace("print(surrogate.stats)", "")
    variants = {
        "after CTC alone": example.replace(", (surrogate, 3e-3)", ","),
        "CTC continued": example.replace("(surrogate, 3e-3)", "(proxy, 3e-3)"),
        "surrogate": example,
    }
    assert len(set(variants.values())) == len(variants)
    for name, snippet in variants.items():
        distances = [distance(snippet, seed) for seed in range(SEEDS)]
        spread = statistics.stdev(distances)
        print(f"{name}: {statistics.mean(distances):.2f} ± {spread:.2f}", flush=True)


if __name__ == "__main__":
    main()
