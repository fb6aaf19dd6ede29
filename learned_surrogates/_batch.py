"""One call of the loss, as its task has read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ._support.precision import computable


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The arguments of one call of the loss, read and checked by its task.

    Attributes:
        prediction: the user's tensor, as it came; the gradient goes to it.
        target: `(batch, ...)`, the targets as the replay buffer stores them (see `Task.expand`).
        batch_dim: the prediction's batch dimension; None for one sample without one.
    """

    prediction: Tensor
    target: Tensor
    batch_dim: int | None = 0

    @property
    def whole(self) -> Tensor:
        """The call's own prediction, of which `prediction` may be a part."""
        return self.prediction

    @property
    def samples(self) -> int:
        """How many samples the call has, with those that its task leaves out."""
        return len(self.target)

    @property
    def weights(self) -> Tensor | None:
        """What `reduce` weighs samples with, whatever the reduction, `(batch,)`; None is 1."""
        return None

    def check_reduction(self, reduction: str) -> None:
        """Checks that `reduce` can take this reduction, before anything is learned from the call.

        Raises:
            ValueError: an argument of the call does not go with it.
        """

    def replaced(self, prediction: Tensor) -> Tensor:
        """The call's prediction, with another tensor in place of `prediction`; differentiable."""
        return prediction

    def per_sample(self, values: Tensor, dims: int) -> Tensor:
        """`(batch,)`, shaped to go with a tensor of so many dimensions, as `prediction` has."""
        shape = [1] * dims
        if self.batch_dim is not None:
            shape[self.batch_dim] = -1
        return values.view(shape)

    def samples_first(self, tensor: Tensor) -> Tensor:
        """A tensor of the prediction's shape as `(batch, numbers)`."""
        first = tensor[None] if self.batch_dim is None else tensor.movedim(self.batch_dim, 0)
        return first.flatten(1) if first.ndim > 1 else first[:, None]

    def reduce(self, value: Tensor, reduction: str) -> Tensor:
        """The loss of the call, from that of its samples.

        Args:
            value: `(batch,)`.
            reduction: "none", "mean" or "sum", the loss's own.
        """
        if reduction == "mean":
            return value.mean()
        if reduction == "sum":
            return value.sum()
        return value.squeeze(0) if self.batch_dim is None else value


BatchType = TypeVar("BatchType", bound=Batch)


def plain(value: Any) -> Any:
    """A tensor of a class of the user's or of a library's as a plain one, with its graph.

    Also the `tensor` of an object that has one, as detectors' boxes do.

    Its class would be that of all that is computed from it, and so get into replay, and into a
    checkpoint that cannot be read then with `weights_only`. Tensors that are more than their own
    storage, such as distributed ones, stay what they are.
    """
    kind, inner = type(value), getattr(value, "tensor", None)
    if isinstance(inner, Tensor) and not isinstance(value, Tensor):
        return plain(inner)
    if not isinstance(value, Tensor) or kind in (Tensor, nn.Parameter):
        return value
    if kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return value
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(Tensor)


def plain_call(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call of the loss, each of them `plain`."""
    return tuple(map(plain, args)), {key: plain(value) for key, value in kwargs.items()}


def saveable(value: Any) -> Any:
    """What can be saved for a gradient: a copy of what inference mode made, as a teacher does."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def lasting(tensor: Tensor) -> Tensor:
    """The tensor without its graph, such that a gradient may be computed with it."""
    return computable(saveable(tensor).detach())
