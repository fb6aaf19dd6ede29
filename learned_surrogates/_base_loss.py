"""The gradient of the loss that trained the model so far."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ._island import island
from ._task import Batch

#: Gives the base loss's gradient of a call; None without a base loss.
Base = Callable[[], Tensor] | None


def base_gradient(
    base_loss: Callable[..., Tensor],
    batch: Batch,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    reduction: str,
) -> Tensor:
    """d base loss / d prediction, scaled as a sum over samples: `reduction` then applies to it too.

    Args:
        base_loss: called with `args` and `kwargs`; a scalar is taken as reduced by `reduction`,
            and one value a sample as weighted, where the call has weights.
        batch: what the task read from these arguments.
        args: positional arguments of the loss.
        kwargs: keyword arguments of the loss.
        reduction: the loss's.

    Raises:
        TypeError: the base loss returned no tensor that depends on the prediction.
        ValueError: it returned neither `()` nor `(batch,)`, or one number where one a sample is
            needed.
    """
    original, count = batch.prediction, len(batch.target)
    if not count:  # which many losses refuse
        return torch.zeros_like(original)
    # Half precision is for matrix products, not for a loss: many have no such kernel.
    half = original.dtype in (torch.float16, torch.bfloat16)
    with island(original.device), torch.enable_grad():
        prediction = original.detach()
        prediction = (prediction.float() if half else prediction).requires_grad_()
        args, kwargs = with_prediction(batch, prediction, args, kwargs)
        value = base_loss(*args, **kwargs)
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
                f"({count},); it returned one number. Give it reduction='none' too, and the mean "
                "over all but the batch if it then has more dimensions"
            )
        if value.shape not in ((), reduced.shape, (count,)):
            raise ValueError(
                f"base_loss must return () or one value a sample, ({count},); it returned "
                f"{tuple(value.shape)}"
            )
        (gradient,) = torch.autograd.grad(value.sum(), prediction)
        # The loss's reduction will weigh what is returned here, as the base loss did already.
        if value.ndim == 0:
            (weights,) = torch.autograd.grad(reduced.sum(), samples)
        elif batch.weights is not None:
            weights = batch.weights
        else:
            return gradient
        shares = torch.where(weights > 0, 1 / weights, 0.0)
    return gradient * batch.per_sample(shares.to(gradient), gradient.ndim)


def with_prediction(
    batch: Batch, prediction: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a batch's call, with another tensor in place of its `prediction`."""
    original, new = batch.whole, batch.replaced(prediction)
    return (
        tuple(new if argument is original else argument for argument in args),
        {key: new if value is original else value for key, value in kwargs.items()},
    )
