"""Variational CTC: the blank apart from the characters, and told of the label in training."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._support.checks import Reduction, check_number, check_reduction, check_tensor
from .._support.precision import at_least_float32
from ._ctc_labels import read_labels, read_lengths
from ._text_task import as_integers, padded


class VariationalCTC(nn.Module):
    r"""A recogniser's last layer and its CTC loss in one; give its parameters to your optimizer.

    In the place of `nn.Linear(features, classes)` and `nn.CTCLoss`. First it is decided whether a
    frame is blank, then which character it is otherwise (Eq. 6 of the paper). With x_t a frame's
    features, p_t a softmax over the characters, f a linear layer and Y the mean of the label's
    embeddings::

        prior      b_t = sigmoid(x_t . w_p)                        (7)
        posterior  q_t = sigmoid((f(x_t) * Y) . w_a)               (8)
        frame      P_t(blank) = q_t,  P_t(c) = (1 - q_t) p_t(c)    (6)
        L = CTC(P, label) + sum_t KL( Bernoulli(q_t) || Bernoulli(b_t) )

    Only the loss knows the label: to read, the prior takes the posterior's place. `posterior=False`
    has it there in training too, and then no divergence: the paper's Mml-CTC, which is `nn.CTCLoss`
    of `log_probs`.

    **What for.** Do not expect better readings: the paper has 78.7 % of IIIT5K's words right, with
    CTC 79.4 %, and 9.52 % of IAM's characters wrong, with CTC 9.53 %. It is for the *confidence* of
    a reading, the product over the frames of the largest probability (Eq. 9),
    `head.log_probs(features).amax(2).sum(0).exp()`: with a precision of 98 % the paper keeps 66.4 %
    of what it has right in IIIT5K, and with CTC 30.2 %. We found little of that, and a better
    confidence with any loss, the probability of the text over all of its paths: see the docs.

    Args:
        features: of a frame.
        classes: the characters and the blank.
        blank: class index of the blank.
        embedding: length of a character's embedding.
        posterior: whether the blank is told of the label in training.
        dropout: of the label's mean embedding, 0 to 1.
        reduction: as that of `nn.CTCLoss`: "mean" is that over the batch of the losses over their
            label's length, "sum", or "none".
        zero_infinity: as that of `nn.CTCLoss`: a label that its frames cannot spell costs its
            divergence alone, and not infinity.

    Raises:
        TypeError, ValueError: here for arguments that are none of these; at a call, for features of
            another shape, lengths out of range, labels with a blank or an unknown class.

    Example:
        >>> import torch
        >>> head = VariationalCTC(features=8, classes=3)
        >>> features = torch.randn(6, 2, 8)  # frames, batch, features
        >>> loss = head(features, torch.tensor([[1, 2], [2, 0]]), [6, 5], [2, 1])
        >>> loss.backward()
        >>> head.log_probs(features).shape
        torch.Size([6, 2, 3])

    References:
        Chao, Chen, Chu, "Variational Connectionist Temporal Classification", ECCV 2020. Where the
        paper's print is in doubt: its (5), a bound to be raised, is called the loss, and its
        negative is minimised. What the forward algorithm computes of the frames' distributions is
        log E_q[p(label | blanks)], not E_q[log p], and so by Jensen's inequality no lower bound of
        log p(label). w_a in (8) is as long as an embedding, not as the features. Table 6 has 50
        parameters more than (8), as many as one more embedding.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        blank: int = 0,
        embedding: int = 50,
        posterior: bool = True,
        dropout: float = 0.5,
        reduction: Reduction = "mean",
        zero_infinity: bool = False,
    ):
        super().__init__()
        check_number("features", features, 1)
        check_number("classes", classes, 2)
        check_number("blank", blank, 0)
        if blank >= classes:
            raise ValueError(f"blank must be a class index in 0..{classes - 1}; got {blank}")
        check_number("embedding", embedding, 1)
        check_number("dropout", dropout, 0, integer=False)
        if dropout > 1:
            raise ValueError(f"dropout must be at most 1; got {dropout!r}")
        check_reduction(reduction)
        self.features, self.classes, self.blank = features, classes, blank
        self.reduction, self.zero_infinity = reduction, zero_infinity
        self.characters = nn.Linear(features, classes - 1)
        self.prior = nn.Linear(features, 1)
        self.posterior = (
            _Posterior(features, classes, blank, embedding, dropout) if posterior else None
        )

    def extra_repr(self) -> str:
        return f"blank={self.blank}, reduction={self.reduction!r}"

    @torch.jit.unused  # a scripted model may hold the loss
    def forward(
        self, features: Tensor, targets: Any, input_lengths: Any, target_lengths: Any
    ) -> Tensor:
        """The loss, `()`, or `(batch,)` with `reduction="none"`.

        Args:
            features: `(time, batch, features)`.
            targets: class indices, padded `(batch, length)` or concatenated `(sum of lengths,)`.
            input_lengths: frames of each sample, `(batch,)`, a tensor, list or tuple.
            target_lengths: characters of each label, the same.
        """
        self._check(features)
        time, batch = features.shape[:2]
        frames = read_lengths("input_lengths", input_lengths, batch, time)
        texts = read_labels(
            as_integers("targets", targets), target_lengths, batch, self.classes, self.blank
        )
        lengths = torch.tensor([len(text) for text in texts], dtype=torch.int64, device="cpu")
        # Blanks behind the labels; room for one where all are empty.
        labels = torch.from_numpy(padded(texts, 1, self.blank)).to(features.device)
        with torch.autocast(features.device.type, enabled=False):
            # What is in padding has no part in a gradient, not even NaN.
            present = (torch.arange(time, device="cpu")[:, None] < frames).to(features.device)
            features = features.to(self.prior.weight.dtype).where(present[..., None], 0.0)
            prior = at_least_float32(self.prior(features).squeeze(2))
            blank = (
                prior
                if self.posterior is None
                else at_least_float32(self.posterior(features, labels))
            )
            losses = self._ctc(self._compose(features, blank), labels, frames, lengths)
            divergences = _divergence(blank, prior).where(present, 0.0)
            losses = losses + divergences.sum(0)
        if self.reduction == "mean":
            return (losses / lengths.clamp(min=1).to(losses)).mean()
        return losses.sum() if self.reduction == "sum" else losses

    def log_probs(self, features: Tensor) -> Tensor:
        """Log-probabilities `(time, batch, classes)`, to read, for `nn.CTCLoss` or `text.CTC`.

        Args:
            features: `(time, batch, features)`.
        """
        self._check(features)
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.prior.weight.dtype)
            return self._compose(features, at_least_float32(self.prior(features).squeeze(2)))

    def _ctc(self, log_probs: Tensor, labels: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
        """CTC's loss of each sample, `(batch,)`."""
        if not log_probs.shape[1]:  # which PyTorch refuses
            return log_probs.sum((0, 2))
        return F.ctc_loss(
            log_probs,
            labels,
            frames,
            lengths,
            blank=self.blank,
            reduction="none",
            zero_infinity=self.zero_infinity,
        )

    def _compose(self, features: Tensor, blank: Tensor) -> Tensor:
        """Eq. 6 of logits of the blank `(time, batch)`: logarithms, `(time, batch, classes)`."""
        of_characters = at_least_float32(self.characters(features)).log_softmax(2)
        of_characters = of_characters + F.logsigmoid(-blank)[..., None]
        before, behind = of_characters.tensor_split([self.blank], dim=2)
        return torch.cat([before, F.logsigmoid(blank)[..., None], behind], 2)

    def _check(self, features: Tensor) -> None:
        check_tensor("features", features)
        if not features.is_floating_point():
            raise TypeError(f"features must be floating-point; they are {features.dtype}")
        if features.ndim != 3 or features.shape[2] != self.features:
            raise ValueError(
                f"features must have shape (time, batch, {self.features}); their shape is "
                f"{tuple(features.shape)}"
            )
        if not len(features):
            raise ValueError(f"features have no frames: their shape is {tuple(features.shape)}")
        if features.device != self.prior.weight.device:
            raise ValueError(
                f"features are on {features.device}, the layer on {self.prior.weight.device}: move "
                "it with the model, before the optimizer is made"
            )


class _Posterior(nn.Module):
    """Eq. 8: logits of the blank, which knows which characters there are, not where."""

    def __init__(self, features: int, classes: int, blank: int, embedding: int, dropout: float):
        super().__init__()
        # The mean is over what is not blank; that of nothing is zero.
        self.label = nn.EmbeddingBag(classes, embedding, mode="mean", padding_idx=blank)
        self.dropout = nn.Dropout(dropout)
        self.frame = nn.Linear(features, embedding)
        self.weight = nn.Linear(embedding, 1, bias=False)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """`(time, batch)` of features `(time, batch, features)` and labels `(batch, length)`."""
        label = self.dropout(self.label(labels))
        logits: Tensor = self.weight(self.frame(features) * label)
        return logits.squeeze(2)


def _divergence(logits: Tensor, other: Tensor) -> Tensor:
    """KL of Bernoulli distributions by their logits: the cross-entropy less the entropy."""
    share = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, share, reduction="none")
    return F.binary_cross_entropy_with_logits(other, share, reduction="none") - entropy
