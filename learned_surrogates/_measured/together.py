"""What several processes that learn together agree on."""

from typing import Any

import torch

from .._learning.election import elect, hand_out
from .._learning.sync import Sync
from .record import Record


def agree(sync: Sync, random: torch.Generator, record: Record, device: torch.device) -> None:
    """Gives all processes what one of them has learned, where that has not happened yet.

    It is made by the process that remembers most; one that has learned already, as from a loaded
    state, wins over those that have not.
    """
    if sync.agreed or not sync.active:
        return
    estimator = record.estimator
    made, able, wanted = estimator.offer()
    offers, source = elect(sync, [made, estimator.updates, able, wanted], random, device)
    made, _, able, _ = offers[source]
    if not made and not able:
        # Where no process wants to learn, there is nothing to wait for.
        sync.agreed = not any(wanted for *_, wanted in offers)
        return

    def learned() -> dict[str, Any]:
        counts = {"calls": record.calls, "updates": estimator.updates}
        return estimator.shared() | {"counts": counts}

    shared = hand_out(sync, source, learned, device)
    if shared is not None:
        counts = shared.pop("counts")
        record.calls, estimator.updates = counts["calls"], counts["updates"]
        estimator.take(shared)
    sync.agreed = True
