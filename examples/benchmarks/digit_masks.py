"""Digits found among shreds of others: masks, tuned by every loss from one checkpoint.

Handwritten digits of scikit-learn, or MNIST's (`--digits mnist`), of 10 to 20 pixels and low
contrast, lie in noise among pieces of other digits; training, validation and test have digits of
their own. A small net is trained with binary cross-entropy and tuned by as many steps with each
loss, at the rate with which the first seed is best on validation: by IoU, or by the outline's F1
where that is trained on. Controls are cross-entropy continued, its threshold chosen on validation,
and the smooth IoU in closed form. NeuroIoU is fitted within `LearnedSurrogateLoss`, and followed
alone.

With `--wrong`, that share of training scenes has another scene's mask; with `--moved`, thresholds
are moved before the tuning, in the model's last bias. MNIST's digits, and losses of other packages,
need `pip install --group rivals`. Writes into results/digit_masks.json.

Example:
    python examples/benchmarks/digit_masks.py
"""

import argparse
import copy
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss, Tensors
from learned_surrogates.segmentation import Masks, NeuroIoU, counts, dataset_iou, iou, soft_iou
from lib.digit_scenes import VALIDATION, Net, Split, splits
from lib.rivals import rival
from lib.runs import Row, at_best_rate, keep_committed, read, spread, write
from user_metrics.masks import one_minus_boundary_f1

RESULTS = Path(__file__).parent / "results" / "digit_masks.json"
BATCH = 32
Objective = Callable[[Tensor, Tensor], Tensor]


def neuro(form: str) -> Callable[[Tensor, Tensor, int], Objective]:
    """NeuroIoU as published: fitted to the checkpoint's predictions first, then followed."""

    def make(logits: Tensor, masks: Tensor, seed: int) -> Objective:
        surrogate = NeuroIoU(logits, masks, form=form, seed=seed)
        criterion = LearnedSurrogateLoss(
            iou, task=Tensors(smoothing=0), surrogate=surrogate, seed=seed
        )
        criterion.warm_up(zip(logits.split(BATCH), masks.split(BATCH)))
        return criterion

    return make


def outline_error(said: Tensor, true: Tensor) -> Tensor:
    """One minus the F1 of outlines that may be a pixel off, of masks `(images, height, width)`."""
    return one_minus_boundary_f1(said[:, None].float() - 0.5, true[:, None].float())


def scaled_soft_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """With probabilities as steep as noise of 0.3 of the logits' deviation makes them."""
    return 1 - soft_iou(1.7 * logits / (0.3 * logits.std()), masks).mean()


def measured(metric: Callable[..., Tensor], noise: float) -> Callable[..., Objective]:
    """The class on a metric of masks; that of IoU is known in closed form, and followed."""
    settings = {} if metric is iou else {"batched": True, "higher_is_better": False}
    return lambda _, __, seed: LearnedSurrogateLoss(
        metric, task=Masks(noise=noise), seed=seed, **settings
    )


def of(package: str, name: str, *args: object, **settings: object) -> Callable[..., Objective]:
    """A loss of another package, imported when it is made."""
    return lambda *_: getattr(rival(f"{package}.losses"), name)(*args, **settings)


CONTROL = "cross-entropy, continued"
# Of other packages, for `--losses` to name.
SMP = "segmentation_models_pytorch"
RIVALS: dict[str, Callable[..., Objective]] = {
    "smp LovaszLoss": of(SMP, "LovaszLoss", "binary", per_image=True),
    "smp JaccardLoss": of(SMP, "JaccardLoss", "binary"),
    "smp DiceLoss": of(SMP, "DiceLoss", "binary"),
    "monai DiceLoss": of("monai", "DiceLoss", sigmoid=True),
    "monai TverskyLoss": of("monai", "TverskyLoss", sigmoid=True, alpha=0.3, beta=0.7),
}
# Each of the checkpoint's logits on training scenes, their masks, and a seed.
OBJECTIVES: dict[str, Callable[[Tensor, Tensor, int], Objective]] = {
    CONTROL: lambda *_: F.binary_cross_entropy_with_logits,
    "1 - soft IoU": lambda *_: lambda logits, masks: 1 - soft_iou(logits, masks).mean(),
    "1 - soft IoU, scaled": lambda *_: scaled_soft_iou,
    "NeuroIoU-3": neuro("neuro-3"),
    "NeuroIoU-6": neuro("neuro-6"),
    "NeuroIoU, hinge": neuro("hinge"),
    "NeuroIoU, counts of all pixels": neuro("counts"),
    "IoU, plain tensors": lambda _, __, seed: LearnedSurrogateLoss(iou, seed=seed),
    "IoU, Masks()": measured(iou, 0.3),
    "IoU, Masks(noise=1.0)": measured(iou, 1.0),
    "outline, Masks()": measured(outline_error, 0.3),
    "outline, Masks(noise=1.0)": measured(outline_error, 1.0),
}


def train(
    model: nn.Module, split: Split, objective: Objective, *, steps: int, rate: float, seed: int
) -> nn.Module:
    """Adam, whose rate falls by a cosine."""
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)
    images, masks = split
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        some = torch.randint(0, len(images), (BATCH,), generator=random)
        optimizer.zero_grad()
        objective(model(images[some]), masks[some]).backward()
        optimizer.step()
    return model


@torch.no_grad()
def logits_of(model: nn.Module, split: Split) -> Tensor:
    return torch.cat([model(part) for part in split[0].split(200)])


