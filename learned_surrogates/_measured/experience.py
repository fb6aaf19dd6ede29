"""What was measured: remembered for the surrogate's fit, and told."""

import statistics

import torch
from torch import Tensor

from .._evaluation.measurement import Measurement
from .._learning.replay_buffer import ReplayBuffer
from .._recipe import Recipe
from .._state.tensors import ANY, Faults, Shapes, as_tensor, part
from .._support.moderate import moderate
from .._support.transfer import send
from .._support.warnings import warn
from .bounded import DifferenceScale
from .draws import as_samples, half_differences
from .slope import Rows, Slope

# Differences of one call that are remembered.
MOST_ROWS = 512
# Gradient steps at the beginning.
FIRST_STEPS = 100
# Numbers of predictions that one gradient step may look at, and those at the beginning together: of
# large samples it is fewer rows and steps, as a call must not take minutes.
MOST_A_STEP, MOST_AT_FIRST = 2**17, 2**22
# Differences after which a loaded state is held against what is measured now, and times their size
# by which they may differ.
FEWEST_LOADED, MOST_APART = 16, 10.0
DISAGREES = (
    "the metric's differences are {ratio:.3g} times as large as those in the state that was "
    "loaded: it must be another metric, as a percentage is where a share was. What the state has "
    "measured and learned is dropped"
)


