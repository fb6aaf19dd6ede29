"""What `print(criterion)` shows."""

from .._core import Core

# Of what is remembered: as many names as there are fields.
VALUES = ("prediction", "target", "error")
DIFFERENCES = ("prediction", "target", "deviation", "difference")


def describe(core: Core) -> str:
    """The lines of the loss's `repr`."""
    metric, replay, executor = core.oracle.metric, core.replay, core.recipe.executor
    held = "" if replay is None else f"{replay.size:,} of {replay.capacity:,} pairs"
    if replay is not None and replay.fields:
        names = VALUES if len(replay.fields) == len(VALUES) else DIFFERENCES
        fields = ", ".join(
            f"{name} {tuple(field.shape[1:])} {str(field.dtype).removeprefix('torch.')}"
            for name, field in zip(names, replay.fields, strict=True)
        )
        held += f" in {replay.capacity * replay.sample_bytes / 2**20:.1f} MiB: {fields}"
    better = "higher" if metric.higher_is_better else "lower"
    lines = [f"metric: {metric.name} ({better} is better, best {metric.best:g})"]
    if executor is not None:
        lines.append(f"executor: {executor.waits}, {core.oracle.queue.samples_pending} waiting")
    lines += [f"task: {core.task!r}", *core.describe()]
    return "\n".join([*lines, f"replay: {held}"] if held else lines)
