"""The expected edit distance as a loss."""

from dataclasses import replace
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from .._batch import plain_call
from .._support.checks import Reduction, check_number, check_reduction
from .._support.isolated import never_compiled
from .._support.transfer import send
from .._task import read
from ._closed_form.column_steps import ColumnStep, UnitStep, WholeNumberStep
from ._closed_form.recursion import ClosedForm, Problem
from ._closed_form.row_passes import way_of
from ._closed_form.spelling import Spelling
from ._text_task import TextBatch, TextTask

# Where every error costs 1.
UNIT = UnitStep()


class ExpectedEditDistance(nn.Module):
    r"""The expected edit distance of a recogniser's random reading, in closed form, as a loss.

    With a text R drawn from the model's own outputs, independently at each frame or position, and
    the target y, value and gradient are those of

        L = E_R[ d(R, y) ],    R ~ softmax(outputs)

    without any draw. The row of the edit-distance table (Wagner and Fischer) is kept as the
    probabilities of the steps between its neighbours, given what the frame before has read; its
    columns are taken as a Markov chain given that, and with CTC, whether a character that the
    target does not have repeats the one before as independent from frame to frame: these are the
    approximations. A model that is certain of its reading has the distance itself. It needs no
    metric, no draws, and nothing that is learned.

    On the CPU, in float32 and with costs of 1, the passes over the frames are compiled where Numba
    is installed (`pip install numba`), which takes some seconds at the first
    call on a machine. On a GPU, likewise, they are one kernel where Triton is installed, which
    PyTorch brings for CUDA on Linux, and a target has at most 510 distinct characters. Elsewhere
    PyTorch runs them. `print(criterion)` says which. Two of PyTorch's ways take the columns as
    independent, which is less near: on the CPU in float32, where a chain would take five times as
    long, and with costs other than 1.

    Time and memory are linear in the frames, in the classes, and in the target's length times the
    number of its distinct characters (with the task's `fold`, of all that these may be). Beside the
    outputs and their gradient, a call keeps a copy of the outputs until its gradient is computed,
    and twice as much during that. While it runs, it takes 16 MB compiled, or, for long lines, 144
    bytes for each of `distinct characters * length * sqrt(frames)` of one sample; in PyTorch 50 MB,
    or 60 bytes for each of `batch * distinct characters * length * sqrt(frames)`, of a chain 180.
    The kernel takes 64 MB, or 108 bytes for each of `batch * distinct characters * length *
    sqrt(frames)`, the distinct characters filled up to a power of two.

    Args:
        task: `text.CTC(...)` or `text.PerPosition(...)`, as which the loss is called. Characters
            that the task's `fold` makes the same count as the same.
        insertion: cost of a character read that the target does not have, a whole number from 1.
        deletion: cost of one of the target's that is missing, a whole number from 1.
        substitution: cost of a character in place of another, a whole number from 1; where it is
            more than the two others together, they are what counts. What costs other than 1 take
            grows with `(insertion + deletion) ** 2`.
        normalized: whether a sample's distance is divided by the length of its target. An empty
            target counts as one character long: nothing read has 0, as with
            `normalized_edit_distance`, which divides by the longer of the two.
        reduction: "mean" over the batch, "sum", or "none" for one number a sample.

    Raises:
        TypeError, ValueError: here for costs that are not whole numbers, an unknown task or
            reduction; at a call, for what the task cannot read.

    Example:
        >>> import torch
        >>> criterion = ExpectedEditDistance(CTC("ab"))
        >>> certain = 100 * torch.eye(3)[[1, 1, 0, 1]]  # reads "aa"
        >>> round(criterion(certain, torch.tensor([1, 2]), [4], [2]).item(), 3)
        1.0
        >>> unsure = torch.zeros(4, 3, requires_grad=True)
        >>> criterion(unsure, torch.tensor([1, 2]), [4], [2]).backward()
        >>> unsure.grad.shape
        torch.Size([4, 3])

    References:
        - Wagner, Fischer, "The String-to-String Correction Problem", Journal of the ACM, 1974.
        - Ukkonen, "Algorithms for Approximate String Matching", Information and Control, 1985: the
          steps between a table's neighbours.
        - Graves, Fernandez, Gomez, Schmidhuber, "Connectionist Temporal Classification", ICML 2006.
    """

    def __init__(
        self,
        task: TextTask,
        *,
        insertion: int = 1,
        deletion: int = 1,
        substitution: int = 1,
        normalized: bool = False,
        reduction: Reduction = "mean",
    ):
        super().__init__()
        if not isinstance(task, TextTask):
            raise TypeError(
                f"task must be text.CTC(...) or text.PerPosition(...); got {type(task).__name__}"
            )
        costs = {"insertion": insertion, "deletion": deletion, "substitution": substitution}
        for name, cost in costs.items():
            check_number(name, cost, 1)
        check_reduction(reduction)
        self.task = task
        self.insertion, self.deletion, self.substitution = map(int, costs.values())
        self.normalized = bool(normalized)
        self.reduction = reduction
        # Whatever costs more than to leave out the one and add the other never happens.
        least = min(self.substitution, self.insertion + self.deletion)
        self._unit = gcd(self.insertion, self.deletion, least)
        whole = [cost // self._unit for cost in (self.insertion, self.deletion, least)]
        self._insertion = whole[0]
        self._step: ColumnStep = UNIT if whole == [1, 1, 1] else WholeNumberStep(*whole)
        #: Whether a batch has told that it is what the task takes.
        self._told = False

    def extra_repr(self) -> str:
        return (
            f"{self.task!r}, insertion={self.insertion}, deletion={self.deletion}, "
            f"substitution={self.substitution}, normalized={self.normalized}, "
            f"reduction={self.reduction!r}, passes: {self.way}"
        )

    @property
    @torch.jit.unused
    def way(self) -> str:
        """Which passes over the frames are taken, for people to read."""
        return way_of(self._step)

    @never_compiled
    @torch.jit.unused  # a scripted model may hold the loss
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss; called as its task is read.

        Returns:
            a scalar, or `(batch,)` with reduction "none": float64 of such outputs, else float32.
        """
        # A target is not laid out along the frames then.
        batch: Any = read(self.task.for_surrogate("none"), *plain_call(args, kwargs))
        if not self._told:
            self._told = self.task.warn_about(batch)
        batch = replace(batch, logits=self.task.logits(batch.prediction))
        return batch.reduce(self.of(batch), self.reduction)

    def of(self, batch: TextBatch) -> Tensor:
        """Distances `(batch,)` of what the task has read, with the graph of its logits."""
        value = expected_distances(self.task, batch, self._step, self._insertion) * self._unit
        if self.normalized:
            lengths = torch.tensor([max(1, len(label)) for label in batch.labels], device="cpu")
            value = value / send(lengths, value)
        return value


def expected_distances(
    task: TextTask, batch: TextBatch, step: ColumnStep = UNIT, insertion: int = 1
) -> Tensor:
    """Expected distances `(batch,)` in units of the step, with the graph of the batch's logits."""
    same = None if task.folded is None else task.folded.tolist()
    spelling = Spelling(task.letters(batch.labels), task.alphabet.special, same)
    problem = Problem(spelling, batch.present, task.merges, step, insertion)
    distances: Tensor = ClosedForm.apply(batch.logits, problem)
    return distances
