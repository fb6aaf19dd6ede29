"""What the tasks for boxes share."""

import numbers
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._batch import Batch, lasting
from .._support.checks import check_number, check_reduction, check_tensor
from .._support.precision import at_least_float32
from .._support.transfer import send
from .._surrogate import EmbeddingDistance, embedding_net
from .._task import Task
from ._check import as_boxes, check_boxes
from ._generator import RandomDistortions

# Features of the embedding for LS-IoU: LS, section 4.3.
EMBEDDING = 16
# What varies less among the first boxes seen, in shares of a target's size, is not blown up.
LEAST = 0.05


@dataclass(frozen=True, kw_only=True)
class BoxBatch(Batch):
    """A batch of boxes, and what a detector wants done with their losses.

    Attributes:
        boxes: all boxes of the call, of which `prediction` has those that are kept.
        weights: of the boxes that count, `(batch,)`; None is 1 each.
        kept: which of the boxes of the call those are, `(boxes,)`; None is all.
        avg_factor: what a "mean" divides by; None is the number of boxes of the call.
        reduction: in place of the loss's own; None keeps that.
    """

    boxes: Tensor
    weights: Tensor | None = None
    kept: Tensor | None = None
    avg_factor: float | Tensor | None = None
    reduction: str | None = None

    @property
    def whole(self) -> Tensor:
        return self.boxes

    @property
    def samples(self) -> int:
        return len(self.boxes)

    def replaced(self, prediction: Tensor) -> Tensor:
        if self.kept is None:
            return prediction
        return self.boxes.detach().to(prediction).masked_scatter(self.kept[:, None], prediction)

    def check_reduction(self, reduction: str) -> None:
        if self.avg_factor is not None and (self.reduction or reduction) == "sum":
            raise ValueError("avg_factor is what a 'mean' divides by; the reduction is 'sum'")

    def reduce(self, value: Tensor, reduction: str) -> Tensor:
        reduction = self.reduction or reduction
        if self.weights is not None:
            value = value * self.weights.to(value)
        if reduction == "none":
            if self.kept is None:
                return value
            return value.new_zeros(len(self.kept)).masked_scatter(self.kept, value)
        if reduction == "sum":
            return value.sum()
        if self.avg_factor is not None:
            # As in mmdetection, a batch without positives makes 0 / 0 zero.
            return value.sum() / (self.avg_factor + torch.finfo(torch.float32).eps)
        # Without any box, zero rather than the NaN of an empty mean.
        return value.sum() / max(1, len(value) if self.kept is None else len(self.kept))


