"""Boxes of other coordinates, units and shapes than most, which would be trained in silence."""

import numpy as np
import pytest
import torch
from conftest import step
from shapely.geometry import Polygon
from shapely_boxes import shapely_iou
from test_boxes_iou import as_corners
from torch import nn

from learned_surrogates import FitValues, LearnedSurrogateLoss, boxes

# In metres, as on a map: float32 has room there for every half of one.
AFAR = 4.5e6
PLACES = {
    "rotated": (boxes.Rotated(), [AFAR, AFAR, 0, 0, 0]),
    "upright": (boxes.AxisAligned(), [AFAR] * 4),
    "centred": (boxes.AxisAligned("cxcywh"), [AFAR, AFAR, 0, 0]),
    "corners": (boxes.Corners(), [AFAR] * 8),
}
NUMBERS = {4: "upright", 5: "rotated", 8: "corners"}


def near_and_far(case):
    """Predictions and targets about the origin, and the same ones on a map; float64."""
    random = torch.Generator().manual_seed(0)
    like = {"generator": random, "dtype": torch.float64}
    sides = 2 + 5 * torch.rand(16, 2, **like)
    target = torch.cat([5 * torch.rand(16, 2, **like), sides, torch.rand(16, 1, **like)], 1)
    prediction = target + 0.2 * torch.randn(16, 5, **like)
    form = {
        "rotated": lambda b: b,
        "centred": lambda b: b[:, :4],
        "upright": lambda b: torch.cat([b[:, :2], b[:, :2] + b[:, 2:4]], 1),
        "corners": as_corners,
    }[case]
    place = torch.tensor(PLACES[case][1], dtype=torch.float64)
    near = form(prediction), form(target)
    return near, tuple(each + place for each in near)


@pytest.mark.parametrize("case", PLACES)
def test_equal_boxes_of_a_map_are_equal(case):
    task, far = PLACES[case][0], near_and_far(case)[1]
    assert shapely_iou(*task.decode(task.read(far[1], far[1]))) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("case", PLACES)
