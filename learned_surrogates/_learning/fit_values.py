"""How a surrogate is fitted to the metric's values: `FitValues`."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from .._support.checks import check_choice
from .filter import Filter, as_filter
from .fit import Fit

DATA = ("local", "global", "local-global")


#: A random data generator R: `generator(count, rng)` returns `count` predictions and `count`
#: targets, in the form in which the metric takes them, spread over the metric's range.
Generator = Callable[[int, np.random.Generator], tuple[Any, Any]]


@dataclass(frozen=True, kw_only=True, repr=False)
class FitValues(Fit):
    r"""How a surrogate is fitted to the metric's values, and when its gradient is followed.

    For boxes, `Tensors(smoothing=0)`, and text with `surrogate="embedding"`, "conditioned", "pair"
    or a module of your own. Where the gradient is measured, there is nothing of this.

    Args:
        every: learning calls an update.
        steps: gradient steps an update.
        batch_size: pairs of each source ("local", "global") a gradient step; None takes the task's:
            192 for boxes, else 64.
        learning_rate: of Adam; None is 1e-3.
        data: what the surrogate is fitted to: "local" (the model's predictions), "global" (the
            generator's pairs) or "local-global". None is the last where there is a generator, else
            "local".
        generator: the random data generator, `generator(count, rng) -> (predictions, targets)` in
            the form in which the metric takes them; None takes the task's own, if it has one.
        filter: the surrogate's largest error on a sample, at least 0, in the metric's units, with
            which it still gives a gradient: a sample that it gets more wrong hands back zero, as in
            FEDS, Eq. 4.7 (0.25 there, for edit distance). Its error is against what it is fitted
            to, the mean over draws if there are any. None keeps all samples; see `Filter` for more.
        penalty_weight: :math:`\lambda` of the gradient penalty, at least 0; None takes the task's
            (0.1 for the embedding of text, as in the papers, else 0).
        penalty_norm: the gradient norm that the penalty asks for, at least 0; 1 in the papers.
        penalty_every: gradient steps a computed penalty, at least 1, which then weighs as much as
            if it had been computed at each.
        warm_up: gradient steps before the surrogate's gradient is handed back, at least 0, all
            within the first ten calls.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or value.

    Example:
        >>> from learned_surrogates import FitValues, LearnedSurrogateLoss, text
        >>> criterion = LearnedSurrogateLoss(
        ...     text.edit_distance,
        ...     task=text.CTC("abc"),
        ...     surrogate="embedding",
        ...     fit=FitValues(data="local", warm_up=1000),
        ... )

    References:
        Patel, Hodaň, Matas: Learning Surrogates via Deep Embedding. ECCV 2020, Eq. 6 and
        Algorithm 1.

        Patel, Matas: FEDS - Filtered Edit Distance Surrogate. ICDAR 2021.
    """

    data: Literal["local", "global", "local-global"] | None = None
    generator: Generator | None = None
    filter: float | Filter | None = None
    penalty_weight: float | None = None
    penalty_norm: float = 1.0
    penalty_every: int = 1
    warm_up: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data is not None:
            check_choice("FitValues.data", self.data, DATA)
        check_generator(self.generator)
        as_filter(self.filter)
        if self.penalty_weight is not None:
            self._check("penalty_weight", 0, integer=False)
        self._check("penalty_norm", 0, integer=False)
        self._check("penalty_every", 1)
        self._check("warm_up", 0)


def as_fit_values(fit: Fit) -> FitValues:
    """The loss's argument `fit`, in its full form."""
    return fit if isinstance(fit, FitValues) else FitValues(**asdict(fit))


def changed(fit: dict[str, Any], changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of `FitValues` with those changes that are fields as well, and the other changes.

    Of a `fit` among the changes, what is as it is by default leaves the fields as they are.
    """
    names = {field.name for field in fields(FitValues)}
    own = {name: value for name, value in changes.items() if name in names}
    others = {name: value for name, value in changes.items() if name not in names}
    given = others.pop("fit", None)
    if given is None:
        return fit | own, others
    if not isinstance(given, Fit):
        raise TypeError(f"fit must be Fit(...) or FitValues(...); got {given!r}")
    said = {
        field.name: value
        for field in fields(given)
        if (value := getattr(given, field.name)) != field.default
    }
    return fit | said | own, others


def check_generator(generator: object) -> None:
    """Raises a TypeError of a random data generator that cannot be called."""
    if generator is not None and not callable(generator):
        raise TypeError(
            "generator must be callable as generator(count, rng) -> (predictions, targets); "
            f"got {generator!r}"
        )
