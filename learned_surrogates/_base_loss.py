"""The gradient of the loss that trained the model so far."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ._batch import Batch, saveable
from ._support.checks import check_callable
from ._support.isolated import isolated
from ._support.precision import at_least_float32
from ._support.warnings import warn

#: Gives the base loss's gradient of a call; None without a base loss.
Base = Callable[[], Tensor] | None

NOT_FINITE = (
    "base_loss has no finite gradient for some samples, though their predictions are finite: they "
    "are left out of its part of the gradient, now and in later calls. nn.CTCLoss() is infinite "
    "for a target that needs more frames than there are; zero_infinity=True leaves those out, too"
)

NOT_TRAINED = (
    "base_loss, {}, has parameters that require a gradient, and gets none here: only the gradient "
    "of the prediction is taken. Freeze them, base_loss.requires_grad_(False); or, if they are to "
    "be trained, add that loss to this one instead"
)


def check_base_loss(base_loss: Any) -> None:
    """Checks what is given as a base loss, and warns of what it would not do."""
    check_callable("base_loss", base_loss, "as this loss is, like nn.CTCLoss()")
    parameters = base_loss.parameters() if isinstance(base_loss, nn.Module) else ()
    if any(parameter.requires_grad for parameter in parameters):
        warn(NOT_TRAINED.format(type(base_loss).__name__))


def base_gradient(
    base_loss: Callable[..., Tensor],
    batch: Batch,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    reduction: str,
) -> tuple[Tensor, Tensor]:
    """d base loss / d prediction, scaled as a sum over samples: `reduction` then applies to it too.

    Where it is not finite, though the prediction is, a sample's is zero: one target that no path
    spells would make a NaN of all weights of the model, and the surrogate is right about it.

    Args:
        base_loss: called with `args` and `kwargs`; a scalar is taken as reduced by `reduction`,
            and one value a sample as weighted, where the call has weights. More than one value a
            sample, as unreduced losses of boxes, pixels or members of a set have, are averaged.
        batch: what the task read from these arguments.
        args: positional arguments of the loss.
        kwargs: keyword arguments of the loss.
        reduction: the loss's.

    Returns:
        The gradient, of the prediction's shape, and which samples were left out of it, `(batch,)`.

    Raises:
        TypeError: the base loss returned no tensor that depends on the prediction.
        ValueError: it returned neither `()` nor `(batch,)`, or one number where one a sample is
            needed.
    """
    original, count = batch.prediction, len(batch.target)
    if not count:  # which many losses refuse
        return torch.zeros_like(original), torch.zeros(0, dtype=torch.bool, device=original.device)
    with isolated(original.device), torch.enable_grad():
        # Half precision is for matrix products, not for a loss: many have no such kernel.
        prediction = at_least_float32(original.detach()).requires_grad_()
        args, kwargs = with_prediction(batch, prediction, args, kwargs)
        args = tuple(map(saveable, args))
        kwargs = {key: saveable(value) for key, value in kwargs.items()}
        value = _called(base_loss, args, kwargs)
        if not isinstance(value, Tensor) or not value.requires_grad:
            raise TypeError(
                "base_loss must return a tensor that depends on the prediction; it returned "
                f"{value!r}"
            )
        samples = torch.ones(count, device=original.device, requires_grad=True)
        reduced = batch.reduce(samples, reduction)
        if value.ndim == 0 and reduced.ndim > 0 and count > 1:
            raise ValueError(
                "with reduction='none', base_loss must return one value a sample, shape "
                f"{tuple(reduced.shape)}; it returned one number. Give it reduction='none' too"
            )
        total = _over_samples(value, batch) if value.ndim else value
        (gradient,) = torch.autograd.grad(total, prediction)
        # The loss's reduction will weigh what is returned here, as the base loss did already.
        if value.ndim == 0:
            (weights,) = torch.autograd.grad(reduced.sum(), samples)
        else:
            weights = torch.ones_like(samples) if batch.weights is None else batch.weights
        shares = torch.where(weights > 0, 1 / weights, 0.0)
        gradient = gradient * batch.per_sample(shares.to(gradient), gradient.ndim)
        # A class that cannot be has a logarithm of minus infinity, and nothing to follow.
        gradient = gradient.where(~original.detach().isneginf(), 0.0)
        left_out = _spoilt(gradient, batch)
        return gradient.where(batch.per_sample(~left_out, gradient.ndim), 0.0), left_out


def _over_samples(value: Tensor, batch: Batch) -> Tensor:
    """The sum over samples of the means of each one's values, of which there are as many.

    Args:
        value: `(batch, ...)`, or with the first dimension that the call's prediction has.
    """
    count, dim = len(batch.target), batch.batch_dim
    whole = 1 if dim is None else batch.whole.shape[dim]
    if dim is not None and len(value) not in (count, whole):
        raise ValueError(
            f"base_loss must return () or one value a sample, ({whole},); it returned "
            f"{tuple(value.shape)}"
        )
    samples = count if len(value) == count else batch.samples
    return value.sum() * (samples / max(1, value.numel()))


def _called(
    base_loss: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """What the base loss returns; what it raises gets a note that names it."""
    try:
        return base_loss(*args, **kwargs)
    except Exception as error:
        name = getattr(base_loss, "__name__", type(base_loss).__name__)
        given = [type(value).__name__ for value in args]
        given += [f"{key}={type(value).__name__}" for key, value in kwargs.items()]
        error.add_note(
            f"base_loss, {name}, raised this: it is called with the criterion's own arguments, "
            f"here ({', '.join(given)}). Give one that takes them, or a function that passes on "
            "what it needs"
        )
        raise


def _spoilt(gradient: Tensor, batch: Batch) -> Tensor:
    """Which samples `(batch,)` have a gradient that is not finite, of a prediction that is."""
    prediction = batch.samples_first(batch.prediction.detach())
    # What is not a number must show.
    sound = ~(prediction.isnan() | prediction.isposinf()).any(1)
    return sound & ~batch.samples_first(gradient).isfinite().all(1)


def with_prediction(
    batch: Batch, prediction: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a batch's call, with another tensor in place of its `prediction`."""
    original, new = batch.whole, batch.replaced(prediction)
    if not any(value is original for value in (*args, *kwargs.values())):
        raise TypeError(
            f"{type(batch).__name__}.prediction is none of the call's arguments, but computed from "
            "one: a task's read must return the argument itself (or override `whole` and "
            "`replaced`), for a base loss or a gradient check to be called with it"
        )
    return (
        tuple(new if argument is original else argument for argument in args),
        {key: new if value is original else value for key, value in kwargs.items()},
    )
