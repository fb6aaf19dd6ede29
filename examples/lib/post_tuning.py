"""Post-tuning: further steps from a checkpoint, with one loss or another."""

import time
from collections.abc import Callable, Sequence
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


def stepper(model: nn.Module, steps: int, rate: float) -> Callable[[Tensor], None]:
    """What makes a step on a loss: AdamW, a short linear rise, a cosine to zero.

    Args:
        model: is changed.
        steps: there will be.
        rate: highest learning rate.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    rise = min(WARM_UP_STEPS, max(1, steps // 10))
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / rise, total_iters=rise),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - rise)),
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
    after_step: Callable[[int], Any] = lambda step: None,
) -> Run:
    """Trains for some steps, of a `stepper`.

    Args:
        model: is changed.
        objective: `(output, labels) -> ()`.
        stream: training images, `BATCH` a step.
        validation: images and labels to score on the way.
        steps: how many.
        rate: highest learning rate.
        evaluate_every: steps between two scores.
        after_step: called with each step's number, from 1.
    """
    step_by = stepper(model, steps, rate)
    run = Run(model)
    run.history.append((0, scores(predict(model, validation[0]), validation[1])))
    for step in range(1, steps + 1):
        model.train()
        start = time.perf_counter()
        images, labels = stream.batch(BATCH)
        loss = objective(model(images), labels)
        step_by(loss)
        run.seconds += time.perf_counter() - start
        after_step(step)
        if step % evaluate_every == 0 or step == steps:
            run.history.append((step, scores(predict(model, validation[0]), validation[1])))
    return run
