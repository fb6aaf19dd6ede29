"""The task of a loss that is given none: plain tensors."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ._batch import Batch, lasting
from ._learning.sync import Sync
from ._measured.forms import NAMES
from ._measured.gaussian import Gaussian
from ._metric.metric import Metric
from ._perfect import perfect_predictions
from ._recipe import Recipe
from ._support.checks import check_number, check_tensor
from ._support.precision import at_least_float32
from ._surrogate import conditioned, embedding_distance, pair_regression
from ._task import Task

#: Surrogates: of those the slope is fitted, of these the values.
SLOPES = ("auto", "none", *NAMES)
BUILDERS: dict[str, Callable[[Tensor, Tensor], nn.Module]] = {
    "embedding": embedding_distance,
    "conditioned": conditioned,
    "pair": pair_regression,
}

TEXTS = "For text, give the loss a task: text.CTC(...) or text.PerPosition(...)"
PREDICTIONS = (
    "Hand over several predictions as one tensor, torch.cat([...], 1), and have the metric take it "
    "apart"
)
TARGETS = (
    "Hand over several targets as one tensor, torch.stack([...], 1), or as a list with an entry "
    "for each sample, [{key: value[i] for key, value in targets.items()} for i in range(batch)]"
)


@dataclass(frozen=True, kw_only=True)
class TensorBatch(Batch):
    """A batch of plain tensors.

    Attributes:
        targets: as the metric gets them; `target` has no numbers where they are no tensor.
    """

    targets: Any


class Tensors(Task[TensorBatch]):
    """Predictions are tensors with a batch dimension, and the metric gets them as such.

    The task of a loss that is given none. It is called as `criterion(prediction, target)`; the
    metric gets copies of both. Targets may be a tensor or an array of any type, or a list with an
    entry of any kind for each sample. The surrogate only sees tensors: with a list, the gradient is
    measured without one.

    Args:
        smoothing: standard deviation, in the prediction's units, of the Gaussian noise under which
            the metric's mean is followed: a number, or a tensor that broadcasts to a sample of the
            prediction. None follows a rule: 0.35 of the smaller of two spreads, the outputs' and
            that of prediction - target where both have one shape. Outputs share it, unless they are
            at most 32 and differ more than tenfold in scale; those that hardly vary share it, too.
            With 0 there is no noise and nothing to be measured: a surrogate is fitted to the
            metric's values and followed, as in LS; then targets must be tensors.

    Raises:
        TypeError, ValueError: `smoothing` is no number or tensor, or not positive and finite.
        TypeError: at a call, the prediction is no tensor of floating-point numbers.
        ValueError: at a call, the batch sizes differ, or `smoothing` has another shape.

    Example:
        >>> import torch
        >>> from learned_surrogates import LearnedSurrogateLoss
        >>> def largest_error(prediction, target):
        ...     return (prediction - target).abs().amax(dim=-1)
        >>> criterion = LearnedSurrogateLoss(largest_error)
        >>> prediction = torch.randn(8, 4, requires_grad=True)
        >>> criterion(prediction, torch.randn(8, 4)).backward()
        >>> prediction.grad.shape
        torch.Size([8, 4])
    """

    # A subclass need not call `__init__`: these are what it leaves without arguments.
    measured = can_sample = True
    smoothing: float | Tensor | None = None
    fits_values = "task=Tensors(smoothing=0)"
    to_draw = "plain tensors have one unless smoothing=0"
    draws = 2
    surrogates = SLOPES

    def __init__(self, *, smoothing: float | Tensor | None = None):
        if isinstance(smoothing, Tensor):
            check_tensor("smoothing", smoothing)
            smoothing = smoothing.detach().float()
            if not ((smoothing > 0) & smoothing.isfinite()).all():
                raise ValueError(f"smoothing must be positive and finite; got {smoothing!r}")
        elif smoothing is not None:
            check_number("smoothing", smoothing, 0, integer=False)
        self.smoothing = smoothing
        if not isinstance(smoothing, Tensor) and smoothing == 0:
            self.measured = self.can_sample = False
            self.draws, self.surrogates = 0, tuple(BUILDERS)

    @property
    def learning_rate(self) -> float:
        # Slopes are fitted to what varies from draw to draw: larger steps, from the first calls on.
        return 5e-3 if self.measured else super().learning_rate

    def estimator(
        self,
        metric: Metric,
        recipe: Recipe,
        surrogate: str | nn.Module,
        sync: Sync,
        random: torch.Generator,
    ) -> Gaussian:
        return Gaussian(self, self.smoothing, recipe, surrogate, sync, random)

    def check_draws(self, count: int, metric: Metric) -> None:
        super().check_draws(count, metric)
        if self.measured and (count < 2 or count % 2):
            raise ValueError(
                f"draws={count}: draws around a tensor come in pairs, at least one: give 2, 4, "
                f"...; or fit a surrogate to the metric's values, {self.fits_values}"
            )

    def __repr__(self) -> str:
        return "Tensors()" if self.smoothing is None else f"Tensors(smoothing={self.smoothing})"

    def read(self, prediction: Tensor, target: Any) -> TensorBatch:
        if not isinstance(prediction, Tensor):
            raise TypeError(
                "prediction must be a tensor with a batch dimension; got "
                f"{type(prediction).__name__}. {_remedy(prediction, PREDICTIONS)}"
            )
        _check_samples("prediction", prediction)
        if not prediction.is_floating_point():
            raise TypeError(
                f"prediction must be floating point to carry a gradient; it is {prediction.dtype}. "
                "Give the loss the model's output before any argmax or threshold"
            )
        self._check_smoothing(prediction.shape[1:])
        targets, seen = self._targets(target, prediction)
        count = len(seen)
        if len(prediction) != count:
            had = tuple(target.shape) if isinstance(target, Tensor) else f"{count} targets"
            raise ValueError(
                f"prediction and target must have the same batch size; their shapes are "
                f"{tuple(prediction.shape)} and {had}"
                + (f". {TARGETS}" if isinstance(target, tuple) else "")
            )
        return TensorBatch(prediction=prediction, target=seen, targets=targets)

    def _check_smoothing(self, sample: torch.Size) -> None:
        """Checks that a width given as a tensor broadcasts to a sample."""
        if not isinstance(self.smoothing, Tensor):
            return
        try:
            self.smoothing.expand(sample)
        except RuntimeError:
            raise ValueError(
                f"smoothing, of shape {tuple(self.smoothing.shape)}, does not go with samples of "
                f"shape {tuple(sample)} of the prediction"
            ) from None

    def _targets(self, target: Any, prediction: Tensor) -> tuple[Any, Tensor]:
        """Targets as the metric gets them, and as the surrogate sees them, if it can."""
        if isinstance(target, Tensor):
            _check_samples("target", target)
            target = lasting(target.to(prediction.device))
            return target, target
        if not self.measured or not isinstance(target, list | tuple | np.ndarray):
            raise TypeError(
                "target must be a tensor with a batch dimension"
                + ", or a list with an entry for each sample" * self.measured
                + f"; got {type(target).__name__}. {_remedy(target, TARGETS)}"
            )
        if isinstance(target, np.ndarray):
            if target.dtype.kind not in "biufc" and target.ndim:  # of texts, say, or of objects
                return self._targets(list(target), prediction)
            # Of an order of bytes, and of steps through memory, that PyTorch has.
            native = target.astype(target.dtype.newbyteorder("="), order="C")
            return self._targets(torch.from_numpy(native), prediction)
        return list(target), torch.zeros(len(target), 0, device=prediction.device)

    def represent(self, prediction: Tensor, batch: TensorBatch) -> Tensor:
        return _with_features(prediction)

    def expand(self, target: Tensor) -> Tensor:
        return _with_features(target)

    def decode(self, batch: TensorBatch) -> tuple[Tensor, Any]:
        # numpy, and with it most metrics, has no bfloat16.
        prediction = at_least_float32(batch.prediction.detach())
        # Copies, so that a metric that works in place leaves the user's objects alone.
        targets = batch.targets
        copied = targets.clone() if isinstance(targets, Tensor) else copy.deepcopy(targets)
        return prediction.clone(), copied

    def perfect(self, batch: TensorBatch) -> list[Tensor]:
        return perfect_predictions(batch.prediction.detach(), batch.targets)

    def encode(
        self, predictions: Any, targets: Any, shape: torch.Size | None
    ) -> tuple[Tensor, Tensor]:
        return _with_features(torch.as_tensor(predictions)), torch.as_tensor(targets)

    def build_surrogate(self, z: Tensor, y: Tensor) -> nn.Module:
        return BUILDERS[self.surrogate](z, y)


def _remedy(value: Any, several: str) -> str:
    """What to do with what is no tensor."""
    return several if isinstance(value, dict | tuple) else TEXTS


def _check_samples(name: str, tensor: Tensor) -> None:
    """Checks for a batch dimension, and numbers behind it."""
    check_tensor(name, tensor)
    if tensor.ndim == 0:
        raise ValueError(f"{name} must have a batch dimension; its shape is ()")
    if not tensor.shape[1:].numel():
        raise ValueError(f"{name} has samples without numbers: {tuple(tensor.shape)}")


def _with_features(samples: Tensor) -> Tensor:
    """`(batch,)` as `(batch, 1)`; other shapes as they are."""
    return samples[:, None] if samples.ndim == 1 else samples
