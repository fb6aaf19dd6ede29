"""Whether the surrogate comes fitted, and is followed from the first call on."""

import torch

from ._learner import WARM_UP_CALLS, Learner
from ._stats import agreement
from ._trust import FEWEST_PAIRS

# Level of trust at which a surrogate needs no warm-up.
RIGHT = 0.5
# Few predictions tell that it is right. That it is wrong takes more: it is fitted anew then, and
# there must be some to fit it to.
ENOUGH_PAIRS = 128


def end_warm_up_if_right(learner: Learner) -> None:
    """Ends the warm-up if the surrogate was right about all processes' predictions so far.

    All processes must call this as often, whether they have samples or not.
    """
    trust, pairs = learner.trust, learner.pairs
    beginning = learner.warm_up_left > 0 and not learner.updates
    if beginning or not trust.judged:
        _judge(learner)
    learner.waits = False
    enough = pairs.unseen.size >= ENOUGH_PAIRS
    if beginning:
        first = [held for held in pairs.evaluations.held if held.call <= WARM_UP_CALLS]
        # A metric that does not vary tells nothing, however many predictions there are.
        told = enough and (trust.judged or learner.calls >= WARM_UP_CALLS)
        right, told, arrived = _everywhere(learner, trust.level >= RIGHT, told, not first)
        learner.came_fitted = right
        learner.warm_up_left *= not right
        # One that may come fitted is left as it is meanwhile; but not for the sake of a process
        # that hardly gets any samples.
        late = arrived and learner.calls >= ENOUGH_PAIRS
        learner.waits = pairs.task.fitted and not (right or told or late)
    elif learner.came_fitted and learner.calls == WARM_UP_CALLS:
        # The first samples may have deceived.
        _judge(learner)
        (right,) = _everywhere(learner, trust.level >= RIGHT or not enough)
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
