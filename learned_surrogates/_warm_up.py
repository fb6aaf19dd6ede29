"""Fits a surrogate before its gradients are used: `LearnedSurrogateLoss.warm_up`."""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from ._agree import agree
from ._checks import check_number
from ._comes_fitted import end_warm_up_if_right
from ._evaluations import Evaluation
from ._task import Batch, read

if TYPE_CHECKING:
    from ._loss import LearnedSurrogateLoss


def warm_up(
    criterion: "LearnedSurrogateLoss",
    batches: Iterable[Any] | None,
    updates: int,
    progress: bool,
) -> None:
    """See `LearnedSurrogateLoss.warm_up`.

    Batches are read, and sent to be measured, ahead of the updates that take them in: it is not
    training, and may wait for values, but not for one batch at a time.
    """
    check_number("updates", updates, 0)
    learner = criterion._learner
    pairs = learner.pairs
    if batches is None and learner.recipe.data == "local":
        raise ValueError(
            "warm_up needs batches, what the loss would be called with, or data='global' or "
            "'local-global' with a generator"
        )
    remaining = islice(() if batches is None else batches, updates)
    started: deque[tuple[Batch, Evaluation | None]] = deque()
    try:
        with pairs.patience():
            for _ in _progress_bar(updates) if progress else range(updates):
                for arguments in islice(remaining, 1 + pairs.evaluations.ahead - len(started)):
                    started.append(_start(criterion, arguments))
                if started:
                    _take_in(criterion, *started.popleft())
                else:
                    if pairs.shapes is None and batches is None:
                        z, target, errors = pairs.generate(learner.recipe.batch_size)
                        learner.prepare(z, target, errors.isfinite())
                    # As a process that still has a batch does for it, and not more often.
                    agree(learner)
                end_warm_up_if_right(learner)
                learner.update(1)
            pairs.evaluations.settle()
            learner.take_in()
            if learner.updates:
                learner.warm_up_left = 0
            criterion.stats = learner.conclude(has_base_loss=criterion.base_loss is not None)
    finally:
        for _, evaluation in started:
            if evaluation is not None:
                pairs.evaluations.drop(evaluation)


def _start(criterion: "LearnedSurrogateLoss", arguments: Any) -> tuple[Batch, Evaluation | None]:
    """Has the metric evaluated on what the loss would be called with."""
    named = isinstance(arguments, Mapping)
    batch = read(criterion.task, () if named else arguments, arguments if named else {})
    learner = criterion._learner
    learner.to(batch.prediction.device)
    with learner.unchanged_by_errors():
        return batch, learner.pairs.start(batch) if len(batch.target) else None


def _take_in(
    criterion: "LearnedSurrogateLoss", batch: Batch, evaluation: Evaluation | None
) -> None:
    """Remembers predictions without a gradient: one call, less the loss."""
    learner = criterion._learner
    learner.sync.failure = None
    with learner.unchanged_by_errors():
        if evaluation is not None:
            with learner.sync.told():
                learner.pairs.evaluations.finish(evaluation)
        value, z, _ = criterion._evaluate(batch, differentiable=False, learning=True)
    if evaluation is not None:
        learner.observe(evaluation, (value, z, batch.target))


def _progress_bar(steps: int) -> Iterable[int]:
    try:
        from tqdm.auto import trange
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error
    return trange(steps, desc="fitting the surrogate")
