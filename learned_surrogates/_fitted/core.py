"""One call of the loss where a surrogate is fitted to the metric's values and followed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._base_loss import Base
from .._evaluation.queue import Evaluation, Evaluations
from .._learning.history import History
from .._learning.recipe import Recipe
from .._learning.replay import Replay
from .._learning.sync import Sync
from .._metric.metric import Metric
from .._state.tensors import Faults
from .._support.island import island
from .._task import Batch, Generator, Task
from . import state
from .agree import agree
from .learner import Learner
from .pairs import Pairs
from .warm_up import warm_up


class ValueCore:
    """Hands back the gradient of a surrogate that is fitted to the metric's values: LS, Eq. 6."""

    def __init__(
        self,
        task: Task[Any],
        metric: Metric,
        generator: Generator | None,
        recipe: Recipe,
        surrogate: nn.Module | None,
        sync: Sync,
    ):
        self.task = task
        self.learner = Learner(Pairs(task, metric, generator, recipe), surrogate, sync)

    @property
    def metric(self) -> Metric:
        return self.learner.pairs.metric

    @property
    def evaluations(self) -> Evaluations:
        return self.learner.pairs.evaluations

    @property
    def recipe(self) -> Recipe:
        return self.learner.recipe

    @property
    def replay(self) -> Replay:
        return self.learner.pairs.replay

    @property
    def history(self) -> History:
        return self.learner.history

    @property
    def device(self) -> torch.device:
        return self.learner.device

    @property
    def expects(self) -> bool:
        """Whether the surrogate stands for the metric's mean over draws."""
        return self.task.samples

    @property
    def scores(self) -> bool:
        """Whether that mean's gradient can be measured."""
        return self.task.scores

    def call(
        self, batch: Batch, base: Base, *, differentiable: bool, learning: bool
    ) -> tuple[Tensor, Tensor | None, bool]:
        """The surrogate's values `(batch,)`, and the gradient to hand back.

        Args:
            batch: as the task read it.
            base: gives the base loss's gradient; None without one.
            differentiable: whether a gradient is asked for.
            learning: whether the surrogate learns from the call.

        Returns:
            Values, gradient of the prediction's shape if there is one, and whether there are new
            figures.

        Raises:
            MetricError: the metric failed; nothing has changed.
        """
        learner = self.learner
        # An empty batch counts where other processes may have a full one.
        learning = learning and (len(batch.target) > 0 or learner.sync.active)
        with learner.unchanged_by(not learning):
            # Before anything changes: what raises leaves the loss as it was.
            with learner.unchanged_by_errors():
                evaluation = self._measure(batch) if learning else None
                value, z, gradient = self.evaluate(batch, differentiable, learning)
                of_base = None
                if gradient is not None and base is not None and learner.needs_base():
                    of_base = base()
            if learning:
                learner.calls += 1
                learner.observe(evaluation, (value, z, batch.target))
            if gradient is not None:
                if evaluation is not None:
                    gradient = learner.filter(gradient, batch, value, evaluation)
                gradient = learner.followed(gradient, of_base)
        news = False
        if learning:
            news = learner.learn()
        return value, gradient, news

    def warn_if_idle(self) -> None:
        """After a gradient was asked for in evaluation mode."""
        self.learner.warn_if_idle()

    def give_up(self) -> None:
        """Raises what the metric raised in a call, once all processes know."""
        self.learner.sync.give_up()

    def evaluate(
        self, batch: Batch, differentiable: bool, learning: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The surrogate's values `(batch,)`, z, and d values / d prediction, all detached."""
        learner = self.learner
        with island(learner.device), torch.set_grad_enabled(differentiable):
            prediction = batch.prediction.detach()
            # What the surrogate sees may be a small difference of large numbers.
            precision = torch.promote_types(prediction.dtype, learner.dtype)
            prediction = prediction.to(precision).requires_grad_(differentiable)
            z = self.task.represent(prediction, batch).to(learner.dtype)
            finite = z.detach().flatten(1).isfinite().all(1)
            ready = learner.prepare(z.detach(), batch.target, finite)
            if learning:
                ready = agree(learner)
            if not ready:
                gradient = torch.zeros_like(prediction) if differentiable else None
                return z.new_full((len(z),), torch.nan), z.detach(), gradient
            value = learner.value(z, learner.expand(batch.target))
            gradient = None
            if differentiable:
                (gradient,) = torch.autograd.grad(value.sum(), prediction)
        # A NaN in a sample's prediction must show in its loss, whatever the surrogate makes of it.
        return value.detach().where(finite, torch.nan), z.detach(), gradient

    def _measure(self, batch: Batch) -> Evaluation | None:
        """Has the metric evaluated on a batch; None for an empty one.

        With other processes, an error is raised only once they have been told: they wait.
        """
        self.learner.sync.failure = None
        if len(batch.target):
            with self.learner.sync.told():
                return self.learner.pairs.measure(batch)
        return None

    # What a gradient check asks for

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A context that leaves no trace of what was only looked at."""
        with self.learner.unchanged_by(True):
            yield

    def gradient(self, batch: Batch, draws: int) -> Tensor:
        """The surrogate's gradient, of the prediction's shape; draws make no difference to it."""
        _, _, gradient = self.evaluate(batch, differentiable=True, learning=False)
        assert gradient is not None
        return gradient

    def first_look(self, batch: Batch, errors: Tensor) -> None:
        """Doubts about the first batch `(batch,)`, which has these errors."""
        self.learner.pairs.doubts.look(batch)
        self.learner.pairs.doubts.look_at_direction(batch, errors)

    def sample(self, batch: Batch, random: torch.Generator) -> tuple[Any, Any]:
        """A draw, as the metric takes it."""
        return self.task.draw(batch, 1, random)[0]

    def scored_sample(self, batch: Batch, random: torch.Generator) -> tuple[Any, Any, Tensor]:
        """A draw, and the gradient of its log-likelihood with respect to the prediction."""
        return self.task.scored_sample(batch, random)

    # Figures and state

    def warm_up(self, batches: Iterator[Batch] | None, steps: Iterable[int]) -> dict[str, Any]:
        """Fits the surrogate to batches, or to the generator alone: a gradient step each.

        Returns:
            The figures after it.
        """
        return warm_up(self, batches, steps)

    def describe(self) -> list[str]:
        """Lines of the loss's `repr`."""
        learner, recipe = self.learner, self.recipe
        surrogate = "not built: that follows the first call"
        if learner.surrogate is not None:
            parameters = sum(p.numel() for p in learner.surrogate.parameters())
            surrogate = f"{type(learner.surrogate).__name__}, {parameters:,} parameters"
        lines = [
            f"surrogate: {surrogate}",
            f"data: {recipe.data}, {recipe.update_steps} x {recipe.batch_size} of each "
            f"every {recipe.update_every} calls",
            f"calls: {learner.calls:,}, updates: {learner.updates:,}"
            + (", warming up" if learner.warm_up_left else ""),
        ]
        if learner.pairs.unseen.size:
            relative = self.stats()["relative_error"]
            lines.append(f"error: {relative:.2f} of a constant predictor's, on unseen pairs")
        return lines

    def stats(self) -> dict[str, Any]:
        """The figures that `LearnedSurrogateLoss.stats` shows."""
        return self.learner.stats()

    def conclude(self) -> dict[str, Any]:
        """Draws the consequences of an update, and gives the figures after it."""
        return self.learner.conclude()

    def save(self, *, with_replay: bool) -> dict[str, Tensor]:
        """The state as flat tensors."""
        return state.save(self.learner, with_replay=with_replay)

    def load(self, saved: dict[str, Tensor]) -> Faults:
        """Takes a saved state, unless it has faults: then all is left as it was."""
        return state.load(self.learner, saved)

    def to(self, device: torch.device) -> None:
        self.learner.to(device)
