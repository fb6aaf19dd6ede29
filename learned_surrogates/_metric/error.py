"""What the user's metric is answered with where it fails."""


class MetricError(RuntimeError):
    """The metric raised, or returned something that is not one finite number a sample.

    The message names the metric, the sample, and the shapes and dtypes that it was given; the
    metric's own exception, if there was one, is the `__cause__`. The loss is left as it was before
    the call and may be called again. Where the metric failed on a pair of the random generator, the
    call has been counted and its predictions remembered, and the surrogate is not updated; where
    several processes fit one surrogate, a call is always counted and, if it is one that updates,
    raises in all of them.
    """


class ReturnedError(ValueError):
    """What the metric returned is not what it must return; the message begins with "returned"."""


class NoNumbers(ReturnedError):
    """It is none that holds real numbers: a dict, a pair of things, nothing."""


class CallingFormError(MetricError, ValueError):
    """It is not clear what the metric takes: no `on_metric_error` passes over that."""