class Experience:
    """Differences of the metric between draws, and what they were drawn around.

    Args:
        recipe: how much is remembered.
    """

    def __init__(self, recipe: Recipe):
        self._recipe = recipe
        self.replay = ReplayBuffer(recipe.replay.capacity, recipe.replay.bytes)
        #: Shape of the metric's values behind the batch; None before the first.
        self.outputs: torch.Size | None = None
        #: How large differences are that are not zero.
        self.size = DifferenceScale()
        #: Whether what there is comes from a state, and has not been held against the metric.
        self.loaded = False
        self._sizes: list[float] = []

    def observe(
        self,
        measured: Measurement,
        z: Tensor,
        noise: Tensor,
        width: Tensor,
        predicted: Tensor | None,
        target: Tensor | None,
        slope: Slope,
        random: torch.Generator,
    ) -> None:
        """Judges the surrogate by what was measured, and then remembers that.

        Args:
            measured: what the metric said of draws around a batch.
            z: the batch's predictions, `(batch, *sample)`.
            noise: of the draws, standard normal, `(pairs, batch, *sample)`.
            width: its standard deviation, to be broadcast to a sample.
            predicted: what the surrogate's forms told of the differences (see `Told`).
            target: `(batch, ...)`; None if the surrogate cannot see it.
            slope: the surrogate.
            random: chooses what is remembered where there is much.
        """
        usable = measured.usable
        values = measured.values[:, usable]
        self.outputs = values.shape[2:]
        differences = half_differences(values).float()
        if self.loaded:
            self._hold_against(differences, slope)
        differences = self.size.bounded(differences)
        if not usable.all():
            chosen = send(usable.nonzero()[:, 0], z.device)
            z, noise = z[chosen], noise[:, chosen]
            target = None if target is None else target[chosen]
            if predicted is not None:
                by_sample = predicted.unflatten(-1, (len(usable), -1))
                predicted = by_sample[:, :, :, chosen].flatten(3)
        samples, target = as_samples(z, target, self.outputs)
        if target is None:
            slope.unsuited = not slope.forms
            return
        pairs = len(noise)
        rows: Rows = (
            _repeated(samples, pairs),
            _repeated(target, pairs),
            noise.reshape(-1, *samples.shape[1:]),
            width.expand_as(noise).reshape(-1, *samples.shape[1:]),
            send(differences, z).flatten(),
        )
        if predicted is not None and predicted[0, 0].numel() == len(rows[4]):
            slope.take(rows[4], rows[2], predicted.flatten(2))
        if not slope.unsuited and slope.given != "none":
            self._remember(rows, random)

    def _hold_against(self, differences: Tensor, slope: Slope) -> None:
        """Drops what a state has brought along if it was measured by another metric."""
        self._sizes += differences[differences != 0].abs().tolist()
        if len(self._sizes) < FEWEST_LOADED:
            return
        known = self.replay.oldest_first()[4] if self.replay.size else torch.zeros(0, device="cpu")
        known = known[known != 0].abs()
        usual = known.median().item() if len(known) else self.size.mean
        ratio = statistics.median(self._sizes) / usual
        self.loaded, self._sizes = False, []
        if ratio > MOST_APART or ratio < 1 / MOST_APART:
            warn(DISAGREES.format(ratio=ratio))
            self.replay.clear()
            self.size.mean = float("nan")
            if not slope.sync.active:  # else all processes would have to do so at the same call
                slope.start_anew()

    @property
    def first_steps(self) -> int:
        """Gradient steps at the beginning."""
        return steps_within(self._recipe.batch_size, self._numbers)

    def sample(self, count: int, random: torch.Generator) -> Rows | None:
        """Differences at random, so many or as many as one may look at; None of none."""
        if not self.replay.size:
            return None
        count = rows_within(count, self._numbers)
        z, target, noise, width, differences = self.replay.sample(count, random)
        return z, target, noise, width, differences

    @property
    def _numbers(self) -> int:
        """Of a prediction that is remembered; 0 where nothing is."""
        return self.replay.fields[0][0].numel() if self.replay.size else 0

    def _remember(self, rows: Rows, random: torch.Generator) -> None:
        fields = self.replay.fields
        if fields and any(part.shape[1:] != field.shape[1:] for part, field in zip(rows, fields)):
            return  # of another size than those before: for these there is no surrogate
        if len(rows[0]) > MOST_ROWS:
            chosen = torch.randint(len(rows[0]), (MOST_ROWS,), generator=random, device="cpu")
            rows = _of(rows, send(chosen, rows[0].device))
        numbers = [part.reshape(len(part), -1) for part in rows if part.is_floating_point()]
        sane = moderate(torch.cat(numbers, 1))
        self.replay.add(*(rows if sane.all() else _of(rows, sane)))

    # Where it lives

    def save(self, *, with_replay: bool) -> dict[str, Tensor]:
        mean = torch.tensor(self.size.mean, dtype=torch.float64, device="cpu")
        state = {"difference": mean}
        if self.outputs is not None:
            state["outputs"] = as_tensor(list(self.outputs))
        if with_replay:
            fields = self.replay.oldest_first()
            state |= {f"replay.{number}": field for number, field in enumerate(fields)}
        return state

    @staticmethod
    def shapes(state: dict[str, Tensor], *, made: bool) -> Shapes:
        """The shapes of all but the replay, where a surrogate was `made` or not."""
        shapes: Shapes = {"difference": ()}
        return shapes | {"outputs": (ANY,)} if made or "outputs" in state else shapes

    @staticmethod
    def replay_faults(state: dict[str, Tensor]) -> Faults:
        """What is wrong with the remembered differences."""
        replayed = part(state, "replay.")
        if not replayed:
            return []
        fields = [tuple(replayed[key].shape[1:]) for key in sorted(replayed)]
        if len(fields) != 5 or len({len(field) for field in replayed.values()}) != 1:
            return ["replay must have five fields of as many samples"]
        if not fields[0] == fields[2] == fields[3] or fields[4]:
            return ["replay.2 and replay.3 must have the shape of replay.0, and replay.4 none"]
        seen = [tuple(state[key].tolist()) for key in ("z_shape", "target_shape") if key in state]
        if seen and seen != fields[:2]:
            return ["replay must have samples of z_shape and target_shape"]
        return []

    def load(self, state: dict[str, Tensor], device: torch.device) -> None:
        outputs = state.get("outputs")
        self.outputs = None if outputs is None else torch.Size(outputs.tolist())
        self.size.mean = state["difference"].item()
        self.loaded = True
        self.replay.clear()
        replayed = part(state, "replay.")
        if replayed:
            self.replay.add(*(replayed[key].to(device) for key in sorted(replayed)))


def rows_within(count: int, numbers: int) -> int:
    """So many differences, or as many as one may look at, of predictions of so many numbers."""
    return max(1, min(count, MOST_A_STEP // max(1, numbers)))


def steps_within(rows: int, numbers: int) -> int:
    """Gradient steps at the beginning, of so many differences each, of so many numbers."""
    looked_at = rows_within(rows, numbers) * numbers
    return max(1, min(FIRST_STEPS, MOST_AT_FIRST // max(1, looked_at)))


def _repeated(samples: Tensor, times: int) -> Tensor:
    """The samples, so many times behind one another."""
    return samples if times == 1 else samples.repeat(times, *[1] * (samples.ndim - 1))


def _of(rows: Rows, chosen: Tensor) -> Rows:
    z, target, noise, width, differences = rows
    return z[chosen], target[chosen], noise[chosen], width[chosen], differences[chosen]
