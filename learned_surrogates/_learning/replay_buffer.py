"""The ring buffer of what the loss has seen."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from .._support.transfer import send


class ReplayBuffer:
    """The newest samples, each a tuple of tensors (its *fields*), up to a number and a size.

    Storage is allocated at the first `add`, on the device of what is added. Samples may differ in
    size: smaller ones are padded with zeros, larger ones widen the storage, which may push the
    oldest samples out.

    Args:
        capacity: the most samples kept.
        max_bytes: the most bytes kept; lowers the capacity where samples are large. At least one
            sample is kept, however large.
    """

    def __init__(self, capacity: int, max_bytes: int):
        self.max_samples = capacity
        self.max_bytes = max_bytes
        self.fields: tuple[Tensor, ...] = ()
        self.size = 0
        self._next = 0

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample; 0 before the first `add`."""
        return sum(field[0].nbytes for field in self.fields)

    @property
    def capacity(self) -> int:
        """The number of samples that fit; the limit asked for, before the first `add`."""
        return len(self.fields[0]) if self.fields else self.max_samples

    def add(self, *samples: Tensor) -> None:
        """Appends a batch: one tensor `(batch, ...)` a field, the same fields each time."""
        samples = tuple(sample.detach() for sample in samples)
        if not len(samples[0]):
            return
        if not self.fields:
            self._allocate(samples)
        shapes = [common_shape(pair) for pair in zip(samples, self.fields, strict=True)]
        if any(shape != field.shape[1:] for shape, field in zip(shapes, self.fields, strict=True)):
            kept = self.oldest_first()
            self._allocate(tuple(map(pad_to, samples, shapes)))
            self.add(*kept)
        samples = tuple(map(pad_to, samples, shapes))
        samples = tuple(sample[-self.capacity :] for sample in samples)
        count = len(samples[0])
        # Up to the ring's end, and the rest from its beginning.
        first = min(count, self.capacity - self._next)
        for field, sample in zip(self.fields, samples):
            field[self._next : self._next + first] = sample[:first]
            if first < count:
                field[: count - first] = sample[first:]
        self._next = (self._next + count) % self.capacity
        self.size = min(self.size + count, self.capacity)

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draws `count` samples with replacement.

        Draws are by age, not by slot, so that a buffer restored from `oldest_first` gives the same
        samples as the one that was saved.
        """
        age = torch.randint(self.size, (count,), generator=generator, device="cpu")
        slots = self._slots(age)
        return tuple(field[send(slots, field.device)] for field in self.fields)

    def oldest_first(self) -> tuple[Tensor, ...]:
        """A copy of the samples, in the order in which they came."""
        slots = self._slots(torch.arange(self.size, device="cpu"))
        return tuple(field[send(slots, field.device)] for field in self.fields)

    def to(self, device: torch.device) -> None:
        self.fields = tuple(field.to(device) for field in self.fields)

    def clear(self) -> None:
        self.fields, self.size, self._next = (), 0, 0

    def _slots(self, age: Tensor) -> Tensor:
        return (self._next - self.size + age) % self.capacity

    def _allocate(self, samples: tuple[Tensor, ...]) -> None:
        sample_bytes = sum(sample[0].numel() * sample.element_size() for sample in samples)
        capacity = max(1, min(self.max_samples, self.max_bytes // max(sample_bytes, 1)))
        self.fields = tuple(sample.new_zeros((capacity, *sample.shape[1:])) for sample in samples)
        self.size = self._next = 0


def common_shape(batches: Iterable[Tensor]) -> torch.Size:
    """The smallest shape that holds a sample of each of the batches `(batch, ...)`."""
    return torch.Size(map(max, zip(*(batch.shape[1:] for batch in batches), strict=True)))


def pad_to(batch: Tensor, shape: torch.Size) -> Tensor:
    """The batch with zeros behind, such that its samples have this shape."""
    if batch.shape[1:] == shape:
        return batch
    missing = [most - size for size, most in zip(batch.shape[1:], shape, strict=True)]
    return F.pad(batch, [n for size in reversed(missing) for n in (0, size)])
