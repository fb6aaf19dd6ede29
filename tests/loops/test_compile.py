"""torch.compile of the model with the loss outside, and of a whole training step."""

import subprocess
import sys

import pytest
import torch
from conftest import assert_identical, make_loss, snapshot
from torch import nn

pytestmark = [
    # What the compiler says at any graph break between a forward and a backward pass,
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    # and of itself.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]
# Inductor compiles the same graphs; its first use alone takes half a minute.
BACKEND = "aot_eager"


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def make_model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))


def batches(count):
    random = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield torch.randn(4, 2, generator=random), torch.randn(4, 3, generator=random)


def train(compile_model=lambda model: model, compile_step=lambda step: step):
    model, criterion = make_model(), make_loss()
    forward = compile_model(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(inputs, target):
        optimizer.zero_grad()
        loss = criterion(forward(inputs), target)
        loss.backward()
        optimizer.step()
        return loss.detach()

    step = compile_step(step)
    losses = [step(*batch) for batch in batches(4)]
    return losses, [p.detach() for p in model.parameters()], snapshot(criterion)


def compiled(function):
    return torch.compile(function, backend=BACKEND)


@pytest.mark.parametrize("what", ["compile_model", "compile_step"])
def test_compiled_training_is_the_plain_one(what):
    losses, weights, state = train(**{what: compiled})
    expected_losses, expected_weights, expected_state = train()
    torch.testing.assert_close(losses, expected_losses)
    torch.testing.assert_close(weights, expected_weights)
    assert state.keys() == expected_state.keys()
    assert_identical(state["counters"], expected_state["counters"])


def test_nothing_within_the_loss_is_compiled():
    train(compile_step=compiled)
    reasons = torch._dynamo.utils.counters["graph_break"]
    # The optimizer, backward, and the call of the loss itself.
    assert not [reason for reason in reasons if "Tensor.item" in reason or "Generator" in reason]
    assert len(reasons) < 8, list(reasons)


def test_the_package_does_not_import_the_compiler():
    check = "import sys, learned_surrogates; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=60).returncode == 0


@pytest.mark.long
def test_the_default_backend():
    losses, weights, _ = train(compile_step=torch.compile)
    expected_losses, expected_weights, _ = train()
    torch.testing.assert_close(losses, expected_losses)
    torch.testing.assert_close(weights, expected_weights)
