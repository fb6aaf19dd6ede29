"""The closed form against shapely, and what any IoU must satisfy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, strategies as st
from shapely_boxes import shapely_giou, shapely_iou

from learned_surrogates import FitValues, LearnedSurrogateLoss, boxes
from learned_surrogates.boxes import rotated_giou, rotated_iou
from learned_surrogates.boxes._geometry import area, canonical
from learned_surrogates.boxes._overlap import overlap_with_quadrilateral, spanned

PAIRS = [(rotated_iou, shapely_iou), (rotated_giou, shapely_giou)]

coordinates = st.sampled_from([0.0, 1.0, -3.5, 250.0]) | st.floats(-1e3, 1e3, width=32)
sizes = st.sampled_from([0.0, 1e-6, 1e-3, 1.0, 7.0, 1e4, 1e6]) | st.floats(0, 100, width=32)
angles = st.sampled_from([k * math.pi / 4 for k in range(-4, 9)]) | st.floats(-20, 20)
box_tuples = st.tuples(coordinates, coordinates, sizes, sizes, angles)


@st.composite
def pairs(draw):
    """Two boxes: unrelated, or in one of the relations where geometry likes to fail."""
    x, y, width, height, angle = first = draw(box_tuples)
    relation = draw(st.sampled_from(["any", "same", "touching", "within", "far", "turned", "near"]))
    cosine, sine = math.cos(angle), math.sin(angle)
    second = {
        "any": lambda: draw(box_tuples),
        "same": lambda: first,
        "touching": lambda: (x + cosine * width, y + sine * width, width, height, angle),
        "within": lambda: (x, y, width / 2, height / 4, angle),
        "far": lambda: (x + 1e7, y - 1e7, width, height, draw(angles)),
        "turned": lambda: (x, y, height, width, angle + draw(st.integers(-4, 4)) * math.pi / 2),
        "near": lambda: (x + 1e-9, y, width, height + 1e-12, angle + 1e-10),
    }[relation]()
    return torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64)


def tolerance(a, b):
    """What shapely may be off: it works in absolute coordinates, on boxes however thin."""
    numbers = torch.cat([a[:, :4], b[:, :4]]).abs()
    sides = numbers[:, 2:]
    thinnest = sides[sides > 0].min().item() if (sides > 0).any() else 1.0
    return 1e-12 + 64 * np.finfo(float).eps * numbers.max().item() / thinnest


@pytest.mark.parametrize(("fast", "reference"), PAIRS)
@given(pair=pairs())
@example(pair=(torch.zeros(1, 5).double(), torch.zeros(1, 5).double()))
def test_agrees_with_shapely(fast, reference, pair):
    allowed = tolerance(*pair)
    if allowed < 1e-3:
        assert fast(*pair).item() == pytest.approx(reference(*pair)[0], abs=allowed)


@given(pair=pairs())
def test_bounds_and_symmetry(pair):
    """Also where shapely itself is of no use: a relative size of 1e12, or 1e7 apart."""
    iou, giou = rotated_iou(*pair).item(), rotated_giou(*pair).item()
    assert 0 <= iou <= 1
    assert -1 <= giou <= iou
    slack = max(1e-9, tolerance(*pair))
    assert rotated_iou(*pair[::-1]).item() == pytest.approx(iou, abs=slack)


@pytest.mark.parametrize(("fast", "reference"), PAIRS)
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-13), (torch.float32, 5e-6)])
def test_agrees_with_shapely_on_many_pairs(fast, reference, dtype, allowed):
    a, b = random_boxes(3000, 0), random_boxes(3000, 1)
    error = np.abs(fast(a.to(dtype), b.to(dtype)).double().numpy() - reference(a, b))
    assert error.max() < allowed
    assert (rotated_iou(a, b) > 0.05).double().mean() > 0.2


def random_boxes(count, seed):
    random = torch.Generator().manual_seed(seed)
    centre = 40 * torch.rand(count, 2, generator=random, dtype=torch.float64)
    sides = 20 * torch.randn(count, 2, generator=random, dtype=torch.float64).exp()
    angle = 20 * torch.rand(count, 1, generator=random, dtype=torch.float64) - 10
    return torch.cat([centre, sides, angle], 1)


def random_points(count, seed):
    random = torch.Generator().manual_seed(seed)
    return 50 * torch.rand(count, 8, generator=random, dtype=torch.float64)


def as_corners(rectangles):
    """Corners by the definition of mmrotate's documentation, one box at a time."""
    rows = []
    for x, y, w, h, angle in rectangles.tolist():
        c, s = math.cos(angle), math.sin(angle)
        for u, v in (
            (-0.5 * w, -0.5 * h),
            (0.5 * w, -0.5 * h),
            (0.5 * w, 0.5 * h),
            (-w / 2, h / 2),
        ):
            rows += [x + c * u - s * v, y + s * u + c * v]
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 8)


