"""Several processes that fit one surrogate together."""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from .._metric.error import MetricError

if TYPE_CHECKING:  # a PyTorch built without it has no such class
    from torch.distributed import ProcessGroup

WAITING = (
    "LearnedSurrogateLoss was waiting for the other processes here. Each must make the same number "
    "of calls from which the loss learns; a process that ended or raised shows its own error. With "
    "sync=False every process fits a surrogate of its own."
)


class Sync:
    """The processes that fit one surrogate: those of a group, where there are several.

    Nothing travels but in an election (see `election`), where they do not agree yet, and in `mean`,
    at every update. Both are reached by a count of learning calls alone: never in evaluation.

    Args:
        sync: the process group; True takes the default one, if there is one at the call. False
            keeps every process to itself.
    """

    def __init__(self, sync: "bool | ProcessGroup"):
        if not (isinstance(sync, bool) or _is_group(sync)):
            raise TypeError(
                f"sync must be True, False or a torch.distributed.ProcessGroup; got {sync!r}"
            )
        self.group = None if isinstance(sync, bool) else sync
        self.enabled = sync is not False
        #: Whether the surrogate is the same in all processes by now.
        self.agreed = False
        #: What the metric raised in this call, and the other processes are still to be told.
        self.failure: MetricError | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A group cannot be copied; a copy of the loss belongs to the same one.
        return copy.copy(self)

    @property
    def active(self) -> bool:
        """Whether there are other processes to fit the surrogate with."""
        return (
            self.enabled
            and dist.is_available()
            and dist.is_initialized()
            and dist.get_rank(self.group) >= 0
            and dist.get_world_size(self.group) > 1
        )

    def mean(
        self, tensors: Sequence[Tensor | None] | None, count: int, like: Sequence[Tensor]
    ) -> list[Tensor | None] | None:
        """The mean of each tensor over all samples of all processes, in one exchange.

        Args:
            tensors: this process's means over its own samples; None where it has none to give.
            count: its samples; 0 takes part all the same.
            like: tensors of the same shapes and types, also where this process has none.

        Returns:
            The means, the same bits in all processes; None where no process had samples.

        Raises:
            MetricError: the metric failed in some process; raised in all of them alike.
        """
        tensors = None if tensors is None else list(tensors)
        if not self.active:
            return tensors
        given = [None] * len(like) if tensors is None or not count else tensors
        dtype = torch.float32
        for part in like:
            dtype = torch.promote_types(dtype, part.dtype)
        parts = [
            torch.zeros_like(part, dtype=dtype) if tensor is None else tensor.to(dtype) * count
            for tensor, part in zip(given, like, strict=True)
        ]
        header = [tensor is not None for tensor in given] + [count, self.failure is not None]
        numbers = torch.tensor(header, dtype=dtype, device=parts[0].device)
        total = torch.cat([*(part.flatten() for part in parts), numbers])
        with waiting():
            dist.all_reduce(total, group=self.group)
        *used, samples, failed = total[-len(header) :].tolist()
        if failed:
            self.give_up()
            raise MetricError(
                f"the metric failed in {failed:.0f} of {dist.get_world_size(self.group)} "
                "processes, whose own errors say why; the call is given up in all of them"
            )
        if not samples:
            return None
        means = (total / samples).split([*(part.numel() for part in parts), len(header)])
        return [
            mean.view_as(part).to(part.dtype) if users else None
            for mean, part, users in zip(means, like, used)
        ]

    @contextmanager
    def defer_error(self) -> Iterator[None]:
        """A context whose MetricError is raised once the other processes, which wait, are told."""
        try:
            yield
        except MetricError as error:
            if not self.active:
                raise
            self.failure = error

    def give_up(self) -> None:
        """Raises what the metric raised in this call, if it did."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure


@contextmanager
def waiting() -> Iterator[None]:
    """A context in which an error of an exchange says what was waited for."""
    try:
        yield
    except RuntimeError as error:
        error.add_note(WAITING)
        raise


def gather(offer: Tensor, group: "ProcessGroup | None") -> list[list[int]]:
    """What all processes offer, in the order of their ranks."""
    offers = [torch.empty_like(offer) for _ in range(dist.get_world_size(group))]
    dist.all_gather(offers, offer, group=group)
    return torch.stack(offers).tolist()


def digest(stream: Tensor, rank: int = 0) -> int:
    """A number of 63 bits that stands for a random stream, or for another one of that rank."""
    digest = hashlib.blake2b(stream.numpy().tobytes(), digest_size=8, salt=b"%d" % rank)
    return int.from_bytes(digest.digest()) >> 1


def _is_group(group: object) -> bool:
    return dist.is_available() and (
        # What new_group returns in a process that is not part of the group.
        isinstance(group, dist.ProcessGroup) or group == dist.GroupMember.NON_GROUP_MEMBER
    )
