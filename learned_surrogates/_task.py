"""What predictions and targets look like: the seam between the loss and a domain."""

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self

import torch
from torch import Tensor, nn

from ._batch import Batch, BatchType, plain_call
from ._learning.fit_values import Generator
from ._learning.sync import Sync
from ._metric.metric import Metric

if TYPE_CHECKING:  # of rooms above this one
    from ._estimator import Estimator
    from ._recipe import Recipe


class Task(ABC, Generic[BatchType]):
    """How one kind of prediction and target is read, represented, and decoded for the metric.

    The *representation* is what the surrogate sees: z of the prediction and y of the target, each
    of two dimensions or more, the batch first. Sample i of z must depend on sample i of the
    prediction alone. A task holds no state, so one object may serve several losses. `check_task`
    holds one against all of this.
    """

    #: Names of the surrogates that the task has, which decide how it represents predictions and
    #: targets; the first one is the default.
    surrogates: tuple[str, ...] = ("embedding",)
    #: The surrogate that it represents for (see `for_surrogate`); a module of the user's is shown
    #: what "embedding" is.
    surrogate: str = "embedding"
    #: Draws of the expected metric where the user gives no number.
    draws: int = 0
    #: Whether the metric takes a batch where neither the user nor the metric says; None finds out.
    batched: bool | None = None
    #: Pairs of each source a gradient step of the surrogate where the user gives no number.
    batch_size: int = 64
    #: Whether representations may differ in size, but for their first dimension after the batch;
    #: they are padded with zeros.
    ragged: bool = False
    #: Whether nothing is better than a prediction which, as `decode` gives both, equals its target.
    target_is_best: bool = False
    #: Whether it should at least be about as good as can be: a `best=` that is far is doubted.
    target_is_good: bool = False
    #: Whether the metric's gradient is measured, by the task's `estimator`; else a surrogate is
    #: fitted to the metric's values and followed.
    measured: bool = False
    #: Whether `sample` can draw from a prediction's distribution.
    can_sample: bool = False
    #: Whether `sample_with_score` also knows the draws' scores.
    has_score: bool = False

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

    def estimator(
        self,
        metric: Metric,
        recipe: "Recipe",
        surrogate: str | nn.Module,
        sync: Sync,
        random: torch.Generator,
    ) -> "Estimator[BatchType]":
        """What measures the metric's gradient, where the task is `measured`.

        Args:
            metric: what is measured.
            recipe: how much is drawn, and how the surrogate is fitted.
            surrogate: one of `surrogates`, or a module of the user's.
            sync: the processes that learn together.
            random: a generator on the CPU, the only source of chance.
        """
        raise NotImplementedError

    #: How a user gets a distribution to draw from, of a task that has none.
    to_draw: str = "to have one, it must define sample(batch, random), with can_sample = True"
    #: How a user asks for a surrogate that is fitted to values, of a task that is `measured`.
    fits_values: str = ""

    def draws_of(self, metric: Metric) -> int:
        """Draws a sample of this metric, where the user gives no number."""
        return self.draws

    def check_draws(self, count: int, metric: Metric) -> None:
        """Checks a number of draws that the user gives.

        Raises:
            ValueError: the task cannot draw, or not so many.
        """
        if count and not self.can_sample:
            raise ValueError(
                f"draws={count} needs a task with a distribution to draw from; {self!r} has none: "
                f"{self.to_draw}"
            )

    @property
    def learning_rate(self) -> float:
        """Of the surrogate's Adam, where the user gives none."""
        return 1e-3

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
        return self.sample_with_score(batch, random)[:2]

    def draw(self, batch: BatchType, count: int, random: torch.Generator) -> list[tuple[Any, Any]]:
        """So many times what `sample` returns, which is what the loss asks for.

        A task may know a faster way than one by one, as those of text do.

        Args:
            batch: as `read` gave it.
            count: of draws, each over the whole batch.
            random: a generator on the CPU, the only source of chance.
        """
        return [self.sample(batch, random) for _ in range(count)]

    def sample_with_score(
        self, batch: BatchType, random: torch.Generator
    ) -> tuple[Any, Any, Tensor]:
        """What `sample` returns, and the score of each draw.

        The score is the gradient of the draw's log-likelihood with respect to the prediction, of
        the prediction's shape: times the metric, its mean is the expected metric's gradient.
        """
        raise NotImplementedError

    def halved(self, batch: BatchType) -> BatchType | None:
        """A batch with smaller predictions, of which a metric of their order says the same.

        None where none is meant, or the metric cannot tell.
        """
        return None

    def for_surrogate(self, surrogate: str) -> Self:
        """The task, with the representation that one of its `surrogates` takes."""
        task = copy.copy(self)
        task.surrogate = surrogate
        return task

    def expand(self, target: Tensor) -> Tensor:
        """Stored targets as y, the form in which the surrogate takes them."""
        return target

    def perfect(self, batch: BatchType) -> list[Any]:
        """Predictions, as the metric takes them, of which one should be the best there is.

        An empty list where the task knows of none. Where it is not sure, as `target_is_best` says,
        the user is warned of a metric that is better for other predictions; else that is an error.
        """
        return [self.decode(batch)[1]] if self.target_is_best else []

    def warn_about(self, batch: BatchType) -> bool:
        """Warns of a batch which looks as if something else were meant.

        Asked before the first batches are measured, until one has told.

        Returns:
            Whether this one has told, be it that all is well: one without any angle does not tell
            whether angles are in degrees.
        """
        return True  # a task need not have any doubts

    def for_base_loss(self, base_loss: Callable[..., Tensor] | None) -> Self:
        """The task of a loss with this base loss.

        Raises:
            ValueError: that cannot be called as the task says.
        """
        return self

    def generator(self) -> Generator | None:
        """The task's own random data generator; None if it has none."""
        return None


