"""Hugging Face's Trainer, through `compute_loss_func`."""

import pytest
import torch
from conftest import assert_identical, figures, make_loss, snapshot
from launcher import launched
from test_sync import assert_same, together
from torch import nn

from learned_surrogates import Fit, LearnedSurrogateLoss, text

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
    options = {"save_strategy": "steps", "save_steps": 4}
    make = {"warm_up": 3, "every": 2}
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


def test_each_resumed_training_goes_on_from_its_own_checkpoint(tmp_path):
    """Of one Trainer, as in a notebook."""
    loss = trainer_loss()
    trainer = make_trainer(tmp_path, loss, save_strategy="steps", save_steps=4)
    trainer.train()
    whole = snapshot(loss.criterion)
    for _ in range(2):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        assert loss.criterion.stats["calls"] == 8
        assert_identical(snapshot(loss.criterion), whole)
    loss.restore(tmp_path / "checkpoint-4")
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert_identical(snapshot(loss.criterion), whole)


def test_a_callback_that_was_added_later_is_one(tmp_path):
    loss = trainer_loss()
    trainer = make_trainer(tmp_path, None)
    trainer.compute_loss_func = loss
    trainer.add_callback(loss)
    assert "eval_loss" in trainer.evaluate()
    trainer.train()
    assert loss.criterion.stats["calls"] == 8


def test_a_training_that_begins_again_is_restored_again(tmp_path):
    """As `auto_find_batch_size` does, from a checkpoint that is elsewhere."""
    first = trainer_loss()
    make_trainer(tmp_path / "a", first, save_strategy="steps", save_steps=4).train()
    loss, checkpoint = trainer_loss(), str(tmp_path / "a" / "checkpoint-4")
    loss.restore(checkpoint)
    trainer = make_trainer(tmp_path / "b", loss)
    train, failed = trainer.training_step, []

    def step(*arguments, **options):
        if not failed:
            failed.append(train(*arguments, **options))
            raise RuntimeError("CUDA out of memory.")
        return train(*arguments, **options)

    trainer.training_step = step
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.train(resume_from_checkpoint=checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    assert_identical(snapshot(loss.criterion), snapshot(first.criterion))


@pytest.mark.parametrize("other", [False, True])
def test_a_loss_that_is_no_callback_is_named(tmp_path, other):
    trainer = make_trainer(tmp_path, trainer_loss())
    trainer.compute_loss_func = trainer_loss()
    if not other:
        trainer.remove_callback(type(trainer.compute_loss_func))
    with pytest.raises(RuntimeError, match=r"callbacks=\[loss\]"):
        trainer.train()


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


def reversed_words():
    random = torch.Generator().manual_seed(0)
    words = torch.randint(2, 10, (16, 5), generator=random)
    ends = torch.tensor([[1, -100]]).expand(16, 2)
    labels = torch.cat([words.flip(1), ends], 1)
    return [{"input_ids": word, "labels": label} for word, label in zip(words, labels)]


def small_t5():
    torch.manual_seed(0)
    ends = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sizes = {"vocab_size": 10, "d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1}
    config = transformers.T5Config(num_heads=2, dropout_rate=0.0, **sizes, **ends)
    return transformers.T5ForConditionalGeneration(config)


def test_an_encoder_decoder_reads_what_its_collator_gives(tmp_path):
    from learned_surrogates.integrations.transformers import TrainerLoss

    model, twin, seen = small_t5(), small_t5(), []

    def collate(samples):
        batch = transformers.default_data_collator(samples)
        so_far = model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
        return {**batch, "decoder_input_ids": so_far}

    def arguments(outputs, labels):
        seen.append((outputs.logits.detach().clone(), labels))
        return outputs.logits, labels

    task = text.PerPosition(["\ue000", *"abcdefgh"], end=1, classes_last=True)
    criterion = LearnedSurrogateLoss(text.edit_distance, task=task, fit=Fit(every=1))
    loss = TrainerLoss(criterion, arguments=arguments)
    options = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "save_strategy": "no"}
    options |= {"report_to": "none", "disable_tqdm": True, "use_cpu": True}
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(output_dir=tmp_path, **options),
        train_dataset=reversed_words(),
        data_collator=collate,
        compute_loss_func=loss,
        callbacks=[loss],
    )
    trainer.train()
    assert criterion.stats["calls"] == 4
    logits, labels = seen[0]
    words = labels[:, :5].flip(1)
    # The padding starts; then the labels so far, in which nothing is ignored.
    so_far = torch.cat([torch.zeros_like(labels[:, :1]), labels[:, :6].clamp(min=0)], 1)
    with torch.no_grad():
        expected = twin(input_ids=words, decoder_input_ids=so_far).logits
    torch.testing.assert_close(logits, expected)
    logits, labels = seen[-1]
    read = [
        "".join(" |abcdefgh"[i] for i in row).partition("|")[0] for row in logits.argmax(2)[:, :6]
    ]
    meant = ["".join(" |abcdefgh"[i] for i in row[:5]) for row in labels]
    mean = text.edit_distance(read, meant).mean()
    with torch.no_grad():
        assert criterion(logits, labels).item() == pytest.approx(mean)


