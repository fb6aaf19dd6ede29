"""Round trips through torch.distributed.checkpoint."""

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from conftest import assert_identical, figures, make_loss, snapshot, train
from test_sync import assert_same, own_seeds, together
from torch import nn
from torch.distributed.checkpoint import CheckpointException, FileSystemReader
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

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


def test_a_loss_without_room_for_the_state_is_refused(tmp_path):
    """A loss that has not been called has room for little."""
    criterion, restored = make_loss(), make_loss()
    train(criterion, "tensors", range(3))
    dcp.save(criterion.state_dict(), checkpoint_id=tmp_path)
    with pytest.raises(CheckpointException, match="Size mismatch"):
        dcp.load(restored.state_dict(), checkpoint_id=tmp_path)


def test_what_a_model_has_is_named_with_the_loss_in_it():
    model, restored = (nn.ModuleDict({"loss": make_loss(), "a": nn.Linear(3, 3)}) for _ in "12")
    train(model["loss"], "tensors", range(3))
    set_model_state_dict(restored, get_model_state_dict(model))
    assert_identical(snapshot(restored), snapshot(model))


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
