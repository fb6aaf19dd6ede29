"""A loss whose gradient is known before `backward` is called."""

from typing import Any

import torch
from torch import Tensor


class _Refusing(torch.autograd.Function):
    """Stands for a gradient of which there is no derivative: zero in silence would be wrong."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, output_gradient: Tensor) -> None:
        raise RuntimeError(
            "LearnedSurrogateLoss has no second derivative: its gradient is measured or learned, "
            "and a penalty on it would be without effect. Compute it without create_graph=True"
        )


class _KnownGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, prediction: Tensor, value: Tensor, gradient: Tensor, batch_dim: int | None
    ) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.batch_dim = batch_dim
        ctx.dtype = prediction.dtype
        return value.clone()

    @staticmethod
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        shape = [1] * gradient.ndim
        if ctx.batch_dim is not None:
            shape[ctx.batch_dim] = -1
        # The product is taken before the cast: a loss scale of fp16 training would overflow alone.
        weights = output_gradient.detach().view(shape)
        # A sample that was left out has no part in it, whatever its gradient.
        result = torch.where(weights == 0, 0.0, gradient * weights).to(ctx.dtype)
        if torch.is_grad_enabled():  # as with create_graph=True
            result = _Refusing.apply(result.detach().requires_grad_())
        return result, None, None, None


def with_known_gradient(
    prediction: Tensor, value: Tensor, gradient: Tensor, batch_dim: int | None
) -> Tensor:
    """`value`, as a function of `prediction` whose derivative is `gradient`.

    The user's graph then holds this one tensor and nothing of the surrogate, so the surrogate may
    be updated in place between the forward and the backward pass.

    Args:
        prediction: any shape.
        value: `(batch,)`; sample i depends on sample i of the prediction alone.
        gradient: d value[i] / d prediction[i], of the prediction's shape.
        batch_dim: the prediction's batch dimension; None for one sample without.
    """
    loss: Tensor = _KnownGradient.apply(prediction, value, gradient, batch_dim)
    return loss
