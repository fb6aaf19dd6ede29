"""Whether a task keeps the contracts that the loss relies on: `check_task`."""

import copy
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from .._task import Task, check_is_task
from . import contracts as of_metric, representation as of_surrogate
from .call import Call, NotAsked

#: In the order in which they are asked.
CONTRACTS: tuple[Callable[[Call], None], ...] = (
    of_metric.settings,
    of_metric.read,
    of_metric.argument,
    of_metric.decode,
    of_metric.apart,
    of_metric.half,
    of_metric.alone,
    of_metric.order,
    of_surrogate.represent,
    of_surrogate.gradient,
    of_surrogate.independent,
    of_surrogate.cut,
    of_surrogate.expand,
    of_surrogate.padding,
    of_surrogate.encode,
    of_surrogate.generator,
    of_surrogate.surrogate,
    of_surrogate.precision,
    of_metric.perfect,
    of_metric.draws,
    of_metric.scores,
    of_metric.likelihood,
    of_metric.unchanged,
    of_metric.copies,
    of_metric.reduction,
)


@dataclass(frozen=True)
class Contract:
    """What became of one contract.

    Attributes:
        name: of the contract.
        says: what it asks for.
        state: "passed", "failed" or "skipped".
        why: what was found and what to do, or why it was not asked; "" where it passed.
    """

    name: str
    says: str
    state: Literal["passed", "failed", "skipped"]
    why: str = ""

    def __str__(self) -> str:
        why = f"\n            {self.why}" if self.why else ""
        return f"{self.state:<8} {self.name}: {self.says}{why}"


@dataclass(frozen=True)
class TaskCheck:
    """What `check_task` found; `print` shows it as a table.

    Attributes:
        task: its `repr`, or the name of its class.
        contracts: all of them.
    """

    task: str
    contracts: tuple[Contract, ...]

    @property
    def failed(self) -> tuple[Contract, ...]:
        """Those that the task does not keep."""
        return tuple(contract for contract in self.contracts if contract.state == "failed")

    def __repr__(self) -> str:
        states = [contract.state for contract in self.contracts]
        counts = ", ".join(f"{states.count(s)} {s}" for s in ("passed", "failed", "skipped"))
        return "\n".join([f"{self.task}: {counts}", *map(str, self.contracts)])


def check_task(task: Task[Any], /, *args: Any, **kwargs: Any) -> TaskCheck:
    """Checks that a task keeps the contracts that the loss relies on, on a call of yours.

    For tests of tasks of your own, as botorch and scikit-learn have checks that third parties run.
    A metric is not needed, nothing is trained, and the call's arguments stay what they are.

    Args:
        task: an instance.
        *args: what the loss would be called with. Take several samples that differ, and that are
            like the real ones: of equal ones, nothing tells whether samples are mixed up.
        **kwargs: the same, by keyword.

    Returns:
        The contracts, each passed or skipped and why.

    Raises:
        AssertionError: some failed: the whole table, with what was found and what to do.
        TypeError: `task` is no task.

    Example:
        >>> import torch
        >>> from learned_surrogates import Tensors, check_task
        >>> check = check_task(Tensors(smoothing=0), torch.randn(4, 3), torch.randn(4, 3))
        >>> check.failed
        ()
    """
    check_is_task(task)
    call = Call(task, args, kwargs)
    with suppress(Exception):  # what cannot be copied is a contract's to say
        call.settings = copy.deepcopy(vars(task))
    contracts: list[Contract] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for contract in CONTRACTS:
            name, says = contract.__name__, (contract.__doc__ or "").strip()
            contracts.append(Contract(name, says, *_asked(contract, call)))
            if name in ("settings", "read") and contracts[-1].state == "failed":
                break  # without them, there is nothing to ask of
    plain = type(task).__repr__ is object.__repr__
    check = TaskCheck(type(task).__name__ if plain else repr(task), tuple(contracts))
    if check.failed:
        raise AssertionError(repr(check))
    return check


def _asked(
    contract: Callable[[Call], None], call: Call
) -> tuple[Literal["passed", "failed", "skipped"], str]:
    """What becomes of a contract: its state, and why."""
    try:
        contract(call)
    except NotAsked as reason:
        return "skipped", str(reason)
    except NotImplementedError as error:
        return "skipped", f"not implemented {error}".strip()
    except Exception as error:  # noqa: BLE001 - whatever a user's task raises is what was found
        told = [f"{type(error).__name__}: {error}".removeprefix("AssertionError: ")]
        told += getattr(error, "__notes__", [])
        frame = traceback.extract_tb(error.__traceback__)[-1]
        if not isinstance(error, AssertionError) and "learned_surrogates" not in frame.filename:
            told.append(f"({frame.filename}, line {frame.lineno})")
        return "failed", " ".join(told)
    return "passed", ""
