"""What several processes that learn together agree on."""

from typing import Any

import torch
import torch.distributed as dist

from .._estimator import Estimator
from .._learning.sync import Sync, digest, gather, waiting
from .record import Record


def agree(
    sync: Sync,
    random: torch.Generator,
    estimator: Estimator[Any],
    record: Record,
    device: torch.device,
) -> None:
    """Gives all processes what one of them has learned, where that has not happened yet.

    It is made by the process that remembers most; one that has learned already, as from a loaded
    state, wins over those that have not. Processes whose random streams are the same, as from the
    same seed or checkpoint, go on with streams of their own: their draws must differ.
    """
    if sync.agreed or not sync.active:
        return
    rank, stream = dist.get_rank(sync.group), random.get_state()
    made, able, wanted = estimator.offer()
    offer = [made, estimator.updates, able, digest(stream), wanted]
    with waiting():
        offers = gather(torch.tensor(offer, device=device), sync.group)
    if any(other[3] == offer[3] for other in offers[:rank]):
        random.manual_seed(digest(stream, rank))
    source = max(range(len(offers)), key=lambda other: (offers[other][:3], -other))
    made, _, able, *_ = offers[source]
    if not made and not able:
        # Where no process wants to learn, there is nothing to wait for.
        sync.agreed = not any(wanted for *_, wanted in offers)
        return
    shared: list[dict[str, Any] | None] = [None]
    if rank == source:
        counts = {"calls": record.calls, "updates": estimator.updates}
        shared = [estimator.shared() | {"counts": counts}]
    group = sync.group or dist.group.WORLD
    assert group is not None
    with waiting():
        sender = dist.get_global_rank(group, source)
        dist.broadcast_object_list(shared, sender, group, device)
    if rank != source:
        assert shared[0] is not None
        counts = shared[0].pop("counts")
        record.calls, estimator.updates = counts["calls"], counts["updates"]
        estimator.take(shared[0])
    sync.agreed = True
