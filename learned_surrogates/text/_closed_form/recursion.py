"""The expected edit distance as a function of logits, with its gradient."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..._support.isolated import isolated
from ..._support.transfer import send
from .column_steps import ColumnStep
from .frame_moves import Outputs
from .row_passes import run
from .spelling import Spelling

# Less than this of other characters is none: whether they repeat then makes no difference.
LEAST_OTHER = 1e-12
NO_SECOND_DERIVATIVE = (
    "the expected edit distance has no second derivative, as its gradient is written out: leave it "
    "out of what is differentiated twice, such as a gradient penalty"
)


@dataclass(frozen=True)
class Problem:
    """All that the distance depends on but the logits.

    Attributes:
        spelling: of the targets.
        present: which positions there are, `(batch, length)`.
        ctc: whether frames in a row are merged.
        step: of a column.
        insertion: cost of a character read, in the step's units.
    """

    spelling: Spelling
    present: Tensor
    ctc: bool
    step: ColumnStep
    insertion: int


class ClosedForm(torch.autograd.Function):
    """Expected distance of each sample, `(batch,)`, from logits `(batch, classes, length)`.

    The gradient's recursion runs along with the value's, sample by sample, for it is linear in
    what comes back: only what a frame needs of it is kept, not what a class needs.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, problem: Problem) -> Tensor:
        with isolated(logits.device), torch.no_grad():
            return _forward(ctx, logits, problem)

    @staticmethod
    def backward(ctx: Any, d_values: Tensor) -> tuple[Tensor, None]:
        logits, *saved = ctx.saved_tensors
        with isolated(d_values.device), torch.no_grad():
            gradient = _d_logits(ctx.problem, d_values, *saved).to(logits.dtype)
        # With a graph of its own, it leads back to the logits, and would be taken for a constant.
        return (Once.apply(gradient, logits) if torch.is_grad_enabled() else gradient), None


class Once(torch.autograd.Function):
    """A gradient that cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, logits: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, None]:
        raise RuntimeError(NO_SECOND_DERIVATIVE)


def _forward(ctx: Any, logits: Tensor, problem: Problem) -> Tensor:
    dtype = logits.dtype if logits.dtype == torch.float64 else torch.float32
    others = logits.permute(2, 0, 1).softmax(2, dtype=dtype).contiguous()
    outputs, overlap = _outputs(others, problem)
    gradient = ctx.needs_input_grad[0]
    value, d_outputs = run(
        problem.step, problem.insertion, outputs, problem.spelling, problem.ctc, gradient
    )
    if d_outputs is not None:
        ctx.problem = problem
        kept = others, outputs.characters, outputs.special, overlap
        ctx.save_for_backward(logits, *kept, *d_outputs)
    return value


def _outputs(others: Tensor, problem: Problem) -> tuple[Outputs, Tensor]:
    """The frames' probabilities, and the overlap of the others with those of the frame before.

    Leaves of `others`, the probabilities `(time, batch, classes)`, those of characters that the
    target does not have: only of these are all classes needed.
    """
    spelling = problem.spelling
    present = problem.present.T
    if others.is_cuda or not present.all():
        others.masked_fill_(~present[..., None], 0)
    index = send(torch.from_numpy(spelling.classes), others.device).expand(len(others), -1, -1)
    special = others[..., spelling.special].clone()
    own = torch.arange(index.shape[2], device="cpu") < torch.from_numpy(spelling.counts)[:, None]
    of_target = others.gather(2, index) * send(own, others.device)
    others.scatter_(2, index, 0)
    others[..., spelling.special] = 0
    rest = others.sum(2)
    overlap = torch.zeros_like(rest)
    again = torch.zeros_like(rest)
    if problem.ctc:
        rows = others.flatten(0, 1)
        size = others.shape[1]
        before, after = rows[: len(rows) - size, :, None], rows[size:, None]
        overlap[1:] = (after @ before).view(len(others) - 1, size)
        both = rest[1:] * rest[:-1]
        again[1:] = (overlap[1:] / both.clamp(min=LEAST_OTHER**2)).clamp_(max=1)
    characters = torch.cat([of_target, rest[..., None]], 2)
    return Outputs(characters, special, again, present), overlap


def _d_logits(
    problem: Problem,
    d_values: Tensor,
    others: Tensor,
    characters: Tensor,
    special: Tensor,
    overlap: Tensor,
    d_characters: Tensor,
    d_special: Tensor,
    d_again: Tensor,
) -> Tensor:
    """The gradient of the logits, `(batch, classes, length)`.

    Of probabilities p with gradient g, softmax gives p (g - sum(p g)). An other class c of frame t
    has, with again = overlap / (rest_t rest_s), overlap = sum_c p_t[c] p_s[c] and rest = sum_c p,

        g_t[c] = d_rest_t + sum_s d_again (p_s[c] - overlap / rest_t) / (rest_t rest_s)

    where s are the frames before and after t.
    """
    spelling = problem.spelling
    # Only p enters what comes before the sum over classes: all else is a number for each frame.
    mean = (characters * d_characters).sum(2) + special * d_special
    level = d_characters[..., -1] - mean
    rest = characters[..., -1]
    ratio = torch.zeros_like(rest)
    if problem.ctc:
        both = rest[1:] * rest[:-1]
        ratio[1:] = (d_again[1:] / both).where(both > LEAST_OTHER**2, 0)
        pull = ratio * overlap
        pull[:-1] += pull[1:].clone()
        level -= pull / rest.clamp(min=LEAST_OTHER)
    d_logits = others * (level * d_values)[..., None]
    if problem.ctc:
        ratio *= d_values
        d_logits[1:].addcmul_(others[1:] * ratio[1:, :, None], others[:-1])
        d_logits[:-1].addcmul_(others[:-1] * ratio[1:, :, None], others[1:])
    index = send(torch.from_numpy(spelling.classes), others.device).expand(len(others), -1, -1)
    of_target = (d_characters - mean[..., None]) * characters * d_values[:, None]
    d_logits.scatter_(2, index, of_target[..., :-1])
    d_logits[..., spelling.special] = (d_special - mean) * special * d_values
    return d_logits.permute(1, 2, 0)
