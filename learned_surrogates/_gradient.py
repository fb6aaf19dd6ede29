"""A loss whose gradient is known before `backward` is called."""

from typing import Any

import torch
from torch import Tensor

NO_SECOND_DERIVATIVE = (
    "LearnedSurrogateLoss has no second derivative: its gradient is measured or learned, "
    "and a penalty on it would be without effect. Compute it without create_graph=True"
)


class Refusing(torch.autograd.Function):
    """A zero that depends on a prediction, and raises when it is asked how.

    Added to a gradient of which there is no derivative: zero in silence would be wrong.
    """

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, message: str) -> Tensor:
        ctx.message = message
        return prediction.new_zeros(())

    @staticmethod
    def backward(ctx: Any, output_gradient: Tensor) -> None:
        raise RuntimeError(ctx.message)


class _KnownGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        prediction: Tensor,
        value: Tensor,
        gradient: Tensor,
        batch_dim: int | None,
        refusing: tuple[Tensor],
    ) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.batch_dim = batch_dim
        ctx.dtype = prediction.dtype
        ctx.refusing = refusing
        return value.clone()

    @staticmethod
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        shape = [1] * gradient.ndim
        if ctx.batch_dim is not None:
            shape[ctx.batch_dim] = -1
        # The product is taken before the cast: a loss scale of fp16 training would overflow alone.
        weights = output_gradient.view(shape)
        # A sample that was left out has no part in it, whatever its gradient.
        left_out = weights == 0
        result = torch.where(left_out, 0.0, gradient * weights).to(ctx.dtype)
        if torch.is_grad_enabled():  # as with create_graph=True
            # How it depends on the weights holds for those of zero, too.
            gradient = gradient.masked_fill(left_out & ~gradient.isfinite(), 0.0)
            result = (gradient * weights).to(ctx.dtype) + ctx.refusing[0]
        return result, None, None, None, None


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
    # In a tuple, as it is no argument that a gradient is asked of.
    refusing = (Refusing.apply(prediction, NO_SECOND_DERIVATIVE),)
    loss: Tensor = _KnownGradient.apply(prediction, value, gradient, batch_dim, refusing)
    return loss
