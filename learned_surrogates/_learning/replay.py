"""How much is remembered: `Replay`."""

from dataclasses import dataclass

from .._support.brief import brief
from .._support.checks import check_number


@dataclass(frozen=True, kw_only=True, repr=False)
class Replay:
    """How much the loss keeps of what it has seen, to learn from more than once.

    The replay buffer holds the newest pairs of prediction and target with the metric's value or,
    where the gradient is measured, the metric's differences. Whichever of the two limits is met
    first, holds. What a pair takes is in the loss's `repr`. Where nothing is remembered (text,
    lists, sets, masks, a `SampledTask`), the loss refuses another capacity or size.

    Args:
        capacity: the most pairs or differences kept, at least 1.
        bytes: the most bytes kept, at least 1; 64 MiB by default. One pair is kept, however large.
        save: whether `state_dict()` holds them. Without, a resumed run starts with none.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or value.

    Example:
        >>> from learned_surrogates import LearnedSurrogateLoss, Replay
        >>> criterion = LearnedSurrogateLoss(
        ...     lambda z, y: (z - y).abs().sum(-1), replay=Replay(capacity=5_000, save=False)
        ... )
    """

    capacity: int = 20_000
    bytes: int = 64 * 2**20
    save: bool = True

    def __post_init__(self) -> None:
        check_number("Replay.capacity", self.capacity, 1)
        check_number("Replay.bytes", self.bytes, 1)
        if not isinstance(self.save, bool):
            raise TypeError(f"Replay.save must be True or False; got {self.save!r}")

    __repr__ = brief
