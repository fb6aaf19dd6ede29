"""One call of the loss where a surrogate is fitted to the metric's values and followed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from .._base_loss import Base
from .._batch import Batch
from .._contract import hooks
from .._core import Core
from .._evaluation.measurement import Evaluation
from .._evaluation.oracle import Oracle
from .._learning.history import History
from .._learning.replay_buffer import ReplayBuffer
from .._learning.sync import Sync
from .._recipe import Recipe
from .._state.tensors import Faults
from .._support.isolated import isolated
from .._task import Task
from . import state
from .agree import agree
from .learner import Learner
from .net import Net
from .pairs import Pairs


class ValueCore(Core):
    """Hands back the gradient of a surrogate that is fitted to the metric's values: LS, Eq. 6.

    Args:
        surrogate: one of the task's, or a module of the user's.

    The others as `Core` has them.
    """

    def __init__(
        self,
        task: Task[Any],
        oracle: Oracle,
        recipe: Recipe,
        sync: Sync,
        surrogate: str | nn.Module,
    ):
        super().__init__(task, oracle, recipe, sync)
        self.pairs = Pairs(task, oracle.queue, recipe)
        self.net = Net(self.pairs, surrogate if isinstance(surrogate, nn.Module) else None)
        self.learner = Learner(self.pairs, self.net, sync)
        #: Whether there was a base loss at the last call.
        self.has_base_loss = False

    @property
    def replay(self) -> ReplayBuffer:
        return self.pairs.replay

    @property
    def history(self) -> History:
        return self.learner.history

    @property
    def device(self) -> torch.device:
        return self.net.device

    @property
    def follows_expectation(self) -> bool:
        return self.task.can_sample

    @property
    def has_score(self) -> bool:
        return self.task.has_score

    # A call

    def call(
        self, batch: Batch, base: Base, *, differentiable: bool, learning: bool
    ) -> tuple[Tensor, Tensor | None, bool]:
        """See `Core`: the surrogate's values and, once it has warmed up, its gradient."""
        learner = self.learner
        if learner.warming_up and not (learning or differentiable):
            finite = ~batch.samples_first(batch.prediction.detach()).isnan().any(1)
            with self.unchanged(), isolated(self.device), torch.no_grad():
                return self.evaluated(batch, finite), None, False
        self.has_base_loss = base is not None
        # An empty batch counts where other processes may have a full one.
        learning = learning and (len(batch.target) > 0 or self.sync.active)
        with nullcontext() if learning else self.unchanged():
            # Before anything changes: what raises leaves the loss as it was.
            with self.unchanged_by_errors():
                evaluation = self._ask(batch) if learning else None
                value, z, gradient = self.evaluate(batch, differentiable, learning)
                of_base = None
                if gradient is not None and base is not None and self.base_share:
                    of_base = base()
            if learning:
                learner.calls += 1
                self._take_in(evaluation, value, z, batch.target)
            if gradient is not None:
                if evaluation is not None and self.recipe.filter is not None:
                    factors = learner.kept(self.recipe.filter, value, evaluation)
                    factors = batch.per_sample(factors.to(gradient), gradient.ndim)
                    gradient = torch.where(factors == 0, 0.0, gradient * factors)
                gradient = self._followed(gradient, of_base)
            known = value.isfinite()
            mean = value.where(known, 0.0).sum() / known.sum().clamp(min=1)
            value = value.where(~_unlabelled(z, batch.target), mean)
        return value, gradient, learning and learner.learn()

    def evaluate(
        self, batch: Batch, differentiable: bool, learning: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The surrogate's values `(batch,)`, z, and d values / d prediction, all detached."""
        net = self.net
        with isolated(self.device), torch.set_grad_enabled(differentiable):
            prediction = batch.prediction.detach()
            # What the surrogate sees may be a small difference of large numbers.
            precision = torch.promote_types(prediction.dtype, net.dtype)
            prediction = prediction.to(precision).requires_grad_(differentiable)
            z = hooks.represent(self.task, prediction, batch).to(net.dtype)
            finite = z.detach().flatten(1).isfinite().all(1)
            ready = net.prepare(z.detach(), batch.target, finite)
            if learning:
                ready = agree(self.learner)
            if not ready:
                gradient = torch.zeros_like(prediction) if differentiable else None
                return z.new_full((len(z),), torch.nan), z.detach(), gradient
            value = net.value(z, net.expand(batch.target))
            gradient = None
            if differentiable:
                (gradient,) = torch.autograd.grad(value.sum(), prediction)
                unlabelled = _unlabelled(z.detach(), batch.target)
                gradient = gradient.masked_fill(batch.per_sample(unlabelled, gradient.ndim), 0.0)
        # A NaN in a sample's prediction must show in its loss, whatever the surrogate makes of it.
        return value.detach().where(finite, torch.nan), z.detach(), gradient

    def _ask(self, batch: Batch) -> Evaluation | None:
        """Has the metric evaluated on a batch; None for an empty one.

        With other processes, an error is raised only once they have been told: they wait.
        """
        self.sync.failure = None
        if len(batch.target):
            with self.sync.defer_error(), isolated(self.device), torch.no_grad():
                return self.oracle.ask(batch, self._questions(batch), self.pairs.random)
        return None

    def _questions(self, batch: Batch) -> list[tuple[Any, Any]]:
        """What the metric is asked about: the prediction as decoded, and draws."""
        draws = hooks.draw(self.task, batch, self.recipe.draws, self.pairs.random)
        return [hooks.decode(self.task, batch), *draws]

    def _take_in(self, evaluation: Evaluation | None, *seen: Tensor) -> None:
        """Remembers what has been answered by now; what was seen of it is from before any fit."""
        for measured, of_call in self.oracle.answers(evaluation, seen):
            self.pairs.observe(measured, *of_call)

    # What is followed

    @property
    def base_share(self) -> float:
        """Share of the base loss's gradient, if there is one: all during the warm-up."""
        return 1.0 if self.learner.warming_up else self.recipe.base_weight or 0.0

    def _followed(self, surrogate: Tensor, base: Tensor | None) -> Tensor:
        """The gradient to hand back, of both losses' gradients; None is no base loss's."""
        share = self.base_share
        if base is None:
            return torch.zeros_like(surrogate) if self.learner.warming_up else surrogate
        # 0 times what is not a number would be none either.
        return base if share == 1 else (1 - share) * surrogate + share * base

    @property
    def has_learned(self) -> bool:
        return not self.learner.warming_up

    # Before the first call

    def warm_up(self, batches: Iterator[Batch] | None, steps: Iterable[int]) -> dict[str, Any]:
        """See `Core`.

        Batches are read, and sent to be measured, ahead of the updates that take them in: it is not
        training, and may wait for values, but not for one batch at a time.
        """
        if batches is None and self.recipe.data == "local":
            raise ValueError(
                "warm_up needs batches, what the loss would be called with, or data='global' or "
                "'local-global' with a generator"
            )
        remaining = iter(()) if batches is None else batches
        queue, learner = self.oracle.queue, self.learner
        started: deque[tuple[Batch, Evaluation | None]] = deque()
        try:
            with self.pairs.patience():
                for _ in steps:
                    for batch in islice(remaining, 1 + queue.ahead - len(started)):
                        started.append((batch, self._start(batch)))
                    if started:
                        self._learn_ahead(*started.popleft())
                    else:
                        if not self.net.built and batches is None:
                            z, target, errors = self.pairs.generate(self.recipe.batch_size)
                            self.net.prepare(z, target, errors.isfinite())
                        # As a process that still has a batch does for it, and not more often.
                        agree(learner)
                    learner.update(1)
                queue.wait_for_due()
                self._take_in(None)
                if learner.updates:
                    learner.warm_up_left = 0
                # The figures may be of fresh pairs, which are waited for.
                return self.conclude()
        finally:
            for _, evaluation in started:
                if evaluation is not None:
                    queue.cancel(evaluation)

    def _start(self, batch: Batch) -> Evaluation | None:
        """Has the metric evaluated on what the loss would be called with."""
        self.to(batch.prediction.device)
        if not len(batch.target):
            return None
        with self.unchanged_by_errors(), isolated(self.device), torch.no_grad():
            questions = self._questions(batch)
            return self.oracle.submit(len(batch.target), questions, self.pairs.random)

    def _learn_ahead(self, batch: Batch, evaluation: Evaluation | None) -> None:
        """Remembers predictions without a gradient: one call, less the loss."""
        self.sync.failure = None
        with self.unchanged_by_errors():
            if evaluation is not None:
                with self.sync.defer_error():
                    self.oracle.queue.wait(evaluation)
            value, z, _ = self.evaluate(batch, differentiable=False, learning=True)
        if evaluation is not None:
            self._take_in(evaluation, value, z, batch.target)

    # What a gradient check asks for

    def snapshot(self) -> Callable[[], None]:
        pairs, built = self.pairs, self.net.built
        random, lost = pairs.random.get_state(), pairs.queue.lost

        def go_back() -> None:
            pairs.random.set_state(random)
            pairs.queue.lost = lost
            # The first samples that it learns from shall settle its shapes and its scale.
            if not built:
                self.learner.forget()

        return go_back

    def gradient(self, batch: Batch, draws: int) -> Tensor:
        value, _, gradient = self.evaluate(batch, differentiable=True, learning=False)
        assert gradient is not None
        return gradient.where(batch.per_sample(value.isfinite(), gradient.ndim), torch.nan)

    def sample(self, batch: Batch, random: torch.Generator) -> tuple[Any, Any]:
        return hooks.draw(self.task, batch, 1, random)[0]

    def sample_with_score(self, batch: Batch, random: torch.Generator) -> tuple[Any, Any, Tensor]:
        return hooks.sample_with_score(self.task, batch, random)

    # Figures and state

    def describe(self) -> list[str]:
        learner, recipe = self.learner, self.recipe
        surrogate = "not built: that follows the first call"
        if (module := self.net.module) is not None:
            parameters = sum(p.numel() for p in module.parameters())
            surrogate = f"{type(module).__name__}, {parameters:,} parameters"
        lines = [
            f"surrogate: {surrogate}",
            f"data: {recipe.data}, {recipe.fit.steps} x {recipe.batch_size} of each "
            f"every {recipe.fit.every} calls",
            f"calls: {learner.calls:,}, updates: {learner.updates:,}"
            + (", warming up" if learner.warming_up else ""),
        ]
        if self.pairs.unseen.size:
            relative = self.stats()["surrogate/nrmse"]
            lines.append(f"error: {relative:.2f} of a constant predictor's, on unseen pairs")
        return lines

    def stats(self) -> dict[str, Any]:
        share = self.base_share if self.has_base_loss else 0.0
        return self.learner.stats() | {"base_loss/share": share} | self.oracle.stats()

    def conclude(self) -> dict[str, Any]:
        stats = self.stats()
        self.learner.conclude(stats)
        return stats

    def save(self, *, with_replay: bool) -> dict[str, Tensor]:
        return state.save(self.learner, self.oracle.queue, with_replay=with_replay)

    def load(self, saved: dict[str, Tensor]) -> Faults:
        return state.load(saved, self.learner, self.oracle.queue)

    def to(self, device: torch.device) -> None:
        self.learner.to(device)


def _unlabelled(z: Tensor, target: Tensor) -> Tensor:
    """Which samples have a finite z and a target that is not: nothing is known of them, `(batch,)`.

    They count as the mean of the others, and have no gradient.
    """
    finite = z.flatten(1).isfinite().all(1)
    return finite & ~target[:, None].flatten(1).isfinite().all(1)
