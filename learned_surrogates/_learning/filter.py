"""Which samples' gradients are used: the filter of FEDS."""

from dataclasses import dataclass

from torch import Tensor

from .._support.brief import brief
from .._support.checks import check_number
from .._support.warnings import warn


@dataclass(frozen=True, repr=False)
class Filter:
    """Keeps a sample's gradient where the surrogate's error on it is within a threshold.

    FEDS (Patel, Matas, ICDAR 2021), Eq. 4.7, taken as what it says of the gradient: a sample that
    the surrogate gets more wrong hands back zero.

    Args:
        threshold: the largest error kept, at least 0: in the metric's units (0.25 in FEDS, for
            edit distance) or, if `relative`, in units of the surrogate's mean error on the last
            predictions (`stats["surrogate/mae"]`).
        relative: whether the threshold follows the surrogate's own error.
        ramp: take Eq. 4.7 literally, as the loss `min(|surrogate - metric|, threshold)`: kept
            gradients point to where surrogate and metric *agree*. Warns, as minimising that alone
            rewards agreement and not a better metric; rotated boxes collapsed under it.

    Raises:
        TypeError, ValueError: the threshold is no number, or negative.

    Example:
        >>> from learned_surrogates import Filter, FitValues, LearnedSurrogateLoss, text
        >>> criterion = LearnedSurrogateLoss(
        ...     text.edit_distance,
        ...     task=text.CTC("abc"),
        ...     surrogate="embedding",
        ...     fit=FitValues(filter=Filter(2.0, relative=True)),
        ... )
    """

    threshold: float
    relative: bool = False
    ramp: bool = False

    def __post_init__(self) -> None:
        check_number("Filter.threshold", self.threshold, 0, integer=False)
        if self.ramp:
            warn(
                "Filter(ramp=True) minimises |surrogate - metric|, which rewards agreement with "
                "the metric and not a better metric: add another loss to it, or leave ramp out"
            )

    __repr__ = brief

    def factors(self, differences: Tensor, mean_error: float) -> Tensor:
        """What to multiply each sample's gradient with, `(batch,)`: 0 drops it.

        Args:
            differences: surrogate - metric, `(batch,)`; NaN where there is no metric.
            mean_error: the surrogate's on the last predictions; NaN before the first.
        """
        threshold = self.threshold
        if self.relative:
            # Before there is a mean error, none is too large.
            threshold *= mean_error if mean_error == mean_error else float("inf")
        kept = (differences.abs() <= threshold).to(differences)
        return kept * differences.nan_to_num().sign() if self.ramp else kept


def as_filter(given: float | Filter | None) -> Filter | None:
    """`FitValues.filter`, in its full form."""
    if isinstance(given, Filter | None):
        return given
    check_number("FitValues.filter", given, 0, integer=False)
    return Filter(given)
