"""The gradient of the loss that trained the model so far."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ._island import island
from ._task import Batch


def base_gradient(
    base_loss: Callable[..., Tensor],
    batch: Batch,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    reduction: str,
) -> Tensor:
    """d base loss / d prediction, scaled as a sum over samples: `reduction` then applies to it too.

    Args:
        base_loss: called with `args` and `kwargs`; a scalar is taken as reduced by `reduction`.
        batch: what the task read from these arguments.
        args: positional arguments of the loss.
        kwargs: keyword arguments of the loss.
        reduction: the loss's.

    Raises:
        TypeError: the base loss returned no tensor that depends on the prediction.
        ValueError: it returned neither `()` nor `(batch,)`, or one number where one a sample is
            needed.
    """
    original = batch.prediction
    # Half precision is for matrix products, not for a loss: many have no such kernel.
    half = original.dtype in (torch.float16, torch.bfloat16)
    with island(original.device), torch.enable_grad():
        prediction = original.detach()
        prediction = (prediction.float() if half else prediction).requires_grad_()
        args, kwargs = with_prediction(original, prediction, args, kwargs)
        value = base_loss(*args, **kwargs)
        if not isinstance(value, Tensor) or not value.requires_grad:
            raise TypeError(
                "base_loss must return a tensor that depends on the prediction; it returned "
                f"{value!r}"
            )
        count = len(batch.target)
        if value.ndim == 0 and reduction == "none" and count > 1:
            raise ValueError(
                "with reduction='none', base_loss must return one value a sample, shape "
                f"({count},); it returned one number. Give it reduction='none' too"
            )
        if value.shape not in ((), (count,)):
            raise ValueError(
                f"base_loss must return () or one value a sample, ({count},); it returned "
                f"{tuple(value.shape)}"
            )
        factor = count if value.ndim == 0 and reduction == "mean" else 1
        (gradient,) = torch.autograd.grad(factor * value.sum(), prediction)
    return gradient.detach()


def with_prediction(
    original: Tensor, prediction: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, with another prediction in the original's place."""
    return (
        tuple(prediction if argument is original else argument for argument in args),
        {key: prediction if value is original else value for key, value in kwargs.items()},
    )
