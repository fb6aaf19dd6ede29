"""The README's two examples, as they stand, for a few seeds.

Both print what a model scores before, after more steps with its usual loss, and after as many with
the metric.

Example:
    python examples/benchmarks/quickstart.py
"""

import argparse
import contextlib
import io
import re
import statistics
from pathlib import Path

import torch

README = Path(__file__).parents[2] / "README.md"
SEEDS = 3
# By what they measure: a part that no other example of the page has.
EXAMPLES = {
    "edit distance": "surrogate = LearnedSurrogateLoss(",
    "share off by more than one": "def off_by_more_than_one(",
}


def example(part: str) -> str:
    """The page's example that has a part."""
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (found,) = (snippet for snippet in snippets if part in snippet)
    return found


def printed(snippet: str, seed: int) -> dict[str, float]:
    """What an example prints: a name and a figure a line."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(snippet.replace("manual_seed(0)", f"manual_seed({seed})"), {})
    lines = re.findall(r"^(\w[\w ]*): (\d+\.\d+)$", output.getvalue(), re.MULTILINE)
    return {name: float(figure) for name, figure in lines}


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    for title, part in EXAMPLES.items():
        runs = [printed(example(part), seed) for seed in range(SEEDS)]
        print(title)
        for name in runs[0]:
            figures = [run[name] for run in runs]
            spread = statistics.stdev(figures)
            print(f"  {name}: {statistics.mean(figures):.2f} ± {spread:.2f}", flush=True)


if __name__ == "__main__":
    main()