class BoxTask(Task[BoxBatch]):
    """Boxes as a regression head gives them, `(batch, n)`.

    To "target-frame", z is the prediction as its target sees it, and y zeros. To "placed-frame",
    the target's own numbers stand beside both. To "embedding", z and y are the boxes' own numbers,
    as in the paper. Replay stores a target as the metric gets it.

    Args:
        noise: standard deviation, in shares of the target's sides and in radians, of the Gaussian
            noise that makes the loss's `draws`.
    """

    surrogates = ("target-frame", "placed-frame", "embedding")
    surrogate = "embedding"
    # A box is a few numbers: many of them cost little, and make a far better gradient.
    batch_size = 192
    target_is_best = True
    to_draw = "give it noise=, such as noise=0.05"
    #: How many numbers a box has.
    numbers: ClassVar[int]
    #: How many numbers the target's frame has.
    frame_features: ClassVar[int]

    def __init__(self, *, noise: float = 0.0):
        check_number("noise", noise, 0, integer=False)
        self.noise = noise
        self.can_sample = noise > 0
        # One alone would not tell how noisy it is, which the relative error takes out.
        self.draws = 2 if self.can_sample else 0

    def __repr__(self) -> str:
        noise = f"noise={self.noise}" if self.noise else ""
        return f"{type(self).__name__}({noise})"

    @abstractmethod
    def in_frame(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Boxes in their target's frame, `(batch, frame_features)`; differentiable."""

    @abstractmethod
    def features(self, boxes: Tensor) -> Tensor:
        """Boxes as the paper represents them; equal for equal boxes, differentiable."""

    @abstractmethod
    def blurred(self, boxes: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Boxes, with noise `(batch, numbers)` in units of their target's added."""

    def converted(self, boxes: Tensor) -> Tensor:
        """The model's boxes in the form in which the metric takes them; differentiable."""
        return boxes

    def possible(self, boxes: Tensor) -> Tensor:
        """The boxes as the metric gets them: an impossible one as what it stands for."""
        return boxes

    def read(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> BoxBatch:
        for name, tensor in (("pred", pred), ("target", target)):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name} must be a tensor of boxes; got {type(tensor).__name__}")
            as_boxes(name, tensor, (self.numbers,))
        if not pred.is_floating_point():
            raise TypeError(f"pred must be floating point to carry a gradient; it is {pred.dtype}")
        if pred.shape != target.shape:
            raise ValueError(
                f"pred and target must have the same shape; theirs are {tuple(pred.shape)} and "
                f"{tuple(target.shape)}"
            )
        if reduction_override is not None:
            check_reduction(reduction_override, "reduction_override")
        # Checked where they are: from the host, without waiting for the device. As precise as the
        # predictions: in a map's coordinates, float32 has no room for a box.
        precision = torch.promote_types(pred.dtype, torch.float32)
        stored = self.converted(lasting(target.to(precision)))
        kept, whole = None, pred
        if weight is not None:
            weight = self._weights(weight, pred)
            # Negatives carry a weight of zero, and a target that means nothing.
            kept = weight != 0
            bad = ~(weight >= 0)
            # Read together, as each would wait for the device.
            all_kept, any_bad = torch.stack([kept.all(), bad.any()]).tolist()
            if any_bad:
                sample = int(bad.nonzero()[0])
                raise ValueError(
                    f"weight of sample {sample} is {weight[sample].item():g}: it must not be "
                    "negative or NaN"
                )
            if all_kept:
                kept = None
            else:
                pred, stored, weight = pred[kept], stored[kept.to(stored.device)], weight[kept]
        check_boxes("target", stored)
        return BoxBatch(
            prediction=pred,
            boxes=whole,
            target=stored.to(pred.device),
            weights=weight,
            kept=kept,
            avg_factor=self._avg_factor(avg_factor),
            reduction=reduction_override,
        )

    @staticmethod
    def _weights(weight: Any, pred: Tensor) -> Tensor:
        """Weights of boxes, `(batch,)`; those of a box's numbers are averaged."""
        check_tensor("weight", weight)
        weight = lasting(weight.to(pred.device, torch.float32))
        if weight.shape == pred.shape:
            return weight.mean(1)
        if weight.shape in (pred.shape[:1], (len(pred), 1)):
            return weight.reshape(-1)
        raise ValueError(
            f"weight must have shape {tuple(pred.shape[:1])} or {tuple(pred.shape)}; its shape is "
            f"{tuple(weight.shape)}"
        )

    @staticmethod
    def _avg_factor(factor: Any) -> float | Tensor | None:
        """The factor as one number, without a graph."""
        if factor is None:
            return None
        if isinstance(factor, numbers.Real):
            return float(factor)
        if not isinstance(factor, Tensor):
            raise TypeError(f"avg_factor must be a number; got {factor!r}")
        check_tensor("avg_factor", factor)
        if factor.numel() != 1:
            raise ValueError(f"avg_factor must be one number; its shape is {tuple(factor.shape)}")
        return lasting(factor).reshape(())

    def represent(self, prediction: Tensor, batch: BoxBatch) -> Tensor:
        return self.see(self.converted(at_least_float32(prediction)), batch.target)

    def see(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """z of boxes in the metric's form."""
        if self.surrogate == "embedding":
            return self.features(predictions)
        targets = targets.to(predictions)
        return self._placed(self.in_frame(predictions, targets), targets)

    def expand(self, target: Tensor) -> Tensor:
        if self.surrogate == "embedding":
            return self.features(target)
        return self._placed(target.new_zeros(len(target), self.frame_features), target)

    def _placed(self, in_frame: Tensor, targets: Tensor) -> Tensor:
        if self.surrogate == "target-frame":
            return in_frame
        return torch.cat([in_frame, self.features(targets)], 1)

    def decode(self, batch: BoxBatch) -> tuple[Tensor, Tensor]:
        return self.possible(self._predicted(batch)), batch.target.clone()

    def sample(self, batch: BoxBatch, random: torch.Generator) -> tuple[Tensor, Tensor]:
        boxes = self._predicted(batch)
        noise = torch.randn(boxes.shape, generator=random, dtype=torch.float32, device="cpu")
        drawn = self.blurred(boxes, batch.target.to(boxes), self.noise * send(noise, boxes))
        return self.possible(drawn), batch.target.clone()

    def _predicted(self, batch: BoxBatch) -> Tensor:
        return self.converted(at_least_float32(batch.prediction.detach().clone()))

    def encode(
        self, predictions: Any, targets: Any, shape: torch.Size | None
    ) -> tuple[Tensor, Tensor]:
        boxes = as_boxes("prediction", predictions, (self.numbers,))
        others = as_boxes("target", targets, (self.numbers,))
        return self.see(boxes, others), others

    def generator(self) -> RandomDistortions | None:
        if self.surrogate == "target-frame":
            return RandomDistortions(numbers=self.numbers)
        # To the others it counts where boxes are and how large: they need labels to start from.
        return None

    def build_surrogate(self, z: Tensor, y: Tensor) -> nn.Module:
        if self.surrogate == "embedding":
            return EmbeddingDistance(embedding_net(torch.cat([z, y]), embedding_size=EMBEDDING))
        return EmbeddingDistance(embedding_net(z, least=LEAST))
