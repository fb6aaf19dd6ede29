"""What predictions and targets look like: the seam between the loss and a domain."""

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ._checks import check_dense, check_number
from ._measured.forms import NAMES
from ._perfect import perfect_predictions
from ._surrogate import Conditioned, EmbeddingDistance, PairRegression, embedding_net

#: A random data generator R: `generator(count, rng)` returns `count` predictions and `count`
#: targets, in the form in which the metric takes them, spread over the metric's range.
Generator = Callable[[int, np.random.Generator], tuple[Any, Any]]

#: Surrogates for plain tensors: of those the slope is fitted, of these the values.
SLOPES = ("auto", "none", *NAMES)
VALUES = ("embedding", "conditioned", "pair")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The arguments of one call of the loss, read and checked by its task.

    Attributes:
        prediction: the user's tensor, as it came; the gradient goes to it.
        target: `(batch, ...)`, the targets as the replay buffer stores them (see `Task.expand`).
        batch_dim: the prediction's batch dimension; None for one sample without one.
    """

    prediction: Tensor
    target: Tensor
    batch_dim: int | None = 0

    @property
    def whole(self) -> Tensor:
        """The call's own prediction, of which `prediction` may be a part."""
        return self.prediction

    @property
    def weights(self) -> Tensor | None:
        """What `reduce` weighs samples with, whatever the reduction, `(batch,)`; None is 1."""
        return None

    def check_reduction(self, reduction: str) -> None:
        """Checks that `reduce` can take this reduction, before anything is learned from the call.

        Raises:
            ValueError: an argument of the call does not go with it.
        """

    def replaced(self, prediction: Tensor) -> Tensor:
        """The call's prediction, with another tensor in place of `prediction`; differentiable."""
        return prediction

    def per_sample(self, values: Tensor, dims: int) -> Tensor:
        """`(batch,)`, shaped to go with a tensor of so many dimensions, as `prediction` has."""
        shape = [1] * dims
        if self.batch_dim is not None:
            shape[self.batch_dim] = -1
        return values.view(shape)

    def samples_first(self, tensor: Tensor) -> Tensor:
        """A tensor of the prediction's shape as `(batch, numbers)`."""
        first = tensor[None] if self.batch_dim is None else tensor.movedim(self.batch_dim, 0)
        return first.flatten(1) if first.ndim > 1 else first[:, None]

    def reduce(self, value: Tensor, reduction: str) -> Tensor:
        """The loss of the call, from that of its samples.

        Args:
            value: `(batch,)`.
            reduction: "none", "mean" or "sum", the loss's own.
        """
        if reduction == "mean":
            return value.mean()
        if reduction == "sum":
            return value.sum()
        return value.squeeze(0) if self.batch_dim is None else value


BatchType = TypeVar("BatchType", bound=Batch)


