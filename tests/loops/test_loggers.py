"""`stats` goes into every logger in one statement, as docs/stats.md has it."""

import json
import math

import pytest
import torch
from conftest import make_loss, train
from torch import nn


def learned():
    criterion = make_loss()
    train(criterion, "tensors", range(3))
    assert math.isnan(criterion.stats["filter/keep_rate"])
    return criterion


def prefixed(criterion):
    return {f"criterion/{key}": value for key, value in criterion.stats.items()}


def test_plain_numbers_go_into_a_file():
    assert json.loads(json.dumps(learned().stats))["calls"] == 3


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    criterion = learned()
    with SummaryWriter(tmp_path) as writer:
        for key, value in criterion.stats.items():
            writer.add_scalar(f"criterion/{key}", value, 7)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == set(prefixed(criterion))
    (event,) = events.Scalars("criterion/updates")
    assert (event.step, event.value) == (7, 3)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*number of training batches")
@pytest.mark.filterwarnings("ignore:GPU available but not used")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
def test_log_dict_of_lightning(tmp_path):
    lightning = pytest.importorskip("lightning")
    from lightning.pytorch.loggers import CSVLogger

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.criterion = nn.Linear(2, 3), make_loss()

        def training_step(self, batch, index):
            loss = self.criterion(self.model(batch), torch.zeros(len(batch), 3))
            self.log_dict(prefixed(self.criterion))
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        log_every_n_steps=1,
        logger=CSVLogger(tmp_path),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(torch.randn(12, 2), batch_size=4))
    assert set(prefixed(module.criterion)) <= set(trainer.logged_metrics)
    assert trainer.logged_metrics["criterion/updates"] == 3
    assert trainer.logged_metrics["criterion/surrogate/warming_up"] == 0
    (table,) = tmp_path.rglob("metrics.csv")
    assert "criterion/surrogate/spearman" in table.read_text().splitlines()[0]


def test_logs_of_trainer(tmp_path):
    transformers = pytest.importorskip("transformers")
    criterion = learned()
    trainer = transformers.Trainer(
        nn.Linear(2, 3),
        transformers.TrainingArguments(tmp_path, report_to="none", use_cpu=True, disable_tqdm=True),
    )
    trainer.log(prefixed(criterion))
    assert trainer.state.log_history[-1]["criterion/updates"] == 3
    trainer.state.save_to_json(tmp_path / "trainer_state.json")
