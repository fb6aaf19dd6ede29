"""Closed-form rivals of the surrogate for rotated boxes: `(pred, target) -> (batch,)` each.

Boxes are `(batch, 5)`: centre x, y, width, height, angle in radians, sizes positive.
"""

import torch
from torch import Tensor

from learned_surrogates import boxes


def smooth_l1_loss(pred: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    """Smooth L1 over the five numbers as they are, summed: the usual proxy (Fast R-CNN)."""
    losses = torch.nn.functional.smooth_l1_loss(pred, target, reduction="none", beta=beta)
    return losses.sum(1)


def rotated_iou_loss(pred: Tensor, target: Tensor) -> Tensor:
    """1 - IoU, exact and differentiable."""
    return 1 - boxes.rotated_iou(pred, target)


def gwd_loss(pred: Tensor, target: Tensor, tau: float = 1.0) -> Tensor:
    """Gaussian Wasserstein distance (Yang et al.: Rethinking Rotated Object Detection with GWD
    Loss, ICML 2021), normalised by size, as `1 - 1 / (tau + log(1 + W))`.

    A box is taken for the Gaussian of mean its centre and covariance R diag(w^2, h^2) R^T / 4:

        W^2 = |m_p - m_t|^2 + tr(S_p) + tr(S_t) - 2 tr((S_p^1/2 S_t S_p^1/2)^1/2)

    and for two by two matrices the last trace is sqrt(tr(S_p S_t) + 2 sqrt(det S_p det S_t)).

    Example:
        >>> box = torch.tensor([[5.0, 5.0, 4.0, 2.0, 0.3]])
        >>> gwd_loss(box, box).item() < 1e-3
        True
    """
    mean_p, covariance_p = gaussian(pred)
    mean_t, covariance_t = gaussian(target)
    root = (covariance_p.det() * covariance_t.det()).clamp(min=1e-12).sqrt()
    coupling = (trace(covariance_p @ covariance_t) + 2 * root).clamp(min=1e-12).sqrt()
    squared = (mean_p - mean_t).square().sum(1)
    squared = squared + trace(covariance_p) + trace(covariance_t) - 2 * coupling
    distance = squared.clamp(min=1e-7).sqrt() / (2 * root.sqrt().sqrt())
    return 1 - 1 / (tau + distance.log1p())


def kld_loss(pred: Tensor, target: Tensor, tau: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of the same Gaussians (Yang et al.: Learning High-Precision
    Bounding Box for Rotated Object Detection via KLD, NeurIPS 2021), as `1 - 1 / (tau + log(1 +
    sqrt(D)))` with

        D = ((m_p - m_t)^T S_p^-1 (m_p - m_t) + tr(S_p^-1 S_t) + log(det S_p / det S_t)) / 2 - 1

    Example:
        >>> box = torch.tensor([[5.0, 5.0, 4.0, 2.0, 0.3]])
        >>> kld_loss(box, box).item() < 1e-3
        True
    """
    mean_p, covariance_p = gaussian(pred)
    mean_t, covariance_t = gaussian(target)
    precision = torch.linalg.inv(covariance_p)
    offset = (mean_p - mean_t)[:, :, None]
    apart = (offset.mT @ precision @ offset).flatten()
    spread = trace(precision @ covariance_t)
    sizes = covariance_p.det().log() - covariance_t.det().log()
    divergence = (apart + spread + sizes) / 2 - 1
    return 1 - 1 / (tau + divergence.clamp(min=1e-7).sqrt().log1p())


def gaussian(rectangles: Tensor) -> tuple[Tensor, Tensor]:
    """Means `(batch, 2)` and covariances `(batch, 2, 2)` of the Gaussians of rotated boxes."""
    cosine, sine = rectangles[:, 4].cos(), rectangles[:, 4].sin()
    turn = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    half = rectangles[:, 2:4].clamp(min=1e-3) / 2
    return rectangles[:, :2], turn @ torch.diag_embed(half.square()) @ turn.mT


def trace(matrices: Tensor) -> Tensor:
    """Of each matrix, `(batch,)`."""
    return matrices.diagonal(dim1=1, dim2=2).sum(1)
