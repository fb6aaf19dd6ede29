"""The expected edit distance as a function of logits, with its gradient."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..._gradient import Refusing
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
        if torch.is_grad_enabled():
            gradient = gradient + Refusing.apply(logits, NO_SECOND_DERIVATIVE)
        return gradient, None


def _forward(ctx: Any, logits: Tensor, problem: Problem) -> Tensor:
    dtype = logits.dtype if logits.dtype == torch.float64 else torch.float32
    others = logits.permute(2, 0, 1).softmax(2, dtype=dtype).contiguous()
    outputs, index, repeats = _outputs(others, problem)
    gradient = ctx.needs_input_grad[0]
    value, d_outputs = run(
        problem.step, problem.insertion, outputs, problem.spelling, problem.ctc, gradient
    )
    if d_outputs is not None:
        ctx.problem = problem
        kept = others, outputs.characters, outputs.special, index, *repeats
        ctx.save_for_backward(logits, *d_outputs, *kept)
    return value


def _outputs(
    others: Tensor, problem: Problem
) -> tuple[Outputs, Tensor, tuple[()] | tuple[Tensor, Tensor]]:
    """The frames' probabilities, the classes of their characters, and what repeats them in CTC.

    Leaves of `others`, the probabilities `(time, batch, classes)`, those of characters that the
    target does not have: only of these are all classes needed. What repeats them is their overlap
    with those of the frame before, and the product of the sums of both, of which it is a part.
    """
    spelling = problem.spelling
    present = problem.present.T
    if others.is_cuda or not present.all():
        others.masked_fill_(~present[..., None], 0)
    index = send(torch.from_numpy(spelling.classes), others.device).expand(len(others), -1, -1)
    special = others[..., spelling.special].clone()
    # So it is for characters that a sample does not have, in the place of which it stands.
    others[..., spelling.special] = 0
    of_target = others.gather(2, index)
    others.scatter_(2, index, 0)
    rest = others.sum(2)
    again = torch.zeros_like(rest)
    repeats: tuple[()] | tuple[Tensor, Tensor] = ()
    if problem.ctc:
        # Before the first frame, there is none.
        overlap, both = again, torch.ones_like(rest)
        rows = others.flatten(0, 1)
        size = others.shape[1]
        before, after = rows[: len(rows) - size, :, None], rows[size:, None]
        torch.bmm(after, before, out=overlap.view(-1, 1, 1)[size:])
        torch.mul(rest[1:], rest[:-1], out=both[1:]).clamp_(min=LEAST_OTHER**2)
        again, repeats = (overlap / both).clamp_(max=1), (overlap, both)
    characters = torch.cat([of_target, rest[..., None]], 2)
    return Outputs(characters, special, again, present), index, repeats


def _d_logits(
    problem: Problem,
    d_values: Tensor,
    d_characters: Tensor,
    d_special: Tensor,
    d_again: Tensor,
    others: Tensor,
    characters: Tensor,
    special: Tensor,
    index: Tensor,
    *repeats: Tensor,
) -> Tensor:
    """The gradient of the logits, `(batch, classes, length)`.

    Of probabilities p with gradient g, softmax gives p (g - sum(p g)). An other class c of frame t
    has, with again = overlap / (rest_t rest_s), overlap = sum_c p_t[c] p_s[c] and rest = sum_c p,

        g_t[c] = d_rest_t + sum_s d_again (p_s[c] - overlap / rest_t) / (rest_t rest_s)

    where s are the frames before and after t.
    """
    # Only p enters what comes before the sum over classes: all else is a number for each frame.
    mean = (characters * d_characters).sum(2).addcmul_(special, d_special)
    level = d_characters[..., -1] - mean
    if not problem.ctc:
        d_logits = others * level.mul_(d_values)[..., None]
    else:
        overlap, both = repeats
        ratio = d_again / both
        pull, some = ratio * overlap, characters[..., -1].clamp(min=LEAST_OTHER)
        level.addcdiv_(pull, some, value=-1)
        level[:-1].addcdiv_(pull[1:], some[:-1], value=-1)
        level *= d_values
        ratio = ratio.mul_(d_values)[1:, :, None]
        d_logits = level[..., None].repeat(1, 1, others.shape[2])
        d_logits[1:].addcmul_(ratio, others[:-1])
        d_logits[:-1].addcmul_(ratio, others[1:])
        d_logits *= others
    of_target = (d_characters - mean[..., None]).mul_(characters).mul_(d_values[:, None])
    d_logits.scatter_(2, index, of_target[..., :-1])
    of_special = (d_special - mean).mul_(special)
    torch.mul(of_special, d_values, out=d_logits[..., problem.spelling.special])
    return d_logits.permute(1, 2, 0)
