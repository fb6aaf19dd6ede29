"""The picture of docs/retrieval.md: how hard the loss pulls at a positive, by its rank.

Example:
    python examples/benchmarks/recall_picture.py
"""

import argparse
import math
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from learned_surrogates.retrieval import RecallAtK

FILE = Path(__file__).parents[2] / "docs" / "_static" / "recall-at-k.png"
RANKS = torch.arange(1, 65)
# Legend, list lengths, colour (Okabe and Ito).
SHOWN = (
    ("k = 1", (1,), "#56B4E9"),
    ("k = 16", (16,), "#E69F00"),
    ("k = 1, 2, 4, 8, 16: the default", (1, 2, 4, 8, 16), "#0072B2"),
)


def pull(ks: tuple[int, ...], rank: int) -> float:
    """The loss's derivative by the positive's angle to the query, towards it.

    Of a query with one positive, each rank a step of 0.02 in cosine: the others lie to both sides
    of the positive, as many before it as its rank says.
    """
    cosines = 0.6 + 0.02 * (torch.arange(80, dtype=torch.float64) - (81 - rank) + 0.5)
    angles = torch.cat([torch.tensor([0.0, math.acos(0.6)]), cosines.clamp(-1, 1).acos()])
    angles = angles.double().requires_grad_()
    RecallAtK(ks)(on_circle(angles), torch.tensor([0, 0, *range(1, 81)])).backward()
    assert angles.grad is not None
    return angles.grad[1].item()


def on_circle(angles: Tensor) -> Tensor:
    return torch.stack([angles.cos(), angles.sin()], 1)


def main() -> None:
    """Draw."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with matplotlib.rc_context({"font.size": 9, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(7, 2.8), layout="constrained")
        axes = figure.subplots()
        for label, ks, colour in SHOWN:
            axes.plot(RANKS, [pull(ks, int(r)) for r in RANKS], color=colour, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
        axes.set_xlabel("rank of the positive")
        axes.set_ylabel("pull towards the query")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(FILE, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
