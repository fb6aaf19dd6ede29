"""What `print(criterion)` shows."""

from collections.abc import Callable
from typing import Any

from .._core import Core
from .._metric.skip import Skip

# Of what is remembered: as many names as there are fields.
VALUES = ("prediction", "target", "error")
DIFFERENCES = ("prediction", "target", "noise", "width", "difference")


def describe(core: Core, base_loss: Callable[..., Any] | None) -> str:
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
    if base_loss is not None:
        lines += _part(core)
    recipe = core.recipe
    told = {"fit": recipe.fit, "replay": recipe.replay}
    changed = [f"{name}={value!r}" for name, value in told.items() if value != type(value)()]
    if metric.on_error == "skip":
        changed.append(f"on_metric_error={Skip(give_up_after=metric.give_up_after)!r}")
    if changed:
        lines.append(f"arguments: {', '.join(changed)}")
    return "\n".join([*lines, f"replay: {held}"] if held else lines)


def _part(core: Core) -> list[str]:
    """How much of the gradient is the base loss's, while it has a part."""
    stats = core.stats()
    if not stats["calls"]:
        return ["base loss: leads at first"]
    share = stats["base_loss/share"]
    return [f"base loss: has {share:.0%} of the gradient"] if share else []
