"""What a form tells of a metric's differences: a slope, and waves for where the metric jumps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._contract import hooks
from .waves import waves_for, waves_of


class Expansion(nn.Module):
    """A form S, and waves beside it where there are some that suit predictions and targets.

    Whether a draw crosses a threshold of the metric depends on how far that is from the output. Of
    one that may lie anywhere, the best slope tells 1 / sqrt(2) of the differences' variance, with
    both waves it is 0.89.

    Args:
        form: `S(z, y) -> (batch,)`.
        z: predictions `(batch, *sample)`, by which inputs are standardised.
        y: targets `(batch, ...)`.
    """

    def __init__(self, form: nn.Module, z: Tensor, y: Tensor):
        super().__init__()
        self.form = form
        #: Whether there is something to learn; else the form is in the metric's units as it is.
        self.learns = any(parameter.requires_grad for parameter in form.parameters())
        self.waves = waves_for(form, z, y)

    def forward(
        self, z: Tensor, y: Tensor, width: Tensor, scale: Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """How much of each function of `basis` a difference has: `(functions, batch, *sample)`.

        Args:
            z: predictions `(batch, *sample)`, with `requires_grad`.
            y: targets `(batch, ...)`.
            width: the noise's standard deviation, as large as z.
            scale: the size of differences, `()`.
            create_graph: whether the outcome is differentiated.
        """
        dtype = next((p.dtype for p in self.form.parameters() if p.is_floating_point()), z.dtype)
        value = self.form(z.to(dtype), y.to(dtype) if y.is_floating_point() else y)
        value = hooks.surrogate_value(value, z)
        unit = scale if self.learns else 1
        (slope,) = torch.autograd.grad(
            unit * value.sum(), z, create_graph=create_graph, materialize_grads=True
        )
        pull = slope * width
        if self.waves is None:
            return pull[None]
        return torch.cat([pull[None], pull.detach() * self.waves(z.detach(), y, width)])

    def basis(self, noise: Tensor, y: Tensor, width: Tensor) -> Tensor:
        """Odd functions of standard normal numbers: `(functions, *noise.shape)`.

        The noise itself; and where there are some, waves.

        Args:
            noise: standard normal, `(..., batch, *sample)`.
            y, width: as `forward` has them.
        """
        if self.waves is None:
            return noise[None]
        return torch.cat([noise[None], waves_of(self.waves.along(noise, y, width))])


@contextmanager
def asked(forms: nn.Module) -> Iterator[None]:
    """A context in which modules of the user's own do not learn or draw, as they do when fitted."""
    learning = [module for module in forms.modules() if module.training]
    for module in learning:
        module.training = False
    try:
        yield
    finally:
        for module in learning:
            module.training = True


@dataclass(frozen=True, kw_only=True)
class Told:
    """What forms tell of a call's draws before these are measured.

    Attributes:
        pulls: slopes times the noise's standard deviation, `(forms, n, *sample)`.
        predicted: differences, by the slopes and by the waves, `(2, forms, pairs, n)`.
    """

    pulls: Tensor
    predicted: Tensor


def predict(expansions: Tensor, functions: Tensor) -> Told:
    """What expansions tell of draws.

    Args:
        expansions: `(forms, functions, n, *sample)`.
        functions: of the draws' noise, `(functions, pairs, n, *sample)`.
    """
    of_pairs = [(expansions * each).flatten(3).sum(3) for each in functions.unbind(1)]
    parts = torch.stack(of_pairs, 2)
    predicted = torch.stack([parts[:, 0], parts[:, 1:].sum(1)])
    return Told(pulls=expansions[:, 0], predicted=predicted)
