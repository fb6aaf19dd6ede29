"""What several processes that learn one surrogate agree on."""

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from .._state_tensors import part, save_adam
from .._sync import digest, gather, waiting
from .state import load_moments, named

if TYPE_CHECKING:
    from .core import MeasuredCore


def agree(core: "MeasuredCore") -> None:
    """Gives all processes the same forms of the surrogate, where that has not happened yet.

    Forms are made by the process that remembers most; one that has some already, as from a loaded
    state, wins over those that have none. Processes whose random streams are the same, as from the
    same seed or checkpoint, go on with streams of their own: their draws must differ.
    """
    sync, slope = core.sync, core.slope
    if sync.agreed or not sync.active:
        return
    rank, stream = dist.get_rank(sync.group), core.random.get_state()
    able = core.replay.size if slope.wanted and core.experience.enough else 0
    offer = [int(bool(slope.forms)), core.updates, able, digest(stream), int(slope.wanted)]
    with waiting():
        offers = gather(torch.tensor(offer, device=core.device), sync.group)
    if any(other[3] == offer[3] for other in offers[:rank]):
        core.random.manual_seed(digest(stream, rank))
    source = max(range(len(offers)), key=lambda other: (offers[other][:3], -other))
    made, _, rows, *_ = offers[source]
    if not made and not rows:
        # Where no process wants a surrogate, there is nothing to wait for.
        sync.agreed = not any(wanted for *_, wanted in offers)
        return
    if rank == source and not made:
        core.make_forms()
    shared = [_shared(core) if rank == source else None]
    group = sync.group or dist.group.WORLD
    assert group is not None
    with waiting():
        sender = dist.get_global_rank(group, source)
        dist.broadcast_object_list(shared, sender, group, core.device)
    if rank != source:
        assert shared[0] is not None
        _take(core, shared[0])
    sync.agreed = True


def _shared(core: "MeasuredCore") -> dict[str, Any]:
    """What the surrogate is, on the CPU."""
    slope = core.slope
    moments = save_adam(slope.optimizer, named(slope))
    return {
        "names": slope.names,
        "weights": [_to_cpu(form.state_dict()) for form in slope.forms],
        "moments": part(_to_cpu(moments), "adam."),
        "shapes": slope.shapes,
        "scale": slope.scale.cpu(),
        "sums": slope.control.sums.cpu(),
        "best": slope.best,
        "counts": (slope.calls, core.calls, core.updates),
    }


def _to_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.cpu() for key, tensor in tensors.items()}


def _take(core: "MeasuredCore", shared: dict[str, Any]) -> None:
    """Takes what another process has shared; what is remembered stays what it is.

    So does what its own draws said of the same forms, as in a state that each has loaded.
    """
    slope = core.slope
    own = slope.control.sums, slope.best, slope.control.age
    kept = bool(slope.names) and slope.names == shared["names"]
    slope.calls, core.calls, core.updates = shared["counts"]
    if not shared["names"]:
        slope.unsuited = True
        return
    slope.rebuild(shared["names"], shared["shapes"])
    for form, weights in zip(slope.forms, shared["weights"], strict=True):
        form.load_state_dict(weights)
    load_moments(slope, shared["moments"])
    slope.scale = shared["scale"].to(core.device)
    slope.control.sums, slope.best = shared["sums"].to(core.device), shared["best"]
    if kept:
        slope.control.sums, slope.best, slope.control.age = own
