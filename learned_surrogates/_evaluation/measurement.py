"""What the metric says of a batch, and what is on its way there."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .._metric.values import same_outputs
from .job import Job

#: What the surrogate made of a batch at its call.
Context = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What the metric says of a batch.

    Attributes:
        values: errors of each prediction, `(predictions, batch)`, or `(predictions, batch, outputs,
            ...)` of a metric with one value an output; NaN of samples that were not measured.
        usable: which samples have all of them, `(batch,)`.
        arrived: which samples have come back, usable or not, `(batch,)`.
        stands_for: how many samples each one that was asked about stands for.
    """

    values: Tensor
    usable: Tensor
    arrived: Tensor
    stands_for: float = 1.0

    @cached_property
    def by_sample(self) -> Tensor:
        """Errors `(predictions, batch)`, the mean over outputs."""
        return self.values.flatten(2).mean(2) if self.values.ndim > 2 else self.values

    @property
    def failed(self) -> int:
        """How many samples have come back, and without a value."""
        return int((self.arrived & ~self.usable).sum())

    @cached_property
    def mean(self) -> Tensor:
        """Errors `(batch,)`, the mean over predictions; NaN where they are not usable."""
        return self.by_sample.mean(0).where(self.usable, torch.nan)

    def stand_in(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What was made of the samples' values, for a gradient.

        Where only some were asked about, chosen at random, they stand for all, and the mean over
        calls stays what it is. Those that were lost are left out, as they may be no random ones.

        Args:
            rows: `(n, batch, ...)`.

        Returns:
            The rows, float32, and how many samples each stands for, `(batch,)`: 0 are those that
            were not measured, or on which the metric failed.
        """
        usable = self.usable.view(-1, *[1] * (rows.ndim - 2))
        return rows.float().where(usable, 0.0), self.usable.float() * self.stands_for

    def over_batch(self, errors: Tensor) -> Tensor:
        """Errors `(batch,)` as float32; where they are not usable, the mean of those that are."""
        errors = errors.float()
        return errors.where(self.usable, errors[self.usable].mean())


class Evaluation:
    """The metric's evaluation of one batch.

    Args:
        batch: how many samples that has.
        jobs: what was sent of it.
    """

    def __init__(self, batch: int = 0, jobs: list[Job] | None = None):
        self.batch = batch
        self.jobs = jobs or []
        #: None until it is settled, and where nothing was measured.
        self.measured: Measurement | None = None
        self.settled = False
        #: Which samples of the batch have a finite prediction, on the CPU; None is all.
        self.sound: Tensor | None = None
        #: What the surrogate made of the batch at its call.
        self.seen: Context | None = None

    @property
    def sent(self) -> int:
        """Samples that were sent."""
        return sum(len(job.portion.positions) for job in self.jobs)

    @property
    def done(self) -> bool:
        return all(job.done for job in self.jobs)

    def settle(self) -> None:
        """Takes what has come back as its measurement."""
        self.settled = True
        outcomes = [(job.portion, job.outcome) for job in self.jobs if job.outcome is not None]
        if not outcomes:
            return
        positions = [position for portion, _ in outcomes for position in portion.positions]
        values = torch.cat(same_outputs([outcome.errors for _, outcome in outcomes]), 1)
        usable = torch.cat([outcome.usable for _, outcome in outcomes])
        arrived = torch.ones_like(usable)
        if len(positions) < self.batch:  # else they are in their places
            where = torch.tensor(positions, device="cpu")
            nothing = values.new_full((len(values), self.batch, *values.shape[2:]), torch.nan)
            nowhere = torch.zeros(self.batch, dtype=torch.bool, device="cpu")
            values = nothing.index_copy(1, where, values)
            usable, arrived = (nowhere.index_copy(0, where, each) for each in (usable, arrived))
        self.measured = Measurement(
            values=values,
            # Whatever the metric makes of predictions that are not finite.
            usable=usable if self.sound is None else usable & self.sound,
            arrived=arrived,
            stands_for=self.batch / self.sent,
        )

    def known(self) -> Tensor:
        """Errors over the batch, `(batch,)` float64; NaN where they are not known."""
        if self.measured is None:
            return torch.full((self.batch,), torch.nan, dtype=torch.float64, device="cpu")
        return self.measured.mean
