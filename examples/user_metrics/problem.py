"""What a problem of the study is made of, and the parts that several share."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

# `(predictions, targets) -> (batch,)`, or `(batch, outputs)` for one value an output.
Metric = Callable[[Tensor, Tensor], Tensor]
Splits = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Trick:
    """What one tries first, and what a loss that takes any metric has to beat.

    Attributes:
        sentence: for the table.
        loss: in place of the proxy; None keeps that.
        decide: of the validation split's predictions and targets makes a function that changes
            predictions before the metric sees them: a threshold, a decision by expected costs.
    """

    sentence: str
    loss: Metric | None = None
    decide: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]] | None = None


@dataclass(frozen=True)
class Problem:
    """A metric that a user might have, with data, a small model and the loss one usually takes.

    Attributes:
        name: on the command line and of the results file.
        sentence: the metric, for the table.
        kind: of outputs.
        make_data: makes the splits "train", "validation" and "test", inputs and targets each.
        model: makes the model, from torch's random stream.
        proxy: the usual loss, `(batch,)`.
        metric: `(batch,)`, lower is better.
        outputs: the same with one value an output, `(batch, outputs)`, whose mean is the metric.
        trick: the control; None where there is no obvious one.
        steps: of the proxy, before the study begins.
        rate: its learning rate in them.
        wrong_labels: whether training targets have errors that the others lack.
    """

    name: str
    sentence: str
    kind: str
    make_data: Callable[[], Splits]
    model: Callable[[], nn.Module]
    proxy: Metric
    metric: Metric
    outputs: Metric | None = None
    trick: Trick | None = None
    steps: int = 5000
    rate: float = 1e-2
    wrong_labels: bool = False

    @functools.cached_property
    def data(self) -> Splits:
        return self.make_data()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def split(
    inputs: Tensor, targets: Tensor, train: int, validation: int, given: Tensor | None = None
) -> Splits:
    """Splits in the samples' order.

    Args:
        train, validation: how many samples they get; the rest is for the test.
        given: training targets where they differ from the right ones.
    """
    given = targets if given is None else given
    end = train + validation
    return {
        "train": (inputs[:train], given[:train]),
        "validation": (inputs[train:end], targets[train:end]),
        "test": (inputs[end:], targets[end:]),
    }


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )


class Scaled(nn.Module):
    """A perceptron whose outputs begin in the units of the targets."""

    def __init__(self, net: nn.Module, centre: float, scale: float):
        super().__init__()
        self.net, self.centre, self.scale = net, centre, scale

    def forward(self, inputs: Tensor) -> Tensor:
        return self.centre + self.scale * self.net(inputs)


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().flatten(1).mean(1)


def absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).abs().flatten(1).mean(1)


def forgiving(error: Tensor, tolerance: float) -> Tensor:
    """Welsch's loss `1 - exp(-(error / tolerance)^2 / 2)`, which counts a large error once."""
    return (1 - (-(error / tolerance).square() / 2).exp()).flatten(1).mean(1)


def smooth_absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    return functional.smooth_l1_loss(prediction, target, reduction="none").flatten(1).mean(1)


def cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(prediction, target, reduction="none")


def row_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Of logits `(batch, rows, classes)`."""
    return cross_entropy(prediction.transpose(1, 2), target).mean(1)


def binary_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Of logits, with positive targets as the one class."""
    losses = functional.binary_cross_entropy_with_logits(
        prediction, (target > 0).float(), reduction="none"
    )
    return losses.flatten(1).mean(1)