def test_a_causal_models_logits_are_those_of_the_next_label(tmp_path):
    """Handed over as they come, each would be held against the label that it was given."""
    from learned_surrogates.integrations.transformers import TrainerLoss

    sizes = {"n_layer": 1, "n_head": 1, "n_embd": 8, "vocab_size": 10}
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends))
    task = text.PerPosition(["\ue000", *"abcdefgh"], end=1, classes_last=True)
    criterion = LearnedSurrogateLoss(text.edit_distance, task=task)
    begin = (
        transformers.TrainingArguments(tmp_path, use_cpu=True),
        transformers.TrainerState(),
        None,
    )
    with pytest.warns(UserWarning, match=r"logits\[:, :-1\], labels\[:, 1:\]"):
        TrainerLoss(criterion).on_train_begin(*begin, model=model)
    shifted = TrainerLoss(criterion, arguments=lambda o, y: (o.logits[:, :-1], y[:, 1:]))
    shifted.on_train_begin(*begin, model=model)
    TrainerLoss(criterion).on_train_begin(*begin, model=small_t5())


def listed(rows):
    """Labels that are no tensor, as those of a detector."""
    rows = [{"inputs": row["inputs"], "labels": {"meant": row["labels"]}} for row in rows]
    inputs = torch.stack([row["inputs"] for row in rows])
    return {"inputs": inputs, "labels": [row["labels"] for row in rows]}


def of_listed():
    from learned_surrogates.integrations.transformers import TrainerLoss

    return TrainerLoss(
        make_loss(surrogate=Frozen()),
        lambda outputs, labels: (
            outputs["logits"],
            torch.stack([each["meant"] for each in labels]),
        ),
    )


def test_labels_that_are_no_tensor_are_accumulated_as_others(tmp_path):
    weights = []
    for batch, parts in ((16, 1), (4, 4)):
        trainer = make_trainer(
            tmp_path,
            of_listed(),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=parts,
            remove_unused_columns=False,
        )
        trainer.data_collator = listed
        trainer.train()
        weights.append([p.detach() for p in trainer.model.parameters()])
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)


def evaluate(folder):
    return make_trainer(folder, trainer_loss(surrogate=Frozen())).evaluate()["eval_loss"]


def evaluate_in_two_processes(folder):
    with launched():
        return evaluate(folder)


def test_the_loss_of_an_evaluation_is_that_of_one_process(ranks, tmp_path):
    expected = evaluate(tmp_path)
    for found in ranks(evaluate_in_two_processes, tmp_path):
        assert found == pytest.approx(expected, rel=1e-4)
