"""The metric's evaluations of batches: submitted, awaited, collected."""

import os
from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from .._metric.error import MetricError
from .._metric.metric import WILD, Metric
from .._metric.values import take
from .._support.isolated import isolated
from .._support.warnings import warn
from .job import Job
from .measurement import Context, Evaluation
from .pool import Inline, Pool
from .portion import Portion
from .workers import Workers

EARLIER = (
    "{error} (This is of an earlier call's batch, whose values have arrived by now; they are "
    "dropped, and the present call has not been made.)"
)

# Calls in a row without any value after which the user is warned.
PATIENCE = 100
NOTHING = (
    "metric {name!r} had no value for any sample of {calls} calls in a row; last, it {trouble}. "
)
SKIPPING = (
    "Nothing is learned from them, and what was learned before counts for less with each call. "
    "After Skip(give_up_after={limit}) such calls it is an error"
)
GIVEN_UP = "That many are an error: Skip(give_up_after={calls}). Another call tries again"


class Queue:
    """The metric's evaluations of one loss, in the order of its calls.

    submit, wait, enqueue, collect: so much becomes of each, or it is cancelled.

    Args:
        metric: what is evaluated.
        workers: where, and when its values are taken in; None evaluates here and now.
    """

    def __init__(self, metric: Metric, workers: Workers | None):
        self.metric = metric
        self.workers = workers
        self.pool = Inline() if workers is None else Pool(workers)
        self.lag = 0 if workers is None else workers.lag
        self.pending: list[Evaluation] = []
        self.lost = 0
        self.unmeasured = 0
        #: Calls in a row that were measured and of which no sample has a value.
        self.calls_without_value = 0

    def __getstate__(self) -> dict[str, Any]:
        # What is on its way stays with the one that awaits it.
        return vars(self) | {"pending": []}

    @property
    def samples_pending(self) -> int:
        """Samples whose values are awaited."""
        return sum(evaluation.sent for evaluation in self.pending if not evaluation.done)

    @property
    def ahead(self) -> int:
        """How many evaluations may be on their way where it is known what comes next."""
        return 0 if self.workers is None or self.lag == 0 else self.workers.max_pending

    def is_full(self) -> bool:
        """Takes what has come; whether a call that may not wait finds too many others waiting."""
        self.pool.advance()
        awaited = sum(not evaluation.done for evaluation in self.pending)
        return self.lag is None and self.workers is not None and awaited >= self.workers.max_pending

    def submit(self, pairs: list[tuple[Any, Any]], batch: int, positions: list[int]) -> Evaluation:
        """Sends samples of a batch to be measured.

        Args:
            pairs: predictions and targets of the whole batch: as decoded, and of each draw.
            batch: how many samples it has.
            positions: those to measure.

        Raises:
            MetricError: they could not be sent.
        """
        pieces = self._processors if self.lag == 0 else 1
        evaluation = Evaluation(batch, self._send(pairs, batch, positions, pieces))
        try:
            self._check(job for job in evaluation.jobs if job.unsent)
        except MetricError:
            self.cancel(evaluation)
            raise
        return evaluation

    def wait(self, evaluation: Evaluation) -> None:
        """Waits for an evaluation, and settles it: it has its measurement then.

        Raises:
            MetricError: the metric failed or, with `on_metric_error="raise"`, samples are lost.
        """
        if evaluation.settled:
            return
        self.pool.wait(evaluation.jobs)
        # Also what raises below will not be waited for once more.
        evaluation.settled = True
        # An outcome with a failure is of a metric that is to raise.
        self.lost += sum(
            len(job.portion.positions)
            for job in evaluation.jobs
            if job.failure is not None and job.outcome is None
        )
        self._check(evaluation.jobs)
        evaluation.settle()

    def evaluate(self, pairs: Iterable[tuple[Any, Any]]) -> Tensor:
        """Errors `(pairs, batch)` of whole batches, waited for and not counted.

        NaN where there is none: the metric failed there, or the sample was lost.

        Args:
            pairs: predictions and targets, as many samples in each. Taken when the workers can.

        Raises:
            MetricError: the metric failed or, with `on_metric_error="raise"`, samples are lost.
        """
        at_once = 1 if self.workers is None else self.workers.max_pending
        errors, remaining = [], iter(pairs)
        while together := list(islice(remaining, at_once)):
            errors += self._evaluate(together)
        return torch.stack(errors)

    def _evaluate(self, pairs: list[tuple[Any, Any]]) -> list[Tensor]:
        """Errors `(batch,)` of each pair, evaluated side by side."""
        pieces = -(-self._processors // len(pairs))
        evaluations: list[Evaluation] = []
        try:
            for pair in pairs:
                samples = len(pair[1])
                jobs = self._send([pair], samples, list(range(samples)), pieces)
                evaluations.append(Evaluation(samples, jobs))
            self.pool.wait(job for evaluation in evaluations for job in evaluation.jobs)
        except BaseException:
            for evaluation in evaluations:
                self.cancel(evaluation)
            raise
        errors = []
        for evaluation in evaluations:
            self._check(evaluation.jobs)
            evaluation.settle()
            errors.append(evaluation.known())
        return errors

    def wait_for_due(self, own: Evaluation | None = None) -> None:
        """Settles what is due at a learning call; waits only as far as `lag` asks for.

        Args:
            own: the call's own evaluation; None settles all that are held.

        Raises:
            MetricError: of the first one that failed, which is dropped; or there were no values for
                too many calls.
        """
        if self.calls_without_value == self.metric.give_up_after:
            calls, self.calls_without_value = self.calls_without_value, 0
            raise MetricError(self._nothing(calls) + GIVEN_UP.format(calls=calls))
        self.pool.advance()
        due = list(self.pending)
        if own is not None and self.lag is None:
            due = [evaluation for evaluation in due if evaluation.done]
        elif own is not None and self.lag:
            due = due[: max(0, len(due) - self.lag + 1)]
        for evaluation in due:
            try:
                self.wait(evaluation)
            except MetricError as error:
                self.pending.remove(evaluation)
                raise MetricError(EARLIER.format(error=error)) from error.__cause__
        if own is not None and self.lag == 0:
            self.wait(own)

    def enqueue(self, evaluation: Evaluation, seen: Context | None = None) -> None:
        """Keeps a call's evaluation until it is taken.

        Args:
            evaluation: the call's.
            seen: what the surrogate made of the batch.
        """
        if seen and not evaluation.settled:
            # Until they are taken in, the user may write to what they are views of.
            with isolated(seen[0].device):
                seen = tuple(part.detach().clone() for part in seen)
        evaluation.seen = seen
        self.unmeasured += evaluation.batch - evaluation.sent
        self.pending.append(evaluation)

    def collect(self) -> list[Evaluation]:
        """Hands over what has been settled, oldest first."""
        settled = [evaluation for evaluation in self.pending if evaluation.settled]
        self.pending = [evaluation for evaluation in self.pending if not evaluation.settled]
        for evaluation in settled:
            self._count(evaluation)
        return settled

    def _count(self, evaluation: Evaluation) -> None:
        """Counts calls in a row that have no value, and warns once there are many."""
        measured = evaluation.measured
        if measured is not None and measured.usable.any():
            self.calls_without_value = 0
        elif evaluation.sent:
            self.calls_without_value += 1
            if self.calls_without_value == PATIENCE != self.metric.give_up_after:
                warn(self._nothing(PATIENCE) + SKIPPING.format(limit=self.metric.give_up_after))

    def _nothing(self, calls: int) -> str:
        name, trouble = self.metric.name, self.metric.trouble or WILD
        return NOTHING.format(name=name, calls=calls, trouble=trouble)

    def cancel(self, evaluation: Evaluation) -> None:
        """Forgets an evaluation that was started."""
        self.pool.drop(evaluation.jobs)

    def cancel_all(self) -> None:
        """Forgets all that is held."""
        for evaluation in self.pending:
            self.cancel(evaluation)
        self.pending = []

    @property
    def _processors(self) -> int:
        """Of this machine; 1 without workers."""
        return 1 if self.workers is None else os.cpu_count() or 1

    def _send(
        self, pairs: list[tuple[Any, Any]], batch: int, positions: list[int], pieces: int
    ) -> list[Job]:
        """Sends samples of a batch, in so many pieces if the workers do not say how many."""
        most = max(1, -(-len(positions) // pieces))
        if self.workers is not None and self.workers.chunk_size is not None:
            most = self.workers.chunk_size
        jobs = []
        for first in range(0, len(positions), most):
            part = positions[first : first + most]
            portions = [tuple(self._part(side, part, batch) for side in pair) for pair in pairs]
            portion = Portion(pairs=portions, positions=part, batch=batch)
            jobs.append(Job(self.metric, portion))
        try:
            for job in jobs:
                self.pool.send(job)
        except BaseException:
            self.pool.drop(jobs)
            raise
        return jobs

    def _check(self, jobs: Iterable[Job]) -> None:
        """Raises what became of jobs, if it is to be raised."""
        for job in jobs:
            if job.failure is not None and (job.fatal or self.metric.on_error == "raise"):
                raise job.failure

    def _part(self, objects: Any, positions: list[int], batch: int) -> Any:
        if len(positions) < batch:
            objects = take(objects, positions)
        if self.workers is None:
            return objects
        if isinstance(objects, list):
            return [_to_cpu(each) for each in objects]
        return _to_cpu(objects)


def _to_cpu(value: Any) -> Any:
    return value.to("cpu") if isinstance(value, Tensor) else value
