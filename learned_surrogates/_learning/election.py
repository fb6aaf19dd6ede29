"""Which of several processes the others take from what they have in common."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from .sync import Sync, digest, gather, waiting


def elect(
    sync: Sync, offer: list[int], random: torch.Generator, device: torch.device
) -> tuple[list[list[int]], int]:
    """What all processes offer, and the rank of the one that has most, the first of several.

    Processes whose random streams are the same, as from the same seed or checkpoint, go on with
    streams of their own: their draws must differ.

    Args:
        offer: what this process has to give, the first number counting first.
    """
    rank, stream = dist.get_rank(sync.group), random.get_state()
    own = [*offer, digest(stream)]
    with waiting():
        offers = gather(torch.tensor(own, device=device), sync.group)
    if any(other[-1] == own[-1] for other in offers[:rank]):
        random.manual_seed(digest(stream, rank))
    offers = [other[:-1] for other in offers]
    return offers, max(range(len(offers)), key=lambda other: (offers[other], -other))


def hand_out(
    sync: Sync, source: int, made: Callable[[], dict[str, Any]], device: torch.device
) -> dict[str, Any] | None:
    """What the elected process has made, for each of the others; None in that process itself."""
    own = dist.get_rank(sync.group) == source
    shared = [made() if own else None]
    group = sync.group or dist.group.WORLD
    assert group is not None
    with waiting():
        sender = dist.get_global_rank(group, source)
        dist.broadcast_object_list(shared, sender, group, device)
    return None if own else shared[0]
