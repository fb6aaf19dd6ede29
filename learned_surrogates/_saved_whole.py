"""How a module with a core is saved and loaded: whole, or not at all."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ._core import Core
from ._evaluation.portion import Parcel
from ._state.identity import OTHERS, as_bytes, differences, from_bytes, identity, of_another_task
from ._state.packed import pack, unpack
from ._state.tensors import Faults
from ._support.processes import Lock, one_at_a_time, starts_a_process
from ._support.warnings import warn

# The key of a state that says of what loss it is.
FITTED_TO = "fitted_to"
NOTHING_LOADED = "nothing was loaded, it goes on as it was"


class SavedWhole(nn.Module):
    """A module whose state is its core's, one tensor of bytes in `state_dict()`.

    Not its parameters, buffers or submodules: there is nothing for an optimizer to move.
    """

    if TYPE_CHECKING:  # where they are annotated, torch.jit.script would compile their classes
        _core: Core
        _lock: Lock

    def _refresh_stats(self) -> None:
        """Called when a state has been loaded."""
        raise NotImplementedError

    @one_at_a_time
    def get_extra_state(self) -> Tensor:
        """The core's state and what it was fitted to, in one tensor."""
        state = self._core.save(with_replay=self._core.recipe.replay.save)
        return pack(state | {FITTED_TO: as_bytes(self._identify())})

    @torch.inference_mode(False)  # what is made there could not be fitted afterwards
    @one_at_a_time
    def set_extra_state(self, state: Any) -> None:
        """Takes what `get_extra_state` gave.

        Raises:
            RuntimeError: it is something else, or of another loss; nothing has changed.
        """
        own = self._identify()
        try:
            tensors = unpack(state)
            if FITTED_TO not in tensors:
                raise ValueError(f"{FITTED_TO} is missing")
            saved = from_bytes(tensors.pop(FITTED_TO))
        except ValueError as error:
            raise self._refusal([str(error)]) from error
        if faults := self._core.load(tensors):
            # Which parts then differ is no news.
            other_task = of_another_task(saved, own)
            raise self._refusal([other_task] if other_task else faults)
        if others := differences(saved, own):
            warn(OTHERS.format(differences="; ".join(others)))
        self._refresh_stats()

    def _refusal(self, faults: Faults) -> RuntimeError:
        what = f"{self._get_name()} cannot take this state:"
        return RuntimeError("\n\t".join([what, *faults, NOTHING_LOADED]))

    def _identify(self) -> dict[str, str]:
        return identity(self._core.oracle.metric, self._core.task)

    def __getstate__(self) -> dict[str, Any]:
        # In a process that is started with it, a loss is another one: tensors are copied, where
        # multiprocessing's pickler would have both write to the same memory.
        core = Parcel(self._core) if starts_a_process() else self._core
        return vars(self) | {"_core": core}

    def __setstate__(self, state: dict[str, Any]) -> None:
        core = state["_core"]
        super().__setstate__(state | {"_core": core.open() if isinstance(core, Parcel) else core})
