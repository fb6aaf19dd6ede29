"""The surrogate that is fitted, built from the first samples."""

import torch
from torch import Tensor, nn

from .._contract import hooks
from .._learning.gradient_step import adam, follow_parameters, seeded
from .._support.isolated import isolated
from .._support.moderate import moderate
from .pairs import Pairs


class Net:
    """A surrogate `S(z, y) -> (batch,)` in the metric's units, with its optimizer.

    Args:
        pairs: whose first samples decide what it looks like.
        module: the user's; None takes the task's own.
    """

    def __init__(self, pairs: Pairs, module: nn.Module | None):
        self.pairs = pairs
        self.given = module is not None
        self.module = module
        self.optimizer: torch.optim.Optimizer | None = None
        self.device = torch.device("cpu")
        self.scale = torch.ones((), dtype=torch.float32, device="cpu")

    @property
    def built(self) -> bool:
        """Whether the first samples have been seen."""
        return self.pairs.shapes is not None

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """The surrogate, in the metric's units: `(batch,)` for z and expanded targets y."""
        assert self.module is not None
        return self.scale * hooks.value(self.module, z, y)

    def expand(self, target: Tensor) -> Tensor:
        return hooks.expand(self.pairs.task, target).to(self.device, self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The surrogate's floating-point type: float32, unless one of another type was given."""
        parameters = self.module.parameters() if self.module is not None else iter(())
        return next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)

    def prepare(self, z: Tensor, target: Tensor, finite: Tensor) -> bool:
        """Builds the surrogate for the first samples; checks the shapes of all others.

        Args:
            z: `(batch, ...)`, detached.
            target: stored targets, `(batch, ...)`.
            finite: which samples of z may set the surrogate's scale, `(batch,)`.

        Returns:
            Whether there is a surrogate; there is none before the first finite sample.

        Raises:
            ValueError: a sample's shape differs from the first one's.
        """
        self.pairs.check(z, target)
        if self.pairs.shapes is None:
            finite = finite & moderate(z) & moderate(target)
            if not finite.any():
                return False
            surrogate = self.module or self.make_surrogate(z[finite], target[finite])
            self.attach(surrogate, (z.shape[1:], target.shape[1:]))
        return True

    def make_surrogate(self, z: Tensor, target: Tensor) -> nn.Module:
        """The task's surrogate for such samples, in float32, with weights from the seed."""
        # On the meta device, it is only asked what it would look like.
        device = torch.device("meta" if z.is_meta else "cpu")
        with isolated(self.device), seeded(self.pairs.recipe.seed), device:
            z, target = (part if part.is_meta else part.cpu() for part in (z, target))
            y = hooks.expand(self.pairs.task, target).float()
            return hooks.build_surrogate(self.pairs.task, z.float(), y).float()

    def attach(self, surrogate: nn.Module, shapes: tuple[torch.Size, torch.Size]) -> None:
        """Takes a surrogate for samples of these shapes, with an optimizer of its own."""
        self.module = surrogate.to(self.device)
        self.pairs.shapes = shapes
        self.optimizer = adam(surrogate, self.pairs.recipe.learning_rate)

    def detach(self) -> None:
        """Back to before the first samples; a surrogate that was given keeps its weights."""
        self.module = self.module if self.given else None
        self.pairs.shapes = self.optimizer = None
        with isolated(self.device):
            self.scale = torch.ones((), dtype=torch.float32, device=self.device)

    def to(self, device: torch.device) -> None:
        self.device = device
        self.scale = self.scale.to(device)
        if self.module is not None:
            self.module.to(device)
        follow_parameters(self.optimizer)
