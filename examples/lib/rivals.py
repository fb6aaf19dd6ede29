"""Losses and sorters of other packages, which are imported when they are asked for."""

import importlib
from functools import cache
from typing import Any

import torch
from torch import Tensor

# The distributions of the modules that the benchmarks ask for.
PACKAGES = {
    "aeon": "aeon",
    "diffsort": "diffsort",
    "libauc": "libauc",
    "mlxtend": "mlxtend",
    "monai": "monai",
    "proxy_losses": "proxy-losses",
    "pytorch_metric_learning": "pytorch-metric-learning",
    "river": "river",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "torchsort": "torchsort",
}


def rival(module: str) -> Any:
    """A module of a package of the dependency group `rivals`.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = PACKAGES[module.partition(".")[0]]
        how = (
            "pip install --no-build-isolation torchsort, which compiles it for your PyTorch"
            if package == "torchsort"
            else "pip install --group rivals"
        )
        raise ModuleNotFoundError(f"{package} is not there ({error}): {how}") from error


def standardised(scores: Tensor) -> Tensor:
    """Lists `(lists, n)` of mean 0 and standard deviation 1."""
    centred = scores - scores.mean(1, keepdim=True)
    return centred / centred.std(1, correction=0, keepdim=True).clamp(min=1e-6)


def torchsort_ranks(scores: Tensor, *, strength: float) -> Tensor:
    """Soft ranks of Blondel et al. (ICML 2020), descending from 1."""
    soft_rank = rival("torchsort").soft_rank
    return soft_rank(-standardised(scores), regularization_strength=strength)


def diffsort_ranks(scores: Tensor, *, steepness: float) -> Tensor:
    """Of an odd-even sorting network (Petersen et al., ICLR 2022), descending from 1.

    Items are shuffled first: how far an item's rank is off, and its gradient with it, depends on
    where it enters the network, which does not average out where places in a list have a meaning.
    """
    places = torch.arange(1, scores.shape[1] + 1).to(scores)
    order = torch.rand(scores.shape, generator=_SHUFFLES).to(scores.device).argsort(1)
    shuffled = standardised(scores).gather(1, order)
    _, permutations = _network(scores.shape[1], steepness)(-shuffled)
    return (permutations @ places).gather(1, order.argsort(1))


_SHUFFLES = torch.Generator().manual_seed(0)


@cache
def _network(length: int, steepness: float) -> torch.nn.Module:
    return rival("diffsort").DiffSortNet("odd_even", length, steepness=steepness)
