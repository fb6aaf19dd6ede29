"""What is known of draws, weighed by what earlier calls measured."""

from typing import Any

import torch
from torch import Tensor

from .._batch import BatchType
from .._estimator import Estimator
from .._evaluation.measurement import Context, Measurement
from .._learning.fit import Fit
from .._learning.replay import Replay
from .._learning.sync import Sync
from .._recipe import Recipe
from .._state.tensors import Faults, Shapes, as_tensor, check_shapes, not_finite
from .control_variate import ControlVariate
from .regression import Regression
from .score_function import centred

# Calls for which the weights are solved for each time, whatever `Fit.every`.
EAGER = 200
NOTHING_FITTED = (
    "{0} is for a surrogate that is fitted by gradient steps, from what is replayed. With {1!r}, "
    "weights are solved for, and nothing is: of both, Fit(every=...) alone counts"
)
# What there is of the state, by what it must have the shape of.
SUMS = ("normal", "products", "rows", "squares")


class Regressed(Estimator[BatchType]):
    """An estimator whose draws have columns: functions of them whose means' gradients are known.

    The metric's differences from draw to draw are regressed on the columns', over earlier calls;
    and how far those weights hold of draws that they were not fitted to is followed beside it.

    Args:
        ridge: of each column (see `Regression`); none where nothing is known.
        beside: of so many functions, behind the columns of what is seen, no mean is known, but how
            they correlate with the metric is followed, too.
        recipe: how much is drawn, and how often the weights are solved for.
        sync: the processes that learn together.
        random: a generator on the CPU, the only source of chance.
    """

    #: What is drawn, and what something is known of, in words.
    unit: str
    known_of: str

    def __init__(
        self,
        ridge: Tensor,
        recipe: Recipe,
        sync: Sync,
        random: torch.Generator,
        *,
        beside: int = 0,
    ):
        _check_settings(recipe)
        self.recipe = recipe
        self.sync = sync
        self.random = random
        self.device = torch.device("cpu")
        self.updates = self.calls = 0
        self.regression = Regression(ridge)
        #: Of all that is told and, after it, of the functions beside it.
        self.control = ControlVariate(1 + beside, self.device)

    @property
    def learns(self) -> bool:
        """Whether there are columns."""
        return bool(len(self.regression.ridge))

    def differences(self, values: Tensor) -> Tensor:
        return values[1:] - values[:1]

    def responses(self, measured: Measurement) -> Tensor:
        """What the columns are to tell of the usable samples' values: `(rows, samples)`."""
        return centred(measured.by_sample[:, measured.usable])

    def observe(self, measured: Measurement, seen: Context) -> None:
        if self.learns:
            (columns,) = seen
            rows = columns.cpu()[:, measured.usable].flatten(0, 1)
            count = len(self.regression.ridge)
            differences = self.responses(measured).float().flatten()
            self._take_rows(rows[:, :count], rows[:, count:], differences)

    def _take_rows(self, columns: Tensor, beside: Tensor, differences: Tensor) -> None:
        """Takes rows `(n, ...)` and the differences `(n,)` that were measured there."""
        if self.updates:
            told = columns @ self.regression.weights.float()
            self.control.take(differences, torch.stack([told, *beside.T]))
        self.regression.take(columns, differences)

    def learn(self, *, every: bool) -> None:
        self.calls += 1
        self.control.age += 1
        if every or self.calls <= EAGER:
            self.update(1)

    def update(self, steps: int) -> None:
        if not self.learns or not self.recipe.draws:
            return
        self._share_sums()
        self.regression.solve()
        self.updates += steps

    def _share_sums(self) -> None:
        """Takes the mean of all processes' sums, so that their weights are the same."""
        if not self.sync.active:
            return
        # What exchanges them may know no other device.
        own = [each.to(self.device) for each in (*self.regression.sums, self.control.sums)]
        means = self.sync.mean(own, 1, own)
        if means is not None:
            *sums, self.control.sums = [mean.cpu() for mean in means if mean is not None]
            self.regression.sums = sums

    @property
    def follows(self) -> bool:
        """Whether all is known, and nothing drawn."""
        return not self.recipe.draws

    @property
    def r2(self) -> float:
        if self.follows:
            return 1.0
        return float(self.control.r2[0]) if self.updates else float("nan")

    @property
    def weight(self) -> float:
        if self.follows:
            return 1.0
        return float(self.control.weights[0, 0]) if self.updates else 0.0

    @property
    def verdict(self) -> str:
        if self.follows:
            return "The expected metric is known in closed form: nothing is drawn or learned"
        verdict = f"The gradient is measured by {self.recipe.draws} {self.unit}"
        if self.r2 != self.r2:
            return verdict
        return (
            f"{verdict}. What is known of {self.known_of} tells {max(self.r2, 0):.0%} of how the "
            "metric differs between them"
        )

    # Where it lives

    def look(self) -> Any:
        # Tensors are replaced, and never written into.
        regression, control = self.regression, self.control
        return self.updates, regression.weights, regression.sums, control.sums, control.age

    def restore(self, looked: Any) -> None:
        self.updates, self.regression.weights, self.regression.sums = looked[:3]
        self.control.sums, self.control.age = looked[3:]

    def to(self, device: torch.device) -> None:
        # What is learned is so little that it stays on the CPU.
        self.device = device

    def save(self, *, with_replay: bool) -> dict[str, Tensor]:
        return {
            "learned": as_tensor([self.updates, self.calls, self.control.age]),
            "weights": self.regression.weights,
            "sums": self.control.sums,
            **dict(zip(SUMS, self.regression.sums, strict=True)),
        }

    def faults(self, state: dict[str, Tensor]) -> Faults:
        own = Regressed.save(self, with_replay=False)
        shapes: Shapes = {key: tuple(value.shape) for key, value in own.items()}
        return check_shapes(state, shapes) + not_finite(state, own)

    def load(self, state: dict[str, Tensor]) -> Faults:
        self.updates, self.calls, self.control.age = state["learned"].tolist()
        self.control.sums = state["sums"].to(self.control.sums, copy=True)
        self.regression.weights = state["weights"].to(self.regression.weights, copy=True)
        self.regression.sums = [state[name] for name in SUMS]
        return []

    # Several processes

    def offer(self) -> tuple[int, int, int]:
        return 1, 0, 1

    def shared(self) -> dict[str, Any]:
        return {key: value.cpu() for key, value in self.save(with_replay=False).items()}

    def take(self, shared: dict[str, Any]) -> None:
        self.load(shared)


def _check_settings(recipe: Recipe) -> None:
    """Refuses settings that would do nothing.

    Raises:
        ValueError: there are some.
    """
    fit, replay = recipe.fit, recipe.replay
    for name, given, plain in (
        ("fit", fit, Fit(every=fit.every)),
        ("replay", replay, Replay(save=replay.save)),
    ):
        if given != plain:
            raise ValueError(NOTHING_FITTED.format(f"{name}={given!r}", recipe.task))