class MeasuredTask(Task[BatchType]):
    """A task whose metric's gradient is measured, and for which no surrogate is fitted."""

    measured = can_sample = True
    surrogates: tuple[str, ...] = ("none",)
    fits_values = "a Task of your own that represents, encodes and builds a surrogate"

    def refuse_module(self, surrogate: str | nn.Module) -> None:
        """Refuses a surrogate of the user's.

        Raises:
            TypeError: it is a module.
        """
        if isinstance(surrogate, nn.Module):
            names = " or ".join(map(repr, self.surrogates))
            raise TypeError(
                f"surrogate= must be {names} with {self!r}, for which no module is fitted"
            )

    def represent(self, prediction: Tensor, batch: BatchType) -> Tensor:
        raise NotImplementedError("no surrogate is fitted")

    def encode(
        self, predictions: Any, targets: Any, shape: torch.Size | None
    ) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("no surrogate is fitted")

    def build_surrogate(self, z: Tensor, y: Tensor) -> nn.Module:
        raise NotImplementedError("no surrogate is fitted")


def check_is_task(task: object) -> None:
    """Checks that a task is one.

    Raises:
        TypeError: it is something else, such as its class.
    """
    if not isinstance(task, Task):
        raise TypeError(
            f"task must be a Task such as text.CTC(alphabet); got {task!r}"
            + (", the class itself: call it" if isinstance(task, type) else "")
        )


def as_call(arguments: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the loss would be called with, a tuple or a dict, each of the arguments `plain`.

    Raises:
        TypeError: it is no tuple, list or dict.
    """
    if isinstance(arguments, Mapping):
        return plain_call((), arguments)
    if not isinstance(arguments, tuple | list):
        raise TypeError(
            "batches must be an iterable of what the loss would be called with, tuples or dicts: "
            f"[(prediction, target), ...]; one of them is of type {type(arguments).__name__}"
        )
    return plain_call(arguments, {})


def read(task: Task[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Batch:
    """What the task reads from a call whose arguments are `plain`.

    Raises:
        TypeError: an argument is missing, unknown or one too many; or as the task says.
        ValueError: as the task says.
    """
    try:
        return task.read(*args, **kwargs)
    except TypeError as error:
        # The task's own errors come from within `read`.
        if error.__traceback__ is None or error.__traceback__.tb_next is not None:
            raise
        parameters = inspect.signature(task.read).parameters.values()
        names = ", ".join(str(p.replace(annotation=p.empty)) for p in parameters)
        raise TypeError(
            f"with {type(task).__name__}, the loss is called as criterion({names}): {error}"
        ) from None
