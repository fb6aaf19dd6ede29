"""What `print(criterion)` shows."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._loss import LearnedSurrogateLoss


def describe(criterion: "LearnedSurrogateLoss") -> str:
    """The lines of the loss's `repr`."""
    learner = criterion._learner
    recipe, metric, replay = learner.recipe, learner.pairs.metric, learner.pairs.replay
    surrogate = "not built: that follows the first call"
    if learner.surrogate is not None:
        parameters = sum(p.numel() for p in learner.surrogate.parameters())
        surrogate = f"{type(learner.surrogate).__name__}, {parameters:,} parameters"
    held = f"{replay.size:,} of {replay.capacity:,} pairs"
    if replay.fields:
        names = ("prediction", "target", "error")
        fields = ", ".join(
            f"{name} {tuple(field.shape[1:])} {str(field.dtype).removeprefix('torch.')}"
            for name, field in zip(names, replay.fields, strict=True)
        )
        held += f" in {replay.capacity * replay.sample_bytes / 2**20:.1f} MiB: {fields}"
    better = "higher" if metric.higher_is_better else "lower"
    lines = [
        f"metric: {metric.name} ({better} is better, best {metric.best:g})",
        f"task: {criterion.task!r}",
        f"surrogate: {surrogate}",
        f"data: {recipe.data}, {recipe.update_steps} x {recipe.batch_size} of each "
        f"every {recipe.update_every} calls",
        f"replay: {held}",
        f"calls: {learner.calls:,}, updates: {learner.updates:,}"
        + (", warming up" if learner.warm_up_left else ""),
    ]
    if recipe.executor is not None:
        lines.insert(1, f"executor: {recipe.executor.waits}, {criterion.stats['waiting']} waiting")
    if learner.pairs.unseen.size:
        relative = criterion.stats["relative_error"]
        lines.append(f"error: {relative:.2f} of a constant predictor's, on unseen pairs")
    return "\n".join(lines)
