"""How wide the noise is under which the metric is averaged."""

from typing import Any

import torch
from torch import Tensor

from .._state.tensors import ANY, Faults, Shapes, as_tensor, not_finite
from .._support.moderate import fill_values, moderate
from .._support.precision import at_least_float32
from .._support.warnings import warn

# Of the smaller of the outputs' spread and the errors'. Between half of it and twice it hardly
# matters; four times it can ruin a model.
SHARE = 0.35
# Calls that are all taken in, and after them one of so many: spreads change slowly, and running
# means tell of the last `EAGER` calls.
EAGER, EVERY = 50, 4
# Outputs whose spreads differ by more have each a width of their own: metres beside degrees.
ALIKE = 10.0
# Running standard deviations from the running mean up to which an output is believed: one wild
# number would widen the noise for hundreds of calls.
MOST = 10.0
# So many are taken as alike, whatever their spreads.
FEW = 32
# Of the largest spread, what is less is rounding: no other scale, but an output that is constant.
CONSTANT = 1e-5
BEYOND = (
    "predictions are as {size} as {largest:.0e}, whose square float32 has no room for: noise as "
    "wide as a share of what they vary by cannot be made, and there is no gradient to follow. "
    "Scale them to the order of 1, and within the metric back"
)


class Smoothing:
    """Gaussian noise on predictions, as wide as a share of what the predictions vary by.

    The metric's mean under it, E[e(z + width * noise, y)], has a gradient where the metric has
    none. The width is `SHARE` of the smaller of two spreads, both followed slowly: the outputs'
    over the batch, and the errors' (prediction - target) where a target has numbers that go with
    the prediction's. All outputs have one width, unless they are few and differ in scale: then each
    kind has its own.

    Args:
        given: the width, a number or a tensor that broadcasts to a sample of the prediction, in
            the prediction's units; None follows the rule.
    """

    def __init__(self, given: float | Tensor | None):
        self.given = given
        #: Running means and variances of each output and of its error, `(4, *sample)`; None before
        #: the first call.
        self.moments: Tensor | None = None
        self.calls = 0
        #: Whether it is not sure that target and prediction are of one thing, so that errors count
        #: only if they are small.
        self.doubtful = False
        self._width: Tensor | None = None

    def follow(self, z: Tensor, target: Any) -> None:
        """Takes predictions `(batch, *sample)`, of any precision, into the running spreads.

        Of targets, what is not finite is a label that is missing, and has no error.
        """
        if self.given is not None:
            return
        self.calls += 1
        due = self.calls <= EAGER or self.calls % EVERY == 0
        if not due and self.fits(z):
            return
        self._width = None
        z = at_least_float32(z)
        meant = _meant(z, target)
        if meant is not None:
            self.doubtful = target.numel() != z.numel() or not target.is_floating_point()
        # Before it is rounded: of times in seconds, float32 has no digits left for an error.
        error = torch.zeros_like(z) if meant is None else z - meant.to(z)
        marked, labelled = fill_values(z), error.isfinite()
        z, error = z.where(~marked, 0.0), error.where(labelled & ~marked, 0.0)
        finite = moderate(z) & moderate(error)
        if self.moments is None and len(z):
            _check_size(z, error, finite)
        if self.fits(z):
            assert self.moments is not None
            z, error = _bounded(z, self.moments[:2]), _bounded(error, self.moments[2:])
        counted = finite.view(-1, *[1] * (z.ndim - 1)) & ~marked
        with_error = counted & labelled
        new = torch.cat([_moments(z, counted), _moments(error, with_error)])
        if self.moments is None:
            self.moments, self.calls = new, 1
        elif not self.fits(z):
            self.moments = _resized(self.moments, new)
        # A reading stands for the calls since the last one.
        stands_for = EVERY if due and self.calls > EAGER else 1
        rate = max(1 / self.calls, stands_for / EAGER)
        found = counted.any(0), with_error.any(0)
        merged = [
            torch.where(each, _merge(old, reading, rate), old)
            for each, old, reading in zip(found, self.moments.split(2), new.split(2))
        ]
        self.moments = torch.cat(merged)

    def fits(self, z: Tensor) -> bool:
        """Whether there are running spreads, of samples of such a size."""
        return self.moments is not None and self.moments.shape[1:] == z.shape[1:]

    def width(self, z: Tensor) -> Tensor:
        """The noise's standard deviation, to be broadcast to a sample of z `(batch, *sample)`."""
        if self.given is not None:
            return torch.as_tensor(self.given, dtype=z.dtype, device=z.device).expand(z.shape[1:])
        return self._found_width().to(z)

    def _found_width(self) -> Tensor:
        """What the rule makes of the running spreads, once for as long as these stay."""
        if self._width is None:
            assert self.moments is not None
            self._width = _rule(self.moments, self.doubtful)
        return self._width

    @property
    def mean_width(self) -> float:
        """For people to read; NaN before the first call."""
        if self.given is not None:
            return float(torch.as_tensor(self.given, dtype=torch.float32, device="cpu").mean())
        if self.moments is None:
            return float("nan")
        return float(self._found_width().mean())

    # Where it lives

    def look(self) -> Any:
        """What `follow` changes, for `restore`."""
        return self.moments, self.calls, self.doubtful

    def restore(self, looked: Any) -> None:
        """Goes back to what `look` gave."""
        self.moments, self.calls, self.doubtful = looked
        self._width = None

    def to(self, device: torch.device) -> None:
        self._width = None
        self.moments = None if self.moments is None else self.moments.to(device)

    def save(self) -> dict[str, Tensor]:
        state = {"smoothing": as_tensor([self.calls, int(self.doubtful)])}
        return state if self.moments is None else state | {"moments": self.moments}

    @staticmethod
    def shapes(state: dict[str, Tensor]) -> Shapes:
        """The shapes that a state must have."""
        counts = state.get("smoothing")
        shapes: Shapes = {"smoothing": (2,)}
        if "moments" in state or (counts is not None and counts.shape == (2,) and int(counts[0])):
            dims = state["moments"].ndim if "moments" in state else 1
            shapes["moments"] = (4, *[ANY] * (dims - 1))
        return shapes

    @staticmethod
    def impossible(state: dict[str, Tensor]) -> Faults:
        """Errors for values that no state has."""
        errors = not_finite(state, ["moments"])
        if "moments" in state and (state["moments"][1::2] < 0).any():
            errors.append("moments must have variances of 0 or more")
        return errors

    def load(self, state: dict[str, Tensor], device: torch.device) -> None:
        moments = state.get("moments")
        calls, doubtful = state["smoothing"].tolist()
        moved = None if moments is None else moments.to(device, copy=True)
        self.restore((moved, calls, bool(doubtful)))


