"""Whether the loss's gradient lowers the metric: `LearnedSurrogateLoss.check`."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .._base_loss import base_gradient, with_prediction
from .._batch import Batch, saveable
from .._contract import hooks
from .._core import Core
from .._measured.weights import unheard
from .._support.checks import check_number
from .._support.isolated import isolated
from .._support.precision import at_least_float32
from .._task import as_call
from .check import BASE, DECODED, LEFT_OUT, OWN, Direction, GradientCheck
from .true_gradient import TRUTHS, true_gradients

# Step lengths, as shares of the spread of a sample's prediction.
STEPS = (0.003, 0.01, 0.03, 0.1, 0.3)
MOST_BINS = 4


class GradientChecker:
    """Goes through batches and adds up what becomes a `GradientCheck`.

    Args:
        core: comes to the gradient; is not changed.
        base_loss: whose gradient is held against it; None for none.
        parameters: of the model; None compares gradients with respect to predictions.
        draws: of the expected metric and its gradient, a sample.
    """

    def __init__(
        self,
        core: Core,
        base_loss: Callable[..., Tensor] | None,
        parameters: Iterable[Tensor] | None,
        draws: int,
    ):
        check_number("draws", draws, 2)
        self.core = core
        self.base_loss = base_loss
        self.task = core.task
        self.queue = core.oracle.queue
        self.parameters = None if parameters is None else _trained(parameters)
        self.draws = draws
        self.left_out = 0
        self.before: list[Tensor] = []
        self.decoded: list[Tensor] = []
        self.changes: dict[str, list[Tensor]] = {}
        self.gradients: dict[str, list[Tensor]] = {}
        self.has_truth = True

    def add(self, arguments: Any) -> None:
        """Takes a batch: what the loss would be called with, as a tuple or a dict."""
        args, kwargs = as_call(arguments)
        args = tuple(map(saveable, args))
        kwargs = {key: saveable(value) for key, value in kwargs.items()}
        batch = hooks.read(self.task, args, kwargs)
        if not len(batch.target):
            return
        self.core.to(batch.prediction.device)
        gradients = {OWN: self.core.gradient(batch, self.draws)}
        if self.base_loss is not None:
            base, _ = base_gradient(self.base_loss, batch, args, kwargs, "mean")
            gradients[BASE] = base
        # In half precision, a small step is none.
        prediction = at_least_float32(batch.prediction.detach())

        def moved(prediction: Tensor) -> Batch:
            changed = with_prediction(batch, prediction, args, kwargs)
            return hooks.read(self.task, *changed)

        before, changes = self._errors(moved(prediction)), {}
        decoded = before
        self.core.oracle.check_first(batch, before)
        spread = _spread(batch.samples_first(prediction))
        for name, against in gradients.items():
            against = against.nan_to_num(0.0, 0.0, 0.0).to(prediction)
            length = batch.samples_first(against).norm(dim=1).square().mean().sqrt()
            unit = against * torch.where(length > 0, spread / length, 0.0)
            after = [moved(prediction - step * unit) for step in STEPS]
            changes[name] = torch.stack([self._errors(each) - before for each in after])
            if name == OWN and self.core.follows_expectation:
                decoded, *others = self._as_decoded([moved(prediction), *after])
                changes[DECODED] = torch.stack(others) - decoded
        # A sample on which the metric fails is left out of everything; as decoded it may. So is one
        # whose prediction is not finite, whatever the metric makes of it: its gradient says so.
        drawn = [change for name, change in changes.items() if name != DECODED]
        usable = torch.cat([before[None], *drawn]).isfinite().all(0)
        usable &= batch.samples_first(gradients[OWN]).isfinite().all(1).cpu()
        self.left_out += int((~usable).sum())
        self.before.append(before[usable])
        self.decoded.append(decoded[usable])
        for name, change in changes.items():
            self.changes.setdefault(name, []).append(change[:, usable])
        truths = true_gradients(self.core, batch, self.draws)
        self.has_truth &= bool(truths)
        gradients |= truths
        for gradient in gradients.values():
            usable &= batch.samples_first(gradient).isfinite().all(1).cpu()
        for name, gradient in gradients.items():
            kept = batch.per_sample(usable.to(gradient.device), gradient.ndim)
            flat = self._flat(batch.prediction, gradient.where(kept, 0.0)).double().cpu()
            parts = self.gradients.setdefault(name, [])
            if parts and self.parameters is not None:
                parts[0] += flat
            else:
                parts.append(flat)

    def _errors(self, batch: Batch) -> Tensor:
        """The metric's mean over draws, the same ones at each call, or as decoded: `(batch,)`."""
        if not self.core.follows_expectation:
            return self._as_decoded([batch])[0]
        with isolated(batch.prediction.device), torch.no_grad():
            random = torch.Generator().manual_seed(0)
            # One by one, as they are many.
            draws = (self.core.sample(batch, random) for _ in range(self.draws))
            return self.queue.evaluate(draws).mean(0)

    def _as_decoded(self, batches: list[Batch]) -> Tensor:
        """The metric of predictions themselves, `(batches, batch)`."""
        with isolated(batches[0].prediction.device), torch.no_grad():
            return self.queue.evaluate([hooks.decode(self.task, each) for each in batches])

    def _flat(self, prediction: Tensor, gradient: Tensor) -> Tensor:
        """A gradient as one vector: of the parameters, if they are asked for."""
        if self.parameters is None:
            return gradient.flatten()
        if not prediction.requires_grad:
            raise ValueError(
                "parameters= needs predictions that the model made with gradients enabled: they "
                "carry the way back to the parameters"
            )
        with unheard([prediction, *self.parameters]):
            found = torch.autograd.grad(
                prediction,
                self.parameters,
                gradient.to(prediction),
                retain_graph=True,
                allow_unused=True,
            )
        if all(of_one is None for of_one in found):
            raise ValueError(
                "parameters= are of no model that these predictions came from: none of them is in "
                "the predictions' graph. Give those of the model that made them, and predictions "
                "that were not detached"
            )
        pairs = zip(self.parameters, found, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])

    def conclude(self) -> GradientCheck:
        """The outcome, over all batches."""
        if not sum(map(len, self.before)):
            raise ValueError(
                "check needs at least one batch of what the loss would be called with, and in it a "
                "sample whose prediction is finite and on which the metric does not fail"
                + f". {self.left_out} {LEFT_OUT}"
                * (self.left_out > 0)
            )
        before, decoded = torch.cat(self.before), torch.cat(self.decoded)
        changes = {name: torch.cat(parts, 1) for name, parts in self.changes.items()}
        there = {name: change.isfinite().all(0) for name, change in changes.items()}
        whole = {name: torch.cat(parts) for name, parts in self.gradients.items()}
        truths = [whole[name] for name in TRUTHS] if self.has_truth else []
        step = int(changes[OWN].mean(1).argmin())
        bins = _bins(before)
        inside = [(before >= low) & (before <= high) for low, high in bins]
        directions = {
            name: Direction(
                change=change[:, there[name]].mean(1).tolist(),
                standard_error=_standard_error(change[:, there[name]]).tolist(),
                by_bin=[change[step, bin & there[name]].mean().item() for bin in inside],
                cosine=_cosine(whole[name], truths[0] + truths[1])
                if truths and name in whole
                else float("nan"),
            )
            for name, change in changes.items()
            if there[name].any()
        }
        return GradientCheck(
            samples=len(before),
            left_out=self.left_out,
            error=before.mean().item(),
            decoded_error=decoded[decoded.isfinite()].mean().item(),
            expected=self.core.follows_expectation,
            steps=STEPS,
            step=step,
            bins=[(*edges, int(samples.sum())) for edges, samples in zip(bins, inside)],
            directions=directions,
            agreement=_cosine(*truths) if truths else float("nan"),
            signal_to_noise=self.core.stats().get("gradient/signal_to_noise", float("nan")),
            of_parameters=self.parameters is not None,
        )


