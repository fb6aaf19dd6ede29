"""Gradients in a space where it means something that they agree: a layer's weights."""

from collections import deque
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

# Steps back from the prediction among which the last layer is looked for.
MOST_NODES = 64
# Outputs up to which the virtual layer mixes them; more are scaled and shifted one by one.
MOST_MIXED = 64


def last_layer(prediction: Tensor) -> Tensor | None:
    """The weights of the layer that made a prediction, found from its graph; None if none is seen.

    Parts of the graph that are not PyTorch's own, such as compiled ones, are not looked through:
    they may be made to be gone through once.
    """
    queue: deque[Any] = deque([prediction.grad_fn])
    seen: set[Any] = set()
    while queue and len(seen) < MOST_NODES:
        node = queue.popleft()
        if node is None or node in seen or isinstance(node, BackwardCFunction):
            continue
        seen.add(node)
        variable: Any = getattr(node, "variable", None)
        if type(variable) in (Tensor, torch.nn.Parameter) and variable.ndim > 1:
            return variable
        queue.extend(parent for parent, _ in node.next_functions)
    return None


def in_weights(prediction: Tensor, gradients: list[Tensor], weights: Tensor | None) -> list[Tensor]:
    """Gradients with respect to a prediction as ones with respect to weights, flat.

    Without weights, those of a virtual layer A z + b on the outputs at A = 1, b = 0, which needs no
    model: it tells directions, but hardly how noisy they are.
    """
    if weights is not None and prediction.requires_grad:
        return [
            torch.autograd.grad(prediction, weights, gradient.to(prediction), retain_graph=True)[0]
            .flatten()
            .float()
            for gradient in gradients
        ]
    z = prediction.detach().float()
    z = z.flatten(1) if z.ndim > 1 else z[:, None]
    found = []
    for gradient in gradients:
        flat = gradient.reshape(z.shape).float()
        mixed = flat.T @ z if z.shape[1] <= MOST_MIXED else (flat * z).sum(0)
        found.append(torch.cat([mixed.flatten(), flat.sum(0)]))
    return found
