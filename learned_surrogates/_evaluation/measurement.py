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
        values: errors of each prediction that was measured, `(predictions, samples)`, or
            `(predictions, samples, outputs, ...)` of a metric with one value an output.
        usable: which samples have all of them, `(samples,)`.
        positions: of these samples in the batch; None where they are all of it.
        sent: how many were asked about, where some of them were lost; None is all that is here.
    """

    values: Tensor
    usable: Tensor
    positions: Tensor | None = None
    sent: int | None = None

    @cached_property
    def by_sample(self) -> Tensor:
        """Errors `(predictions, samples)`, the mean over outputs taken."""
        return self.values.flatten(2).mean(2) if self.values.ndim > 2 else self.values

    @property
    def errors(self) -> Tensor:
        """Of the first predictions, as they are decoded; the others are draws. `(samples,)`."""
        return self.by_sample[0]

    @cached_property
    def expected(self) -> Tensor:
        """What values are fitted to: the mean over draws or, without draws, `errors`."""
        draws = self.by_sample[1:]
        return draws.mean(0) if len(draws) else self.errors

    @cached_property
    def noise(self) -> Tensor:
        """Variance of `expected` around the true mean over draws, as the draws differ.

        0 without draws, and NaN with one, which does not tell.
        """
        draws = self.by_sample[1:]
        if len(draws) < 2:
            return torch.full_like(self.errors, torch.nan if len(draws) else 0.0)
        return draws.var(0) / len(draws)

    def of(self, tensor: Tensor) -> Tensor:
        """The part `(samples, ...)` of a tensor over the batch that was measured."""
        return tensor if self.positions is None else tensor[self.positions.to(tensor.device)]

    def known(self, batch: int) -> Tensor:
        """`expected` over the batch; NaN where it is not known."""
        known = self.expected.where(self.usable, torch.nan)
        if self.positions is None:
            return known
        return known.new_full((batch,), torch.nan).index_copy(0, self.positions, known)

    def stand_in(self, rows: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """What was made of the measured samples' values, over the whole batch, for a gradient.

        Where only some were asked about, chosen at random, they stand for all, and the mean over
        calls stays what it is. Those that were lost are left out, as they may be no random ones.

        Args:
            rows: `(n, samples, ...)`.
            batch: how many samples that has.

        Returns:
            `(n, batch, ...)` float32, and how many samples each stands for, `(batch,)`: 0 are those
            that were not measured, or on which the metric failed.
        """
        usable = self.usable.view(-1, *[1] * (rows.ndim - 2))
        rows, stands_for = rows.float().where(usable, 0.0), self.usable.float()
        if self.positions is None:
            return rows, stands_for
        stands_for = stands_for * (batch / (self.sent or len(self.positions)))
        nothing = rows.new_zeros(len(rows), batch, *rows.shape[2:])
        rows = nothing.index_copy(1, self.positions, rows)
        return rows, stands_for.new_zeros(batch).index_copy(0, self.positions, stands_for)

    def over_batch(self, batch: int) -> Tensor:
        """Means over all predictions, `(batch,)` float32; of others, the mean of those measured."""
        errors = self.by_sample.mean(0).float()
        mean = errors[self.usable].mean()
        errors = errors.where(self.usable, mean)
        if self.positions is None:
            return errors
        return mean.repeat(batch).index_copy(0, self.positions, errors)


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
        part = torch.tensor(positions, device="cpu") if len(positions) < self.batch else None
        usable = torch.cat([outcome.usable for _, outcome in outcomes])
        if self.sound is not None:  # whatever the metric makes of the others
            usable = usable & (self.sound if part is None else self.sound[part])
        self.measured = Measurement(
            values=torch.cat(same_outputs([outcome.errors for _, outcome in outcomes]), 1),
            usable=usable,
            positions=part,
            sent=None if part is None else self.sent,
        )

    def known(self) -> Tensor:
        """Errors over the batch, `(batch,)` float64; NaN where they are not known."""
        if self.measured is None:
            return torch.full((self.batch,), torch.nan, dtype=torch.float64, device="cpu")
        return self.measured.known(self.batch)
