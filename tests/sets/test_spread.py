"""Gradients where the noise's width moves with the predictions, against automatic ones."""

import pytest
import torch
from conftest import step
from plain_sets import random_lists, random_masks
from torch.special import ndtr

from learned_surrogates import LearnedSurrogateLoss, ranking, segmentation
from learned_surrogates._sets.spread import Spread
from learned_surrogates.segmentation._expected_iou import expected_iou

RANDOM = torch.Generator().manual_seed(0)
BETTER = {"higher_is_better": True, "best": 1.0}


WEIGHTS = torch.linspace(-1, 1, 9, dtype=torch.float64)


def of_threshold(z, width, present):
    """A mean that no scale changes: distances from 0.7 in widths."""
    return (ndtr((z - 0.7) / width) * WEIGHTS).where(present, 0.0).sum().square()


def of_order(z, width, present):
    """A mean that neither scale nor shift changes."""
    between = ndtr((z[:, :, None] - z[:, None]) / width[:, :, None]) * WEIGHTS
    return between.where(present[:, :, None] & present[:, None], 0.0).sum().square()


def deviations(z, present):
    rows = [row[mask].std(correction=0) for row, mask in zip(z, present)]
    return torch.stack(rows)[:, None]


@pytest.mark.parametrize("mean, centre", [(of_threshold, 0.7), (of_order, None), (of_order, 0.2)])
def test_the_gradient_is_the_automatic_one_through_the_width(mean, centre):
    z = 3 * torch.randn(4, 9, generator=RANDOM, dtype=torch.float64) + 1
    present = torch.rand(z.shape, generator=RANDOM) < 0.8
    spread = Spread(z, present, centre)
    torch.testing.assert_close(spread.deviation, deviations(z, present))
    moving, constant = (z.clone().requires_grad_() for _ in range(2))
    mean(moving, deviations(moving, present), present).backward()
    mean(constant, spread.deviation, present).backward()
    torch.testing.assert_close(spread.moving(constant.grad), moving.grad)
    assert (constant.grad - moving.grad).abs().max() > 0.1 * moving.grad.abs().max()


def test_nothing_is_gained_by_a_larger_scale():
    """Lists apart, and images together: at a right angle to what a scale moves."""
    scores, marks, _ = random_lists()

    def two_places(scores, targets):
        return targets[scores.topk(2).indices] @ torch.tensor([0.7, 0.3])

    criterion = LearnedSurrogateLoss(two_places, task=ranking.Lists(), **BETTER)
    gradient = step(criterion, (scores, marks.float()))[1]
    centred = scores.detach() - scores.detach().mean(1, keepdim=True)
    along = torch.cosine_similarity(gradient, centred, dim=1)
    torch.testing.assert_close(along, torch.zeros(6), atol=1e-6, rtol=0)
    assert gradient.any()

    logits, masks = random_masks()
    criterion = LearnedSurrogateLoss(segmentation.iou, task=segmentation.Masks(), draws=2)
    gradient = step(criterion, (logits, masks))[1]
    assert gradient.any()
    along = torch.cosine_similarity(gradient.flatten(), logits.detach().flatten(), dim=0)
    assert abs(along) < 1e-6


def test_the_closed_form_of_masks_follows_the_width():
    logits, masks = random_masks(dtype=torch.float64)
    criterion = LearnedSurrogateLoss(segmentation.iou, task=segmentation.Masks())
    gradient = step(criterion, (logits, masks))[1]
    own = logits.detach().clone().requires_grad_()
    expected = expected_iou(own, masks, 0.3 * own.std(correction=0))
    (1 - expected).mean().backward()
    torch.testing.assert_close(gradient, own.grad, rtol=1e-4, atol=1e-7)


def test_what_is_impossible_or_not_finite_moves_no_width():
    z = torch.randn(1, 40, generator=RANDOM)
    gradient = torch.randn(1, 40, generator=RANDOM)
    everywhere = torch.ones(1, 40, dtype=torch.bool)
    expected = Spread(z[:, 3:], everywhere[:, 3:], 0.0).moving(gradient[:, 3:])
    z[0, :2], z[0, 2], gradient[0, 2] = -1e9, torch.nan, torch.nan
    found = Spread(z, everywhere, 0.0).moving(gradient)
    torch.testing.assert_close(found[:, 3:], expected)
    torch.testing.assert_close(found[:, :2], gradient[:, :2])


def test_where_nothing_varies_the_width_is_constant():
    gradient = torch.randn(2, 5, generator=RANDOM)
    constant = torch.full((2, 5), 1.1)
    constant[1] = 1e9
    constant[1, 0] += 64  # rounding of so large numbers
    spread = Spread(constant, torch.ones(2, 5, dtype=torch.bool))
    assert spread.deviation.tolist() == [[1.0], [1.0]]
    torch.testing.assert_close(spread.moving(gradient), gradient)
