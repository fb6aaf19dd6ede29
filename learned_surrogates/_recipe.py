"""How the loss learns, as arguments that were checked together."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ._contract import hooks
from ._evaluation.budget import Budget, check_budget
from ._evaluation.workers import Workers
from ._learning.filter import Filter, as_filter
from ._learning.fit import Fit
from ._learning.fit_values import FitValues, Generator, as_fit_values
from ._learning.replay import Replay
from ._support.checks import check_number, check_seed
from ._task import Task


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the loss learns: its arguments, and what the task takes where they say nothing.

    Raises:
        TypeError: a field is of the wrong kind.
        ValueError: a field has an impossible value, or they do not go together.
    """

    task: Task[Any]
    fit: Fit
    replay: Replay
    draws: int
    base_weight: float | None
    correction: float | None
    seed: int
    executor: Workers | None
    metric_budget: Budget

    @property
    def late(self) -> bool:
        """Whether the metric's values may come after their call."""
        return self.executor is not None and self.executor.lag != 0

    def __post_init__(self) -> None:
        for name, kind in (("fit", Fit), ("replay", Replay)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} must be {kind.__name__}(...); got {getattr(self, name)!r}")
        check_number("draws", self.draws, 0)
        object.__setattr__(self, "seed", check_seed(self.seed))
        for name in ("base_weight", "correction"):
            share = getattr(self, name)
            if share is not None:
                check_number(name, share, 0, integer=False)
                if share > 1:
                    raise ValueError(f"{name} must be at most 1; got {share!r}")
        if self.correction not in (None, 1) and not (self.task.measured and self.draws):
            raise ValueError(
                f"correction={self.correction!r} weighs what draws correct by, and here nothing is "
                "measured by draws: leave it out"
            )
        check_budget(self.metric_budget)
        self._check_fit()

    def _check_fit(self) -> None:
        """Holds `fit` against the task, and against when the metric's values are there."""
        if self.task.measured and isinstance(self.fit, FitValues):
            raise ValueError(
                f"fit={self.fit!r} is for a surrogate that is fitted to the metric's values, and "
                f"{self.task!r} has the metric's gradient measured: take {self.task.fits_values} "
                "for it, or fit=Fit(...)"
            )
        if self.data != "local" and self.generator is None:
            raise ValueError(
                f"data={self.data!r} needs generator=, a random data generator: {self.task!r} has "
                "none"
            )
        if self.filter is not None and (self.late or self.metric_budget is not None):
            raise ValueError(
                "filter= compares the surrogate with the metric of the same call and sample: it "
                "needs an executor's values in the call, executor=Workers(..., lag=0), and no "
                "metric_budget"
            )

    # What a None stands for

    @cached_property
    def generator(self) -> Generator | None:
        """The user's, or the task's own."""
        given = self.values.generator
        return hooks.generator(self.task) if given is None else given

    @property
    def data(self) -> Literal["local", "global", "local-global"]:
        return self.values.data or ("local" if self.generator is None else "local-global")

    @property
    def batch_size(self) -> int:
        return self.fit.batch_size or self.task.batch_size

    @property
    def learning_rate(self) -> float:
        given = self.fit.learning_rate
        return self.task.learning_rate if given is None else given

    @property
    def penalty_weight(self) -> float:
        given = self.values.penalty_weight
        return self.task.penalty_weight if given is None else given

    # In their full forms

    @cached_property
    def values(self) -> FitValues:
        """`fit`, with what only a surrogate that is fitted to values has."""
        return as_fit_values(self.fit)

    @cached_property
    def filter(self) -> Filter | None:
        return as_filter(self.values.filter)
