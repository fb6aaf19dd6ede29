"""The loss: when it learns, and what it returns."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from ._base_loss import NOT_FINITE, base_gradient, check_base_loss
from ._batch import plain_call
from ._contract import hooks
from ._core import Core
from ._diagnosis.check import GradientCheck
from ._diagnosis.checker import GradientChecker
from ._diagnosis.describe import describe
from ._evaluation.budget import Budget
from ._evaluation.oracle import Oracle
from ._evaluation.workers import Workers, as_workers
from ._fitted.core import ValueCore
from ._gradient import with_known_gradient
from ._learning.fit import Fit
from ._learning.replay import Replay
from ._learning.sync import Sync
from ._measured.core import MeasuredCore
from ._metric.metric import Metric, said_by
from ._metric.skip import Skip
from ._recipe import Recipe
from ._saved_whole import SavedWhole
from ._support.checks import Reduction, check_choice, check_number, check_reduction
from ._support.isolated import never_compiled
from ._support.processes import Lock, one_at_a_time
from ._support.warnings import warn
from ._task import Task, as_call, check_is_task
from ._tensors import Tensors

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


IN_THREADS = (
    "the loss was called within DataParallel, whose threads would learn into one surrogate at a "
    "time: call it outside, on what the wrapped model returns; or take DistributedDataParallel"
)
IN_TRANSFORMS = (
    "the loss was called within a transform of torch.func (grad, vjp, vmap, ...), which cannot "
    "follow what a metric does: call loss.backward(), or torch.autograd.grad(loss, ...)"
)


class LearnedSurrogateLoss(SavedWhole):
    r"""A loss that trains a model on a metric, and learns about the metric beside it.

    The metric :math:`e(z, y)` of prediction z and target y has no useful gradient. The task decides
    what is handed back instead; "How it works" in the documentation has the equations.

    **Plain tensors** (`Tensors()`, the default): the gradient of the metric's mean under Gaussian
    noise, :math:`E[e(z + w \epsilon, y)]`, measured at antithetic pairs of draws, with the slope of
    a surrogate as a control variate: unbiased whatever the surrogate. There is no warm-up. The
    value is the metric's mean over the draws, as an error; without gradients, it is that of the
    prediction itself.

    **Text**: the same, of the metric's mean over random readings, drawn from the model's own
    outputs. Of an edit distance it is known in closed form, and nothing is drawn. Of any other
    metric it is measured; the control variate is a sum of the edit distance, whether the text is
    wrong, and what each class is worth, weighed by least squares on earlier calls' differences.

    **Boxes, and** `Tensors(smoothing=0)`: the gradient of a surrogate, such as
    :math:`\hat e(z, y) = \|h(z) - h(y)\|_2` with an embedding net h, that is fitted to the metric's
    values beside the model, by

    .. math:: (\hat e(z, y) - e(z, y))^2 + \lambda (\|\partial \hat e / \partial z\|_2 - 1)^2

    (Learning Surrogates via Deep Embedding, Eq. 3 and 6; Algorithm 1 without its extra inferences).
    While it warms up, for `FitValues.warm_up` updates within the first ten calls (or in the method
    `warm_up`), the base loss's gradient is handed back or, without one, zero. The value is the
    surrogate's or, without gradients while it warms up, the metric's. The same with text and
    `surrogate="embedding"`, "conditioned", "pair" or a module of your own.

    It learns only in training mode, with gradients enabled, on a prediction that requires them;
    anywhere else it changes nothing. Threads that call one loss wait for one another. A process
    that is started with it has its own.

    Neither `parameters()` nor `buffers()` shows the surrogate, so no optimizer of yours can move
    it; `state_dict()` does hold it, with its optimizer and the replay buffer. It follows its input
    to any device and computes in float32 under autocast too.

    Args:
        metric: `metric(predictions, targets)` -> one number a sample, as a tensor, array or list
            `(batch,)`. It may take one sample at a time instead. It gets what the task says:
            tensors, or lists of strings for text. With plain tensors, it may return one value an
            output, `(batch, outputs, ...)`, the leading part of a prediction's shape: the loss is
            their mean, and each output's noise is credited with its own value alone. One whose
            parameters are named the other way round, `(y_true, y_pred)`, is called so, with a
            warning.
        task: what predictions and targets look like, and with it how the loss is called:
            `text.CTC(alphabet)`, `text.PerPosition(alphabet)`, `boxes.Rotated()`; None is
            `Tensors()`, called as `criterion(prediction, target)`.
        base_loss: the loss that trained the model so far (`nn.CTCLoss()`, `nn.SmoothL1Loss()`),
            called as this one is, returning `()` or `(batch,)`. Its gradient leads at first: with
            text until half of the targets' characters are read right in a batch, with other
            measured gradients until its own signal is spent or it leads away from the metric, with
            a surrogate that is fitted to values during the warm-up. It fills in where a call has
            no values yet.
        base_weight: the share of the base loss's gradient after that, 0 to 1, beside 1 minus it of
            the metric's; each in its own units. None is 0, but 0.5 for text where the metric is one
            of the edit distances in `text`, or its squared correlation with one is 0.8 and more.
        correction: of a measured gradient, the weight of what the draws correct by, 0 to 1: 1 is
            unbiased, 0 follows alone what is known without them. None is 1, but for lists, sets and
            masks what it is measured to be worth. For plain tensors, 0.25 is worth a try where
            noise limits, and it counts from when a surrogate tells something: the page "Any metric"
            says where it gains and where it does not.
        surrogate: one that the task has: for text "auto" or "none" (draws alone), or "embedding",
            "conditioned" or "pair", fitted to values; "target-frame", "placed-frame" or
            "embedding" for boxes; for tensors "auto", "none", "pair", "cyclic", "elements",
            "lists", "classes", "classes-last", "counts", "maps", "embedding" or "conditioned" (the
            last two and "pair" with `smoothing=0`). Or a module `S(z, y) -> (batch,)` of your own,
            for what the task shows to "embedding"; with text it is fitted to values. None takes the
            task's first.
        draws: metric calls a sample where the gradient is measured: an even number for plain
            tensors, 2 by default; 2 or more for text, 4 by default, none where the mean is known.
            Where a surrogate is fitted to values, draws from a prediction's own distribution over
            which the metric is averaged first, beside that of the prediction as it is decoded: 0 by
            default, as in the papers, 2 for boxes with `noise=`.
        fit: `Fit`, how often and how long what is learned is fitted; for a surrogate that is fitted
            to values also `FitValues`: to what data, with which penalty, and which samples are left
            out.
        replay: `Replay`, how much is remembered to be learned from again, and whether
            `state_dict()` holds it.
        higher_is_better: whether a higher metric is better; None asks the metric's attribute of
            this name, and is False without one: then the metric is evaluated once or twice more in
            the first call, to find out whether that was forgotten. The error that is learned is
            `best - metric`.
        best: the metric's value for a perfect prediction; None asks the metric's attribute of this
            name, and is 0 for a metric where lower is better.
        batched: whether the metric takes a batch (True) or one sample (False); None finds out.
        on_metric_error: "raise", or "skip": leave such samples out, counted in `stats`, until there
            is no value at all in 1,000 calls in a row; `Skip` takes another number. In the loss,
            they count as the mean of the others; their gradient is what is known without them.
        executor: evaluates the metric, so that training does not wait for a slow one: any
            `concurrent.futures.Executor`, or a callable that makes one, such as
            `ThreadPoolExecutor`; `Workers` says when values are taken in. None evaluates it in the
            call. Where the gradient is measured, a call whose values come later follows c times
            what is known without them, and 1 - c times the base loss, if there is one; c is how far
            that was confirmed.
        metric_budget: the share of a batch's samples that are measured, drawn at random, as a
            float from above 0 to 1.0; or an integer, the most samples a call. None measures all.
            Where the gradient is measured, those measured stand for all: its mean stays what it is.
        reduction: "none", "mean" or "sum" over the batch.
        seed: of the draws, the surrogate's weights, the generator and what is taken from replay.
            PyTorch's own random stream is neither used nor changed.
        sync: whether all processes learn together, where `torch.distributed` runs; or those that
            do, a `ProcessGroup`. Each keeps its own replay buffer and draws, and all must make as
            many learning calls.

    Raises:
        TypeError, ValueError: an argument, here or at a call, is of the wrong kind or value.
        RuntimeError: at a call, within `DataParallel` or a transform of `torch.func`.
        MetricError: at a call, the metric failed.

    Example:
        >>> import torch
        >>> from learned_surrogates import LearnedSurrogateLoss, text
        >>> criterion = LearnedSurrogateLoss(text.edit_distance, task=text.CTC("abc"))
        >>> log_probs = torch.randn(12, 2, 4).log_softmax(-1).requires_grad_()
        >>> targets = torch.tensor([[1, 2, 3], [3, 1, 0]])
        >>> loss = criterion(log_probs, targets, torch.tensor([12, 12]), torch.tensor([3, 2]))
        >>> loss.backward()
        >>> log_probs.grad.shape
        torch.Size([12, 2, 4])

    References:
        Grathwohl, Choi, Wu, Roeder, Duvenaud: Backpropagation through the Void. ICLR 2018.

        Sarafian, Sinay, Louzoun, Agmon, Kraus: Explicit Gradient Learning for Black-Box
        Optimization. ICML 2020.

        Kool, van Hoof, Welling: Buy 4 REINFORCE Samples, Get a Baseline for Free! ICLR workshop
        on Deep Reinforcement Learning Meets Structured Prediction, 2019.

        Patel, Hodaň, Matas: Learning Surrogates via Deep Embedding. ECCV 2020.

        Patel, Matas: FEDS - Filtered Edit Distance Surrogate. ICDAR 2021.
    """

    def __init__(
        self,
        metric: Callable[..., Any],
        *,
        task: Task[Any] | None = None,
        base_loss: Callable[..., Tensor] | None = None,
        base_weight: float | None = None,
        correction: float | None = None,
        surrogate: str | nn.Module | None = None,
        draws: int | None = None,
        fit: Fit = Fit(),
        replay: Replay = Replay(),
        higher_is_better: bool | None = None,
        best: float | None = None,
        batched: bool | None = None,
        on_metric_error: Literal["raise", "skip"] | Skip = "raise",
        executor: Executor | Callable[[], Executor] | Workers | None = None,
        metric_budget: Budget = None,
        reduction: Reduction = "mean",
        seed: int = 0,
        sync: "bool | ProcessGroup" = True,
    ):
        super().__init__()
        self._lock = Lock()
        task = Tensors() if task is None else task
        check_is_task(task)
        if base_loss is not None:
            check_base_loss(base_loss)
        if base_loss is None and base_weight is not None:
            raise ValueError(
                f"base_weight={base_weight!r} is the share of a base loss: give base_loss=, too"
            )
        hooks.check_settings(task)
        task = hooks.settled(task, "for_base_loss", base_loss)
        if not isinstance(surrogate, nn.Module):
            surrogate = task.surrogates[0] if surrogate is None else surrogate
            check_choice("surrogate", surrogate, task.surrogates)
            task = hooks.settled(task, "for_surrogate", surrogate)
            if surrogate == "none" and correction not in (None, 1):
                raise ValueError(
                    f"correction={correction!r} weighs what draws correct by, and with "
                    "surrogate='none' there is nothing but the draws: leave it out"
                )
        check_reduction(reduction)
        if batched is None and (batched := said_by(metric, "batched")) is None:
            batched = task.batched
        checked = Metric(metric, higher_is_better, best, batched, on_metric_error)
        recipe = Recipe(
            task=task,
            fit=fit,
            replay=replay,
            draws=task.draws_of(checked) if draws is None else draws,
            base_weight=base_weight,
            correction=correction,
            seed=seed,
            executor=as_workers(executor),
            metric_budget=metric_budget,
        )
        if draws is not None or task.measured:
            task.check_draws(recipe.draws, checked)
        if recipe.draws == 1 and not task.measured:
            warn(
                "draws=1 does not tell how much the metric varies from draw to draw, so that the "
                "surrogate's error seems larger than it is: give 2 or more, or 0"
            )
        self.task = task
        self.base_loss = base_loss
        self.reduction = reduction
        together = Sync(sync)
        oracle = Oracle(task, checked, recipe.executor, metric_budget)
        core: type[MeasuredCore | ValueCore] = MeasuredCore if task.measured else ValueCore
        self._core: Core = core(task, oracle, recipe, together, surrogate)
        #: Figures of how the loss does; see `stats` in the documentation. Refreshed every
        #: `fit.every` calls.
        self.stats: dict[str, Any] = {}
        # Read where figures are, so that other calls do not wait for the device.
        self._base_left_out = torch.zeros((), dtype=torch.bool, device="cpu")
        self._warned_of_base_loss = False
        self._refresh_stats()

    @never_compiled
    @torch.jit.unused  # a scripted model may hold the loss, which is no part of what it predicts
    @one_at_a_time
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, called as the task says.

        Returns:
            `()`, or `(batch,)` with `reduction="none"`; float32, unless a surrogate of another
            type was given. In the metric's units, as an error: lower is better for every metric.
        """
        check_reduction(self.reduction)
        if getattr(self, "_is_replica", False):  # PyTorch's mark on copies for a device each
            raise RuntimeError(IN_THREADS)
        if torch._C._are_functorch_transforms_active():
            raise RuntimeError(IN_TRANSFORMS)
        args, kwargs = plain_call(args, kwargs)
        batch = hooks.read(self.task, args, kwargs)
        batch.check_reduction(self.reduction)
        core = self._core
        core.to(batch.prediction.device)
        differentiable = torch.is_grad_enabled() and batch.prediction.requires_grad
        learning = differentiable and self.training and _is_first_forward()
        base_loss = self.base_loss

        def base() -> Tensor:
            assert base_loss is not None
            gradient, left_out = base_gradient(base_loss, batch, args, kwargs, self.reduction)
            left_out = left_out.any()
            self._base_left_out = self._base_left_out.to(left_out.device) | left_out
            return gradient

        value, gradient, news = core.call(
            batch,
            None if base_loss is None else base,
            differentiable=differentiable,
            learning=learning,
        )
        if gradient is not None and not self.training:
            core.warn_if_idle()
        if news:
            self.stats = core.conclude()
            self._warn_of_base_loss()
        elif learning and (not self.stats["calls"] or self.stats.get("surrogate/warming_up")):
            # What is printed after the first calls shall be true of them.
            self._refresh_stats()
        if learning:
            core.sync.give_up()
        if gradient is not None:
            value = with_known_gradient(batch.prediction, value, gradient, batch.batch_dim)
        return hooks.reduce(batch, value, self.reduction)

    @one_at_a_time
    def warm_up(
        self,
        batches: Iterable[Any] | None = None,
        *,
        updates: int = 1000,
        progress: bool = False,
    ) -> dict[str, Any]:
        """Fits the surrogate before its gradients are used, in place of the first calls' warm-up.

        Where the gradient is measured there is no need: the metric is evaluated at draws around
        these predictions, and what is learned makes the first gradients quieter. Where it is known
        in closed form, there is nothing to learn.

        Args:
            batches: what the loss would be called with, as tuples of positional or dicts of
                keyword arguments; one is read before each update until there are no more. A
                generator expression that runs the model serves, under `torch.no_grad()`. None
                fits to the random generator alone.
            updates: gradient steps of the surrogate.
            progress: show a progress bar (needs `tqdm`).

        Returns:
            `stats`; the errors, or R2, are those of predictions before they were fitted to or,
            without batches, of fresh pairs from the generator.

        Raises:
            ValueError: neither batches nor a generator; no batches, where the gradient is measured.
            MetricError: the metric failed.

        Example:
            >>> import torch
            >>> from learned_surrogates import LearnedSurrogateLoss, text
            >>> criterion = LearnedSurrogateLoss(
            ...     text.edit_distance, task=text.CTC("abc"), surrogate="conditioned"
            ... )
            >>> stats = criterion.warm_up(updates=20)
            >>> stats["updates"]
            20
        """
        check_number("updates", updates, 0)
        read_ahead = None
        if batches is not None:
            calls = map(as_call, islice(batches, updates))
            read_ahead = (hooks.read(self.task, *call) for call in calls)
        steps = _progress_bar(updates) if progress else range(updates)
        self.stats = self._core.warm_up(read_ahead, steps)
        return self.stats

    @one_at_a_time
    def check(
        self,
        batches: Iterable[Any],
        *,
        parameters: Iterable[Tensor] | None = None,
        draws: int = 32,
    ) -> GradientCheck:
        """Whether a small step against the loss's gradient lowers the true metric.

        Moves the predictions of whole batches by steps of several lengths, evaluates the metric
        again, and does the same with the base loss's gradient, if there is one. Where the task
        draws, the metric is its mean over draws, under the same noise or over random readings,
        which feels small steps: that of the decoded prediction mostly does not change at all.
        Samples whose prediction is not finite and, with `on_metric_error="skip"`, those on which
        the metric fails or whose values an executor loses, are left out and counted. Waits for the
        executor. Changes nothing.

        Where a true gradient can be had, gives the cosine with it: of a differentiable metric, or
        of the expected one, estimated from the draws.

        Args:
            batches: what the loss would be called with, as tuples of positional or dicts of
                keyword arguments. A few hundred samples tell.
            parameters: the model's, to compare gradients with respect to them; the predictions
                must carry their graph. A cosine over predictions misleads where samples differ in
                how much they move the model. None compares with respect to predictions.
            draws: of the metric a sample, where the task draws; the metric is called 7 times as
                often, 12 times with a base loss.

        Returns:
            Figures and a plot.

        Raises:
            ValueError: no batches, or predictions without a graph where `parameters` are given.
            MetricError: the metric failed, or values were lost.

        Example:
            >>> import torch
            >>> from learned_surrogates import LearnedSurrogateLoss, text
            >>> criterion = LearnedSurrogateLoss(text.edit_distance, task=text.CTC("abc"))
            >>> log_probs = (3 * torch.randn(12, 64, 4)).log_softmax(-1)
            >>> targets = torch.randint(1, 4, (64, 3))
            >>> lengths = torch.full((64,), 12), torch.full((64,), 3)
            >>> criterion.check([(log_probs, targets, *lengths)]).helps
            True
        """
        checker = GradientChecker(self._core, self.base_loss, parameters, draws)
        with self._core.unchanged():
            for arguments in batches:
                with torch.inference_mode(False):
                    checker.add(arguments)
        return checker.conclude()

    @one_at_a_time
    def report(self, path: str | os.PathLike[str], check: GradientCheck | None = None) -> Path:
        """Writes one HTML page with pictures of how the surrogate does (needs matplotlib).

        Where the gradient is measured: the metric and what the draws are worth over the calls, and
        the gradient check. Where a surrogate is fitted to values also surrogate against metric, its
        error by how large the metric is, and over the updates.

        Args:
            path: of the file; folders above it are made.
            check: what `check` returned, to be part of the page.

        Returns:
            The path.

        Raises:
            TypeError: `check` is something else.

        Example:
            >>> import tempfile, torch
            >>> from learned_surrogates import LearnedSurrogateLoss
            >>> criterion = LearnedSurrogateLoss(lambda z, y: (z - y).abs().sum(-1))
            >>> batches = [(torch.randn(64, 2), torch.randn(64, 2)) for _ in range(8)]
            >>> for prediction, target in batches:
            ...     criterion(prediction.requires_grad_(), target).backward()
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     page = criterion.report(f"{folder}/report.html", criterion.check(batches))
            ...     page.read_text().count("<img")
            2
        """
        from ._diagnosis.report import write_report

        if not isinstance(check, GradientCheck | None):
            raise TypeError(f"check must be what criterion.check(...) returned; got {check!r}")
        page = Path(path)
        page.parent.mkdir(parents=True, exist_ok=True)
        write_report(page, self._core, self.stats, repr(self), check)
        return page

    def _warn_of_base_loss(self) -> None:
        """Warns, once, of samples that were left out of the base loss's gradient."""
        if not self._warned_of_base_loss and self._base_left_out:
            self._warned_of_base_loss = True
            warn(NOT_FINITE)

    def _refresh_stats(self) -> None:
        self.stats = self._core.stats()

    @one_at_a_time
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the surrogate along with the module; its type stays what it is."""
        super()._apply(fn, recurse)
        device = fn(torch.empty(0, device=self._core.device)).device
        if device.type != "meta":
            self._core.to(device)
        return self

    def extra_repr(self) -> str:
        return describe(self._core, self.base_loss)


def _progress_bar(steps: int) -> Iterable[int]:
    try:
        from tqdm.auto import trange
    except ImportError as error:
        missing = "progress=True needs tqdm: pip install tqdm"
        raise ImportError(missing) from error
    return trange(steps, desc="fitting the surrogate")


def _is_first_forward() -> bool:
    """Whether this is the user's own forward pass: not inference, not a recompute in backward."""
    in_backward = torch._C._current_graph_task_id() != -1
    return not (in_backward or torch.is_inference_mode_enabled())
