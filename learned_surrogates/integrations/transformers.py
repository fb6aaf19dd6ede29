"""The loss in Hugging Face's Trainer: called, scaled, saved and restored as Trainer needs it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .._loss import LearnedSurrogateLoss
from .._support.warnings import warn

NAME = "learned_surrogates"
CAUSAL = (
    "a causal language model's logits are of the next label each, and TrainerLoss hands both over "
    "as they come: give arguments=lambda outputs, labels: (outputs.logits[:, :-1], labels[:, 1:])"
)
NO_CALLBACK = (
    "this TrainerLoss is no callback of the Trainer, and so knows neither how many batches are "
    "accumulated nor where to save: give the same object as both, "
    "Trainer(..., compute_loss_func=loss, callbacks=[loss])"
)


def _logits_and_labels(outputs: Any, labels: Any) -> tuple[Any, ...]:
    return outputs["logits"] if isinstance(outputs, dict) else outputs[0], labels


class TrainerLoss(TrainerCallback):
    """A `compute_loss_func` for Trainer, and the callback that saves and restores it.

    Give the same object as both. Trainer expects of a `compute_loss_func` that it divides a sum
    over the batch by `num_items_in_batch`, the labels of the whole accumulated batch, on all
    processes. That is not what a metric a sample is a mean over, and an ordinary mean comes out
    `gradient_accumulation_steps` times too large, and the number of processes times that. Here
    the mean over the batch is divided by both, so that a step follows the mean over all its
    batches, and an evaluation's loss is the mean over its own. An epoch's last step may have fewer
    batches: it is as much smaller.

    The loss's state goes into each checkpoint's folder, a file for each process, and is read from
    there when training is resumed from a checkpoint in `output_dir`. For one elsewhere, call
    `restore` before `train`.

    Args:
        criterion: the loss, with `reduction="mean"`.
        arguments: `arguments(outputs, labels)` -> the arguments of the loss, from what the model
            returned and the batch's labels; None takes the logits and the labels.

    Raises:
        ValueError: the loss has another reduction.
        FileNotFoundError: at the start of a resumed training, the checkpoint has no such file.

    Example:
        >>> from learned_surrogates import LearnedSurrogateLoss, text
        >>> criterion = LearnedSurrogateLoss(text.edit_distance, task=text.PerPosition("abc"))
        >>> loss = TrainerLoss(criterion)

        `Trainer(model, args, train_dataset=data, compute_loss_func=loss, callbacks=[loss])`
    """

    def __init__(
        self,
        criterion: LearnedSurrogateLoss,
        arguments: Callable[[Any, Any], tuple[Any, ...]] | None = None,
    ):
        if criterion.reduction != "mean":
            raise ValueError(
                f"the loss must have reduction='mean'; it has {criterion.reduction!r}: Trainer's "
                "batches are averaged here"
            )
        self.criterion = criterion
        self.arguments = arguments or _logits_and_labels
        self._accumulated, self._copies = 1, 1
        self._rank = 0
        #: What `restore` was called with, for the next training.
        self._given: str | Path | None = None
        self._is_callback = False

    def __call__(
        self, outputs: Any, labels: Any, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """The loss of one batch, as Trainer calls it: `()`.

        Raises:
            RuntimeError: this object is no callback of the Trainer that trains.
        """
        if torch.is_grad_enabled() and not self._is_callback:
            raise RuntimeError(NO_CALLBACK)
        loss: Tensor = self.criterion(*self.arguments(outputs, labels))
        if torch.is_grad_enabled():
            loss = loss / self._accumulated
        # Where labels are no tensor, Trainer counts no items, and multiplies by nothing.
        return loss if num_items_in_batch is None else loss / self._copies

    def restore(self, folder: str | Path) -> None:
        """Reads the state from a checkpoint's folder: this process's, or that of the first.

        The next training that is resumed is so from there.

        Raises:
            FileNotFoundError: the folder has none.
        """
        self._read(folder)
        self._given = folder

    def _read(self, folder: str | Path) -> None:
        paths = [Path(folder) / f"{NAME}-{rank}.safetensors" for rank in (self._rank, 0)]
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            raise FileNotFoundError(
                f"{paths[-1]} does not exist: for a checkpoint outside of output_dir, call "
                "restore(folder) before train"
            )
        self.criterion.load_state_dict(load_file(found))

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Reads what divides the loss, in evaluation before training, too."""
        self._is_callback, self._rank = True, args.process_index
        self._accumulated = args.gradient_accumulation_steps
        averaged = args.average_tokens_across_devices
        self._copies = max(args.n_gpu, args.world_size) if averaged else 1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restores the loss where training is resumed."""
        self.on_init_end(args, state, control)  # for one that was added to a Trainer later
        if self.arguments is _logits_and_labels and _is_causal(kwargs.get("model")):
            warn(CAUSAL)
        if state.global_step:
            self._read(self._given or _folder(args, state))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The next training is resumed from a checkpoint of its own."""
        self._given = None

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Saves the loss into the checkpoint."""
        folder = _folder(args, state)
        folder.mkdir(parents=True, exist_ok=True)
        state_dict = {key: tensor.cpu() for key, tensor in self.criterion.state_dict().items()}
        save_file(state_dict, folder / f"{NAME}-{args.process_index}.safetensors")


def _is_causal(model: Any) -> bool:
    """Whether a model's logits tell the next label, and not that of their own position."""
    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return type(model).__name__ in names and not model.config.is_encoder_decoder


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Where Trainer keeps the checkpoint of this step."""
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
