"""The passes over the table's rows by PyTorch, step by step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..._support.transfer import send
from .column_steps import ColumnStep
from .difference_rows import Rows
from .frame_moves import CTCMoves, Outputs, PositionMoves
from .spelling import Spelling


def run(
    step: ColumnStep,
    insertion: int,
    outputs: Outputs,
    spelling: Spelling,
    ctc: bool,
    gradient: bool,
) -> tuple[Tensor, Sequence[Tensor] | None]:
    """As `row_passes.run`."""
    frames = CTCMoves(outputs) if ctc else PositionMoves(outputs)
    device = outputs.special.device
    of_column, letters = (
        send(torch.from_numpy(each.T.copy()), device)
        for each in (spelling.of_column, spelling.letters)
    )
    match = (of_column == letters[:, None]).to(outputs.special)
    exists = (of_column >= 0).to(match)
    mean, d_moves = Rows(step, frames.moves, match, exists, ctc).run(gradient)
    value = mean + insertion * frames.moves.gain.sum((0, 2))
    if d_moves is None:
        return value, None
    d_gain, *rest = d_moves
    return value, frames.backward(d_gain + insertion, *rest)
