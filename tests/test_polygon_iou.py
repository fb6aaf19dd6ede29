"""IoU of polygons against counted points, areas by hand, and the closed form of boxes."""

import numpy as np
import pytest
import torch
from conftest import step
from test_boxes_iou import as_corners, random_boxes

from learned_surrogates import FitValues, LearnedSurrogateLoss, boxes
from learned_surrogates.boxes import polygon_iou, rotated_iou

SQUARE = [[0, 0], [4, 0], [4, 4], [0, 4]]
BOW_TIE = [[0, 0], [4, 4], [4, 0], [0, 4]]  # two triangles of area 4
DENTED = [[0, 0], [4, 0], [4, 4], [2, 2], [0, 4]]  # area 12
LINE = [[0, 0], [4, 0], [2, 0]]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (SQUARE, SQUARE[::-1], 1),
        (SQUARE, BOW_TIE, 8 / 16),
        (BOW_TIE, DENTED, 8 / 12),  # the dent is where the tie is not, above
        (SQUARE, LINE, 0),
        (LINE, LINE, 0),
        ([[1, 1]] * 3, SQUARE, 0),
        (SQUARE, [[4, 0], [8, 0], [8, 4], [4, 4]], 0),
    ],
)
def test_areas_by_hand(one, other, expected):
    assert polygon_iou([one], [other]).tolist() == pytest.approx([expected])
    assert polygon_iou(np.array(other), np.array(one)).item() == pytest.approx(expected)


def inside(outline, points):
    """Whether a line from a point to the right crosses the outline an odd number of times."""
    (x, y), (others_x, others_y) = outline.T, np.roll(outline, -1, 0).T
    px, py = points[:, :1], points[:, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x + (py - y) / (others_y - y) * (others_x - x)
    return ((((y > py) != (others_y > py)) & (px < at)).sum(1) % 2).astype(bool)


def test_any_outline_has_the_iou_of_points_that_are_counted():
    """Of seven random corners, which cross in many ways; 160,000 points, so 0.005 is enough."""
    random = np.random.default_rng(0)
    grid = (np.stack(np.meshgrid(range(400), range(400)), -1).reshape(-1, 2) + 0.5) / 400
    ones, others = random.random((2, 20, 7, 2))
    counted = []
    for one, other in zip(ones, others, strict=True):
        a, b = inside(one, grid), inside(other, grid)
        counted.append((a & b).sum() / (a | b).sum())
    np.testing.assert_allclose(polygon_iou(ones, torch.tensor(others)), counted, atol=0.005)


def test_rectangles_have_the_iou_of_the_closed_form():
    a, b = random_boxes(200, 0), random_boxes(200, 1)
    iou = polygon_iou(as_corners(a), as_corners(b).unflatten(1, (4, 2)))
    torch.testing.assert_close(iou, rotated_iou(a, b), rtol=0, atol=1e-12)


def test_outlines_of_several_lengths_and_a_single_pair():
    several = polygon_iou([torch.tensor(DENTED), SQUARE], [SQUARE, DENTED])
    assert several.tolist() == [0.75, 0.75]
    single = polygon_iou(torch.tensor(SQUARE).flatten(), torch.tensor(DENTED))
    assert (single.shape, single.item()) == ((), 0.75)
    assert polygon_iou(torch.ones(0, 8), torch.ones(0, 8)).shape == (0,)


@pytest.mark.parametrize(
    ("prediction", "error", "match"),
    [
        (torch.ones(1, 7), ValueError, r"prediction must have shape .* of sample 0 is \(7,\)"),
        ([SQUARE[:2]], ValueError, r"of sample 0 is \(2, 2\)"),
        (torch.ones(1, 4, 3), ValueError, r"of sample 0 is \(4, 3\)"),
        (torch.tensor(1.0), ValueError, r"of sample 0 is \(\)"),
        (torch.tensor([SQUARE, SQUARE]), ValueError, "2 predictions for 1 targets"),
        ([[[0, 0], [4, 0], [4, float("nan")]]], ValueError, "prediction of sample 0, .* finite"),
        (["a square"], TypeError, "prediction of sample 0 must be corners"),
        (torch.eye(8).to_sparse(), TypeError, "prediction"),
    ],
)
def test_wrong_arguments_are_named(prediction, error, match):
    with pytest.raises(error, match=match):
        polygon_iou(prediction, [SQUARE])


def test_corners_train_on_it():
    """As it comes: it says itself that higher is better."""
    target = as_corners(random_boxes(16, 0)).float()
    prediction = (target + 0.5).requires_grad_()
    criterion = LearnedSurrogateLoss(polygon_iou, task=boxes.Corners(), fit=FitValues(warm_up=2))
    _, gradient = step(criterion, (prediction, target))
    assert gradient.isfinite().all()
    expected = rotated_iou(prediction, target).mean().item()
    assert criterion.stats["metric/mean"] == pytest.approx(expected, abs=1e-5)


def test_outlines_of_curved_text_train_on_it_without_a_task():
    """The gradient is that of a loss which grows with the distance from the target."""
    along = torch.linspace(0, 10, 7)
    upper, lower = torch.stack([along, 3 + along.sin()], 1), torch.stack([along, along.sin()], 1)
    target = torch.cat([upper, lower.flip(0)]).flatten().expand(64, -1)
    torch.manual_seed(0)
    prediction = (target + 0.4 * torch.randn(64, 1)).requires_grad_()
    _, gradient = step(LearnedSurrogateLoss(polygon_iou, draws=16), (prediction, target))
    along = (gradient * (prediction - target)).sum(1)
    assert along.mean() > 3 * along.std() / len(along) ** 0.5
