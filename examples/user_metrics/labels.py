"""Labels: each output is right or wrong by its sign, and the costs are the user's."""

import torch
from torch import Tensor

from .problem import (
    Problem,
    Splits,
    Trick,
    binary_cross_entropy,
    generator,
    perceptron,
    split,
    squared_error,
)
from .tricks import best_bias


def signs_of_6() -> Splits:
    random = generator(1)
    x = torch.randn(8000, 8, generator=random)
    linear, waves = (torch.randn(8, 6, generator=random) for _ in range(2))
    noise = torch.randn(8000, 6, generator=random)
    return split(x, (x @ linear + 3 * (x @ waves).sin() + noise).sign(), 3000, 2000)


def signs_of_100() -> Splits:
    """Targets of one sign and two sizes: squared error cares for the large ones."""
    random = generator(32)
    x = torch.randn(6000, 16, generator=random)
    weights = torch.randn(16, 100, generator=random)
    target = (x @ weights + 2.5 * torch.randn(6000, 100, generator=random)).sign()
    target = target * (1 + 6 * (torch.rand(6000, 100, generator=random) < 0.15))
    return split(x, target, 3000, 1500)


def rare_labels(seed: int, samples: int, features: int, labels: int, scale: float) -> Splits:
    random = generator(seed)
    x = torch.randn(samples, features, generator=random)
    weights = torch.randn(features, labels, generator=random)
    noise, threshold = (0.8, 0.9) if labels == 12 else (0.6, 1.4)
    scores = x @ weights / scale + noise * torch.randn(samples, labels, generator=random)
    target = (scores > threshold).float()
    target[target.sum(1) == 0, 0] = 1.0
    return split(x, target, 3000, samples // 4)


def tumours() -> Splits:
    """Wisconsin breast cancer, six features, blurred: sick is 1."""
    from sklearn.datasets import load_breast_cancer

    x, healthy = load_breast_cancer(return_X_y=True)
    inputs = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)[:, :6]
    target = torch.tensor(1 - healthy, dtype=torch.float32)[:, None]
    order = torch.randperm(len(inputs), generator=generator(3))
    inputs, target = inputs[order], target[order]
    inputs = inputs + 0.5 * torch.randn(inputs.shape, generator=generator(4))
    return split(inputs, target, 250, 120)


def wrong_signs(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction.sign() != target.sign()).float()


def one_minus_f1(prediction: Tensor, target: Tensor) -> Tensor:
    said = (prediction > 0).float()
    hits = (said * target).sum(-1)
    return 1 - 2 * hits / (said.sum(-1) + target.sum(-1)).clamp(min=1)


def cost_of_a_miss(prediction: Tensor, target: Tensor) -> Tensor:
    said = (prediction > 0).float()
    return (10 * target * (1 - said) + (1 - target) * said).sum(-1)


THRESHOLD = "a threshold chosen on validation"
PROBLEMS = [
    Problem(
        name="hamming",
        sentence="wrong signs, of 6",
        kind="labels",
        make_data=signs_of_6,
        model=lambda: perceptron(8, 16, 6),
        proxy=binary_cross_entropy,
        metric=lambda prediction, target: wrong_signs(prediction, target).sum(-1),
        outputs=lambda prediction, target: 6 * wrong_signs(prediction, target),
    ),
    Problem(
        name="ham100",
        sentence="share of wrong signs, of 100",
        kind="labels",
        make_data=signs_of_100,
        model=lambda: perceptron(16, 32, 100),
        proxy=squared_error,
        metric=lambda prediction, target: wrong_signs(prediction, target).mean(-1),
        outputs=wrong_signs,
        trick=Trick("cross-entropy of the signs", loss=binary_cross_entropy),
        steps=3000,
    ),
    Problem(
        name="f1",
        sentence="1 - F1 of 12 labels",
        kind="labels",
        make_data=lambda: rare_labels(2, 8000, 12, 12, 3.5),
        model=lambda: perceptron(12, 16, 12),
        proxy=binary_cross_entropy,
        metric=one_minus_f1,
        trick=Trick(THRESHOLD, decide=best_bias(one_minus_f1)),
    ),
    Problem(
        name="f1_100",
        sentence="1 - F1 of 100 labels",
        kind="labels",
        make_data=lambda: rare_labels(33, 6000, 16, 100, 4),
        model=lambda: perceptron(16, 32, 100),
        proxy=binary_cross_entropy,
        metric=one_minus_f1,
        trick=Trick(THRESHOLD, decide=best_bias(one_minus_f1)),
        steps=3000,
    ),
    Problem(
        name="tumour",
        sentence="a missed tumour costs 10, a false alarm 1 (real data)",
        kind="labels",
        make_data=tumours,
        model=lambda: perceptron(6, 16, 1),
        proxy=binary_cross_entropy,
        metric=cost_of_a_miss,
        trick=Trick(THRESHOLD, decide=best_bias(cost_of_a_miss)),
        rate=3e-3,
    ),
]
