"""The outcome of a gradient check: figures, a verdict, a plot."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Names of the directions.
OWN, BASE = "this loss", "base loss"
# And what steps against this loss's gradient do to the predictions themselves, without draws.
DECODED = "as decoded"
# How often a gradient without any use is taken for one that helps.
CHANCE = 0.025
# Times the predictions' own error from which on that of draws is a word worth.
FAR = 1.5
# Signal over noise of a step below which an optimizer must average over hundreds.
QUIET = 0.05
NOISY = (
    "This gradient is of many draws and samples. In training so far, a step's signal over noise "
    "was {:.2f}: the smaller it is, the smaller the learning rate must be, or the larger the "
    "batches or draws=."
)
LEFT_OUT = (
    "samples are left out: the metric failed on them, their values were lost by the executor, or "
    "their prediction is not finite"
)
FAR_DRAWS = (
    "The error of draws, which is what the loss lowers, is far above that of the predictions "
    "themselves. If the model's own metric gets worse in training, draw nearer: a smaller "
    "task=Tensors(smoothing=), or noise= of a task of sets; with text, keep more of a base loss."
)


@dataclass(frozen=True)
class Direction:
    """What steps against a gradient do to the metric, as an error: below 0 is better.

    Attributes:
        change: mean change of the metric, one a step length.
        standard_error: of these means.
        by_bin: mean change with step length number `GradientCheck.step`, one a bin.
        cosine: with the true gradient; NaN where there is none to compare with, and of what the
            predictions themselves make, whose error has none.
    """

    change: list[float]
    standard_error: list[float]
    by_bin: list[float]
    cosine: float


@dataclass(frozen=True)
class GradientCheck:
    """The outcome of `LearnedSurrogateLoss.check`: `print` it, or `plot` it.

    Attributes:
        samples: number of samples.
        left_out: samples beside these, on which the metric failed, whose values were lost or whose
            prediction is not finite.
        error: their mean error before the step.
        expected: whether the error is the metric's mean over draws, where the task draws, and not
            that of the prediction as it is decoded.
        decoded_error: mean error of the predictions as they are decoded: the metric of the model.
        steps: step lengths, as shares of the spread of a sample's prediction; one for the whole
            batch, as samples with larger gradients move further.
        step: index of the length with which this loss's gradient lowers the error most.
        bins: `(lowest, highest, samples)` of the error before the step.
        directions: "this loss"; where its error is that of draws, "as decoded", what the same steps
            do without them; and, where there is one, "base loss".
        agreement: cosine of two estimates of the true gradient, from half the draws each; one that
            follows the truth perfectly would reach about its square root. 1 for a differentiable
            metric, NaN where there is no truth.
        signal_to_noise: of a step's gradient in the training so far; NaN before it is known.
        of_parameters: whether cosines are those of the gradients with respect to the model's
            parameters, and not to its predictions.
    """

    samples: int
    left_out: int
    error: float
    decoded_error: float
    expected: bool
    steps: tuple[float, ...]
    step: int
    bins: list[tuple[float, float, int]]
    directions: dict[str, Direction]
    agreement: float
    signal_to_noise: float
    of_parameters: bool

    @property
    def helps(self) -> bool:
        """Whether the best step lowers the error by more than chance does.

        That is 2.6 standard errors of many samples, and more of few: the best of all steps is
        looked at, and it may be one by chance.
        """
        own = self.directions[OWN]
        return own.change[self.step] < -self._chance * own.standard_error[self.step]

    @property
    def _leads_away(self) -> bool:
        """Whether each step raises the error, and one by more than chance does."""
        own = self.directions[OWN]
        pairs = list(zip(own.change, own.standard_error, strict=True))
        sure = any(change > self._chance * error for change, error in pairs)
        return sure and all(change > 0 for change, _ in pairs)

    @property
    def _chance(self) -> float:
        """Standard errors by which one step of all may change the error by chance."""
        return _deviations(CHANCE / len(self.steps), self.samples)

    @property
    def verdict(self) -> str:
        """What follows from it, in a sentence."""
        if self.samples == 1:
            return (
                "One sample does not tell how sure a change is: give several batches. A list, a "
                "set or a mask is one sample."
            )
        if self.helps:
            return "A step against the loss's gradient lowers the error."
        if self._leads_away:
            return (
                "Each step against the loss's gradient raises the error: it leads away from the "
                "metric. Is higher_is_better right and, of a task of your own, its score's sign?"
            )
        remedy = "" if BASE in self.directions else "give base_loss=, "
        return (
            "No step against the loss's gradient lowers the error for sure: do not train on "
            f"it alone; {remedy}give it more calls to learn from, or see stats."
        )

    def __str__(self) -> str:
        kind = "expected error" if self.expected else "error"
        head = "".join(f"{step:>19g}" for step in self.steps)
        of_model = f", {self.decoded_error:.4g} as decoded," if self.expected else ""
        lines = [
            f"{kind} {self.error:.4g}{of_model} on {self.samples} samples; how it changes after "
            "steps, in shares of a prediction's spread:",
            f"{'step':>12}{head}   cosine with the true gradient",
        ]
        for name, direction in self.directions.items():
            cells = "".join(
                f"{f'{change:+.4f} ± {error:.4f}':>19}"
                for change, error in zip(direction.change, direction.standard_error, strict=True)
            )
            cosine = f"{direction.cosine:.3f}" if name != DECODED else ""
            lines.append(f"{name:>12}{cells}   {cosine}".rstrip())
        if math.isfinite(self.agreement):
            lines.append(
                f"Two estimates of the truth have a cosine of {self.agreement:.3f}: the gradient "
                f"itself would have about {math.sqrt(max(0.0, self.agreement)):.2f}."
            )
        if self.expected and self.error > FAR * self.decoded_error:
            lines.append(FAR_DRAWS)
        if self.signal_to_noise < QUIET:
            lines.append(NOISY.format(self.signal_to_noise))
        if self.left_out:
            lines.append(f"{self.left_out} more {LEFT_OUT}.")
        return "\n".join([*lines, self.verdict])

    def plot(self) -> "Figure":
        """Pictures of the change by step length and by bin (needs matplotlib)."""
        from .check_picture import picture

        return picture(self)

    @property
    def text(self) -> str:
        """What it says, in a few sentences."""
        text = (
            "Predictions were moved a little against each gradient, and the metric evaluated "
            f"again. {self.verdict}"
        )
        if math.isfinite(self.agreement):
            space = "the model's parameters" if self.of_parameters else "the predictions"
            cosines = ", ".join(
                f"{name} {direction.cosine:.3f}"
                for name, direction in self.directions.items()
                if name != DECODED
            )
            text += (
                f" Cosine with the true gradient, with respect to {space}: {cosines}. (Two "
                f"estimates of the truth agree to {self.agreement:.3f}.)"
            )
        return text


def _deviations(chance: float, samples: int) -> float:
    """Standard errors that a mean of so many samples is above 0 by, with this chance.

    The quantile of Student's t, as Fisher expands it around the normal distribution's.
    """
    z, n = NormalDist().inv_cdf(1 - chance), max(1, samples - 1)
    first, second = z**3 + z, 5 * z**5 + 16 * z**3 + 3 * z
    third = 3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z
    return z + first / (4 * n) + second / (96 * n**2) + third / (384 * n**3)
