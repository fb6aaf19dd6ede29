"""Good calls of every task, to be spoilt."""

import copy
import functools
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from conftest import make_arguments, make_loss
from torch import Tensor

from learned_surrogates import LearnedSurrogateLoss, boxes

# How a loss of each case is called.
NAMES = {
    "tensors": ("prediction", "target"),
    "measured": ("prediction", "target"),
    "ctc": ("log_probs", "targets", "input_lengths", "target_lengths"),
    "characters": ("input", "target"),
    "rotated": ("pred", "target"),
    "upright": ("pred", "target"),
    "corners": ("pred", "target"),
}
CASES = (
    "tensors",
    "measured",
    "ctc",
    "ctc-auto",
    "characters",
    "characters-auto",
    "rotated",
    "upright",
    "corners",
)
BOXES = {"rotated": boxes.Rotated, "upright": boxes.AxisAligned, "corners": boxes.Corners}
MODES = ("train", "eval", "no_grad", "inference")


@dataclass
class Call:
    """A call of a loss.

    Attributes:
        case: one of `CASES`.
        arguments: by name, the prediction first.
        superfluous: positional arguments behind those.
        by_keyword: whether the arguments are given by name.
        reduction: the loss's at this call.
        mode: one of `MODES`.
        same: whether it still means what the good call meant.
        history: what was done to it.
    """

    case: str
    arguments: dict[str, Any]
    superfluous: tuple[Any, ...] = ()
    by_keyword: bool = False
    reduction: Any = "none"
    mode: str = "train"
    same: bool = True
    history: list[str] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES[self.case.partition("-")[0]]

    @property
    def prediction(self) -> Any:
        return self.arguments.get(self.names[0])

    @property
    def batch_dim(self) -> int:
        return 1 if self.case.startswith("ctc") else 0

    @property
    def is_text(self) -> bool:
        return self.case.startswith(("ctc", "characters"))

    @property
    def batch(self) -> tuple[int, ...]:
        """`(batch,)`, or `()` for one sample without."""
        if self.is_text and self.prediction.ndim == 2:
            return ()
        return (self.prediction.shape[self.batch_dim],)

    def counts(self) -> Tensor:
        """Which numbers of the prediction count, as a mask of its shape."""
        prediction = self.prediction
        mask = torch.ones(prediction.shape, dtype=torch.bool)
        if self.case.startswith("ctc"):
            lengths = torch.as_tensor(self.arguments["input_lengths"]).reshape(-1)
            present = torch.arange(len(prediction))[:, None] < lengths
            return mask & (present if self.batch else present[:, 0])[..., None]
        if self.is_text:
            present = torch.as_tensor(self.arguments["target"]) != -100
            return mask & (present[:, None] if self.batch else present)
        return mask

    def is_no_nan(self) -> Tensor:
        return ~(self.prediction.detach().isnan() & self.counts())

    def is_sane(self) -> Tensor:
        """Which numbers allow a finite loss."""
        numbers = self.prediction.detach().float()
        if not self.is_text:
            return numbers.abs() < 100
        # A class may be impossible, as log 0 says, but not all of them.
        dim = -1 if self.case.startswith("ctc") else -2
        some = numbers.isfinite().any(dim, keepdim=True)
        return ~(numbers.isnan() | numbers.isposinf() | ~some) | ~self.counts()

    def targets_are_sane(self) -> bool:
        targets = [self.arguments[name] for name in self.names[1:]]
        tensors = [target.float() for target in targets if isinstance(target, Tensor)]
        return all(bool((target.abs() < 1e6).all()) for target in tensors)

    def by_sample(self, holds: Tensor) -> Tensor:
        """A mask of the prediction's shape, whether it holds for all of a sample: `batch`."""
        if not self.batch:
            return holds.all()
        return holds.movedim(self.batch_dim, 0)[:, None].flatten(1).all(1)

    def made_by(self, criterion: LearnedSurrogateLoss) -> Tensor:
        criterion.train(self.mode != "eval")
        criterion.reduction = self.reduction
        with entered(self.mode):
            if self.by_keyword:
                return criterion(*self.superfluous, **self.arguments)
            return criterion(*self.arguments.values(), *self.superfluous)


@contextmanager
def entered(mode: str):
    if mode == "no_grad":
        with torch.no_grad():
            yield
    elif mode == "inference":
        with torch.inference_mode():
            yield
    else:
        yield


def good_call(case: str, seed: int = 0, length: int = 9, **options) -> Call:
    """A call that a loss of this case answers."""
    kind = case.partition("-")[0]
    values = make_arguments(case, seed, length=length)
    if kind in BOXES:
        values = box_arguments(kind, seed)
    values = (values[0], *(value.clone() for value in values[1:]))
    return Call(case, dict(zip(NAMES[kind], values, strict=True)), **options)


def box_arguments(kind: str, seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    low = 5 * torch.rand(4, 2, generator=random)
    sides = 1 + 2 * torch.rand(4, 2, generator=random)
    if kind == "rotated":
        target = torch.cat([low, sides, torch.randn(4, 1, generator=random)], 1)
    elif kind == "upright":
        target = torch.cat([low, low + sides], 1)
    else:
        corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        target = (low[:, None] + sides[:, None] * corners).flatten(1)
    prediction = target + 0.2 * torch.randn(target.shape, generator=random)
    return prediction.requires_grad_(), target


@functools.cache
def template(case: str, called: bool, on_metric_error: str) -> LearnedSurrogateLoss:
    options: dict[str, Any] = {"on_metric_error": on_metric_error}
    kind = case.partition("-")[0]
    if kind in BOXES:
        options |= {"metric": boxes.rotated_iou, "task": BOXES[kind](noise=0.05)}
        surrogate = "embedding" if kind == "upright" else "target-frame"
        criterion = make_loss("tensors", surrogate=surrogate, data="local", **options)
    else:
        criterion = make_loss(case, data="local", **options)
    for seed in range(2 if called else 0):
        good_call(case, seed).made_by(criterion)
    return criterion


def make_criterion(case: str, called: bool, on_metric_error: str) -> LearnedSurrogateLoss:
    """A loss of this case that updates at every call, called twice before or never."""
    return copy.deepcopy(template(case, called, on_metric_error))
