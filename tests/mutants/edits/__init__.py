"""Deliberate one-line faults, each with the test files that should notice it.

A fault was chosen by reading the line alone: a sign, a bound, an off-by-one, a missing term, the
wrong one of two names. `same` says why one that no test can notice is the same program.
"""

from . import boxes, closed_form, contract, evaluation, fitted, measured, metric, sets, state, text
from .edit import Edit

__all__ = ["EDITS", "Edit"]

EDITS = [
    edit
    for room in (
        measured,
        fitted,
        evaluation,
        metric,
        contract,
        state,
        text,
        closed_form,
        boxes,
        sets,
    )
    for edit in room.EDITS
]
