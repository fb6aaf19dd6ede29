"""What measures an expected metric's gradient: the seam between a call and a kind of prediction."""

from abc import ABC, abstractmethod
from typing import Any, Generic

import torch
from torch import Tensor

from ._batch import BatchType
from ._evaluation.measurement import Context, Measurement
from ._learning.replay_buffer import ReplayBuffer
from ._state.tensors import Faults


class Draws(ABC):
    """Draws around a batch's predictions, and what is known about them before they are measured.

    Attributes:
        pairs: what the metric gets, a prediction and a target for the whole batch each; none where
            nothing need be measured.
        seen: what the estimator must keep until the metric's values arrive, if anything.
        values: expected errors `(batch,)`, where they are known without the metric; else None.
        undefined: which of these, `(batch,)`, only stand for one, as the metric has none; None is
            none.
    """

    pairs: list[tuple[Any, Any]]
    seen: Context = ()
    values: Tensor | None = None
    undefined: Tensor | None = None

    @abstractmethod
    def known_gradient(self) -> tuple[Tensor, float] | None:
        """What is known of the gradient before anything is measured; None where that is nothing.

        Returns:
            A gradient of the prediction's shape, float32, and how far it was confirmed, 0 to 1, by
            which it is scaled already.
        """

    @abstractmethod
    def gradient(self, measured: Measurement) -> tuple[Tensor, Tensor]:
        """The gradient of each sample's expected error: what is known of it, and its correction.

        Their sum is unbiased. Where only some samples were measured, chosen at random, they stand
        for all: the mean over calls stays what it is. Samples on which the metric failed are not
        corrected.

        Args:
            measured: what the metric said of `pairs`.

        Returns:
            Two gradients of the prediction's shape, float32.
        """


class KnownDraws(Draws):
    """No draws: the metric's mean over all of them is known.

    Args:
        values, undefined: as `Draws` has them.
        gradient: that of the values, of the prediction's shape, float32.
    """

    pairs: list[tuple[Any, Any]] = []  # noqa: RUF012 - there are never any

    def __init__(self, values: Tensor, gradient: Tensor, undefined: Tensor | None = None):
        self.values = values
        self.undefined = undefined
        self._gradient = gradient

    def known_gradient(self) -> tuple[Tensor, float]:
        return self._gradient, 1.0

    def gradient(self, measured: Measurement) -> tuple[Tensor, Tensor]:
        return self._gradient, torch.zeros_like(self._gradient)


class Estimator(ABC, Generic[BatchType]):
    """Draws around predictions, and learns what makes their gradient quieter.

    Attributes:
        updates: of what is learned, so far: gradient steps, or solutions of least squares.
    """

    updates: int = 0
    #: Measurements before the first call, each as large as a call's.
    ahead: int = 0

    @property
    def replay(self) -> ReplayBuffer | None:
        """What differences are remembered in, where they are."""
        return None

    def follow(self, batch: BatchType) -> None:
        """Takes in, in a call that learns, what its predictions look like."""
        return

    @abstractmethod
    def draw(self, batch: BatchType, count: int) -> Draws:
        """So many draws a sample around a batch that is not empty."""

    @abstractmethod
    def sample_with_score(
        self, batch: BatchType, random: torch.Generator
    ) -> tuple[Any, Any, Tensor]:
        """One draw as the metric takes it, and the score of each sample.

        The score is the gradient of the draw's log-likelihood with respect to the prediction.
        """

    def from_scores(self, products: Tensor, batch: BatchType) -> Tensor:
        """The mean's gradient, from values times scores, summed over draws.

        Both are of the prediction's shape.
        """
        return products

    @abstractmethod
    def differences(self, values: Tensor) -> Tensor:
        """How values `(draws, ...)` differ from draw to draw, zero where they do not."""

    def errors(self, measured: Measurement, seen: Context) -> Tensor:
        """The expected errors of a call's samples, `(batch,)`; NaN where they are not usable.

        Args:
            measured: what the metric said of their draws.
            seen: as the `Draws` had it.
        """
        return measured.mean

    def finite(self, batch: BatchType) -> Tensor:
        """Which samples of a prediction are finite, `(batch,)`."""
        return batch.prediction.detach()[:, None].flatten(1).isfinite().all(1)

    def correction(self, given: float | None) -> float:
        """Share of what draws correct by that is taken, where the user gives this one."""
        return 1.0 if given is None else given

    def weigh(self, batch: BatchType, correction: Tensor) -> None:
        """Reads, in a learning call, what draws correct by, so that its share may be found."""
        return

    def base_loss_leads(self, batch: BatchType, draws: Draws) -> bool | None:
        """Whether the model is not yet where the metric leads, so that the base loss must.

        None leaves it to what is measured of both gradients.
        """
        return None

    def check(self, draws: Draws, measured: Measurement) -> None:
        """Holds what was asked for against the first batch.

        Raises:
            ValueError: it does not go together.
        """
        return

    @abstractmethod
    def observe(self, measured: Measurement, seen: Context) -> None:
        """Takes what the metric said of draws, maybe of an earlier call's.

        Args:
            measured: what it said.
            seen: as the `Draws` had it.
        """

    @abstractmethod
    def learn(self, *, every: bool) -> None:
        """Learns after a call; `every` is True at every `fit.every`-th."""

    @abstractmethod
    def update(self, steps: int) -> None:
        """Fits what it learns, together with the other processes: by so many gradient steps, or by
        solving for it, which counts as so many."""

    # What is told

    @property
    @abstractmethod
    def r2(self) -> float:
        """Share of the draws' noise that is told beforehand, of draws not yet learned from; NaN
        before it is known."""

    @property
    @abstractmethod
    def weight(self) -> float:
        """How far what is told beforehand is confirmed, 0 to 1."""

    @property
    def base_weight(self) -> float:
        """The base loss's share where the user gives none."""
        return 0.0

    @property
    @abstractmethod
    def verdict(self) -> str:
        """What makes the gradient, as the beginning of a sentence."""

    @property
    @abstractmethod
    def silent_advice(self) -> str:
        """Why all draws may be the same, and what to do, to follow an "or"."""

    def stats(self) -> dict[str, Any]:
        """Figures of its own, for `stats`."""
        return {}

    @abstractmethod
    def describe(self) -> list[str]:
        """Lines of the loss's `repr`."""

    # Where it lives

    def look(self) -> Any:
        """What `draw` may change, for `restore`."""
        return None

    def restore(self, looked: Any) -> None:
        """Goes back to what `look` gave."""
        return

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Moves what it holds."""

    @abstractmethod
    def save(self, *, with_replay: bool) -> dict[str, Tensor]:
        """The state as named tensors."""

    @abstractmethod
    def faults(self, state: dict[str, Tensor]) -> Faults:
        """What can be seen to be wrong with a state that `load` would be given."""

    @abstractmethod
    def load(self, state: dict[str, Tensor]) -> Faults:
        """Takes a saved state without `faults`; one that shows some only now changes nothing."""

    # Several processes

    @abstractmethod
    def offer(self) -> tuple[int, int, int]:
        """What it has to give to other processes that learn together with it.

        Returns:
            Whether something has been made, from how much it could be, and whether it is wanted.
        """

    @abstractmethod
    def shared(self) -> dict[str, Any]:
        """What the others take, on the CPU; made now, if it was not yet."""

    @abstractmethod
    def take(self, shared: dict[str, Any]) -> None:
        """Takes what another process has shared; what is remembered stays what it is."""
