"""Whether the surrogate comes fitted, and is followed from the first call on."""

import torch

from ._learner import WARM_UP_CALLS, Learner
from ._stats import agreement
from ._trust import FEWEST_PAIRS

# Level of trust at which a surrogate needs no warm-up.
RIGHT = 0.5


def end_warm_up_if_right(learner: Learner) -> None:
    """Ends the warm-up if the surrogate was right about all processes' predictions so far.

    All processes must call this as often, whether they have samples or not.
    """
    if not learner.trust.judged:
        _judge(learner)
    learner.waits = False
    if learner.warm_up_left and not learner.updates:
        first = [held for held in learner.pairs.evaluations.held if held.call <= WARM_UP_CALLS]
        right = learner.trust.level >= RIGHT
        judged, learner.came_fitted, arrived = _everywhere(
            learner, learner.trust.judged, right, not first
        )
        # Too few samples to tell: one that may come fitted is left as it is meanwhile.
        few = not judged and (learner.calls < WARM_UP_CALLS or not arrived)
        learner.waits = learner.pairs.task.fitted and few
        learner.warm_up_left *= not learner.came_fitted
    elif learner.came_fitted and learner.calls == WARM_UP_CALLS:
        # The first samples may have deceived.
        _judge(learner)
        (right,) = _everywhere(learner, learner.trust.level >= RIGHT)
        if not right:
            learner.came_fitted = False
            learner.warm_up_left = learner.recipe.warm_up_updates


def _judge(learner: Learner) -> None:
    """Sets the level of trust by the predictions that the surrogate was not yet fitted to."""
    unseen = learner.pairs.unseen
    if unseen.size >= FEWEST_PAIRS:
        learner.trust.judge(agreement(*unseen.oldest_first())["relative_error"])


def _everywhere(learner: Learner, *own: bool) -> list[bool]:
    """What is so in all processes."""
    flags = torch.tensor(own, dtype=torch.float32, device=learner.device)
    means = learner.sync.mean([flags], 1, [flags])
    assert means is not None and means[0] is not None
    return [bool(mean) for mean in (means[0] == 1).tolist()]
