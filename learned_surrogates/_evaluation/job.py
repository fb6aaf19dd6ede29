"""A portion of an evaluation on its way, until it is done or lost."""

import math
import pickle
from concurrent.futures import Future

from .._metric.error import CallingFormError, MetricError
from .._metric.metric import Metric
from .._support.warnings import warn
from .portion import Outcome, Parcel, Portion

LOST = (
    "metric {name!r}: the values of {samples} samples are lost, as {why}. With "
    "on_metric_error='skip' such samples are left out and counted: in stats['metric/lost'], or in "
    "what check returns"
)
UNSENDABLE = (
    "metric {!r} cannot be sent to the executor's workers ({!r}): define it at the top "
    "level of a module, not within a function nor as a lambda, or give it threads, "
    "executor=ThreadPoolExecutor"
)


class Job:
    """A portion on its way: done when it has an outcome or is lost.

    Args:
        metric: learns how it is called from the first outcome that knows it.
        portion: what it is called with.
    """

    def __init__(self, metric: Metric, portion: Portion):
        self.metric = metric
        self.portion = portion
        self.outcome: Outcome | None = None
        self.failure: MetricError | None = None
        #: Whether the failure is of the set-up, which no `on_metric_error` passes over.
        self.fatal = False
        self.wanted = True
        self.failures = 0
        self.future: Future[Parcel[Outcome]] | None = None
        #: When it was sent; infinite before that.
        self.sent = math.inf

    @property
    def done(self) -> bool:
        return self.outcome is not None or self.failure is not None

    @property
    def unsent(self) -> bool:
        """Whether the executor did not take it."""
        return self.failure is not None and self.outcome is None and self.future is None

    def take(self, outcome: Outcome) -> None:
        self.outcome, self.failure = outcome, outcome.failure
        self.fatal = isinstance(outcome.failure, CallingFormError)
        metric = self.metric
        if metric.form is None or metric.form.watched:
            metric.form = outcome.form or metric.form
        metric.trouble = outcome.trouble or metric.trouble
        if outcome.word is not None and not metric.said:
            metric.said = True
            warn(outcome.word)

    def refuse(self, cause: BaseException) -> None:
        """It cannot be sent."""
        self.failure, self.fatal = MetricError(UNSENDABLE.format(self.metric.name, cause)), True
        self.failure.__cause__ = cause

    def lose(self, why: str, cause: BaseException | None = None) -> None:
        samples = len(self.portion.positions)
        self.failure = MetricError(LOST.format(name=self.metric.name, samples=samples, why=why))
        self.failure.__cause__ = cause
        self.metric.trouble = f"is not known: {why}"


def pickling_error(metric: Metric) -> BaseException | None:
    """Why a metric cannot be sent to another process; None if it can."""
    try:
        pickle.dumps(metric)
    except Exception as error:  # noqa: BLE001 - there is no one class of them
        return error
    return None
