"""What several processes that learn one surrogate agree on."""

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from .._sync import digest, gather, waiting
from .slope import FEWEST_ROWS

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
    able = core.replay.size if slope.wanted else 0
    offer = [int(bool(slope.forms)), core.updates, able, digest(stream), int(slope.wanted)]
    with waiting():
        offers = gather(torch.tensor(offer, device=core.device), sync.group)
    if any(other[3] == offer[3] for other in offers[:rank]):
        core.random.manual_seed(digest(stream, rank))
    source = max(range(len(offers)), key=lambda other: (offers[other][:3], -other))
    made, _, rows, *_ = offers[source]
    if not made and rows < FEWEST_ROWS:
        # Where no process wants a surrogate, there is nothing to wait for.
        sync.agreed = not any(wanted for *_, wanted in offers)
        return
    if rank == source and not made:
        core.make_forms()
    shared: list[Any] = [_shared(core) if rank == source else None]
    group = sync.group or dist.group.WORLD
    assert group is not None
    with waiting():
        sender = dist.get_global_rank(group, source)
        dist.broadcast_object_list(shared, sender, group, core.device)
    if rank != source:
        _take(core, *shared[0])
    sync.agreed = True


def _shared(core: "MeasuredCore") -> tuple[Any, ...]:
    """What the surrogate is, on the CPU."""
    slope = core.slope
    weights = [{k: v.cpu() for k, v in form.state_dict().items()} for form in slope.forms]
    counts = slope.calls, core.calls, core.updates
    return slope.names, weights, slope.shapes, slope.scale.cpu(), slope.control.sums.cpu(), counts


def _take(
    core: "MeasuredCore",
    names: list[str],
    weights: list[dict[str, Any]],
    shapes: Any,
    scale: torch.Tensor,
    sums: torch.Tensor,
    counts: tuple[int, int, int],
) -> None:
    """Takes what another process has shared; what is remembered stays what it is."""
    slope = core.slope
    slope.calls, core.calls, core.updates = counts
    if not names:
        slope.unsuited = True
        return
    slope.rebuild(names, shapes)
    for form, state in zip(slope.forms, weights, strict=True):
        form.load_state_dict(state)
    slope.scale = scale.to(core.device)
    slope.control.sums = sums.to(core.device)
