"""Gradients in a space where it means something that they agree: a layer's weights."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from .._batch import Batch

# Steps back from the prediction among which the last layer is looked for.
MOST_NODES = 64
# Outputs up to which the virtual layer mixes them; more are scaled and shifted one by one.
MOST_MIXED = 64


def last_layer(prediction: Tensor) -> list[Tensor]:
    """The parameters of the layer that made a prediction, found from its graph.

    The first weights that are met on the way back, and the biases that are met before them or stand
    beside them: what a metric and a usual loss disagree about is often an offset. Empty if no
    weights are seen.

    Parts of the graph that are not PyTorch's own, such as compiled ones, are not looked through:
    they may be made to be gone through once.
    """
    queue: deque[tuple[Any, int]] = deque([(prediction.grad_fn, 0)])
    seen: set[Any] = set()
    biases: list[Tensor] = []
    while queue and len(seen) < MOST_NODES:
        node, depth = queue.popleft()
        if node is None or node in seen or isinstance(node, BackwardCFunction):
            continue
        seen.add(node)
        variable = _parameter(node)
        if variable is not None and variable.ndim > 1:
            beside = (_parameter(other) for other, its_depth in queue if its_depth <= depth)
            biases += [bias for bias in beside if bias is not None and bias.ndim == 1]
            return [variable, *biases]
        if variable is not None:
            biases.append(variable)
        queue.extend((parent, depth + 1) for parent, _ in node.next_functions)
    return []


def _parameter(node: Any) -> Tensor | None:
    """What a node of a graph gathers the gradient of."""
    variable = getattr(node, "variable", None)
    return variable if type(variable) in (Tensor, torch.nn.Parameter) else None


@contextmanager
def unheard(tensors: list[Tensor]) -> Iterator[None]:
    """Within, the user's hooks on these tensors hear of no gradient, nor does `retain_grad`."""
    hooks = [(t._backward_hooks, dict(t._backward_hooks)) for t in tensors if t._backward_hooks]
    retaining = [(t, t.grad) for t in tensors if t.retains_grad]
    for heard, _ in hooks:
        heard.clear()  # the graph's own dict
    try:
        yield
    finally:
        for heard, kept in hooks:
            heard.update(kept)
        for tensor, gradient in retaining:
            tensor.grad = gradient


def in_weights(batch: Batch, gradients: list[Tensor], layer: list[Tensor]) -> list[Tensor]:
    """Gradients with respect to a batch's prediction as ones of a layer's parameters, flat.

    Without a layer, those of a virtual layer A z + b on the outputs at A = 1, b = 0, which needs no
    model: it tells directions, but hardly how noisy they are.
    """
    prediction = batch.prediction
    if layer and prediction.requires_grad:
        with unheard([prediction, *layer]):
            found = [
                torch.autograd.grad(prediction, layer, gradient.to(prediction), retain_graph=True)
                for gradient in gradients
            ]
        return [torch.cat([part.flatten().float() for part in parts]) for parts in found]
    z = batch.samples_first(prediction.detach()).float()
    virtual = []
    for gradient in gradients:
        flat = batch.samples_first(gradient).float()
        mixed = flat.T @ z if z.shape[1] <= MOST_MIXED else (flat * z).sum(0)
        virtual.append(torch.cat([mixed.flatten(), flat.sum(0)]))
    return virtual
