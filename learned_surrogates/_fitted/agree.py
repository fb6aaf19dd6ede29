"""Which surrogate several processes go on with."""

from functools import partial

from .._learning.election import elect, hand_out
from . import state
from .learner import Learner


def agree(learner: Learner) -> bool:
    """Gives all processes the same surrogate, where that has not happened yet.

    They take it from the one that has updated it most often, the first of several: a process that
    has loaded a state wins over those that have not, and one whose first batch was empty gets what
    the others have built. Each keeps its own replay buffer.

    Returns:
        Whether there is a surrogate; there is none before the first finite sample in any process.
    """
    sync, pairs, device = learner.sync, learner.pairs, learner.net.device
    if sync.agreed or not sync.active:
        return pairs.shapes is not None
    offer = [int(pairs.shapes is not None), learner.updates]
    offers, source = elect(sync, offer, pairs.random, device)
    if not offers[source][0]:
        return False
    shared = hand_out(sync, source, partial(state.shared, learner), device)
    if shared is not None:
        state.share(learner, shared)
    sync.agreed = True
    return True
