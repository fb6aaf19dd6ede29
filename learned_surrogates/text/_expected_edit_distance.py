"""The expected edit distance as a loss."""

from math import gcd
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._checks import check_choice, check_number
from .._island import never_compiled
from .._task import read
from .._transfer import send
from ._closed_form import ClosedForm, Problem
from ._column_steps import ColumnStep, UnitStep, WholeNumberStep
from ._ctc import CTC
from ._spelling import Spelling
from ._text_task import TextTask

# In the place of log 0.
LEAST_PROBABILITY = 1e-30


class ExpectedEditDistance(nn.Module):
    def __init__(
        self,
        task: TextTask,
        *,
        insertion: int = 1,
        deletion: int = 1,
        substitution: int = 1,
        normalized: bool = False,
        reduction: Literal["none", "mean", "sum"] = "mean",
    ):
        super().__init__()
        if not isinstance(task, TextTask):
            raise TypeError(
                f"task must be text.CTC(...) or text.Characters(...); got {type(task).__name__}"
            )
        costs = {"insertion": insertion, "deletion": deletion, "substitution": substitution}
        for name, cost in costs.items():
            check_number(name, cost, 1)
        check_choice("reduction", reduction, ("none", "mean", "sum"))
        self.task = task
        self.insertion, self.deletion, self.substitution = map(int, costs.values())
        self.normalized = bool(normalized)
        self.reduction = reduction
        # Whatever costs more than to leave out the one and add the other never happens.
        least = min(self.substitution, self.insertion + self.deletion)
        self._unit = gcd(self.insertion, self.deletion, least)
        whole = [cost // self._unit for cost in (self.insertion, self.deletion, least)]
        self._insertion = whole[0]
        self._step: ColumnStep = UnitStep() if whole == [1, 1, 1] else WholeNumberStep(*whole)

    @never_compiled
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        # As the match grid has it, a target is not laid out along the frames.
        batch: Any = read(self.task.seen_by("grid"), args, kwargs)
        logits = self.task.logits(batch.prediction)
        labels = batch.labels
        if self.task.folded is not None:
            logits = _folded(logits, batch.present, send(self.task.folded, logits.device))
            same = self.task.folded.tolist()
            labels = [[same[index] for index in label] for label in labels]
        spelling = Spelling(labels, self.task.alphabet.special)
        problem = Problem(
            spelling,
            batch.present,
            isinstance(self.task, CTC),
            self._step,
            self._insertion,
        )
        value = ClosedForm.apply(logits, problem) * self._unit
        if self.normalized:
            lengths = torch.from_numpy(spelling.lengths).clamp(min=1)
            value = value / send(lengths, value)
        return batch.reduce(value, self.reduction)


def _folded(logits: Tensor, present: Tensor, folded: Tensor) -> Tensor:
    """Logits of what the metric tells apart: the first class of each kind has all its probability."""
    dtype = logits.dtype if logits.dtype == torch.float64 else torch.float32
    probabilities = logits.where(present[:, None], 0.0).softmax(1, dtype=dtype)
    together = torch.zeros_like(probabilities).index_add(1, folded, probabilities)
    return together.clamp(min=LEAST_PROBABILITY).log()