def _check_size(z: Tensor, error: Tensor, finite: Tensor) -> None:
    """Warns of first predictions that are too large or small for variances in float32."""
    largest = torch.maximum(z.abs().amax(), error.abs().amax())
    too_large = ~finite.any() & z.isfinite().all()
    too_small = (largest > 0) & (largest.float().square() < torch.finfo(torch.float32).tiny)
    if too_large | too_small:
        warn(BEYOND.format(size="large" if too_large else "small", largest=largest.item()))


def _rule(moments: Tensor, doubtful: bool) -> Tensor:
    """The width `(*sample)`, or with 1 where outputs share it, from the running moments."""
    mean, variance, error_mean, error_variance = moments
    dims = _kind_dims(mean.shape)

    def pooled(each: Tensor) -> Tensor:
        return each.mean(dims, keepdim=True) if dims else each

    spread, error = variance.sqrt(), pooled(error_variance).sqrt()
    if doubtful:
        # If prediction and target are not of one thing, errors vary by more than the outputs.
        believed = (error < pooled(spread)).all()
        error_mean, error_variance, error = (
            each.where(believed, 0.0) for each in (error_mean, error_variance, error)
        )
    own = _smaller(pooled(spread), error)
    # Where errors are of the others' scale, outputs that hardly vary are no other scale either.
    own = torch.maximum(own, torch.minimum(2 * error / ALIKE, own.max()))
    shared = _smaller(spread.mean(), error_variance.mean().sqrt())
    # Nothing varies, as with one sample or a constant model: as wide as what there is.
    for size in (
        error_mean.square().mean().sqrt(),
        mean.square().mean().sqrt(),
        spread.new_ones(()),
    ):
        shared = torch.where(shared > 0, shared, size)
    constant = (error == 0) & (own < CONSTANT * own.max())
    own = torch.where((own > 0) & ~constant, own, shared)
    differ = (own.max() > ALIKE * own.min()) & (own.numel() <= FEW)
    return SHARE * torch.where(differ, own, shared)