class Task(ABC, Generic[BatchType]):
    """How one kind of prediction and target is read, represented, and decoded for the metric.

    The *representation* is what the surrogate sees: z of the prediction and y of the target, each
    of two dimensions or more, the batch first. Sample i of z must depend on sample i of the
    prediction alone. A task holds no state, so one object may serve several losses.
    """

    #: Names of the surrogates that the task has, which decide how it represents predictions and
    #: targets; the first one is the default.
    surrogates: tuple[str, ...] = ("embedding",)
    #: The surrogate that it represents for (see `seen_by`); a module of the user's is shown what
    #: "embedding" is.
    surrogate: str = "embedding"
    #: Draws of the expected metric where the user gives no number.
    draws: int = 0
    #: Least weight of the base loss's gradient where the user gives no number, for metrics that the
    #: usual loss leads to: those below, or one that the surrogate knew before any fit.
    base_weight: float = 0.0
    akin_to_base_loss: tuple[Callable[..., Any], ...] = ()
    #: Pairs of each source a gradient step of the surrogate where the user gives no number.
    batch_size: int = 64
    #: Whether representations may differ in size, but for their first dimension after the batch;
    #: they are padded with zeros.
    ragged: bool = False
    #: Whether nothing is better than a prediction which, as `decode` gives both, equals its target.
    target_is_best: bool = False
    #: Whether the metric is smoothed by Gaussian noise on the prediction. Draws are then
    #: what `decode` makes of a batch whose `prediction` has moved.
    smoothed: bool = False
    #: The noise's standard deviation, or a tensor of them; None leaves it to the loss.
    smoothing: float | Tensor | None = None
    #: Whether `sample` can draw from a prediction's distribution.
    samples: bool = False
    #: Whether `scored_sample` also knows the draws' scores.
    scores: bool = False

    @abstractmethod
    def read(self, *args: Any, **kwargs: Any) -> BatchType:
        """Checks the arguments of a call.

        Raises:
            TypeError: an argument is of the wrong kind.
            ValueError: an argument has a wrong shape or value.
        """

    @abstractmethod
    def represent(self, prediction: Tensor, batch: BatchType) -> Tensor:
        """z `(batch, ...)`, differentiable in the prediction."""

    @abstractmethod
    def decode(self, batch: BatchType) -> tuple[Any, Any]:
        """Predictions and targets as the metric takes them: batched tensors or lists of objects."""

    @abstractmethod
    def encode(
        self, predictions: Any, targets: Any, shape: torch.Size | None
    ) -> tuple[Tensor, Tensor]:
        """A generator's pairs as z and stored targets.

        Args:
            predictions: what `decode` would return, first part.
            targets: what `decode` would return, second part.
            shape: that of a sample of z so far, None before the first; a ragged task may go beyond.
        """

    @abstractmethod
    def build_surrogate(self, z: Tensor, y: Tensor) -> nn.Module:
        """The default surrogate for such z and y: the first ones seen, which may set its scale."""

    @property
    def fitted(self) -> bool:
        """Whether `build_surrogate` gives one that was fitted before, to a metric of this kind."""
        return False

    @property
    def learning_rate(self) -> float:
        """Of the surrogate's Adam, where the user gives none."""
        return 3e-4 if self.fitted else 1e-3

    @property
    def penalty_weight(self) -> float:
        """Weight of the gradient penalty (LS, Eq. 6) where the user gives none."""
        return 0.0

    def sample(self, batch: BatchType, random: torch.Generator) -> tuple[Any, Any]:
        """What `decode` returns, for a random draw from each prediction's distribution.

        Args:
            batch: as `read` gave it.
            random: a generator on the CPU, the only source of chance.
        """
        return self.scored_sample(batch, random)[:2]

    def draw(self, batch: BatchType, count: int, random: torch.Generator) -> list[tuple[Any, Any]]:
        """So many times what `sample` returns, which is what the loss asks for.

        A task may know a faster way than one by one, as those of text do.

        Args:
            batch: as `read` gave it.
            count: of draws, each over the whole batch.
            random: a generator on the CPU, the only source of chance.
        """
        return [self.sample(batch, random) for _ in range(count)]

    def scored_sample(self, batch: BatchType, random: torch.Generator) -> tuple[Any, Any, Tensor]:
        """What `sample` returns, and the score of each draw.

        The score is the gradient of the draw's log-likelihood with respect to the prediction, of
        the prediction's shape: times the metric, its mean is the expected metric's gradient.
        """
        raise NotImplementedError

    def seen_by(self, surrogate: str) -> Self:
        """The task, with the representation that one of its `surrogates` takes."""
        task = copy.copy(self)
        task.surrogate = surrogate
        return task

    def expand(self, target: Tensor) -> Tensor:
        """Stored targets as y, the form in which the surrogate takes them."""
        return target

    def perfect(self, batch: BatchType) -> list[Any]:
        """Predictions, as the metric takes them, of which one should be the best there is.

        None where the task knows of none. Where it is not sure, as `target_is_best` says, the user
        is warned of a metric that is better for other predictions; else that is an error.
        """
        return [self.decode(batch)[1]] if self.target_is_best else []

    def doubt(self, batch: BatchType) -> bool:
        """Warns of a batch which looks as if something else were meant.

        Asked before the first batches are measured, until one has told.

        Returns:
            Whether this one has told, be it that all is well: one without any angle does not tell
            whether angles are in degrees.
        """
        return True  # a task need not have any doubts

    def beside(self, base_loss: Callable[..., Tensor] | None) -> Self:
        """The task of a loss with this base loss.

        Raises:
            ValueError: that cannot be called as the task says.
        """
        return self

    def generator(self) -> Generator | None:
        """The task's own random data generator; None if it has none."""
        return None


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
            at most 32 and differ more than tenfold in scale. With 0 there is no noise and nothing
            to be measured: a surrogate is fitted to the metric's values and followed, as in LS;
            then targets must be tensors.

    Raises:
        TypeError, ValueError: `smoothing` is no number or tensor, or not positive.
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
    smoothed = True
    draws = 2
    surrogates = SLOPES

    def __init__(self, *, smoothing: float | Tensor | None = None):
        if isinstance(smoothing, Tensor):
            check_dense("smoothing", smoothing)
            smoothing = smoothing.detach().float()
            if not (smoothing > 0).all():
                raise ValueError(f"smoothing must be positive; got {smoothing!r}")
        elif smoothing is not None:
            check_number("smoothing", smoothing, 0, integer=False)
        self.smoothing = smoothing
        if not isinstance(smoothing, Tensor) and smoothing == 0:
            self.smoothed, self.draws, self.surrogates = False, 0, VALUES

    @property
    def learning_rate(self) -> float:
        # Slopes are fitted to what varies from draw to draw: larger steps, from the first calls on.
        return 5e-3 if self.smoothed else super().learning_rate

    def __repr__(self) -> str:
        return "Tensors()" if self.smoothing is None else f"Tensors(smoothing={self.smoothing})"

    def read(self, prediction: Tensor, target: Any) -> TensorBatch:
        if not isinstance(prediction, Tensor):
            raise TypeError(
                "prediction must be a tensor with a batch dimension; got "
                f"{type(prediction).__name__}. For text, give the loss a task: text.CTC(...) or "
                "text.Characters(...)"
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
            )
        return TensorBatch(prediction=prediction, target=seen, targets=targets)

    def _check_smoothing(self, sample: torch.Size) -> None:
        """Checks that a width given as a tensor broadcasts to a sample."""
        if not isinstance(self.smoothing, Tensor):
            return
        own = self.smoothing.shape
        alike = all(a in (1, b) for a, b in zip(own[::-1], sample[::-1]))
        if len(own) > len(sample) or not alike:
            raise ValueError(
                f"smoothing, of shape {tuple(own)}, does not go with samples of shape "
                f"{tuple(sample)} of the prediction"
            )

    def _targets(self, target: Any, prediction: Tensor) -> tuple[Any, Tensor]:
        """Targets as the metric gets them, and as the surrogate sees them, if it can."""
        if isinstance(target, Tensor):
            _check_samples("target", target)
            target = lasting(target.to(prediction.device))
            return target, target
        if not self.smoothed or not isinstance(target, list | tuple | np.ndarray):
            raise TypeError(
                "target must be a tensor with a batch dimension"
                + (", or a list with an entry for each sample, such as a dict" * self.smoothed)
                + f"; got {type(target).__name__}. For text, give the loss a task: text.CTC(...) "
                "or text.Characters(...)"
            )
        if isinstance(target, np.ndarray):
            if target.dtype.kind not in "biufc" and target.ndim:  # of texts, say, or of objects
                return self._targets(list(target), prediction)
            return self._targets(torch.tensor(target), prediction)
        return list(target), torch.zeros(len(target), 0, device=prediction.device)

    def represent(self, prediction: Tensor, batch: TensorBatch) -> Tensor:
        return _with_features(prediction)

    def expand(self, target: Tensor) -> Tensor:
        return _with_features(target)

    def decode(self, batch: TensorBatch) -> tuple[Tensor, Any]:
        prediction = batch.prediction.detach()
        # numpy, and with it most metrics, has no bfloat16.
        if prediction.dtype in (torch.float16, torch.bfloat16):
            prediction = prediction.float()
        # Copies, so that a metric that works in place leaves the user's objects alone.
        return prediction.clone(), copy.deepcopy(batch.targets)

    def perfect(self, batch: TensorBatch) -> list[Tensor]:
        return perfect_predictions(batch.prediction.detach(), batch.targets)

    def encode(
        self, predictions: Any, targets: Any, shape: torch.Size | None
    ) -> tuple[Tensor, Tensor]:
        return _with_features(torch.as_tensor(predictions)), torch.as_tensor(targets)

    def build_surrogate(self, z: Tensor, y: Tensor) -> nn.Module:
        if self.surrogate != "embedding":
            if z.shape[2:] != y.shape[2:] or (
                self.surrogate == "conditioned" and z.shape != y.shape
            ):
                raise ValueError(
                    f"surrogate={self.surrogate!r} needs predictions and targets of one shape; "
                    f"they are {tuple(z.shape[1:])} and {tuple(y.shape[1:])}"
                )
            if self.surrogate == "conditioned":
                return Conditioned(embedding_net(torch.cat([z - y, y], 1)))
            return PairRegression(embedding_net(torch.cat([z, y], 1), embedding_size=1))
        if z.shape[1:] == y.shape[1:]:
            return EmbeddingDistance(embedding_net(torch.cat([z, y])))
        return EmbeddingDistance(embedding_net(z), embedding_net(y))


