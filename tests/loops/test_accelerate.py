"""Accelerate: `prepare`, `register_for_checkpointing`, one process and two."""

import pytest
import torch
from conftest import assert_identical, figures, make_loss, snapshot
from launcher import launched
from test_sync import assert_same, together
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from within import core_of

accelerate = pytest.importorskip("accelerate")


@pytest.fixture(autouse=True)
def _no_state_of_other_tests():
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def data():
    random = torch.Generator().manual_seed(0)
    inputs, targets = (torch.randn(24, n, generator=random) for n in (2, 3))
    return DataLoader(TensorDataset(inputs, targets), batch_size=4)


class Run:
    """A training run that can be saved and loaded between its epochs."""

    def __init__(self, prepare_the_loss=False, **options):
        torch.manual_seed(3)
        self.accelerator = accelerate.Accelerator(cpu=True, **options)
        self.criterion = make_loss(every=2, warm_up=3)
        model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        prepare = self.accelerator.prepare
        self.model, self.optimizer, self.data = prepare(model, optimizer, data())
        if prepare_the_loss:
            self.criterion = prepare(self.criterion)
        self.accelerator.register_for_checkpointing(self.criterion)

    def train(self, epochs=1):
        for _ in range(epochs):
            for inputs, target in self.data:
                with self.accelerator.accumulate(self.model):
                    loss = self.criterion(self.model(inputs), target)
                    self.accelerator.backward(loss)
                    self.optimizer.step()
                    self.optimizer.zero_grad()
        return self

    def evaluate_on_the_main_process(self):
        if self.accelerator.is_main_process:
            model = self.accelerator.unwrap_model(self.model)
            with torch.no_grad():
                for inputs, target in data():
                    assert self.criterion(model(inputs), target).isfinite()
        self.accelerator.wait_for_everyone()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, accumulate):
    options = {"gradient_accumulation_steps": accumulate}
    whole = Run(**options).train()
    whole.accelerator.save_state(tmp_path)
    whole.train()
    resumed = Run(**options)
    resumed.accelerator.load_state(tmp_path)
    resumed.train()
    assert resumed.criterion.stats["calls"] == 12
    assert_identical(snapshot(resumed.criterion), snapshot(whole.criterion))
    assert_identical(snapshot(resumed.model), snapshot(whole.model))
    assert figures(resumed.criterion) == pytest.approx(figures(whole.criterion), nan_ok=True)


def test_mixed_precision(tmp_path):
    run = Run(mixed_precision="bf16").train()
    assert run.criterion.stats["calls"] == 6
    assert {p.dtype for p in core_of(run.criterion).net.module.parameters()} == {torch.float32}


def test_preparing_the_loss_is_needless_and_harmless():
    prepared, plain = Run(prepare_the_loss=True).train(), Run().train()
    assert_identical(snapshot(prepared.criterion), snapshot(plain.criterion))


def train_in_two_processes(folder):
    with launched():
        run = Run().train()
        assert run.accelerator.num_processes == 2
        run.evaluate_on_the_main_process()
        run.accelerator.save_state(folder)
        before = together(run.criterion)
        run.train()
        resumed = Run()
        resumed.accelerator.load_state(folder)
        assert_identical(together(resumed.criterion), before)
        resumed.train()
        model = run.accelerator.unwrap_model(run.model)
        return together(run.criterion), together(resumed.criterion), snapshot(model)


def test_two_processes(ranks, tmp_path):
    """Accelerate saves the first process's loss alone: all go on with its pairs, and as one."""
    states, resumed, weights = zip(*ranks(train_in_two_processes, tmp_path), strict=True)
    for same in (states, resumed, weights):
        assert_same(same)
    assert states[0]["counters"].tolist()[0] == resumed[0]["counters"].tolist()[0] == 6
