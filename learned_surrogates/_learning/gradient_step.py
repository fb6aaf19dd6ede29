"""One gradient step of a net of ours, and how such a net is made."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn


def adam(module: nn.Module, learning_rate: float) -> torch.optim.Optimizer | None:
    """Of what of a module can be trained; None where that is nothing."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=learning_rate) if parameters else None


def follow_parameters(optimizer: torch.optim.Optimizer | None) -> None:
    """Moves an optimizer's state to where its parameters now are."""
    if optimizer is not None:
        optimizer.load_state_dict(optimizer.state_dict())


def apply_gradients(optimizer: torch.optim.Optimizer, gradients: Sequence[Tensor | None]) -> None:
    """A step of the optimizer's only group of parameters, by these gradients.

    Those that are not finite are taken for zero: one wild pair must not spoil weights and moments.
    """
    sane = _sane(gradients)
    for parameter, gradient in zip(optimizer.param_groups[0]["params"], gradients, strict=True):
        parameter.grad = gradient if gradient is None else gradient.where(sane, 0.0)
    # PyTorch 2.4 makes Adam's counters on the user's default device.
    with nullcontext() if optimizer.state else torch.device("cpu"):
        optimizer.step()
    optimizer.zero_grad()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context in which layers are built in float32 on the CPU, with weights from the seed.

    The user's random stream is left alone: only the CPU generator is used, and restored.
    """
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


def _sane(gradients: Iterable[Tensor | None]) -> Tensor:
    """Whether gradients are finite, and so are their squares, which Adam keeps: a bool, `()`."""
    norms = [gradient.norm() for gradient in gradients if gradient is not None]
    return torch.stack(norms).norm().isfinite() if norms else torch.tensor(True, device="cpu")