def _check_samples(name: str, tensor: Tensor) -> None:
    """Checks for a batch dimension, and numbers behind it."""
    check_dense(name, tensor)
    if tensor.ndim == 0:
        raise ValueError(f"{name} must have a batch dimension; its shape is ()")
    if not tensor.shape[1:].numel():
        raise ValueError(f"{name} has samples without numbers: {tuple(tensor.shape)}")


def read(task: Task[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Batch:
    """What the task reads from a call.

    Raises:
        TypeError: an argument is missing, unknown or one too many; or as the task says.
        ValueError: as the task says.
    """
    try:
        return task.read(*map(plain, args), **{key: plain(kwargs[key]) for key in kwargs})
    except TypeError as error:
        # The task's own errors come from within `read`.
        if error.__traceback__ is None or error.__traceback__.tb_next is not None:
            raise
        parameters = inspect.signature(task.read).parameters.values()
        names = ", ".join(str(p.replace(annotation=p.empty)) for p in parameters)
        raise TypeError(
            f"with {type(task).__name__}, the loss is called as criterion({names}): {error}"
        ) from None


def plain(value: Any) -> Any:
    """A tensor of a class of the user's or of a library's as a plain one, with its graph.

    Also the `tensor` of an object that has one, as detectors' boxes do.

    Its class would be that of all that is computed from it, and so get into replay, and into a
    checkpoint that cannot be read then with `weights_only`. Tensors that are more than their own
    storage, such as distributed ones, stay what they are.
    """
    kind, inner = type(value), getattr(value, "tensor", None)
    if isinstance(inner, Tensor) and not isinstance(value, Tensor):
        return plain(inner)
    if not isinstance(value, Tensor) or kind in (Tensor, nn.Parameter):
        return value
    if kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return value
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(Tensor)


def lasting(tensor: Tensor) -> Tensor:
    """The tensor without its graph, such that a gradient may be computed with it.

    What was made in inference mode, as a teacher's labels are, cannot be saved for one.
    """
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _with_features(samples: Tensor) -> Tensor:
    """`(batch,)` as `(batch, 1)`; other shapes as they are."""
    return samples[:, None] if samples.ndim == 1 else samples
