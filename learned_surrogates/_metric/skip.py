"""What becomes of samples on which the metric fails: `Skip`."""

from dataclasses import dataclass

from .._support.brief import brief
from .._support.checks import check_number


@dataclass(frozen=True, kw_only=True, repr=False)
class Skip:
    """Leaves samples out on which the metric fails, and counts them in `stats`.

    There is a warning after 100 learning calls in a row without any value of the metric.

    Args:
        give_up_after: so many such calls in a row are a `MetricError`, at least 1, and again as
            many more; None never gives up.

    Raises:
        TypeError, ValueError: the number is of the wrong kind or value.

    Example:
        >>> from learned_surrogates import LearnedSurrogateLoss, Skip
        >>> criterion = LearnedSurrogateLoss(
        ...     lambda z, y: (z - y).abs().sum(-1), on_metric_error=Skip(give_up_after=50)
        ... )
    """

    give_up_after: int | None = 1000

    def __post_init__(self) -> None:
        if self.give_up_after is not None:
            check_number("Skip.give_up_after", self.give_up_after, 1)

    __repr__ = brief
