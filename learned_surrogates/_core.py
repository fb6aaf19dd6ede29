"""What the loss asks of a core: the way in which it comes to a gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ._base_loss import Base
from ._batch import Batch
from ._contract import hooks
from ._evaluation.oracle import Oracle
from ._learning.history import History
from ._learning.replay_buffer import ReplayBuffer
from ._learning.sync import Sync
from ._recipe import Recipe
from ._state.tensors import Faults
from ._support.transfer import send
from ._support.warnings import warn
from ._task import Task

# Calls with a gradient in evaluation mode after which the user is warned.
IDLE = 10
IN_EVALUATION = (
    "{calls} calls have asked for a gradient in evaluation mode, in which the loss does not learn: "
    "call criterion.train(). As a part of a model, it follows model.eval()"
)


class Core(ABC):
    """Comes to a gradient for a batch, and learns from it.

    Not an `nn.Module`, nor does it hold anything where the loss's `parameters()`, `buffers()` or
    `modules()` would find it: an optimizer given those would minimise the surrogate instead of
    fitting it, and wrappers for distributed training would synchronise or shard it.

    Args:
        task: says what predictions and targets are.
        oracle: the metric, as it is asked.
        recipe: how much is asked, and how the surrogate is fitted.
        sync: the processes that learn together.
    """

    #: Calls that asked for a gradient in evaluation mode before anything was learned.
    idle_calls = 0

    def __init__(self, task: Task[Any], oracle: Oracle, recipe: Recipe, sync: Sync):
        self.task = task
        self.oracle = oracle
        self.recipe = recipe
        self.sync = sync

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the last batch was."""

    @property
    @abstractmethod
    def history(self) -> History:
        """How the figures went."""

    @property
    @abstractmethod
    def replay(self) -> ReplayBuffer | None:
        """What the surrogate is fitted to, where that is remembered."""

    @abstractmethod
    def call(
        self, batch: Batch, base: Base, *, differentiable: bool, learning: bool
    ) -> tuple[Tensor, Tensor | None, bool]:
        """The loss's values `(batch,)`, and the gradient to hand back.

        Args:
            batch: as the task read it.
            base: gives the base loss's gradient; None without one.
            differentiable: whether a gradient is asked for.
            learning: whether the loss learns from the call.

        Returns:
            Values, gradient of the prediction's shape if there is one, and whether there are new
            figures.

        Raises:
            MetricError: the metric failed; nothing has changed.
        """

    def evaluated(self, batch: Batch, finite: Tensor) -> Tensor:
        """The metric of predictions themselves, as errors `(batch,)` float32; waits for it.

        Samples on which it failed count as the mean of the others. NaN where there is none, and
        where a prediction is not finite.

        Args:
            finite: where it is, `(batch,)`.
        """
        measured = self.oracle.ask_now(len(finite), [hooks.decode(self.task, batch)])
        values = torch.full_like(finite, torch.nan, dtype=torch.float32)
        if measured is not None:
            values = send(measured.over_batch(measured.mean), finite.device)
        return values.where(finite, torch.nan)

    # What leaves no trace

    @abstractmethod
    def snapshot(self) -> Callable[[], None]:
        """Goes back, when it is called, to the random stream, figures and state of now."""

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A context that leaves no trace of what was only looked at."""
        go_back = self.snapshot()
        try:
            yield
        finally:
            go_back()

    @contextmanager
    def unchanged_by_errors(self) -> Iterator[None]:
        """A context after whose errors all is as it was."""
        go_back = self.snapshot()
        try:
            yield
        except BaseException:
            # What several processes have agreed on stands.
            if not self.sync.active:
                go_back()
            raise

    @property
    @abstractmethod
    def has_learned(self) -> bool:
        """Whether the loss has begun to do what it is for."""

    def warn_if_idle(self) -> None:
        """After a gradient was asked for in evaluation mode, in which nothing is learned."""
        if not self.has_learned:
            self.idle_calls += 1
            if self.idle_calls == IDLE:
                warn(IN_EVALUATION.format(calls=IDLE))

    @abstractmethod
    def warm_up(self, batches: Iterator[Batch] | None, steps: Iterable[int]) -> dict[str, Any]:
        """Fits the surrogate to batches before the first call, a gradient step each.

        Returns:
            The figures after it.

        Raises:
            MetricError: the metric failed, in this process or another.
            ValueError: there is nothing to fit to.
        """

    # What a gradient check asks for

    @property
    @abstractmethod
    def follows_expectation(self) -> bool:
        """Whether what is followed is the gradient of the metric's mean over draws."""

    @property
    @abstractmethod
    def has_score(self) -> bool:
        """Whether that mean's gradient can be measured."""

    @abstractmethod
    def gradient(self, batch: Batch, draws: int) -> Tensor:
        """What a call hands back, by so many draws, less the base loss's; changes nothing."""

    def sample(self, batch: Batch, random: torch.Generator) -> tuple[Any, Any]:
        """A draw, as the metric takes it."""
        return self.sample_with_score(batch, random)[:2]

    @abstractmethod
    def sample_with_score(self, batch: Batch, random: torch.Generator) -> tuple[Any, Any, Tensor]:
        """A draw, and the gradient of its log-likelihood with respect to the prediction."""

    def from_scores(self, products: Tensor, batch: Batch) -> Tensor:
        """The mean's gradient, from values times scores, summed over draws.

        Both are of the prediction's shape.
        """
        return products

    # Figures and state

    @abstractmethod
    def describe(self) -> list[str]:
        """Lines of the loss's `repr`."""

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """The figures that `LearnedSurrogateLoss.stats` shows."""

    @abstractmethod
    def conclude(self) -> dict[str, Any]:
        """The figures after an update, remembered."""

    @abstractmethod
    def save(self, *, with_replay: bool) -> dict[str, Tensor]:
        """The state as named tensors."""

    @abstractmethod
    def load(self, saved: dict[str, Tensor]) -> Faults:
        """Takes a saved state, unless it has faults: then all is left as it was."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Moves what it holds."""
