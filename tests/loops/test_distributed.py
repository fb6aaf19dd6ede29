"""DDP and FSDP2 around a model, with the loss inside or outside of what they wrap."""

import contextlib

import pytest
import torch
import torch.distributed as dist
from conftest import make_loss
from test_sync import assert_same, own_seeds, together
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from within import replay_of

FEATURES = 5


class WithLoss(nn.Module):
    """A model that returns its loss, as many do."""

    def __init__(self, model, criterion):
        super().__init__()
        self.model, self.criterion = model, criterion

    def forward(self, inputs, target):
        return self.criterion(self.model(inputs), target)


def make_model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def batches(count, sizes):
    random = torch.Generator()
    for seed, size in zip(own_seeds(count), sizes):
        random.manual_seed(seed)
        yield torch.randn(size, FEATURES, generator=random), torch.randn(size, 3, generator=random)


def shard(module):
    """FSDP2, as its documentation says: the parts, then the whole."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            fully_shard(part)
    return fully_shard(module)


WRAPPERS = {"DDP": DistributedDataParallel, "FSDP2": shard}


def fit(wrapper, where, sizes, accumulate=1, options=None):
    """Trains for a batch a size; what all ranks must agree on, and what each has of its own."""
    wrap, criterion = WRAPPERS[wrapper], make_loss(**(options or {}))
    inside = where == "inside"
    module = wrap(WithLoss(make_model(), criterion)) if inside else wrap(make_model())
    step = module if inside else lambda inputs, target: criterion(module(inputs), target)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for index, batch in enumerate(batches(len(sizes), sizes)):
        last = (index + 1) % accumulate == 0
        quiet = wrapper == "DDP" and not last
        with module.no_sync() if quiet else contextlib.nullcontext():
            loss = step(*batch)
            (loss / accumulate).backward()
        if last:
            optimizer.step()
            optimizer.zero_grad()
    weights = {name: _whole(p) for name, p in module.named_parameters()}
    moved = any(not torch.equal(p, q) for p, q in zip(weights.values(), make_model().parameters()))
    return (
        together(criterion),
        weights,
        replay_of(criterion).oldest_first()[0],
        moved,
    )


def _whole(parameter):
    parameter = parameter.detach()
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter.clone()


@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_one_surrogate_beside_a_wrapped_model(ranks, wrapper, where):
    results = ranks(fit, wrapper, where, [4, 4, 4, 4, 2])
    states, weights, replays, moved = zip(*results, strict=True)
    assert_same(states)
    assert_same(weights)
    assert states[0]["counters"].tolist()[:2] == [5, 5]
    assert all(moved)
    assert not torch.equal(*replays)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_inside_and_outside_are_the_same(ranks, wrapper):
    inside, outside = (ranks(fit, wrapper, where, [4] * 3)[0] for where in ("inside", "outside"))
    assert_same([inside[0], outside[0]])
    assert_same([list_of(inside[1]), list_of(outside[1])])


def list_of(weights):
    """Named by their order: the wrapped module's names differ."""
    return dict(enumerate(weights.values()))


def test_sharded_and_replicated_models_train_alike(ranks):
    sharded, replicated = (ranks(fit, wrapper, "outside", [4] * 3)[0] for wrapper in WRAPPERS)
    torch.testing.assert_close(list_of(sharded[1]), list_of(replicated[1]), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_gradient_accumulation(ranks, wrapper):
    results = ranks(fit, wrapper, "outside", [4] * 6, 3, {"every": 2})
    states, weights, *_ = zip(*results, strict=True)
    assert_same(states)
    assert_same(weights)
    assert states[0]["counters"].tolist()[:2] == [6, 3]


def evaluate_on_rank_0():
    criterion = make_loss()
    model = DistributedDataParallel(make_model())
    for inputs, target in batches(3, [4] * 3):
        criterion(model(inputs), target).backward()
        if dist.get_rank() == 0:
            with torch.no_grad():
                value = criterion.eval()(model.module.eval()(inputs), target)
            assert value.isfinite()
        model.train()
        criterion.train()
    return together(criterion)


def test_evaluation_on_rank_0_alone(ranks):
    assert_same(ranks(evaluate_on_rank_0))
