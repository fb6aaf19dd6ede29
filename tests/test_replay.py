from collections import deque

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st

from learned_surrogates._learning.replay_buffer import ReplayBuffer

batches = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), max_size=8)


def numbered(first, count, width):
    """Samples that tell their number in each field and position."""
    numbers = torch.arange(first, first + count, dtype=torch.float32)
    return numbers[:, None, None].expand(count, 2, width) + 1, numbers.int(), numbers * 2


def padded(rows, width):
    return [F.pad(row, (0, width - row.shape[-1])) for row in rows]


@given(batches, st.integers(1, 7))
def test_replay_equals_a_deque(batches, capacity):
    replay, model, first, widest = ReplayBuffer(capacity, 2**20), deque(maxlen=capacity), 0, 0
    for count, width in batches:
        samples = numbered(first, count, width)
        replay.add(*samples)
        model.extend(zip(*samples, strict=True))
        first += count
        widest = max(widest, width) if count else widest
        assert replay.size == len(model) <= capacity
        if model:
            z, number, error = replay.oldest_first()
            expected = list(zip(*model, strict=True))
            assert torch.equal(z, torch.stack(padded(expected[0], widest)))
            assert torch.equal(number, torch.stack(expected[1]))
            assert torch.equal(error, torch.stack(expected[2]))


@given(batches, st.integers(1, 200))
def test_replay_keeps_to_its_bytes_and_the_newest(batches, max_bytes):
    replay, first, widest = ReplayBuffer(100, max_bytes), 0, 0
    for count, width in batches:
        replay.add(*numbered(first, count, width))
        first += count
        widest = max(widest, width) if count else widest
        if not first:
            continue
        sample_bytes = 2 * 4 * widest + 4 + 4
        assert replay.sample_bytes == sample_bytes
        assert replay.capacity == max(1, max_bytes // sample_bytes)
        assert sum(field.nbytes for field in replay.fields) <= max(max_bytes, sample_bytes)
        numbers = replay.oldest_first()[1].tolist()
        assert 0 < len(numbers) <= replay.capacity
        assert numbers == list(range(first - len(numbers), first))


@given(batches, st.integers(1, 7), st.integers(0, 5))
def test_samples_are_stored_ones_and_the_same_after_a_restore(batches, capacity, seed):
    replay, first = ReplayBuffer(capacity, 2**20), 0
    for count, width in batches:
        replay.add(*numbered(first, count, width))
        first += count
    if not replay.size:
        return
    drawn = replay.sample(20, torch.Generator().manual_seed(seed))
    stored = {tuple(map(str, sample)) for sample in zip(*replay.oldest_first(), strict=True)}
    assert {tuple(map(str, sample)) for sample in zip(*drawn, strict=True)} <= stored
    restored = ReplayBuffer(capacity, 2**20)
    restored.add(*replay.oldest_first())
    again = restored.sample(20, torch.Generator().manual_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_sampling_reaches_every_sample_evenly():
    replay = ReplayBuffer(5, 2**20)
    replay.add(torch.arange(8.0))
    (drawn,) = replay.sample(5000, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn.int(), minlength=8)
    assert counts[:3].sum() == 0
    # Six standard deviations of a binomial count.
    assert (counts[3:] - 1000).abs().max() < 6 * (1000 * 0.8) ** 0.5


def test_a_byte_limit_below_one_sample_keeps_one():
    replay = ReplayBuffer(10, 1)
    replay.add(torch.arange(6.0).reshape(2, 3))
    assert replay.oldest_first()[0].tolist() == [[3, 4, 5]]


def test_stored_samples_are_copies_without_a_graph():
    replay, sample = ReplayBuffer(4, 2**20), torch.ones(2, 3, requires_grad=True)
    replay.add(sample * 1)
    with torch.no_grad():
        sample.zero_()
    (stored,) = replay.oldest_first()
    assert not stored.requires_grad
    assert stored.sum() == 6
    stored.zero_()
    assert replay.oldest_first()[0].sum() == 6


def test_dtypes_are_those_of_the_first_samples():
    replay = ReplayBuffer(4, 2**20)
    replay.add(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.int16))
    replay.add(torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.int64))
    assert [field.dtype for field in replay.oldest_first()] == [torch.float32, torch.int16]


def test_clear_forgets_everything():
    replay = ReplayBuffer(4, 2**20)
    replay.add(torch.ones(3, 2))
    replay.clear()
    assert replay.size == 0
    assert replay.oldest_first() == ()
    replay.add(torch.zeros(1, 5))
    assert replay.oldest_first()[0].shape == (1, 5)


@pytest.mark.parametrize("capacity", [1, 5])
def test_an_empty_replay(capacity):
    replay = ReplayBuffer(capacity, 100)
    replay.add(torch.ones(0, 3))
    assert (replay.size, replay.capacity, replay.sample_bytes) == (0, capacity, 0)
