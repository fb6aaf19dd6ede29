"""The promises of test_sync.py and test_distributed.py that more processes could break."""

import pytest
import torch
from ranks import kept
from test_distributed import WRAPPERS, fit
from test_sync import assert_same, fit_on_own_batches, fit_with_batches_of

pytestmark = pytest.mark.long


@pytest.fixture
def four(_kept_ranks):
    return kept(_kept_ranks, 4)


@pytest.mark.parametrize("case", ["tensors", "ctc"])
def test_weights_are_the_same_bits(four, case):
    states, replays, streams = zip(*four(fit_on_own_batches, case), strict=True)
    assert_same(states)
    for mine, others in ((replays[0], replays[1:]), (streams[0], streams[1:])):
        assert not any(torch.equal(mine, other) for other in others)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("where", ["inside", "outside"])
def test_wrapped_models(four, wrapper, where):
    states, weights, *_ = zip(*four(fit, wrapper, where, [4, 4, 4, 2]), strict=True)
    assert_same(states)
    assert_same(weights)


def test_batches_of_other_sizes(four):
    assert_same(four(fit_with_batches_of, [[0, 4, 4], [4, 0, 1], [0, 0, 0], [4, 4, 4]]))