def upright(count, seed):
    rectangles = random_boxes(count, seed)
    return torch.cat([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:4]], 1)


@pytest.mark.parametrize(("fast", "reference"), PAIRS)
@pytest.mark.parametrize("first", [upright, random_boxes, random_points])
@pytest.mark.parametrize("second", [upright, random_boxes, random_points])
def test_all_forms_agree_with_shapely(fast, reference, first, second):
    """Random points make crossed and reentrant quadrilaterals too: they are their hulls."""
    a, b = first(500, 2), second(500, 3)
    np.testing.assert_allclose(fast(a, b).numpy(), reference(a, b), atol=1e-13)


def test_corners_and_boxes_are_one():
    a, b = random_boxes(200, 4), random_boxes(200, 5)
    expected = rotated_iou(a, b)
    shuffled = as_corners(b).unflatten(1, (4, 2))[:, [2, 0, 3, 1]].flatten(1)
    for x, y in ((as_corners(a), b), (a, as_corners(b)), (as_corners(a), shuffled)):
        torch.testing.assert_close(rotated_iou(x, y), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("degenerate", ["point", "line", "two points", "triangle"])
def test_corners_without_much_of_an_area(degenerate):
    corners = {
        "point": [1.0, 1.0] * 4,
        "line": [0.0, 0.0, 2.0, 2.0, 1.0, 1.0, 4.0, 4.0],
        "two points": [0.0, 0.0, 3.0, 1.0] * 2,
        "triangle": [0.0, 0.0, 4.0, 0.0, 0.0, 4.0, 0.0, 4.0],
    }[degenerate]
    a = torch.tensor([corners], dtype=torch.float64)
    for b in (a, torch.tensor([[1.0, 1.0, 3.0, 2.0, 0.3]]).double(), random_points(1, 0)):
        for x, y in ((a, b), (b, a)):
            for fast, reference in PAIRS:
                assert fast(x, y).item() == pytest.approx(reference(x, y)[0], abs=1e-12)
                leaves = [side.clone().requires_grad_() for side in (x, y)]
                gradients = torch.autograd.grad(fast(*leaves).sum(), leaves)
                assert all(gradient.isfinite().all() for gradient in gradients)


SQUARE = [0.0, 0.0, 2.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("other", "iou", "giou"),
    [
        (SQUARE, 1, 1),
        ([1.0, 0.0, 2.0, 2.0, 0.0], 1 / 3, 1 / 3),
        ([2.0, 0.0, 2.0, 2.0, 0.0], 0, 0),
        ([4.0, 0.0, 2.0, 2.0, 0.0], 0, -1 / 3),
        ([0.0, 0.0, 1.0, 1.0, 0.0], 1 / 4, 1 / 4),
        ([0.0, 0.0, 2.0, 2.0, math.pi / 4], math.sqrt(0.5), None),
        ([0.0, 0.0, 2.0, 2.0, math.pi / 2], 1, 1),
        ([0.0, 0.0, 2.0, 0.0, 0.0], 0, 0),
        ([1e9, 0.0, 2.0, 2.0, 1.0], 0, -1),
    ],
)
def test_values_known_by_hand(other, iou, giou):
    pair = torch.tensor([[SQUARE], [other]], dtype=torch.float64)
    assert rotated_iou(*pair).item() == pytest.approx(iou, abs=1e-12)
    if giou is not None:
        assert rotated_giou(*pair).item() == pytest.approx(giou, abs=1e-8)


@given(box=box_tuples, turns=st.integers(-3, 3))
def test_descriptions_of_one_rectangle_have_one_canonical_form(box, turns):
    x, y, width, height, angle = box
    sides = (height, width) if turns % 2 else (width, height)
    other = (x, y, *sides, angle + turns * math.pi / 2)
    one, two = canonical(torch.tensor([box, other], dtype=torch.float64))
    assert one[2] >= one[3]
    limit = math.pi / 4 if width == height else math.pi / 2
    assert -limit <= one[4] <= limit
    torch.testing.assert_close(one[:4], two[:4], atol=0, rtol=0)
    # At the end of the range, rounding decides between its two ends.
    assert abs(math.remainder(float(one[4] - two[4]), 2 * limit)) < 1e-12


@pytest.mark.parametrize("fast", [rotated_iou, rotated_giou])
@pytest.mark.parametrize("second", [upright, random_boxes, random_points])
def test_gradient_is_that_of_finite_differences(fast, second):
    a, b = random_boxes(6, 6), second(6, 7)
    assert torch.autograd.gradcheck(fast, (a.requires_grad_(), b.requires_grad_()))


@pytest.mark.parametrize("fast", [rotated_iou, rotated_giou])
@given(pair=pairs())
def test_gradient_is_finite_everywhere(fast, pair):
    prediction, target = pair[0].clone().requires_grad_(), pair[1]
    fast(prediction, target).sum().backward()
    assert prediction.grad.isfinite().all()


def plain_hull_area(points):
    """Gift wrapping."""
    start = current = min(points)
    total, seen = 0.0, 0
    while seen == 0 or current != start:
        after = points[0] if points[0] != current else points[1]
        for p in points:
            turn = (after[0] - current[0]) * (p[1] - current[1]) - (after[1] - current[1]) * (
                p[0] - current[0]
            )
            if turn < 0:
                after = p
        total += current[0] * after[1] - current[1] * after[0]
        current, seen = after, seen + 1
    return total / 2


def test_area_spanned_is_that_of_gift_wrapping():
    random = torch.Generator().manual_seed(0)
    points = torch.randn(50, 8, 2, generator=random, dtype=torch.float64)
    expected = [plain_hull_area([tuple(p) for p in sample]) for sample in points.tolist()]
    torch.testing.assert_close(spanned(points), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("fast", [rotated_iou, rotated_giou])
def test_types_and_shapes(fast):
    a, b = random_boxes(6, 8), random_boxes(6, 9)
    assert fast(a, b).dtype == torch.float64
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert fast(a.to(dtype), b.to(dtype)).dtype == torch.float32
    assert fast(a.float(), b).dtype == fast(a, b.float()).dtype == torch.float64
    assert fast(a.numpy(), b.tolist()).shape == (6,)
    assert fast(a[:0], b[:0]).shape == (0,)
    for one, other in ((a[0], b[0]), (a[0], b[0].numpy()), (a[0].numpy(), b[0])):
        assert fast(one, other).shape == ()
        torch.testing.assert_close(fast(one, other), fast(a, b)[0])
    with pytest.raises(ValueError, match=r"target must have shape .*; its shape is \(5,\)"):
        fast(a[:1], b[0])
    with pytest.raises(ValueError, match=r"prediction must have shape .*; its shape is \(5,\)"):
        fast(a[0], b[:1])
    assert (fast.higher_is_better, fast.best) == (True, 1.0)


BAD = [
    ([0.0, 0.0, -1.0, 2.0, 0.0], "negative width"),
    ([0.0, 0.0, 1.0, -2.0, 0.0], "negative height"),
    ([0.0, math.nan, 1.0, 2.0, 0.0], "not finite"),
    ([0.0, 0.0, math.inf, 2.0, 0.0], "not finite"),
    ([0.0, 0.0, -1.0, 2.0], "negative width x2 - x1"),
    ([0.0, 3.0, 1.0, 2.0], "negative height y2 - y1"),
    ([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, math.nan], "not finite"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_boxes_are_named(bad, message):
    good = random_boxes(3, 0)
    boxes_with = {4: upright, 5: random_boxes, 8: random_points}[len(bad)](3, 0)
    boxes_with[2] = torch.tensor(bad)
    with pytest.raises(ValueError, match=f"prediction of sample 2.*{message}"):
        rotated_iou(boxes_with, good)
    with pytest.raises(ValueError, match=f"target of sample 2.*{message}"):
        rotated_giou(good, boxes_with)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(2, 6), torch.zeros(2, 5)), ValueError, r"prediction must have shape.*\(2, 6"),
        ((torch.zeros(2, 5), torch.zeros(5)), ValueError, r"target must have shape.*\(5,\)"),
        ((torch.zeros(2, 5), torch.zeros(3, 5)), ValueError, "2 predictions for 3 targets"),
        (("boxes", torch.zeros(3, 5)), TypeError, "prediction must be a tensor; got str"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        rotated_iou(*arguments)


@pytest.mark.parametrize("sample", [0, 2])
def test_a_prediction_that_is_not_finite_shows_in_its_own_loss(sample):
    criterion = LearnedSurrogateLoss(
        rotated_iou, task=boxes.Rotated(), fit=FitValues(data="local"), reduction="none"
    )
    target = random_boxes(4, 0).float()
    prediction = target.clone()
    prediction[sample, 1] = math.nan
    loss = criterion(prediction.requires_grad_(), target)
    assert loss.isnan().tolist() == [each == sample for each in range(4)]


def quadrilaterals(count, random, height=1.0):
    """Convex, counter-clockwise, turned anyhow; their height is this share of their width."""
    angles = (2 * math.pi * torch.rand(count, 4, generator=random, dtype=torch.float64)).sort(1)
    corners = torch.stack([angles.values.cos(), height * angles.values.sin()], 2)
    turn = 2 * math.pi * torch.rand(count, generator=random, dtype=torch.float64)
    axes = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(-1, 2, 2)
    return torch.einsum("bij,bkj->bki", axes, corners)


def test_a_quadrilateral_is_the_same_one_the_other_way_round():
    random = torch.Generator().manual_seed(0)
    first, second = quadrilaterals(100, random), 0.8 * quadrilaterals(100, random)
    shared = overlap_with_quadrilateral(first, second)
    assert (shared > 0.1).any()
    torch.testing.assert_close(overlap_with_quadrilateral(first, second.flip(1)), shared)
    torch.testing.assert_close(overlap_with_quadrilateral(first.flip(1), second), shared)
    torch.testing.assert_close(area(first.flip(1)), area(first))
    assert (area(first) > 0).all()


def test_slivers_keep_their_digits_in_float32():
    random = torch.Generator().manual_seed(0)
    first = quadrilaterals(1000, random, height=1e-2)
    second = first + 1e-3 * torch.randn(1000, 1, 2, generator=random, dtype=torch.float64)
    shared = overlap_with_quadrilateral(first, second)
    rounded = overlap_with_quadrilateral(first.float(), second.float())
    assert ((rounded - shared).abs() / shared.clamp(min=1e-9)).max() < 0.02


def test_no_iou_is_above_one_in_float32():
    random = torch.Generator().manual_seed(0)
    scale = torch.tensor([1000.0, 1000.0, 50.0, 50.0, 180.0])
    same = torch.rand(5000, 5, generator=random) * scale + 0.01
    found = rotated_iou(same, same)
    assert found.max() <= 1
    torch.testing.assert_close(found, torch.ones(5000), rtol=0, atol=1e-4)


@pytest.mark.parametrize("distance", [1e12, 1e18, 1e20, 1e38])
def test_boxes_that_are_extremely_far_apart_have_nothing_in_common(distance):
    first = torch.tensor([[0.0, 0, 1, 1, 0]])
    other = torch.tensor([[distance, 0, 1, 1, 0]], requires_grad=True)
    assert rotated_iou(first, other).tolist() == [0]
    giou = rotated_giou(first, other)
    assert giou.tolist() == pytest.approx([-1])
    giou.sum().backward()
    assert other.grad.isfinite().all()
    small = torch.tensor([[0.0, 0, 1e-14, 1e-14, 0]])
    assert rotated_iou(small, small + torch.tensor([1e6, 0, 0, 0, 0])).tolist() == [0]