def _trained(parameters: Any) -> list[Tensor]:
    """Those of a model's parameters that require a gradient.

    Raises:
        TypeError: they are no parameters.
        ValueError: none requires a gradient.
    """
    whole = isinstance(parameters, nn.Module | Tensor) or not isinstance(parameters, Iterable)
    given = [] if whole else list(parameters)
    if whole or not all(isinstance(each, Tensor) for each in given):
        raise TypeError(
            "parameters= must be a model's parameters, model.parameters(): tensors, without names; "
            f"got {type(parameters if whole else given[0]).__name__}"
        )
    trained = [parameter for parameter in given if parameter.requires_grad]
    if not trained:
        raise ValueError(
            "parameters= has none that requires a gradient: is the model frozen, or was this "
            "model.parameters() used up before?"
        )
    return trained


def _bins(errors: Tensor) -> list[tuple[float, float]]:
    """Lowest and highest error of groups of about as many samples, equal errors together."""
    groups = errors.sort().values.tensor_split(MOST_BINS)
    bins: list[tuple[float, float]] = []
    for group in groups:
        above = group[group > bins[-1][1]] if bins else group
        if len(above):
            bins.append((above[0].item(), above[-1].item()))
    return bins


def _spread(samples: Tensor) -> Tensor:
    """Mean norm of what samples `(batch, numbers)` are beyond their own mean.

    Numbers that are not finite, as in padding or of classes that are masked, are left out.
    """
    known = samples.where(samples.isfinite(), torch.nan)
    # A single number differs from others alone.
    mean = known.nanmean(1, keepdim=True) if samples.shape[1] > 1 else known.nanmean()
    return (known - mean).nan_to_num().norm(dim=1).mean()


def _standard_error(change: Tensor) -> Tensor:
    """Of the mean over samples `(steps, samples)`; NaN for a single one."""
    count = change.shape[1]
    if count < 2:
        return change.new_full((len(change),), torch.nan)
    return change.std(1) / count**0.5


def _cosine(a: Tensor, b: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a, b, dim=0).item()
