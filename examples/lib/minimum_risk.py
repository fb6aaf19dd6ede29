"""Minimum-risk training: the expected metric's gradient from a handful of draws."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from learned_surrogates import text

from .recogniser import Head, read

# Weight of the newest batch in the running gradient norms.
MOMENTUM = 0.05
# Of a text's draws, beside their deviation, which may be 0.
LEAST_DEVIATION = 1e-4


def expected_metric(
    output: Tensor,
    labels: Sequence[str],
    head: Head,
    draws: int,
    metric: Callable[..., Any] = text.edit_distance,
    *,
    relative: bool = False,
) -> Tensor:
    """A loss whose gradient estimates that of the expected metric, mean over the batch.

    Draws a class for each frame or position from the model's own distribution; REINFORCE with a
    leave-one-out baseline, or the group-relative policy gradient (GRPO: Shao et al.,
    "DeepSeekMath", 2024, section 4.1; with one step a group, so that nothing is clipped).

    Args:
        output: the recogniser's, see `Recogniser`.
        labels: texts.
        head: "ctc" or "characters".
        draws: a sample, at least 2.
        metric: `(readings, labels) -> (batch,)`.
        relative: divide each text's advantages by their deviation, which makes the gradient another
            one than the expected metric's.
    """
    class_dim = 2 if head == "ctc" else 1
    log_probs = output.log_softmax(class_dim).movedim(class_dim, -1)
    samples = torch.distributions.Categorical(logits=log_probs.detach()).sample((draws,))
    errors = []
    for sample in samples:
        one_hot = functional.one_hot(sample, output.shape[class_dim])
        readings = read(one_hot.movedim(-1, class_dim), head)
        errors.append(torch.as_tensor(metric(readings, labels)))
    drawn = torch.stack(errors).float()
    advantage = drawn - drawn.mean(0)
    if relative:
        advantage = advantage / draws / (drawn.std(0, correction=0) + LEAST_DEVIATION)
    else:
        advantage = advantage / (draws - 1)
    chosen = log_probs.expand(draws, *log_probs.shape).gather(-1, samples[..., None]).squeeze(-1)
    log_likelihood = chosen.sum(1 if head == "ctc" else 2)
    return (advantage * log_likelihood).sum(0).mean()


class HalfAndHalf:
    """Half of a risk and half of the proxy loss, at one scale.

    The risk's gradient in the output is first brought to the proxy's norm, by running means.
    """

    def __init__(self) -> None:
        self.norms = torch.zeros(2)

    def __call__(self, risk: Tensor, proxy: Tensor, output: Tensor) -> Tensor:
        """The sum, `()`.

        Args:
            risk: `()`, as `expected_metric` gives it.
            proxy: `()`.
            output: what both are of.
        """
        gradients = [
            torch.autograd.grad(loss, output, retain_graph=True)[0] for loss in (risk, proxy)
        ]
        norms = torch.stack([gradient.norm() for gradient in gradients])
        self.norms = torch.where(self.norms > 0, self.norms.lerp(norms, MOMENTUM), norms)
        return 0.5 * self.norms[1] / self.norms[0].clamp(min=1e-12) * risk + 0.5 * proxy
