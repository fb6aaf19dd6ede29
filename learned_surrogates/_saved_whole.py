"""How a module with a core is saved and loaded: whole, or not at all."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ._core import Core
from ._evaluation.portion import Parcel
from ._state.identity import OTHERS, as_bytes, differences, from_bytes, identity, of_another_task
from ._state.packed import KEY, pack, unpack
from ._state.tensors import Faults
from ._support.processes import Lock, one_at_a_time, starts_a_process
from ._support.warnings import warn

# The key of a state that says of what loss it is.
FITTED_TO = "fitted_to"
PREFIXED = (
    "the state has {found!r} in the place of {key!r}, as one of a wrapped module has: take what "
    "stands in front off its keys"
)
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
    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        state = self._core.save(with_replay=self._core.recipe.replay.save)
        state[FITTED_TO] = as_bytes(self._identify())
        destination[prefix + KEY] = pack(state)

    @one_at_a_time
    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
        # A subclass may have modules of its own, which load themselves.
        own = {k: v for k, v in own.items() if k.partition(".")[0] not in self._modules}
        if not own:
            missing_keys.append(prefix + KEY)
            return
        faults, saved = self._load(own)
        missing_keys += [prefix + key for key in faults.missing]
        unexpected_keys += [prefix + key for key in faults.unexpected]
        error_msgs += [f"{self._get_name()}: {error}" for error in faults.errors]
        if faults:
            # Also with strict=False: half a state is none, and must not be left out in silence.
            error_msgs.append(f"{self._get_name()}: {NOTHING_LOADED}")
        elif others := differences(saved, self._identify()):
            warn(OTHERS.format(differences="; ".join(others)))
        self._refresh_stats()

    def _load(self, own: dict[str, Tensor]) -> tuple[Faults, dict[str, str]]:
        """Loads a state under its key, or tensors under their own names.

        Returns:
            What is wrong with it, and what it was fitted to.
        """
        try:
            state = (unpack(own.pop(KEY)) if KEY in own else {}) | own
        except ValueError as error:
            return Faults(errors=[str(error)]), {}
        if FITTED_TO not in state:
            prefixed = [key for key in own if key.endswith(f".{KEY}")]
            if not prefixed:
                return Faults(missing=[FITTED_TO]), {}
            return Faults(missing=[KEY], errors=[PREFIXED.format(found=prefixed[0], key=KEY)]), {}
        try:
            saved = from_bytes(state.pop(FITTED_TO))
        except ValueError as error:
            return Faults(errors=[f"{FITTED_TO} cannot be read: {error}"]), {}
        faults = self._core.load(state)
        if faults and (others := of_another_task(saved, self._identify())):
            # Which keys then differ is no news.
            faults = Faults(errors=[others, *faults.errors])
        return faults, saved

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
