"""Which loss of a list has the gradient of the metric's mean? The picture of docs/ranking.md.

The metric is averaged under Gaussian noise on the list's standardised scores, and its gradient
taken from many antithetic draws, which need nothing but the metric. For lists of 100, the cosine
of each loss's gradient with it, in the mean over the lists of a seed; the draws' own cosine is that
of two halves of them.

A sorter that `examples/fit_sorter.py` has fitted takes part with `--lstm`.

Example:
    python examples/benchmarks/list_gradients.py --lstm runs/lstm.safetensors
"""

import argparse
import functools
import statistics
from collections.abc import Callable
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from learned_surrogates import ranking

PICTURE = Path(__file__).parents[2] / "docs" / "_static" / "ranking.png"
LENGTH, LISTS, K, CHUNK = 100, 6, 10, 500

Loss = Callable[[Tensor, Tensor], Tensor]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, default=3)
    add("--noise", type=float, nargs="+", default=[0.1, 0.3])
    add("--draws", type=int, default=10_000, help="pairs of draws a list (default: %(default)s)")
    add("--lstm", type=Path, help="weights of an LSTMSorter")
    add("--picture", type=Path, default=PICTURE)
    return parser.parse_args()


def lists(kind: str, seed: int) -> tuple[Tensor, Tensor]:
    """Scores that know something of their targets, some lists more and some less."""
    random = torch.Generator().manual_seed(seed)
    worth, noise = torch.randn(2, LISTS, LENGTH, generator=random, dtype=torch.float64)
    separation = torch.linspace(0.5, 2, LISTS, dtype=torch.float64)[:, None]
    targets = worth
    if kind == "marks":  # one in ten
        targets = (worth >= worth.topk(LENGTH // 10, 1).values[:, -1:]).double()
    elif kind == "gains":
        targets = 2 ** (worth.exp() * 0.8).floor().clamp(0, 4) - 1
    return separation * worth + noise, targets


def order(scores: Tensor) -> Tensor:
    """Ranks, 1 for the highest."""
    return 1.0 + scores.argsort(-1, descending=True).argsort(-1)


def spearman(scores: Tensor, targets: Tensor) -> Tensor:
    squares = (order(scores) - order(targets)).square().sum(-1)
    return 1 - 6 * squares / (LENGTH * (LENGTH**2 - 1))


def average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    by_score = scores.argsort(-1, descending=True)
    hits = targets.expand_as(scores).gather(-1, by_score)
    precision = hits.cumsum(-1) / torch.arange(1, LENGTH + 1)
    return (precision * hits).sum(-1) / hits.sum(-1)


def ndcg(scores: Tensor, targets: Tensor) -> Tensor:
    ranks = order(scores)
    reached = (targets * (ranks <= K) / (1 + ranks).log2()).sum(-1)
    ideal = targets.topk(K, -1).values / torch.arange(2, K + 2).log2()
    return reached / ideal.sum(-1)


def drawn(
    metric: Loss, unit: Tensor, targets: Tensor, noise: float, draws: int, seed: int
) -> Tensor:
    """The gradient of one minus the metric's mean, of standardised scores."""
    random = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(unit)
    for _ in range(draws // CHUNK):
        step = torch.randn(CHUNK, *unit.shape, generator=random, dtype=unit.dtype)
        difference = metric(unit + noise * step, targets) - metric(unit - noise * step, targets)
        total -= (difference[..., None] * step).sum(0)
    return total / (2 * noise * draws)


def listnet(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with the gains as shares (Cao et al., ICML 2007)."""
    return -(targets / targets.sum(1, keepdim=True) * scores.log_softmax(1)).sum()


def discount_of_expected_rank(scores: Tensor, targets: Tensor, noise: float) -> Tensor:
    """In the form of ApproxNDCG (Qin, Liu, Li: Information Retrieval, 2010)."""
    ranks = ranking.expected_ranks(scores, noise=noise)
    ideal = targets.topk(K, -1).values / torch.arange(2, K + 2).log2()
    return -(targets / (1 + ranks).log2()).sum(1).div(ideal.sum(1)).sum()


def losses(noise: float, lstm: ranking.LSTMSorter | None) -> dict[str, tuple[Loss, str, dict]]:
    """For each metric its plain function, its kind of targets, and the losses made for it."""
    sorters = {
        "expected ranks": functools.partial(ranking.expected_ranks, noise=noise),
        "sigmoids, lambda 10": ranking.sigmoid_ranks,
        "blackbox ranks": functools.partial(ranking.blackbox_rank, strength=20.0),
    }
    if lstm is not None:
        sorters["bi-LSTM"] = lambda scores: lstm(scores.float()).double()
    options = {"noise": noise, "reduction": "sum"}
    squared = {
        f"SoDeep (4), {name}": functools.partial(
            ranking.squared_rank_loss, sorter=sorter, reduction="sum"
        )
        for name, sorter in sorters.items()
    }
    summed = {
        f"SoDeep (7), {name}": functools.partial(
            ranking.rank_sum_loss, sorter=sorter, reduction="sum"
        )
        for name, sorter in sorters.items()
    }
    return {
        "Spearman": (
            spearman,
            "numbers",
            {"squared error": functional.mse_loss}
            | squared
            | {"spearman_loss": functools.partial(ranking.spearman_loss, **options)},
        ),
        "AP": (
            average_precision,
            "marks",
            {"cross-entropy": functional.binary_cross_entropy_with_logits}
            | summed
            | {
                "average_precision_loss": functools.partial(
                    ranking.average_precision_loss, **options
                )
            },
        ),
        f"NDCG@{K}": (
            ndcg,
            "gains",
            {
                "ListNet": listnet,
                "discount of expected ranks": functools.partial(
                    discount_of_expected_rank, noise=noise
                ),
                "ndcg_loss": functools.partial(ranking.ndcg_loss, k=K, **options),
            },
        ),
    }


def cosine(a: Tensor, b: Tensor) -> float:
    """Mean over lists."""
    return float(torch.cosine_similarity(a, b, dim=1).mean())


def compare(
    metric: Loss, kind: str, made: dict[str, Loss], noise: float, seed: int, draws: int
) -> dict[str, float]:
    """Each loss's cosine, for the lists of one seed."""
    scores, targets = lists(kind, seed)
    scores.requires_grad_()
    unit = (scores - scores.mean(1, keepdim=True)) / scores.std(1, correction=0, keepdim=True)
    halves = [drawn(metric, unit.detach(), targets, noise, draws // 2, i) for i in range(2)]
    first, second = (torch.autograd.grad(unit, scores, h, retain_graph=True)[0] for h in halves)
    found = {"the draws, half with half": cosine(first, second)}
    for name, loss in made.items():
        (gradient,) = torch.autograd.grad(loss(scores, targets), scores)
        found[name] = cosine(gradient, first + second)
    return found


def draw(tables: dict[float, dict[str, dict[str, list[float]]]], file: Path) -> None:
    """A panel a metric, a line a loss, a colour a width of noise."""
    panels = next(iter(tables.values()))
    heights = [len(rows) for rows in panels.values()]
    colours = ("#0072B2", "#D55E00", "#009E73")
    with matplotlib.rc_context({"font.size": 9, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(7.5, 1.2 + 0.27 * sum(heights)), layout="constrained")
        every = figure.subplots(len(panels), 1, height_ratios=heights, sharex=True, squeeze=False)
        for axes, (metric, rows) in zip(every[:, 0], panels.items()):
            names = list(rows)[::-1]
            for colour, (noise, table) in zip(colours, tables.items()):
                means = [statistics.mean(table[metric][name]) for name in names]
                spread = [statistics.pstdev(table[metric][name]) for name in names]
                axes.errorbar(
                    means, range(len(names)), xerr=spread, fmt="o", color=colour, label=f"{noise:g}"
                )
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(-0.6, len(names) - 0.4)
            axes.set_title(metric, loc="left", fontsize=9, fontweight="bold")
            axes.grid(axis="y", color="#dddddd", linewidth=0.6)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("cosine with the gradient of the metric's mean under noise; 1 is the same")
        figure.legend(
            *axes.get_legend_handles_labels(),
            title="noise, in standard deviations of the scores",
            loc="outside upper right",
            ncols=len(tables),
            frameon=False,
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=130, metadata={"Software": None})


def main() -> None:
    """Measure, print, draw."""
    options = parse()
    torch.set_num_threads(1)
    lstm = None
    if options.lstm:
        lstm = ranking.LSTMSorter()
        lstm.load_state_dict(load_file(options.lstm))
    tables: dict[float, dict[str, dict[str, list[float]]]] = {}
    for noise in options.noise:
        table = tables.setdefault(noise, {})
        for name, (metric, kind, made) in losses(noise, lstm).items():
            rows = table.setdefault(name, {})
            for seed in range(options.seeds):
                found = compare(metric, kind, made, noise, seed, options.draws)
                for loss, value in found.items():
                    rows.setdefault(loss, []).append(value)
            for loss, values in rows.items():
                spread = statistics.pstdev(values)
                mean = statistics.mean(values)
                print(f"{noise:g}  {name:9} {loss:36} {mean:.3f} ± {spread:.3f}", flush=True)
    draw(tables, options.picture)


if __name__ == "__main__":
    main()
