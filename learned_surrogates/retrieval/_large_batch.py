"""Back-propagation in stages: batches larger than memory."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DistributedDataParallel

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# Of the embeddings' length: what two passes over one chunk may differ by, in half precision too.
REPEATED_WITHIN = 0.02


def large_batch(
    encode: Callable[[Any], Tensor],
    chunks: Sequence[Any],
    loss_of_embeddings: Callable[[Tensor], Tensor],
) -> Tensor:
    """Back-propagates a loss of all embeddings of a batch, at the memory of one chunk.

    In three stages (Revaud et al.): all chunks are encoded without a graph; the loss gives the
    gradient of each embedding; each chunk is encoded again, with a graph, and takes its embeddings'
    gradient back to the parameters. These get the gradient of the whole batch, added to what they
    have, as after `loss.backward()`. It takes a second forward pass.

    Random numbers of PyTorch, dropout's, are the same in both passes: those of the CPU and of CUDA.
    Autocast is as at the call.

    - BatchNorm in training mode is refused, as its statistics would be a chunk's: `.eval()` it.
    - A `DistributedDataParallel` model sums gradients once, at the last chunk. The loss is that of
      each process's own batch, unless `loss_of_embeddings` gathers.
    - With a GradScaler, scale inside: `lambda z: scaler.scale(criterion(z, labels))`.

    Args:
        encode: the model, or what calls it: takes a chunk, returns embeddings `(n, d)`. What it
            draws from other generators than PyTorch's is not repeated: augment before.
        chunks: what `encode` takes, one after the other, such as `images.split(64)` or a list of
            tokenised batches; they may be on the CPU if `encode` moves them.
        loss_of_embeddings: takes all embeddings `(batch, d)` in order, returns a scalar. Any loss:
            its own parameters get their gradient too.

    Returns:
        The loss, a scalar without a graph: there is no `backward()` to call.

    Raises:
        TypeError: chunks that are a tensor, or embeddings that are none.
        ValueError: no chunk; BatchNorm in training mode; a loss that is no scalar.
        RuntimeError: a loss without a gradient for the embeddings; embeddings without one for the
            parameters; a chunk whose embeddings are others the second time.

    Example:
        >>> import torch
        >>> from learned_surrogates.retrieval import RecallAtK
        >>> model, criterion = torch.nn.Linear(8, 4), RecallAtK()
        >>> images, labels = torch.randn(256, 8), torch.arange(64).repeat_interleave(4)
        >>> loss = large_batch(model, images.split(32), lambda z: criterion(z, labels))
        >>> loss.shape, model.weight.grad.shape
        (torch.Size([]), torch.Size([4, 8]))

    References:
        Revaud, Almazan, Rezende, de Souza, "Learning with Average Precision: Training Image
        Retrieval with a Listwise Loss", ICCV 2019.
    """
    _check(encode, chunks)
    states, encoded = [], []
    # What a function calls is seen as it does.
    watched = nullcontext() if isinstance(encode, nn.Module) else _watched()
    with torch.no_grad(), watched:
        for chunk in chunks:
            states.append(_random_state())
            encoded.append(_embeddings(encode(chunk)))
    # Under autocast, PyTorch kept weights that were cast without a graph, and took them for those
    # with one (its issue 112583; 2.13 does not).
    torch.clear_autocast_cache()
    embeddings = torch.cat(encoded).requires_grad_()
    loss = loss_of_embeddings(embeddings)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"loss_of_embeddings must return a scalar; got {got}")
    if loss.requires_grad:
        loss.backward()
    if embeddings.grad is None:
        raise RuntimeError("the loss of the embeddings has no gradient for them")
    gradients = embeddings.grad.split([len(each) for each in encoded])
    after = _random_state()
    try:
        for number, (chunk, gradient) in enumerate(zip(chunks, gradients, strict=True)):
            _restore(states[number])
            last = number == len(chunks) - 1
            waits = isinstance(encode, DistributedDataParallel) and not last
            with encode.no_sync() if waits else nullcontext():  # type: ignore[attr-defined]
                again = encode(chunk)
                if not again.requires_grad:
                    raise RuntimeError(
                        "the embeddings of encode have no gradient: are all its parameters frozen?"
                    )
                _check_repeated(encoded[number], again.detach())
                again.backward(gradient)
    finally:
        _restore(after)
    return loss.detach()


def _check(encode: Any, chunks: Any) -> None:
    """What can be told before anything is computed."""
    if isinstance(chunks, Tensor):
        raise TypeError("chunks must be a sequence of what encode takes: give inputs.split(64)")
    if not hasattr(chunks, "__len__"):
        raise TypeError(
            "chunks must be a sequence, as each is encoded twice: give list(chunks); got "
            f"{type(chunks).__name__}"
        )
    if len(chunks) == 0:
        raise ValueError("chunks must have at least one chunk")
    for name, module in encode.named_modules() if isinstance(encode, nn.Module) else ():
        _refuse_batch_norm(module, name or "the model")


def _refuse_batch_norm(module: nn.Module, name: str) -> None:
    if isinstance(module, BATCH_NORMS) and module.training:
        raise ValueError(
            f"{name} is a {type(module).__name__} in training mode, whose statistics would be "
            "those of a chunk, counted twice: call its eval(), or take a norm of single samples"
        )


@contextmanager
def _watched() -> Iterator[None]:
    """Refuses batch norms in training mode that are called meanwhile, in this thread."""
    thread = threading.get_ident()

    def look(module: nn.Module, _: Any) -> None:
        if threading.get_ident() == thread:
            _refuse_batch_norm(module, "a layer that encode calls")

    handle = register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()


def _embeddings(encoded: Any) -> Tensor:
    if not isinstance(encoded, Tensor) or encoded.ndim != 2:
        got = tuple(encoded.shape) if isinstance(encoded, Tensor) else type(encoded).__name__
        raise TypeError(f"encode must return embeddings (n, d); got {got}")
    return encoded


def _check_repeated(first: Tensor, again: Tensor) -> None:
    """Raises where the second pass is not a repetition of the first."""
    off = (first - again).norm() / first.norm().clamp(min=torch.finfo(first.dtype).tiny)
    if off > REPEATED_WITHIN:
        raise RuntimeError(
            f"encode gives other embeddings the second time, by {off:.0%} of their length: it must "
            "draw random numbers from PyTorch's own generators only, and keep no state"
        )


def _random_state() -> tuple[Tensor, list[Tensor]]:
    """Of the generators that layers draw from."""
    return torch.get_rng_state(), (
        torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    )


def _restore(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
