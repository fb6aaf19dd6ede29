"""Classes: one of several is said, and some mistakes cost more than others."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .problem import (
    Problem,
    Splits,
    Trick,
    cross_entropy,
    generator,
    perceptron,
    row_cross_entropy,
    split,
)
from .tricks import least_expected_cost

# Rows are the true class, columns the one that is said.
COST_OF_6 = torch.tensor(
    [
        [0, 1, 1, 1, 2, 20.0],
        [1, 0, 1, 1, 2, 10],
        [1, 1, 0, 1, 2, 10],
        [5, 5, 5, 0, 1, 5],
        [8, 8, 8, 1, 0, 1],
        [2, 2, 2, 2, 1, 0],
    ]
)
COST_OF_TAGS = torch.tensor(
    [
        [0, 1, 1, 1, 1.0],
        [1, 0, 1, 1, 1],
        [1, 1, 0, 1, 1],
        [4, 4, 4, 0, 1],
        [8, 8, 8, 1, 0],
    ]
)
# Ten groups of ten: within a group 1, else 4; the first group must not be overlooked.
GROUP = torch.arange(100) // 10
COST_OF_100 = torch.where(GROUP[:, None] == GROUP, 1.0, 4.0)
COST_OF_100[:10, 10:] = 15.0
COST_OF_100.fill_diagonal_(0)
COST_OF_GRADES = (torch.arange(8.0)[:, None] - torch.arange(8.0)).square()


def clusters(
    seed: int, samples: tuple[int, int, int], classes: int, shape: tuple[int, float, int, float]
) -> Splits:
    """Classes of several clusters each.

    Args:
        samples: in all, for training, for validation.
        shape: clusters a class, their spread, features, noise.
    """
    (count, train, validation), (parts, spread, features, noise) = samples, shape
    random = generator(seed)
    centres = spread * torch.randn(classes, parts, features, generator=random)
    target = torch.randint(0, classes, (count,), generator=random)
    part = torch.randint(0, parts, (count,), generator=random)
    x = centres[target, part] + noise * torch.randn(count, features, generator=random)
    return split(x, target, train, validation)


def grouped_classes() -> Splits:
    random = generator(35)
    centres = 1.3 * torch.randn(10, 16, generator=random).repeat_interleave(10, 0)
    centres = centres + 0.8 * torch.randn(100, 16, generator=random)
    target = torch.randint(0, 100, (18_000,), generator=random)
    x = centres[target] + 1.2 * torch.randn(18_000, 16, generator=random)
    return split(x, target, 5000, 4000)


def digits() -> Splits:
    """Handwritten digits, 8 x 8; 40 % of the training labels are drawn at random."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, target = torch.tensor(x / 8 - 1, dtype=torch.float32), torch.tensor(y)
    random = generator(5)
    order = torch.randperm(len(x), generator=random)
    x, target = x[order], target[order]
    is_wrong = torch.rand(len(target), generator=random) < 0.4
    other = torch.randint(0, 10, target.shape, generator=random)
    return split(x, target, 900, 300, torch.where(is_wrong, other, target))


def grades() -> Splits:
    """Progress of diabetes, in eight grades with as many patients each."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    edges = np.quantile(y, np.linspace(0, 1, 9)[1:-1])
    target = torch.tensor(np.digitize(y, edges))
    x = torch.tensor(x / x.std(0), dtype=torch.float32)
    order = torch.randperm(len(x), generator=generator(8))
    return split(x[order], target[order], 240, 80)


def sequences() -> Splits:
    """A tag for each of 12 positions, which depends on the neighbours; the last two are rare."""
    random = generator(36)
    x = torch.randn(5000, 12, 6, generator=random)
    weights = torch.randn(18, 5, generator=random) / 3
    around = torch.cat([x.roll(1, 1), x, x.roll(-1, 1)], -1)
    scores = around @ weights + 0.7 * torch.randn(5000, 12, 5, generator=random)
    scores = scores - torch.tensor([0, 0, 0, 1.0, 1.8])
    return split(x, scores.argmax(-1), 2000, 1000)


class Tagger(nn.Module):
    """Scores of five tags at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(6, 16, 3, padding=1), nn.ReLU(), nn.Conv1d(16, 5, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs.transpose(1, 2)).transpose(1, 2)


def truncated_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Generalised, with q = 0.7: made for labels with errors (Zhang and Sabuncu, 2018)."""
    likelihood = prediction.softmax(-1).gather(1, target[:, None]).squeeze(1)
    return (1 - likelihood**0.7) / 0.7


def outside_top_3(prediction: Tensor, target: Tensor) -> Tensor:
    return 1 - (prediction.topk(3, -1).indices == target[:, None]).any(-1).float()


def smoothed_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(prediction, target, reduction="none", label_smoothing=0.1)


def tag_costs(prediction: Tensor, target: Tensor) -> Tensor:
    return COST_OF_TAGS[target, prediction.argmax(-1)]


BAYES = "the class of least expected cost"
PROBLEMS = [
    Problem(
        name="top1",
        sentence="top-1 error, digits, 40 % of labels random (real data)",
        kind="classes",
        make_data=digits,
        model=lambda: perceptron(64, 32, 10),
        proxy=cross_entropy,
        metric=lambda prediction, target: (prediction.argmax(-1) != target).float(),
        trick=Trick("generalised cross-entropy", loss=truncated_cross_entropy),
        rate=3e-3,
        wrong_labels=True,
    ),
    Problem(
        name="top3",
        sentence="top-3 error, 20 classes",
        kind="classes",
        make_data=lambda: clusters(6, (9000, 4000, 2000), 20, (3, 1.3, 10, 0.9)),
        model=lambda: nn.Linear(10, 20),
        proxy=cross_entropy,
        metric=outside_top_3,
        trick=Trick("label smoothing", loss=smoothed_cross_entropy),
    ),
    Problem(
        name="costs",
        sentence="cost matrix, 6 classes",
        kind="classes",
        make_data=lambda: clusters(7, (8000, 3000, 2000), 6, (2, 1.2, 8, 1.3)),
        model=lambda: perceptron(8, 16, 6),
        proxy=cross_entropy,
        metric=lambda prediction, target: COST_OF_6[target, prediction.argmax(-1)],
        trick=Trick(BAYES, decide=least_expected_cost(COST_OF_6)),
    ),
    Problem(
        name="costs100",
        sentence="cost matrix, 100 classes",
        kind="classes",
        make_data=grouped_classes,
        model=lambda: perceptron(16, 64, 100),
        proxy=cross_entropy,
        metric=lambda prediction, target: COST_OF_100[target, prediction.argmax(-1)],
        trick=Trick(BAYES, decide=least_expected_cost(COST_OF_100)),
        steps=3000,
        rate=1e-3,
    ),
    Problem(
        name="ordinal",
        sentence="squared distance of 8 grades (real data)",
        kind="classes",
        make_data=grades,
        model=lambda: nn.Linear(10, 8),
        proxy=cross_entropy,
        metric=lambda prediction, target: (prediction.argmax(-1) - target).float().square(),
        trick=Trick(BAYES, decide=least_expected_cost(COST_OF_GRADES)),
        rate=3e-3,
    ),
    Problem(
        name="tags",
        sentence="cost of wrong tags in a sequence of 12",
        kind="sequences",
        make_data=sequences,
        model=Tagger,
        proxy=row_cross_entropy,
        metric=lambda prediction, target: tag_costs(prediction, target).mean(1),
        outputs=tag_costs,
        trick=Trick(BAYES, decide=least_expected_cost(COST_OF_TAGS)),
    ),
]
