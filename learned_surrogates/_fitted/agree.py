"""Which surrogate several processes go on with."""

import torch
import torch.distributed as dist

from .._learning.sync import digest, gather, waiting
from . import state
from .learner import Learner


def agree(learner: Learner) -> bool:
    """Gives all processes the same surrogate, where that has not happened yet.

    They take it from the one that has updated it most often, the first of several: a process that
    has loaded a state wins over those that have not, and one whose first batch was empty gets what
    the others have built. Each keeps its own replay buffer. Processes whose random streams are the
    same, as from the same seed or the same checkpoint, go on with streams of their own.

    Returns:
        Whether there is a surrogate; there is none before the first finite sample in any process.
    """
    sync, pairs = learner.sync, learner.pairs
    if sync.agreed or not sync.active:
        return pairs.shapes is not None
    rank, stream = dist.get_rank(sync.group), pairs.random.get_state()
    offer = [int(pairs.shapes is not None), learner.updates, digest(stream)]
    with waiting():
        offers = gather(torch.tensor(offer, device=learner.net.device), sync.group)
    if any(other[2] == offer[2] for other in offers[:rank]):
        pairs.random.manual_seed(digest(stream, rank))
    source = max(range(len(offers)), key=lambda other: (offers[other][:2], -other))
    if not offers[source][0]:
        return False
    shared = [state.shared(learner) if rank == source else None]
    group = sync.group or dist.group.WORLD
    assert group is not None
    with waiting():
        sender = dist.get_global_rank(group, source)
        dist.broadcast_object_list(shared, sender, group, learner.net.device)
    if rank != source:
        assert shared[0] is not None
        state.share(learner, shared[0])
    sync.agreed = True
    return True