def test_boxes_of_a_map_are_those_about_the_origin_to_metric_and_surrogate(case):
    task = PLACES[case][0].for_surrogate("target-frame")
    batches = [task.read(*each) for each in near_and_far(case)]
    near, far = (shapely_iou(*task.decode(batch)) for batch in batches)
    assert far == pytest.approx(near, abs=1e-6)
    seen, elsewhere = (task.represent(batch.prediction, batch) for batch in batches)
    torch.testing.assert_close(elsewhere, seen, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", PLACES)
def test_predictions_in_half_precision_count_as_the_numbers_that_they_are(case, dtype):
    task = PLACES[case][0].for_surrogate("target-frame")
    near, target = (100 * each for each in near_and_far(case)[0])
    prediction = near.to(dtype)
    batches = [task.read(each, target) for each in (prediction, prediction.float())]
    given, same = (task.decode(batch)[0] for batch in batches)
    torch.testing.assert_close(given, same, rtol=0, atol=0)
    seen, expected = (task.represent(batch.prediction, batch) for batch in batches)
    torch.testing.assert_close(seen, expected, rtol=0, atol=0)


def test_the_gradient_of_boxes_of_a_map_is_that_about_the_origin():
    near, far = (
        step(
            LearnedSurrogateLoss(boxes.rotated_iou, task=boxes.Rotated(), fit=FitValues(warm_up=0)),
            (prediction.requires_grad_(), target),
        )
        for prediction, target in near_and_far("rotated")
    )
    torch.testing.assert_close(far, near, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("numbers", NUMBERS)
def test_distortions_of_boxes_of_a_map_have_the_ious_that_they_say(numbers):
    labels = near_and_far(NUMBERS[numbers])[1][1]
    generator = boxes.RandomDistortions(labels, pool=400)
    pairs = generator(1, np.random.default_rng(0))
    assert pairs[0].dtype == torch.float64
    assert shapely_iou(*generator._pairs) == pytest.approx(generator.ious.numpy(), abs=1e-4)
    assert (torch.histc(generator.ious, 4, 0, 1) / 400 - 0.25).abs().max() < 0.1


def polygon_iou(prediction, target):
    """As it is written for scene text: shapely refuses polygons that cross themselves."""
    a, b = (Polygon(each.reshape(4, 2).tolist()) for each in (prediction, target))
    shared = a.intersection(b).area
    return shared / (a.area + b.area - shared)


def test_corners_are_in_an_order_in_which_no_sides_cross():
    generator = boxes.RandomDistortions(numbers=8, pool=4000)
    generator(1, np.random.default_rng(0))
    assert all(Polygon(each.view(4, 2).tolist()).is_valid for each in generator._pairs[0])
    for prediction, target in zip(*(side[:200] for side in generator._pairs)):
        assert np.isfinite(polygon_iou(prediction, target))
    assert shapely_iou(*generator._pairs) == pytest.approx(generator.ious.numpy(), abs=1e-4)


def test_predictions_whose_sides_cross_become_their_hull_and_others_stay():
    random = torch.randn(500, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    task = boxes.Corners(noise=0.5)
    batch = task.read(random, random)
    metrics_own, _ = task.decode(batch)
    valid = torch.tensor([Polygon(each.view(4, 2).tolist()).is_valid for each in random])
    assert 50 < valid.sum() < 450
    assert torch.equal(metrics_own[valid], random[valid])
    assert shapely_iou(metrics_own, random) == pytest.approx(1)
    drawn, _ = task.sample(batch, torch.Generator().manual_seed(0))
    for corners in (*metrics_own, *drawn):
        assert Polygon(corners.view(4, 2).tolist()).is_valid


def test_a_metric_by_shapely_trains_on_corners_that_cross():
    criterion = LearnedSurrogateLoss(
        polygon_iou,
        task=boxes.Corners(),
        higher_is_better=True,
        best=1.0,
        fit=FitValues(warm_up=10, generator=boxes.RandomDistortions(numbers=8, pool=500)),
    )
    target = as_corners(near_and_far("rotated")[0][1]).float()
    crossing = target[:, [0, 1, 4, 5, 2, 3, 6, 7]].requires_grad_()
    criterion(crossing, target).backward()
    assert crossing.grad.isfinite().all()
    assert criterion.stats["metric/mean"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("bad", [-0.5, torch.nan])
def test_a_weight_that_would_lead_away_from_the_target_is_refused(bad):
    criterion = LearnedSurrogateLoss(boxes.rotated_iou, task=boxes.Rotated())
    pred = torch.tensor([[4.0, 4.0, 3.0, 2.0, 0.1]]).repeat(3, 1).requires_grad_()
    with pytest.raises(ValueError, match=r"weight of sample 1 is (-0\.5|nan): it must not be"):
        criterion(pred, pred.detach() + 0.1, torch.tensor([1.0, bad, 0.0]))


def test_a_base_loss_may_count_boxes_of_no_weight():
    def smooth(prediction, target, weight):
        each = nn.functional.smooth_l1_loss(prediction, target, reduction="none").mean(1)
        return each * weight

    target = torch.tensor([[0.0, 0, 10, 10]]).expand(5, 4)
    start = target + torch.rand(5, 4)
    criterion = LearnedSurrogateLoss(
        boxes.rotated_iou, task=boxes.AxisAligned(), base_loss=smooth, reduction="sum"
    )
    prediction, weight = start.clone().requires_grad_(), torch.tensor([1.0, 0, 1, 2, 0.5])
    criterion(prediction, target, weight).backward()
    leaf = start.clone().requires_grad_()
    smooth(leaf, target, weight).sum().backward()
    torch.testing.assert_close(prediction.grad, leaf.grad)


def test_a_generator_of_another_kind_of_boxes_is_refused_by_name():
    few = boxes.RandomDistortions(numbers=4, pool=200)
    criterion = LearnedSurrogateLoss(
        boxes.rotated_iou, task=boxes.Rotated(), fit=FitValues(generator=few, warm_up=10)
    )
    with pytest.raises(ValueError, match=r"prediction must have shape \(batch, 5\).*\(192, 4\)"):
        criterion(torch.rand(4, 5, requires_grad=True), torch.rand(4, 5))
