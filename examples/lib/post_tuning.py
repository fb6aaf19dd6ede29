"""Post-tuning: further steps from a checkpoint, with one loss or another."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from learned_surrogates import LearnedSurrogateLoss

from .recogniser import Recogniser, encode_targets, proxy_loss
from .scoring import predict, scores
from .word_images import WordImages

BATCH = 64
WARM_UP_STEPS = 50
# Of a step's gradient; larger ones are scaled down to it.
LARGEST_NORM = 5.0

Objective = Callable[[Tensor, Sequence[str]], Tensor]
LabelledImages = tuple[Tensor, list[str]]


@dataclass
class Run:
    """One post-tuned model and how it came about.

    Attributes:
        model: as it is after the last step.
        history: `(step, scores)` on the validation images, from step 0.
        seconds: wall time of the steps alone, without evaluation.
    """

    model: Recogniser
    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    seconds: float = 0.0


def surrogate_arguments(output: Tensor, labels: Sequence[str], head: str) -> tuple[Tensor, ...]:
    """What `nn.CTCLoss` or `nn.CrossEntropyLoss`, and so the surrogate loss, is called with."""
    targets = encode_targets(labels, head)
    if head == "characters":
        return output, targets[0].to(output.device)
    return output, targets[0], torch.full_like(targets[1], len(output)), targets[1]


def base_loss(head: str) -> nn.Module:
    """The proxy loss, called as the surrogate loss is."""
    return nn.CTCLoss(zero_infinity=True) if head == "ctc" else nn.CrossEntropyLoss()


def surrogate_objective(
    criterion: LearnedSurrogateLoss, head: str, proxy_weight: float
) -> Objective:
    """The surrogate loss, plus the proxy loss with a weight."""
    proxy = proxy_loss(head)

    def objective(output: Tensor, labels: Sequence[str]) -> Tensor:
        loss: Tensor = criterion(*surrogate_arguments(output, labels, head))
        return loss + proxy_weight * proxy(output, labels) if proxy_weight else loss

    return objective


def stepper(
    model: nn.Module, steps: int, rate: float, state: Mapping[int, Any] | None = None
) -> Callable[[Tensor], None]:
    """What makes a step on a loss: AdamW, a short linear rise, a cosine to zero.

    Args:
        model: is changed.
        steps: there will be.
        rate: highest learning rate.
        state: the optimizer's from earlier training; None is a fresh one.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    if state is not None:
        # Loaded, it would be written to.
        optimizer.load_state_dict(optimizer.state_dict() | {"state": copy.deepcopy(state)})
    rise = min(WARM_UP_STEPS, max(1, steps // 10))
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / rise, total_iters=rise),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - rise),
        ],
        [rise],
    )

    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimizer.step()
        schedule.step()

    return step


def post_tune(
    model: Recogniser,
    objective: Objective,
    stream: WordImages,
    validation: LabelledImages,
    *,
    steps: int,
    rate: float,
    evaluate_every: int,
    batch: int = BATCH,
    frozen_norm: bool = False,
    state: Mapping[int, Any] | None = None,
    after_step: Callable[[int], Any] = lambda step: None,
) -> Run:
    """Trains for some steps, of a `stepper`.

    Args:
        model: is changed.
        objective: `(output, labels) -> ()`.
        stream: training images.
        validation: images and labels to score on the way.
        steps: how many.
        rate: highest learning rate.
        evaluate_every: steps between two scores.
        batch: images a step.
        frozen_norm: whether batch normalisation keeps the checkpoint's means and variances.
        state: the optimizer's from earlier training; None is a fresh one.
        after_step: called with each step's number, from 1.
    """
    step_by = stepper(model, steps, rate, state)
    run = Run(model)
    run.history.append((0, scores(predict(model, validation[0]), validation[1])))
    for step in range(1, steps + 1):
        train(model, frozen_norm)
        start = time.perf_counter()
        images, labels = stream.batch(batch)
        loss = objective(model(images), labels)
        step_by(loss)
        run.seconds += time.perf_counter() - start
        after_step(step)
        if step % evaluate_every == 0 or step == steps:
            run.history.append((step, scores(predict(model, validation[0]), validation[1])))
    return run


def optimizer_state(
    model: Recogniser, objective: Objective, stream: WordImages, steps: int = 300
) -> Mapping[int, Any]:
    """AdamW's state as training would have left it: its running means over steps on the spot.

    Args:
        model: stays as it is.
        objective: that has trained it, `(output, labels) -> ()`.
        stream: training images.
        steps: how many.
    """
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    for _ in range(steps):
        images, labels = stream.batch(BATCH)
        optimizer.zero_grad()
        objective(model(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimizer.step()
    optimizer.zero_grad()
    state: Mapping[int, Any] = optimizer.state_dict()["state"]
    return state


def train(model: nn.Module, frozen_norm: bool) -> None:
    """Training mode, but for batch normalisation if that is frozen."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(not frozen_norm)
