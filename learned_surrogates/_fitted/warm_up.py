"""Fits a surrogate to values before its gradients are used: `LearnedSurrogateLoss.warm_up`."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from .._evaluation.queue import Evaluation
from .._task import Batch
from .agree import agree

if TYPE_CHECKING:
    from .core import ValueCore


def warm_up(
    core: "ValueCore", batches: Iterator[Batch] | None, steps: Iterable[int]
) -> dict[str, Any]:
    """See `LearnedSurrogateLoss.warm_up`.

    Batches are read, and sent to be measured, ahead of the updates that take them in: it is not
    training, and may wait for values, but not for one batch at a time.

    Raises:
        ValueError: neither batches nor a generator.
    """
    learner = core.learner
    pairs = learner.pairs
    if batches is None and learner.recipe.data == "local":
        raise ValueError(
            "warm_up needs batches, what the loss would be called with, or data='global' or "
            "'local-global' with a generator"
        )
    remaining = iter(()) if batches is None else batches
    started: deque[tuple[Batch, Evaluation | None]] = deque()
    try:
        with pairs.patience():
            for _ in steps:
                for batch in islice(remaining, 1 + pairs.evaluations.ahead - len(started)):
                    started.append((batch, _start(core, batch)))
                if started:
                    _take_in(core, *started.popleft())
                else:
                    if pairs.shapes is None and batches is None:
                        z, target, errors = pairs.generate(learner.recipe.batch_size)
                        learner.prepare(z, target, errors.isfinite())
                    # As a process that still has a batch does for it, and not more often.
                    agree(learner)
                learner.update(1)
            pairs.evaluations.settle()
            learner.take_in()
            if learner.updates:
                learner.warm_up_left = 0
            # The figures may be of fresh pairs, which are waited for.
            return core.conclude()
    finally:
        for _, evaluation in started:
            if evaluation is not None:
                pairs.evaluations.drop(evaluation)


def _start(core: "ValueCore", batch: Batch) -> Evaluation | None:
    """Has the metric evaluated on what the loss would be called with."""
    learner = core.learner
    learner.to(batch.prediction.device)
    with learner.unchanged_by_errors():
        return learner.pairs.start(batch) if len(batch.target) else None


def _take_in(core: "ValueCore", batch: Batch, evaluation: Evaluation | None) -> None:
    """Remembers predictions without a gradient: one call, less the loss."""
    learner = core.learner
    learner.sync.failure = None
    with learner.unchanged_by_errors():
        if evaluation is not None:
            with learner.sync.told():
                learner.pairs.evaluations.finish(evaluation)
        value, z, _ = core.evaluate(batch, differentiable=False, learning=True)
    if evaluation is not None:
        learner.observe(evaluation, (value, z, batch.target))
