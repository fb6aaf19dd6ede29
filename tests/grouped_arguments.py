"""Arguments of a loss, given one by one."""

from dataclasses import fields
from typing import Any

from torch import nn

from learned_surrogates import Fit, FitValues, Replay, Tensors

NAMES = {kind: {field.name for field in fields(kind)} for kind in (Fit, FitValues, Replay)}


def grouped(**options: Any) -> dict[str, Any]:
    """The loss's arguments, of those and of fields of `Fit`, `FitValues` and `Replay`.

    Where the gradient is measured, what only a fit to values has is left out; and where nothing is
    fitted by steps, all that is for that.
    """
    task, surrogate = options.get("task", Tensors()), options.get("surrogate")
    if not isinstance(surrogate, nn.Module):
        task = task.for_surrogate(surrogate or task.surrogates[0])
    fit = {name: value for name, value in options.items() if name in NAMES[FitValues]}
    replay = {name: value for name, value in options.items() if name in NAMES[Replay]}
    rest = {name: value for name, value in options.items() if name not in fit | replay}
    if task.measured:
        fit = {name: value for name, value in fit.items() if name in NAMES[Fit]}
    if task.measured and not isinstance(task, Tensors):
        fit = {name: value for name, value in fit.items() if name == "every"}
        replay = {name: value for name, value in replay.items() if name == "save"}
    return {"fit": (Fit if task.measured else FitValues)(**fit), "replay": Replay(**replay), **rest}
