"""How near is each loss's gradient to that of the expected edit distance? No training: one look.

The demo recognisers in evaluation mode, training words with right labels, the gradient of all
weights. The truth is the score function's mean over many draws, in two halves: the cosine between
these says how far it can be trusted. Each rival is asked once, as a step of training would.

Example:
    python examples/benchmarks/rival_gradients.py --draws 1024
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

EXAMPLES = Path(__file__).parents[1]
sys.path.insert(0, str(EXAMPLES))

from torch import Tensor

from learned_surrogates import text
from lib.minimum_risk import expected_metric
from lib.nbest_risk import nbest_risk
from lib.post_tuning import surrogate_arguments
from lib.recogniser import ALPHABET, Head, Recogniser, load, proxy_loss
from lib.soft_edit_distance import soft_edit_distance
from lib.word_images import WordImages

CHECKPOINTS = ("characters", "characters-noisy", "ctc", "ctc-noisy")
# Draws that are taken at once.
TOGETHER = 64
Loss = Callable[[Tensor, Sequence[str], Head], Tensor]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=int, default=256)
    add("--draws", type=int, default=1024, help="of each half of the truth (%(default)s)")
    add("--threads", type=int, default=1)
    return parser.parse_args()


def closed_form(output: Tensor, labels: Sequence[str], head: Head) -> Tensor:
    task = text.CTC(ALPHABET) if head == "ctc" else text.PerPosition(ALPHABET)
    value: Tensor = text.ExpectedEditDistance(task)(*surrogate_arguments(output, labels, head))
    return value


RIVALS: dict[str, Loss] = {
    "closed form": closed_form,
    **{f"score function, {n} draws": partial(expected_metric, draws=n) for n in (5, 64)},
    **{
        f"group-relative, {n} draws": partial(expected_metric, draws=n, relative=True)
        for n in (5, 64)
    },
    "5 likeliest readings": partial(nbest_risk, count=5),
    **{
        f"soft edit distance, {t}": partial(soft_edit_distance, temperature=t)
        for t in (0.03, 0.1, 0.3)
    },
    "proxy": lambda output, labels, head: proxy_loss(head)(output, labels),
}


def gradient(model: Recogniser, images: Tensor, labels: Sequence[str], loss: Loss) -> Tensor:
    """Of all weights, in one row."""
    value = loss(model(images), labels, model.head)
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])


def many_draws(output: Tensor, labels: Sequence[str], head: Head, draws: int) -> Tensor:
    """The score function of many draws, some of them at once."""
    parts = [expected_metric(output, labels, head, TOGETHER) for _ in range(draws // TOGETHER)]
    return torch.stack(parts).mean()


def cosines(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Each rival's with the truth, and the halves' with one another."""
    torch.manual_seed(0)
    model = load(EXAMPLES / "checkpoints" / f"{name}.safetensors")
    images, labels = WordImages("train", 4000).batch(options.images)
    halves = [
        gradient(model, images, labels, partial(many_draws, draws=options.draws)) for _ in range(2)
    ]
    found = {"the halves": torch.cosine_similarity(*halves, 0).item()}
    truth = sum(halves)
    for rival, loss in RIVALS.items():
        own = gradient(model, images, labels, loss)
        found[rival] = torch.cosine_similarity(own, truth, 0).item()
    return found


def main() -> None:
    """Print the table."""
    options = parse()
    torch.set_num_threads(options.threads)
    columns = {name: cosines(name, options) for name in CHECKPOINTS}
    print("| | " + " | ".join(CHECKPOINTS) + " |\n" + "|---" * 5 + "|")
    for row in next(iter(columns.values())):
        print(f"| {row} | " + " | ".join(f"{c[row]:.3f}" for c in columns.values()) + " |")


if __name__ == "__main__":
    main()