def _smaller(spread: Tensor, error: Tensor) -> Tensor:
    """The smaller of two spreads; an error's of zero is of none, or of targets that are met."""
    return torch.where(error > 0, torch.minimum(spread, error), spread)


def _kind_dims(shape: torch.Size) -> tuple[int, ...]:
    """Dimensions of a sample along which outputs are alike.

    Features `(n,)` are each of their own kind; so are the coordinates of points `(points, 2)` and
    the channels of `(channels, length)`, of which there are fewer, and `(channels, height, width)`.
    """
    if len(shape) < 2:
        return ()
    if len(shape) == 2:
        return (0,) if shape[0] > shape[1] else (1,)
    return tuple(range(1, len(shape)))


def _moments(samples: Tensor, counted: Tensor) -> Tensor:
    """Mean and variance `(2, *sample)` of the samples' numbers that are counted, bool."""
    weights = counted.to(samples)
    count = weights.sum(0).clamp(min=1)
    samples = samples.where(weights > 0, 0.0)
    mean = samples.sum(0) / count
    return torch.stack([mean, (weights * (samples - mean).square()).sum(0) / count]).float()


def _bounded(samples: Tensor, moments: Tensor) -> Tensor:
    """Samples within `MOST` standard deviations of the mean; as they are where nothing varied."""
    mean, variance = moments
    most = torch.where(variance > 0, MOST * variance.sqrt(), torch.inf)
    return torch.minimum(torch.maximum(samples, mean - most), mean + most)


def _merge(old: Tensor, new: Tensor, rate: float) -> Tensor:
    """Mean and variance of a mixture of two populations, the newer one's share being `rate`.

    Of an output that had no value yet, such as an error without a label, the newer one has all.
    """
    rates = torch.full_like(old[0], rate).masked_fill((old == 0).all(0), 1.0)
    between = rates * (1 - rates) * (new[0] - old[0]).square()
    merged = torch.lerp(old, new, rates)
    return torch.stack([merged[0], merged[1] + between])


def _resized(moments: Tensor, new: Tensor) -> Tensor:
    """Running moments for samples of another size: what outputs of a kind have in common."""
    if moments.ndim != new.ndim:
        return new
    dims = [1 + dim for dim in _kind_dims(moments.shape[1:])]
    pooled = moments.mean(dims, keepdim=True) if dims else moments
    sizes = zip(pooled.shape, new.shape, strict=True)
    fits = all(size in (1, other) for size, other in sizes)
    return pooled.expand_as(new) if fits else new


def _meant(z: Tensor, target: Any) -> Tensor | None:
    """What of a target goes with each number of the prediction; None where nothing does.

    A target of the prediction's size does; `(batch, 1)` goes with `(batch,)`; one number with all
    that are said of it, such as the ends of an interval, `(batch,)` with `(batch, 2)`; and points
    `(batch, points, 3)`, seen or not, with `(batch, points, 2)`. But for a target of floating-point
    numbers, as many as the prediction has, that is doubtful (see `_rule`).
    """
    if not isinstance(target, Tensor) or target.dtype == torch.bool or target.is_complex():
        return None
    if target.shape == z.shape:
        return target
    if target.shape[:1] == z.shape[:1] and target.numel() == z.numel():
        same = [size for size in target.shape if size > 1] == [size for size in z.shape if size > 1]
        return target.reshape(z.shape) if same else None
    if target.shape == z.shape[: target.ndim]:
        return target.view(*target.shape, *[1] * (z.ndim - target.ndim)).expand_as(z)
    if target.ndim == z.ndim and target.shape[:-1] == z.shape[:-1]:
        return target[..., : z.shape[-1]] if target.shape[-1] > z.shape[-1] else None
    return None
