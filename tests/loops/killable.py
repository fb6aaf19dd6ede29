"""A training run that may be killed at any moment, and goes on from its last checkpoint."""

import os
import sys
import warnings
from pathlib import Path

import torch
from conftest import make_arguments, make_loss
from torch import nn

EXAMPLES = Path(__file__).parents[2] / "examples"


class SmallRun:
    """A linear correction of a case's predictions, a batch a step."""

    def __init__(self, case):
        torch.manual_seed(3)
        self.case = case
        numbers = make_arguments(case)[0].shape[-1]
        self.model = nn.Linear(numbers, numbers)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.criterion = make_loss(case, every=3, warm_up=10)
        self.parts = {"model": self.model, "optimizer": self.optimizer, "loss": self.criterion}

    def step(self, step):
        prediction, *rest = make_arguments(self.case, seed=step)
        prediction = self.model(prediction.detach())
        if self.case.startswith("ctc"):
            prediction = prediction.log_softmax(-1)
        self.optimizer.zero_grad()
        self.criterion(prediction, *rest).backward()
        self.optimizer.step()


class TextRun:
    """The text recognition example: its recogniser, its images, `LearnedSurrogateLoss`."""

    def __init__(self):
        sys.path.insert(0, str(EXAMPLES))
        from learned_surrogates import LearnedSurrogateLoss, text
        from lib.post_tuning import surrogate_objective
        from lib.recogniser import ALPHABET, load
        from lib.word_images import WordImages

        self.model = load(EXAMPLES / "checkpoints" / "ctc.safetensors")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.images = WordImages("train", 0)
        criterion = LearnedSurrogateLoss(text.edit_distance, task=text.CTC(ALPHABET))
        self.objective = surrogate_objective(criterion, "ctc", 0.0)
        self.parts = {"model": self.model, "optimizer": self.optimizer, "loss": criterion}
        self.parts["images"] = self.images

    def step(self, step):
        images, labels = self.images.batch(16)
        self.optimizer.zero_grad()
        self.objective(self.model(images), labels).backward()
        self.optimizer.step()


def train(name, folder, steps):
    """Runs to the last step from where the folder's checkpoint is, and saves each step."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    # Numbers at random have nothing to learn, of which long runs are told.
    for message in (
        "for 100 updates the surrogate's error",
        "for 100 calls the metric of all draws",
    ):
        warnings.filterwarnings("ignore", message)
    run = TextRun() if name == "text" else SmallRun(name)
    checkpoint = Path(folder) / "checkpoint.pt"
    done = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        for key, part in run.parts.items():
            part.load_state_dict(state[key])
        done = state["done"]
    for step in range(done, steps):
        run.step(step)
        state = {key: part.state_dict() for key, part in run.parts.items()}
        torch.save({**state, "done": step + 1}, checkpoint.with_suffix(".new"))
        os.replace(checkpoint.with_suffix(".new"), checkpoint)
        (checkpoint.parent / "done").write_text(str(step + 1))
