"""Lightning, with automatic optimization."""

import re

import pytest
import torch
from conftest import assert_identical, figures, make_loss, snapshot
from launcher import launched
from test_sync import assert_same, together
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from within import replay_of

lightning = pytest.importorskip("lightning")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*number of training batches"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    # Its checkpoints are loaded by torch.load, which it calls with a deprecated default.
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]


class Regressor(lightning.LightningModule):
    def __init__(self, width: int = 8, update_every: int = 2):
        super().__init__()
        self.save_hyperparameters(ignore=["criterion"])
        self.model = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 3))
        self.criterion = make_loss(every=update_every, warm_up=3)
        self.inference = []

    def training_step(self, batch, index):
        inputs, target = batch
        loss = self.criterion(self.model(inputs), target)
        self.log("loss", loss)
        self.log_dict({f"surrogate/{k}": float(v) for k, v in self.criterion.stats.items()})
        return loss

    def validation_step(self, batch, index):
        inputs, target = batch
        before = repr(self.criterion)
        self.log("validation", self.criterion(self.model(inputs), target))
        self.inference.append(torch.is_inference_mode_enabled())
        assert repr(self.criterion) == before

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.05)


def data():
    random = torch.Generator().manual_seed(0)
    inputs, targets = (torch.randn(12, n, generator=random) for n in (2, 3))
    return DataLoader(TensorDataset(inputs, targets), batch_size=4)


def make_trainer(folder, epochs, **options):
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        **{"devices": 1, **options},
    )


def fit(folder, epochs, module=None, checkpoint=None, **options):
    torch.manual_seed(3)
    module, trainer = module or Regressor(), make_trainer(folder, epochs, **options)
    trainer.fit(module, data(), data(), ckpt_path=checkpoint)
    return module, trainer


def test_training_learns_and_validation_does_not(tmp_path):
    module, trainer = fit(tmp_path, 2)
    # The check before training is two batches; then three an epoch, both under no_grad.
    assert module.inference == [False] * 8
    assert module.criterion.stats["calls"] == 6
    assert trainer.callback_metrics["surrogate/updates"] == module.criterion.stats["updates"] > 0
    assert [name for name, _ in module.named_parameters()] == [
        f"model.{name}" for name, _ in module.model.named_parameters()
    ]


def test_validation_in_inference_mode_may_come_before_training_and_between(tmp_path):
    module, twin = Regressor(), Regressor()
    twin.load_state_dict(module.state_dict())
    for epochs in (1, 2):
        make_trainer(tmp_path, 1).validate(module, data(), verbose=False)
        for each in (module, twin):
            make_trainer(tmp_path, epochs).fit(each, data(), data())
    assert module.inference.count(True) == 6
    assert_identical(snapshot(module), snapshot(twin))
    assert not any(f.is_inference() for f in replay_of(module.criterion).fields)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, precision):
    whole, _ = fit(tmp_path, 4, precision=precision)
    half, trainer = fit(tmp_path, 2, precision=precision)
    path = tmp_path / "half.ckpt"
    trainer.save_checkpoint(path)
    resumed, _ = fit(tmp_path, 4, checkpoint=path, precision=precision)
    assert resumed.criterion.stats["calls"] == 12
    assert_identical(snapshot(resumed), snapshot(whole))
    assert figures(resumed.criterion) == pytest.approx(figures(whole.criterion), nan_ok=True)
    assert half.criterion.stats["calls"] == 6


def test_load_from_checkpoint(tmp_path):
    module, trainer = fit(tmp_path, 1, Regressor(width=5))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = Regressor.load_from_checkpoint(tmp_path / "model.ckpt", map_location="cpu")
    assert loaded.hparams.width == 5
    assert_identical(snapshot(loaded), snapshot(module))


class WithGivenLoss(Regressor):
    def __init__(self, criterion):
        super().__init__()
        self.criterion = criterion


def test_the_loss_as_an_argument_is_left_out_of_the_hyperparameters(tmp_path):
    module, trainer = fit(tmp_path, 1, WithGivenLoss(make_loss()))
    assert "criterion" not in module.hparams
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    state = torch.load(tmp_path / "model.ckpt", weights_only=False)
    assert not re.search("l1|metric", str(state["hyper_parameters"]))
    loaded = WithGivenLoss.load_from_checkpoint(
        tmp_path / "model.ckpt", criterion=make_loss(), weights_only=True
    )
    assert_identical(snapshot(loaded), snapshot(module))


def test_gradient_accumulation_and_clipping(tmp_path):
    module, trainer = fit(tmp_path, 2, accumulate_grad_batches=3, gradient_clip_val=0.5)
    assert trainer.global_step == 2
    assert module.criterion.stats["calls"] == 6


def fit_with_ddp(folder):
    with launched():
        module, trainer = fit(folder, 2, strategy="ddp", devices=2)
        assert trainer.world_size == 2
        return together(module.criterion), snapshot(module.model), module.criterion.stats["calls"]


def test_two_processes(ranks, tmp_path):
    states, weights, calls = zip(*ranks(fit_with_ddp, tmp_path), strict=True)
    assert_same(states)
    assert_same(weights)
    assert calls == (4, 4)  # six samples for each: two batches an epoch
