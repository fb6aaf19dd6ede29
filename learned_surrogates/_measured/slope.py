"""The surrogate whose slope stands in for the metric's: fitted to differences, judged by them."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from .._learning.gradient_step import adam, apply_gradients, follow_parameters, seeded
from .._learning.sync import Sync
from .._support.isolated import isolated
from .bounded import bounded_expansions
from .control_variate import ControlVariate
from .expansion import Expansion, Told, asked, predict
from .forms import build, suited

# Differences by which forms are standardised; where batches are small, those of so many calls will
# do, and before these there is nothing to fit.
ROWS, CALLS, FEWEST_ROWS = 256, 16, 64
# Numbers of predictions whose expansions are found at once.
MOST_NUMBERS = 2**14
# Calls for which all forms that may serve are fitted side by side; the best of them stays.
TRIAL = 100
# Calls for which what there is is fitted each time, whatever `Fit.every`.
EAGER = 200
# Least R2 of a form that is worth its cost, and the calls after which others are tried again.
LEAST_R2 = 0.02
REST = 1000

#: Predictions, targets, noise, its standard deviation, half differences, as many of each.
Rows = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
#: Of a sample of z and of one of y.
Shapes = tuple[torch.Size, torch.Size]


class Slope:
    r"""Forms S(z, y), side by side at first, of which the best stays.

    Fitted to measured half differences d: with deviations :math:`\delta = w \epsilon`, by
    :math:`(\langle \partial S / \partial z, \delta \rangle + waves - d)^2` (explicit gradient
    learning: Sarafian et al., ICML 2020; for the waves see `expansion`). A fit of values says
    little of slopes.

    Args:
        given: a form's name, a module `S(z, y) -> (batch,)`, or "auto".
        learning_rate: of Adam.
        seed: of the weights.
        sync: the processes that fit it together.
    """

    def __init__(self, given: str | nn.Module, learning_rate: float, seed: int, sync: Sync):
        self.given = given
        self.learning_rate = learning_rate
        self.seed = seed
        self.sync = sync
        self.device = torch.device("cpu")
        self.names: list[str] = []
        self.forms = nn.ModuleList()
        self.optimizer: torch.optim.Optimizer | None = None
        self.control = ControlVariate(0, self.device)
        self.scale = torch.ones((), dtype=torch.float32, device="cpu")
        self.shapes: Shapes | None = None
        self.best = 0
        #: Learning calls since the forms were made or, while there are none, given up.
        self.calls = 0
        #: Whether no form fits what is handed over.
        self.unsuited = False
        #: Whether none was worth its cost when they were last tried.
        self.resting = False

    @property
    def own(self) -> bool:
        """Whether it is a module of the user's own, which may do otherwise as it learns."""
        return isinstance(self.given, nn.Module)

    @property
    def eager(self) -> bool:
        """Whether it is fitted at every call."""
        return self.calls < EAGER

    @property
    def wanted(self) -> bool:
        """Whether forms should be made as soon as there are rows to make them by."""
        rests = self.resting and self.calls < REST
        return not (self.forms or self.unsuited or rests or self.given == "none")

    @property
    def rows(self) -> int:
        """Differences of which forms are made."""
        return ROWS if self.calls < CALLS else FEWEST_ROWS

    @property
    def r2(self) -> float:
        """Share of the gradient's noise that the followed form takes away; NaN without one."""
        return float(self.control.r2[self.best]) if self.forms else float("nan")

    @property
    def weight(self) -> Tensor:
        """The control variate's coefficient c, `()`; 0 without a form."""
        return self.control.weights[0, self.best] if self.forms else torch.zeros_like(self.scale)

    @property
    def confirmed(self) -> Tensor:
        """How far the followed form's slope is the gradient itself, `()`; 0 without one."""
        return self.control.confirmed[self.best] if self.forms else torch.zeros_like(self.scale)

    @property
    def name(self) -> str:
        """Of the form that is followed."""
        return self.names[self.best] if self.names else "none"

    def fits(self, z: Tensor, y: Tensor | None) -> bool:
        """Whether there are forms, made for such samples."""
        if y is None or not self.forms:
            return False
        return self.shapes == (z.shape[1:], y.shape[1:])

    def try_out(self, z: Tensor, y: Tensor | None) -> None:
        """Holds a surrogate that was asked for against the first samples.

        Raises:
            ValueError: it does not take them.
        """
        if self.given in ("auto", "none") or self.forms:
            return
        if y is None:
            raise ValueError(
                "surrogate= needs targets that are a tensor and, for a metric with one value an "
                "output, have those outputs too; leave it out to go by draws alone"
            )
        with isolated(self.device), seeded(self.seed):
            form = self._form(str(self.given), z[:2].cpu().float(), y[:2].cpu()).to(self.device)
        with isolated(self.device), torch.enable_grad():
            few = z[:2].detach().requires_grad_()
            try:
                with asked(form) if self.own else nullcontext():
                    form(few, y[:2], torch.ones_like(few), self.scale)
            except Exception as error:
                name = type(form.form).__name__
                error.add_note(
                    f"The surrogate, {name}, was called with z {tuple(few.shape)} and y "
                    f"{tuple(y[:2].shape)}, samples first. Of a metric with one value an output, "
                    "each output is such a sample: z (n, 1) and y (n,), where an output is a number"
                )
                raise

    def make(self, rows: Rows) -> None:
        """Makes the forms that may serve, by the first differences."""
        z, y, _, width, differences = rows
        names: Sequence[str] = (str(self.given),)
        if isinstance(self.given, nn.Module):
            names = ("given",)
        elif self.given == "auto":
            names = suited(z, y)
        self.calls = 0
        if not names:
            self.unsuited = True
            return
        with isolated(self.device), seeded(self.seed):
            z, y, width = z.cpu().float(), y.cpu(), width.cpu()
            forms = nn.ModuleList(self._form(name, z, y, width) for name in names)
        self._attach(forms, names, (z.shape[1:], y.shape[1:]))
        scale = differences.float().std(correction=0)
        self.scale = scale.where(scale > 0, 1.0).to(self.device)

    def rebuild(self, names: Sequence[str], shapes: Shapes) -> None:
        """Makes forms for samples of these shapes, whose weights are to be loaded."""
        forms = self.imagined(names, shapes)
        for expansion in forms:
            assert isinstance(expansion, Expansion)
            made = expansion.waves if isinstance(self.given, nn.Module) else expansion
            if made is not None:
                made.to_empty(device="cpu")
        self._attach(forms, names, shapes)

    def imagined(self, names: Sequence[str], shapes: Shapes) -> nn.ModuleList:
        """Forms without memory, so that no shape is too large to be asked about."""
        with isolated(torch.device("cpu")), seeded(self.seed), torch.device("meta"):
            z = torch.zeros(1, *shapes[0], dtype=torch.float32)
            y = torch.zeros(1, *shapes[1], dtype=torch.int64)
            return nn.ModuleList(self._form(name, z, y) for name in names)

    def afresh(self) -> "Slope":
        """Another one with the same settings, where this one lives."""
        slope = Slope(self.given, self.learning_rate, self.seed, self.sync)
        slope.to(self.device)
        return slope

    def _attach(self, forms: nn.ModuleList, names: Sequence[str], shapes: Shapes) -> None:
        self.names, self.shapes, self.best, self.resting = list(names), shapes, 0, False
        self.forms = forms.to(self.device)
        self.control = ControlVariate(len(names), self.device, shapes[0].numel())
        self.optimizer = adam(self.forms, self.learning_rate)

    def expansions(self, z: Tensor, y: Tensor, width: Tensor) -> Tensor:
        """What every form tells, `(forms, functions, *z.shape)`, detached (see `Expansion`).

        Args:
            z: predictions `(n, ...)`.
            y: targets `(n, ...)`.
            width: the noise's standard deviation, as large as z.
        """
        # Part by part: a net's layers are many times as large as what goes in. Of the user's own
        # net it is not known whether it looks at a whole batch, to normalise it say.
        rows = max(1, len(z) if self.own else MOST_NUMBERS // max(1, z[:1].numel()))
        parts = zip(z.detach().split(rows), y.split(rows), width.split(rows))
        return torch.cat([self._expand(*part) for part in parts], dim=2)

    def _expand(self, z: Tensor, y: Tensor, width: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z.requires_grad_()
            with asked(self.forms) if self.own else nullcontext():
                found = [form(z, y, width, self.scale) for form in self.forms]
        return torch.stack([each.detach() for each in found])

    def tell(self, z: Tensor, y: Tensor, noise: Tensor, width: Tensor, most: float) -> Told:
        """What every form tells of draws around predictions.

        Args:
            z: predictions `(n, ...)`.
            y: targets `(n, ...)`.
            noise: of the draws, standard normal, `(pairs, n, ...)`.
            width: its standard deviation, as large as z.
            most: how large a difference is believed to be (see `bounded_expansions`).
        """
        expansions = bounded_expansions(self.expansions(z, y, width), most)
        # Of all forms: which functions there are depends on the samples alone.
        form = self.forms[self.best]
        assert isinstance(form, Expansion)
        return predict(expansions, form.basis(noise, y, width))

    def take(self, differences: Tensor, noise: Tensor, predicted: Tensor) -> None:
        """Judges the forms by differences `(n,)` that they were not fitted to.

        Args:
            differences: d, `(n,)`.
            noise: standard normal, `(n, ...)`.
            predicted: what the forms told of these, by slopes and by waves, `(2, forms, n)`.
        """
        if predicted.shape[1] == len(self.forms):
            squares = noise.square().flatten(1).mean(1)
            self.control.take(differences, predicted[0], squares, predicted[1])

    def fit(self, rows: Rows | None) -> None:
        """One gradient step on differences, together with the other processes."""
        if self.optimizer is None or not self.forms:
            return
        parameters = self.optimizer.param_groups[0]["params"]
        own, count = None, 0 if rows is None else len(rows[0])
        if rows is not None and count:
            with torch.enable_grad():
                loss = self._objective(rows)
                own = list(torch.autograd.grad(loss, parameters, allow_unused=True))
        gradients = self.sync.mean(own, count, parameters)
        if gradients is not None:
            apply_gradients(self.optimizer, gradients)

    def select(self) -> None:
        """Draws the consequences of how the forms did, after a call's fit.

        What there is is decided by counts of calls and by figures that all processes share; which
        form is followed meanwhile, each decides by its own.
        """
        self.calls += 1
        if not self.forms:
            if self.calls == REST:
                self.sync.agreed = False
            return
        if self.calls % TRIAL == 0:
            means = self.sync.mean([self.control.sums], 1, [self.control.sums])
            # Each process gives its own.
            assert means is not None and means[0] is not None
            self.control.sums = means[0]
            self.best = self._worth_most()
            if self.r2 < LEAST_R2:
                self._give_up()
            elif len(self.forms) > 1:
                self._keep_best()
        elif self.calls < TRIAL and self.calls % 10 == 0:
            self.best = self._worth_most()

    def _worth_most(self) -> int:
        """The first form that no other beats by much: from one to the next, they cost more."""
        r2 = self.control.r2
        return int((r2 >= r2.max() - LEAST_R2).int().argmax())

    def to(self, device: torch.device) -> None:
        self.device = device
        self.scale = self.scale.to(device)
        self.control.to(device)
        self.forms.to(device)
        follow_parameters(self.optimizer)

    def _form(self, name: str, z: Tensor, y: Tensor, width: Tensor | None = None) -> Expansion:
        if isinstance(self.given, nn.Module):
            return Expansion(self.given, z, y)
        return Expansion(build(name, z, y, width).float(), z, y)

    def _keep_best(self) -> None:
        name, form, sums = self.name, self.forms[self.best], self.control.sums[self.best]
        moments = {} if self.optimizer is None else self.optimizer.state
        self.forms, self.names, self.best = nn.ModuleList([form]), [name], 0
        self.control = ControlVariate(1, self.device, self.control.numbers)
        self.control.sums = sums[None].clone()
        self.optimizer = adam(self.forms, self.learning_rate)
        if self.optimizer is not None:
            for parameter in self.optimizer.param_groups[0]["params"]:
                if parameter in moments:
                    self.optimizer.state[parameter] = moments[parameter]

    def _give_up(self) -> None:
        """No form is worth its cost, for now."""
        self.forms, self.names, self.best, self.calls = nn.ModuleList(), [], 0, 0
        self.optimizer, self.resting = None, True
        self.control = ControlVariate(0, self.device)
        self.sync.agreed = False

    def start_anew(self) -> None:
        """Forgets all that was learned, and is made again as soon as may be."""
        self._give_up()
        self.resting = False

    def _objective(self, rows: Rows) -> Tensor:
        z, y, noise, width, differences = rows
        z = z.requires_grad_()
        loss = torch.zeros_like(self.scale)
        for form in self.forms:
            assert isinstance(form, Expansion)
            expansion = form(z, y, width, self.scale, create_graph=True)
            predicted = (expansion * form.basis(noise, y, width)).flatten(2).sum((0, 2))
            loss = loss + ((predicted - differences) / self.scale).square().mean()
        return loss