def scores(logits: Tensor, masks: Tensor) -> dict[str, float]:
    """In per cent: mean IoU of images, of those with the smaller half of masks, and so on."""
    each, areas = iou(logits, masks), masks.sum((1, 2, 3))
    found = {
        "IoU of images": each.mean(),
        "of small ones": each[areas <= areas.median()].mean(),
        "of the data set": dataset_iou(counts(logits, masks)),
        "F1 of the outline": 1 - one_minus_boundary_f1(logits, masks).mean(),
    }
    return {name: 100 * value.item() for name, value in found.items()}


def best_thresholds(logits: Tensor, masks: Tensor) -> dict[str, float]:
    """By score, the logit above which predictions have the best."""
    tried = {step / 4: scores(logits - step / 4, masks) for step in range(-16, 5)}
    columns = next(iter(tried.values()))
    return {column: max(tried, key=lambda t: tried[t][column]) for column in columns}


@torch.no_grad()
def move_threshold(model: nn.Module, split: Split) -> None:
    """So that a logit of zero is the threshold that is best for IoU."""
    model.last.bias -= best_thresholds(logits_of(model, split), split[1])["IoU of images"]


def row(loss: str, rate: float | None, seed: int, logits: dict[str, Tensor], data: dict) -> Row:
    """A run's scores."""
    found = {split: scores(logits[split], data[split][1]) for split in ("validation", "test")}
    return {"loss": loss, "rate": rate, "seed": seed} | found


def rows_of(model: nn.Module, loss: str, rate: float | None, seed: int, data: dict) -> list[Row]:
    """Those of a model: as it is and, of the control, with its threshold chosen for two scores."""
    logits = {split: logits_of(model, data[split]) for split in ("validation", "test")}
    rows = [row(loss, rate, seed, logits, data)]
    if loss == CONTROL:
        thresholds = best_thresholds(logits["validation"], data["validation"][1])
        for name, column in (("IoU", "IoU of images"), ("outlines", "F1 of the outline")):
            moved = {split: found - thresholds[column] for split, found in logits.items()}
            rows.append(row(f"{loss}, threshold for {name}", rate, seed, moved, data))
    return rows


def error(run: Row) -> float:
    """On validation, of the metric that the loss or the threshold is for."""
    is_of_outlines = "outline" in run["loss"]
    return -run["validation"]["F1 of the outline" if is_of_outlines else "IoU of images"]


def tuned(loss: str, checkpoints: Sequence[nn.Module], data: dict, options: argparse.Namespace):
    """Runs of one loss, by rows: the first seed at each rate, the others at its best."""
    given = tuple(part[:1000] for part in data["train"])
    found: list[Row] = []
    rates = options.rates
    for seed, checkpoint in enumerate(checkpoints):
        for rate in rates:
            objective = EVERY[loss](logits_of(checkpoint, given), given[1], seed)
            settings = {"steps": options.steps, "rate": rate, "seed": 100 + seed}
            model = train(copy.deepcopy(checkpoint), data["train"], objective, **settings)
            found += rows_of(model, loss, rate, seed, data)
        if seed == 0:
            rates = [min((run for run in found if run["loss"] == loss), key=error)["rate"]]
    return found


EVERY = OBJECTIVES | RIVALS


def main() -> None:
    """Train, tune, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--digits", choices=list(VALIDATION), default="scikit-learn")
    add("--wrong", type=float, default=0.0, help="share of training scenes with another's mask")
    add("--seeds", type=int, default=3)
    add("--before", type=int, default=600, help="steps of cross-entropy to the checkpoint")
    add("--moved", action="store_true", help="move the checkpoints' thresholds first")
    add("--steps", type=int, default=150, help="steps of each loss from there")
    add("--rates", type=float, nargs="+", default=[1e-3, 3e-3])
    add("--losses", nargs="+", choices=list(EVERY), default=list(OBJECTIVES))
    add("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    keep_committed(parser, options, "seeds", "before", "rates")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that a surrogate does badly is what the table shows
    data = splits(options.digits, options.wrong)
    names = ("digits", "wrong", "moved", "steps")
    setting = {name: getattr(options, name) for name in names}
    checkpoints = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        settings = {"steps": options.before, "rate": 3e-3, "seed": seed}
        entropy = F.binary_cross_entropy_with_logits
        checkpoints.append(train(Net(), data["train"], entropy, **settings))
        if options.moved:
            move_threshold(checkpoints[-1], data["validation"])
    columns = list(scores(*[data["test"][1]] * 2))
    print(f"| loss | {' | '.join(columns)} | rate |\n|---|{'---|' * len(columns)}---|")

    def show(rows: list[Row]) -> None:
        """Writes rows down in the place of those that they repeat, and prints their means."""
        names = {run["loss"]: None for run in rows}
        kept = [
            r
            for r in read(options.results)
            if r["loss"] not in names or not setting.items() <= r.items()
        ]
        write(options.results, kept + [setting | run for run in rows])
        for name in names:
            chosen = at_best_rate([run for run in rows if run["loss"] == name], error)
            cells = [spread([run["test"][column] for run in chosen], 1) for column in columns]
            print(f"| {name} | {' | '.join(cells)} | {chosen[0]['rate'] or ''} |", flush=True)

    show([r for s, m in enumerate(checkpoints) for r in rows_of(m, "checkpoint", None, s, data)])
    for loss in options.losses:
        show(tuned(loss, checkpoints, data, options))


if __name__ == "__main__":
    main()
