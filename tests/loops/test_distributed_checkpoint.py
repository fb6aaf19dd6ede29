"""Round trips through torch.distributed.checkpoint."""

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from conftest import assert_identical, figures, make_loss, snapshot, train
from test_sync import assert_same, own_seeds, together
from torch.distributed.checkpoint import FileSystemReader

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is (disabled|unavailable)")


def saved_tensors(folder):
    """Room for all tensors of a checkpoint, as docs/loops/distributed.md shows."""
    saved = FileSystemReader(folder).read_metadata().state_dict_metadata
    return {key: torch.empty(each.size, dtype=each.properties.dtype) for key, each in saved.items()}


@pytest.mark.parametrize("case", ["tensors", "measured", "ctc", "characters-auto"])
@pytest.mark.parametrize("calls", [0, 3])
def test_round_trip_bit_for_bit(case, calls, tmp_path):
    criterion, restored = make_loss(case), make_loss(case)
    train(criterion, case, range(calls))
    dcp.save(criterion.state_dict(), checkpoint_id=tmp_path)
    state = saved_tensors(tmp_path)
    dcp.load(state, checkpoint_id=tmp_path)
    restored.load_state_dict(state)
    for loss in (criterion, restored):
        train(loss, case, range(10, 13))
    assert_identical(snapshot(restored), snapshot(criterion))
    assert figures(restored) == pytest.approx(figures(criterion), nan_ok=True)


def test_a_state_of_which_only_the_known_keys_were_read_is_refused(tmp_path):
    """A loss that has not been called names few keys, and nothing else is read for it."""
    criterion, restored = make_loss(), make_loss()
    train(criterion, "tensors", range(3))
    dcp.save(criterion.state_dict(), checkpoint_id=tmp_path)
    state = restored.state_dict()
    dcp.load(state, checkpoint_id=tmp_path)
    before = snapshot(make_loss())
    with pytest.raises(RuntimeError, match="3 updates of a surrogate that is not in it"):
        restored.load_state_dict(state)
    assert_identical(snapshot(restored), before)


def through_two_processes(folder):
    criterion, restored = make_loss("ctc"), make_loss("ctc")
    train(criterion, "ctc", own_seeds(3))
    own = {f"loss-{dist.get_rank()}": criterion.state_dict()}
    dcp.save(own, checkpoint_id=folder)
    prefix = f"loss-{dist.get_rank()}."
    state = {k: v for k, v in saved_tensors(folder).items() if k.startswith(prefix)}
    dcp.load(state, checkpoint_id=folder)
    restored.load_state_dict({k.removeprefix(prefix): v for k, v in state.items()})
    for loss in (criterion, restored):
        train(loss, "ctc", own_seeds(3, 10))
    assert_identical(snapshot(restored), snapshot(criterion))
    return together(restored)


def test_each_process_keeps_its_own_in_one_checkpoint(ranks, tmp_path):
    assert_same(ranks(through_two_processes, tmp_path))
