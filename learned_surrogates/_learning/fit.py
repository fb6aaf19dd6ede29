"""How what is learned is fitted: `Fit`."""

from dataclasses import dataclass

from .._support.brief import brief
from .._support.checks import check_number


@dataclass(frozen=True, kw_only=True, repr=False)
class Fit:
    """How often, how long and how fast what the loss learns of the metric is fitted.

    That is the surrogate or, of text whose gradient is measured, the weights of what is known. For
    a surrogate that is fitted to the metric's values, `FitValues` has more. Where weights are
    solved for (text, lists, sets, masks, a `SampledTask`), only `every` counts, and the loss
    refuses the others.

    Args:
        every: learning calls an update, at least 1. Where the gradient is measured, there is one at
            each of the first 200 calls as well.
        steps: gradient steps an update, at least 1.
        batch_size: pairs of each source ("local", "global") a gradient step, at least 1; None takes
            the task's: 192 for boxes, else 64.
        learning_rate: of Adam, at least 0; None takes 5e-3 for plain tensors whose gradient is
            measured, else 1e-3.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or value.

    Example:
        >>> from learned_surrogates import Fit, LearnedSurrogateLoss
        >>> criterion = LearnedSurrogateLoss(
        ...     lambda z, y: (z - y).abs().sum(-1), fit=Fit(every=1, learning_rate=1e-2)
        ... )
    """

    every: int = 4
    steps: int = 1
    batch_size: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        self._check("every", 1)
        self._check("steps", 1)
        if self.batch_size is not None:
            self._check("batch_size", 1)
        if self.learning_rate is not None:
            self._check("learning_rate", 0, integer=False)

    def _check(self, field: str, least: float, *, integer: bool = True) -> None:
        name = f"{type(self).__name__}.{field}"
        check_number(name, getattr(self, field), least, integer=integer)

    __repr__ = brief
