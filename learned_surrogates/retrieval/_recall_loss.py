"""The recall@k surrogate as a loss."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .._support.checks import check_number, check_positive, check_seed
from .._support.embeddings import AT_ONCE, labelled, positive_pairs, positives_of, unit
from .._support.isolated import isolated, never_compiled
from .._support.warnings import warn
from ._simix import mixed


class RecallAtK(nn.Module):
    r"""Recall at k with sigmoids in the place of its steps, as a loss of a batch of embeddings.

    Each example is a query, and the rest of the batch its database (RS@k, Eq. 5.5 to 5.7)::

        L = mean over q and k of  1 - sum_{x in P_q} sigma_tau1(k - 1 - c_qx) / min(k, |P_q|)
        c_qx = sum_{z != x, q} sigma_tau2(s_qz - s_qx)

    with P_q the others of the label of query q, s the cosine of two embeddings, and the sum over x
    at most k. Nothing is learned. Queries are taken in chunks, each with its gradient at once:
    memory does not grow with the square of the batch, and there is no second derivative. Embeddings
    are normalised here, and computed with in float32 or float64, whatever autocast there is.

    It is made for post-tuning: where positives rank far beyond the largest k, its gradient is
    nearly zero. Begin with a contrastive loss, such as `classification.SupCon`. The loss of a
    perfect ranking is not zero but about 0.1, as a sigmoid only nears one.

    Args:
        ks: list lengths k, whole numbers from 1. With SiMix, the paper takes 1, 2, 4, 8, 12, 16,
            20, 24, 28, 32.
        tau1: temperature of the sigmoid around k, in ranks.
        tau2: temperature of the sigmoids that count, in cosines.
        shift: added to k - 1. With 0, as in the paper, a positive of rank k counts half as the
            temperatures near zero; with 0.5 the limit is recall@k itself.
        simix: whether to mix all pairs of a label into virtual examples, in training mode:
            `M (m - 1) / 2` of them for a batch of M with m of each label.
        chunk: queries at a time; None takes as many as need about 16 MB of float32 an operation.
        seed: of the mixing. Its random stream is saved with the module's state.

    Raises:
        TypeError, ValueError: here for arguments that are none of these; at a call, for embeddings
            that are not `(M, d)` numbers, or labels that are not `(M,)` integers.

    Example:
        >>> import torch
        >>> criterion = RecallAtK(ks=(1, 2))
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> apart = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> round(criterion(apart, labels).item(), 3)
        0.384
        >>> mingled = apart[[0, 2, 1, 3]].requires_grad_()
        >>> loss = criterion(mingled, labels)
        >>> loss.backward()
        >>> round(loss.item(), 3)
        0.711

    References:
        Patel, Tolias, Matas, "Recall@k Surrogate Loss with Large Batches and Similarity Mixup",
        CVPR 2022; equations as numbered in chapter 5 of Patel's thesis.
    """

    # What a scripted model that holds the loss cannot save.
    __jit_ignored_attributes__ = ("_random",)

    def __init__(
        self,
        ks: Sequence[int] = (1, 2, 4, 8, 16),
        *,
        tau1: float = 1.0,
        tau2: float = 0.01,
        shift: float = 0.0,
        simix: bool = False,
        chunk: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if not isinstance(ks, Iterable):
            raise TypeError(f"ks must be a sequence of list lengths, such as (1, 2, 4); got {ks!r}")
        self.ks = tuple(ks)
        if not self.ks:
            raise ValueError("ks must have at least one list length")
        for k in self.ks:
            check_number("ks", k, 1)
        for name, tau in (("tau1", tau1), ("tau2", tau2)):
            check_positive(name, tau, "recall_at_k is what has none")
        check_number("shift", shift, float("-inf"), integer=False)
        if chunk is not None:
            check_number("chunk", chunk, 1)
        self.tau1, self.tau2, self.shift = tau1, tau2, shift
        self.simix, self.chunk = simix, chunk
        self._random = torch.Generator().manual_seed(check_seed(seed))

    def extra_repr(self) -> str:
        names = ("ks", "tau1", "tau2", "shift", "simix", "chunk")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def get_extra_state(self) -> Tensor:
        """The random stream of SiMix."""
        return self._random.get_state()

    def set_extra_state(self, state: Any) -> None:
        self._random.set_state(state.cpu())

    @never_compiled
    @torch.jit.unused  # a scripted model may hold the loss
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: `(M, d)`, of any length above 1e-6.
            labels: `(M,)` integers. An example alone with its label is no query; where all are, the
                loss is zero and a warning says so.
        """
        embeddings, labels = labelled("embeddings", embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = unit(embeddings)
            if self.simix and self.training:
                embeddings, labels = mixed(embeddings, labels, self._random)
            positives = positives_of(labels)
            queries = int((positives > 0).sum())
            if queries == 0:
                warn(
                    "no two examples of the batch have the same label, so that there is nothing to "
                    "retrieve and the loss is zero: draw several examples of each label"
                )
                return embeddings.sum() * 0.0
            size = self.chunk or max(1, AT_ONCE // (int(positives.max()) * len(labels)))
            return _Sum.apply(embeddings, self._losses, labels, size) / queries

    def _losses(self, embeddings: Tensor, labels: Tensor, start: int, end: int) -> Tensor:
        """The sum of the losses of the queries `start:end` that have a positive."""
        similarities = embeddings[start:end] @ embeddings.T
        itself = torch.zeros_like(similarities, dtype=torch.bool)
        itself[:, start:end].fill_diagonal_(True)
        similarities = similarities.masked_fill(itself, -torch.inf)
        rows, columns = positive_pairs(labels, start, end)
        gaps = similarities[rows] - similarities[rows, columns, None]
        # A positive is half above itself, which is not to count.
        above = (gaps / self.tau2).sigmoid().sum(1) - 0.5
        ks = torch.tensor(self.ks, dtype=above.dtype, device=above.device)
        within = ((ks - 1 + self.shift - above[:, None]) / self.tau1).sigmoid()
        found = within.new_zeros(end - start, len(ks)).index_add(0, rows, within)
        positives = rows.bincount(minlength=end - start)[:, None]
        most = torch.minimum(ks, positives.clamp(min=1))
        recall = torch.minimum(found, ks) / most
        return (1 - recall).mean(1)[positives[:, 0] > 0].sum()


class _Sum(torch.autograd.Function):
    """Sums losses over chunks of queries, and keeps no more of them than their gradient's sum."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, losses: Any, labels: Tensor, size: int) -> Tensor:
        total, gradient = embeddings.new_zeros(()), torch.zeros_like(embeddings)
        wanted = ctx.needs_input_grad[0]
        for start in range(0, len(labels), size):
            end = min(start + size, len(labels))
            with isolated(embeddings.device), torch.set_grad_enabled(wanted):
                leaf = embeddings.detach().requires_grad_(wanted)
                loss = losses(leaf, labels, start, end)
                if wanted:
                    gradient += torch.autograd.grad(loss, leaf)[0]
            total += loss.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None, None
