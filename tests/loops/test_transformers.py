"""Hugging Face's Trainer, through `compute_loss_func`."""

import pytest
import torch
from conftest import assert_identical, figures, make_loss, snapshot
from launcher import launched
from test_sync import assert_same, together
from torch import nn

transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.*"),
    pytest.mark.filterwarnings("ignore:.*pin memory.*"),
]


class Config(transformers.PreTrainedConfig):
    model_type = "regressor"


class Regressor(transformers.PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
        self.post_init()

    def forward(self, inputs, labels=None):
        return transformers.modeling_outputs.SequenceClassifierOutput(logits=self.net(inputs))


class Samples(torch.utils.data.Dataset):
    def __init__(self, count=16):
        random = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(count, 2, generator=random)
        self.labels = torch.randn(count, 3, generator=random)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return {"inputs": self.inputs[index], "labels": self.labels[index]}


def make_trainer(folder, loss, **options):
    torch.manual_seed(3)
    options = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "max_grad_norm": 0.0,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **options,
    }
    return transformers.Trainer(
        Regressor(Config()),
        transformers.TrainingArguments(output_dir=folder, **options),
        train_dataset=Samples(),
        eval_dataset=Samples(8),
        compute_loss_func=loss,
        callbacks=[loss] if isinstance(loss, transformers.TrainerCallback) else None,
    )


def trainer_loss(**options):
    from learned_surrogates.integrations.transformers import TrainerLoss

    return TrainerLoss(make_loss(**options))


def test_it_learns_and_evaluation_does_not(tmp_path):
    loss = trainer_loss()
    trainer = make_trainer(tmp_path, loss, eval_strategy="epoch")
    trainer.train()
    assert loss.criterion.stats["calls"] == 8
    assert any("eval_loss" in entry for entry in trainer.state.log_history)
    trainer.log({f"surrogate/{k}": float(v) for k, v in loss.criterion.stats.items()})
    assert trainer.state.log_history[-1]["surrogate/calls"] == 8


class Frozen(nn.Module):
    """A surrogate with nothing to fit, so that two ways through the data can be compared."""

    def forward(self, z, y):
        return (z - y).abs().sum(-1)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_gives_the_step_of_one_large_batch(tmp_path, accumulate):
    weights = []
    for batch, parts in ((16, 1), (16 // accumulate, accumulate)):
        trainer = make_trainer(
            tmp_path,
            trainer_loss(surrogate=Frozen()),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=parts,
        )
        trainer.train()
        weights.append([p.detach() for p in trainer.model.parameters()])
        logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert logged[0] == pytest.approx(first_loss(), rel=1e-3)
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)


def train_in_two_processes(folder):
    with launched():
        loss = trainer_loss(surrogate=Frozen())
        trainer = make_trainer(folder, loss, per_device_train_batch_size=4)
        assert trainer.args.world_size == 2
        trainer.train()
        learned = trainer_loss()
        make_trainer(folder, learned, gradient_accumulation_steps=2).train()
        return [p.detach() for p in trainer.model.parameters()], together(learned.criterion)


def test_two_processes_give_the_step_of_one_large_batch(ranks, tmp_path):
    (weights, state), (_, other) = ranks(train_in_two_processes, tmp_path)
    assert_same([state, other])
    alone = make_trainer(tmp_path, trainer_loss(surrogate=Frozen()), per_device_train_batch_size=8)
    alone.train()
    expected = [p.detach() for p in alone.model.parameters()]
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6)


def first_loss():
    """The mean over all samples before the first step."""
    torch.manual_seed(3)
    model, samples = Regressor(Config()), Samples()
    return Frozen()(model(samples.inputs).logits, samples.labels).mean().item()


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, elsewhere):
    options = {"save_strategy": "steps", "save_steps": 4, "update_every": 2}
    make = {"warm_up_updates": 3, "update_every": options.pop("update_every")}
    whole = trainer_loss(**make)
    uninterrupted = make_trainer(tmp_path / "a", whole, **options)
    uninterrupted.train()
    checkpoint = tmp_path / "a" / "checkpoint-4"
    resumed = trainer_loss(**make)
    if elsewhere:
        resumed.restore(checkpoint)
    trainer = make_trainer(tmp_path / ("b" if elsewhere else "a"), resumed, **options)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.criterion.stats["calls"] == 8
    assert_identical(snapshot(resumed.criterion), snapshot(whole.criterion))
    assert_identical(snapshot(trainer.model), snapshot(uninterrupted.model))
    assert figures(resumed.criterion) == pytest.approx(figures(whole.criterion), nan_ok=True)
    assert not any("_extra_state" in key for key in trainer.model.state_dict())


def test_a_checkpoint_without_the_loss_is_named(tmp_path):
    loss = trainer_loss()
    make_trainer(tmp_path, loss, save_strategy="steps", save_steps=4).train()
    checkpoint = tmp_path / "checkpoint-4"
    next(checkpoint.glob("learned_surrogates-*")).unlink()
    with pytest.raises(FileNotFoundError, match="restore"):
        make_trainer(tmp_path, trainer_loss()).train(resume_from_checkpoint=str(checkpoint))


def test_another_reduction_is_refused():
    with pytest.raises(ValueError, match="reduction"):
        trainer_loss(reduction="sum")


def test_a_bare_loss_serves_without_accumulation(tmp_path):
    criterion = make_loss()

    def compute_loss(outputs, labels, num_items_in_batch=None):
        return criterion(outputs.logits, labels)

    make_trainer(tmp_path, compute_loss).train()
    assert criterion.stats["calls"] == 8


def test_the_example_of_the_docstring():
    import doctest

    from learned_surrogates.integrations import transformers as module

    assert doctest.testmod(module).failed == 0
