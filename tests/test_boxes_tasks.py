"""How boxes are read, represented and handed to the metric; and the signature of detectors."""

import math

import pytest
import torch
from conftest import assert_identical, figures, make_arguments, make_loss, snapshot, step, train
from hypothesis import given, strategies as st
from test_boxes_iou import as_corners
from torch import nn

from learned_surrogates import Fit, FitValues, LearnedSurrogateLoss, Tensors, boxes
from learned_surrogates.boxes import rotated_iou
from learned_surrogates.boxes._target_frame import log_or_line

ROTATED = boxes.Rotated().for_surrogate("target-frame")
TASKS = {
    "rotated": ROTATED,
    "upright": boxes.AxisAligned().for_surrogate("target-frame"),
    "corners": boxes.Corners().for_surrogate("target-frame"),
}


def pair(kind, count=50, seed=0):
    """Targets, and predictions nearby."""
    random = torch.Generator().manual_seed(seed)
    centre = 40 * torch.rand(count, 2, generator=random, dtype=torch.float64)
    sides = 4 + 10 * torch.rand(count, 2, generator=random, dtype=torch.float64)
    angle = 6 * torch.rand(count, 1, generator=random, dtype=torch.float64) - 3
    target = torch.cat([centre, sides, angle], 1)
    noise = torch.randn(count, 5, generator=random, dtype=torch.float64)
    prediction = target + noise * torch.tensor([1.0, 1.0, 1.0, 1.0, 0.2], dtype=torch.float64)
    if kind == "rotated":
        return prediction, target
    if kind == "corners":
        return as_corners(prediction), as_corners(target)
    return tuple(
        torch.cat([b[:, :2] - b[:, 2:4], b[:, :2] + b[:, 2:4]], 1) for b in (prediction, target)
    )


def in_convention(rectangles, convention):
    """Rotated boxes as mmrotate describes them under this name (docs/en/intro.md)."""
    rows = []
    for x, y, w, h, angle in rectangles.tolist():
        if convention == "oc":  # (0, pi / 2]
            while not 0 < angle <= math.pi / 2:
                w, h, angle = h, w, angle + math.copysign(math.pi / 2, -angle or 1)
        else:  # the long edge is the width; [-pi / 2, pi / 2) or [-pi / 4, 3 pi / 4)
            if h > w:
                w, h, angle = h, w, angle + math.pi / 2
            low = {"le90": -math.pi / 2, "le135": -math.pi / 4}[convention]
            angle = (angle - low) % math.pi + low
        rows.append([x, y, w, h, angle])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("surrogate", ROTATED.surrogates)
@pytest.mark.parametrize("convention", ["oc", "le90", "le135"])
def test_every_convention_of_mmrotate_is_the_same_to_the_surrogate(convention, surrogate):
    task = ROTATED.for_surrogate(surrogate)
    prediction, target = pair("rotated")
    prediction[:10, 3] = prediction[:10, 2]
    target[5:15, 3] = target[5:15, 2]
    expected = task.see(prediction, target), task.expand(target)
    others = in_convention(prediction, convention), in_convention(target, convention)
    assert (others[0] - prediction).abs().amax(1).gt(0.1).double().mean() > 0.3
    torch.testing.assert_close(task.see(others[0], others[1]), expected[0])
    torch.testing.assert_close(task.expand(others[1]), expected[1])
    torch.testing.assert_close(rotated_iou(*others), rotated_iou(prediction, target))


@pytest.mark.parametrize("surrogate", ROTATED.surrogates)
@pytest.mark.parametrize("order", [[1, 2, 3, 0], [2, 3, 0, 1], [3, 2, 1, 0], [0, 2, 1, 3]])
def test_corners_may_come_in_any_order(order, surrogate):
    task = TASKS["corners"].for_surrogate(surrogate)
    prediction, target = pair("corners")
    prediction[:20] += torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    expected = task.see(prediction, target), task.expand(target)
    others = [b.unflatten(1, (4, 2))[:, order].flatten(1) for b in (prediction, target)]
    torch.testing.assert_close(task.see(others[0], target), expected[0])
    torch.testing.assert_close(task.see(prediction, others[1]), expected[0])
    torch.testing.assert_close(task.expand(others[1]), expected[1])


def test_corners_of_a_square_may_come_in_any_order():
    task = TASKS["corners"].for_surrogate("embedding")
    square = as_corners(torch.tensor([[5.0, 6.0, 3.0, 3.0, 0.4]]))
    turned = square.roll(2, 1)
    torch.testing.assert_close(task.expand(turned), task.expand(square))


@pytest.mark.parametrize("kind", TASKS)
def test_a_target_is_the_origin_of_its_own_frame(kind):
    _, target = pair(kind)
    task = TASKS[kind]
    torch.testing.assert_close(task.see(target, target), task.expand(target), atol=1e-12, rtol=0)
    assert not task.expand(target).any()


@pytest.mark.parametrize("kind", TASKS)
def test_the_frame_sees_neither_place_nor_scale_nor_direction(kind):
    prediction, target = pair(kind)
    expected = TASKS[kind].see(prediction, target)

    def moved(some):
        if kind == "rotated":
            factors = torch.tensor([3.0, 3.0, 3.0, 3.0, 1.0])
            centre = some[:, :2] @ torch.tensor([[0.6, 0.8], [-0.8, 0.6]]).double()
            some = torch.cat([centre, some[:, 2:4], some[:, 4:] + math.atan2(0.8, 0.6)], 1)
            return some * factors + torch.tensor([7.0, -9.0, 0.0, 0.0, 0.0])
        return 3 * some + 7

    actual = TASKS[kind].see(moved(prediction), moved(target))
    # A target that the turn takes past pi / 2 is looked at from its other end.
    other_end = (actual[:, :1] * expected[:, :1] < 0) & (kind == "rotated")
    actual[:, :2] = torch.where(other_end, -actual[:, :2], actual[:, :2])
    torch.testing.assert_close(actual, expected)


@given(
    centre=st.floats(-2, 2),
    side=st.floats(0.05, 4),
    turn=st.floats(-0.7, 0.7),
    aspect=st.floats(1, 8),
)
def test_iou_depends_on_what_the_frame_shows_alone(centre, side, turn, aspect):
    """Two pairs alike in the frame, one upright and small, one turned and large."""
    target = torch.tensor([[0.0, 0.0, aspect, 1.0, 0.0]], dtype=torch.float64)
    other = torch.tensor([[centre, centre / 2, side * aspect, side, turn]], dtype=torch.float64)
    c, s = math.cos(1), math.sin(1)
    far = torch.tensor([[100.0, 50.0, 10 * aspect, 10.0, 1.0]], dtype=torch.float64)
    x, y = 10 * centre, 5 * centre
    far_other = torch.tensor(
        [[100 + c * x - s * y, 50 + s * x + c * y, 10 * side * aspect, 10 * side, 1 + turn]],
        dtype=torch.float64,
    )
    if aspect > 1.001:
        torch.testing.assert_close(ROTATED.see(other, target), ROTATED.see(far_other, far))
    torch.testing.assert_close(rotated_iou(other, target), rotated_iou(far_other, far))


def test_the_papers_six_numbers():
    task = ROTATED.for_surrogate("embedding")
    target = torch.tensor([[3.0, 4.0, 6.0, 2.0, 0.5]])
    expected = torch.tensor([[3.0, 4.0, 6.0, 2.0, math.cos(0.5), math.sin(0.5)]])
    torch.testing.assert_close(task.expand(target), expected)


def test_a_placed_frame_has_the_targets_numbers_beside_it():
    prediction, target = pair("rotated")
    placed, numbers = (
        ROTATED.for_surrogate("placed-frame"),
        ROTATED.for_surrogate("embedding").expand(target),
    )
    z, y = placed.see(prediction, target), placed.expand(target)
    torch.testing.assert_close(z, torch.cat([ROTATED.see(prediction, target), numbers], 1))
    torch.testing.assert_close(y, torch.cat([torch.zeros(50, 6).double(), numbers], 1))


def test_the_frames_six_numbers():
    along = math.atan2(4, 3)
    target = torch.tensor([[10.0, 20.0, 10.0, 2.5, along]])
    prediction = torch.tensor([[13.0, 24.0, 20.0, 1.25, along + 0.1]])
    turn = math.sin(0.1)
    expected = torch.tensor([[0.5, 0.0, math.log(2), -math.log(2), 4 * turn, turn / 4]]).asinh()
    torch.testing.assert_close(ROTATED.see(prediction, target), expected)


def test_the_logarithm_goes_on_as_a_line():
    ratio = torch.linspace(-1, 2, 301, dtype=torch.float64).requires_grad_()
    value = log_or_line(ratio)
    large = ratio.detach() > 0.1
    torch.testing.assert_close(value[large], ratio[large].log())
    (slope,) = torch.autograd.grad(value.sum(), ratio)
    assert (slope > 0).all()
    assert slope.max() == pytest.approx(10)
    assert value.diff().max() < 0.11


def test_axis_aligned_forms_are_one():
    prediction, target = (b.float() for b in pair("upright"))
    task = boxes.AxisAligned("cxcywh").for_surrogate("target-frame")

    def as_centre(some):
        return torch.cat([(some[:, :2] + some[:, 2:]) / 2, some[:, 2:] - some[:, :2]], 1)

    batch = task.read(as_centre(prediction), as_centre(target))
    expected = TASKS["upright"].read(prediction, target)
    torch.testing.assert_close(task.decode(batch), TASKS["upright"].decode(expected))
    torch.testing.assert_close(
        task.represent(batch.prediction, batch),
        TASKS["upright"].represent(prediction, expected),
        atol=1e-5,
        rtol=1e-4,
    )


# What the metric gets


def test_the_metric_gets_the_boxes():
    prediction, target = (b.float() for b in pair("rotated"))
    decoded = ROTATED.decode(ROTATED.read(prediction, target))
    assert_identical(decoded, (prediction, target))


def test_negative_predicted_sizes_are_none():
    prediction = torch.tensor([[1.0, 2.0, -3.0, 4.0, 0.5], [1.0, 2.0, 3.0, math.nan, 0.5]])
    decoded, _ = ROTATED.decode(ROTATED.read(prediction, torch.ones(2, 5)))
    expected = prediction.clone()
    expected[0, 2] = 0
    assert_identical(decoded, expected)
    crossed = torch.tensor([[4.0, 1.0, 2.0, 3.0]])
    decoded, _ = TASKS["upright"].decode(TASKS["upright"].read(crossed, torch.ones(1, 4)))
    assert decoded.tolist() == [[3.0, 1.0, 3.0, 3.0]]


@pytest.mark.parametrize("sizes", [(-5.0, 3.0), (-0.1, -0.1), (0.0, 4.0)])
def test_the_gradient_leads_back_from_a_negative_size(sizes):
    target = torch.tensor([[10.0, 10.0, 8.0, 5.0, 0.2]])
    criterion = LearnedSurrogateLoss(
        rotated_iou, task=ROTATED, surrogate="target-frame", seed=1, fit=Fit(batch_size=128)
    )
    criterion.warm_up(updates=150)
    prediction = torch.tensor([[10.0, 10.0, *sizes, 0.2]]).requires_grad_()
    _, gradient = step(criterion.eval(), (prediction, target))
    assert gradient.isfinite().all()
    assert gradient[0, 2] < 0


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("surrogate", ROTATED.surrogates)
def test_gradients_are_finite_for_the_worst_of_boxes(kind, surrogate):
    task = TASKS[kind].for_surrogate(surrogate)
    prediction, target = (b.float() for b in pair(kind, 8))
    with torch.no_grad():
        prediction[0], target[1], prediction[2] = 0.0, 0.0, target[2]
        prediction[3], prediction[4] = 1e6, -1e6
        if kind != "corners":
            target[5, 2:4] = torch.tensor([1.0, 0.0]) + (target[5, :2] if kind == "upright" else 0)
    prediction.requires_grad_()
    z = task.represent(prediction, task.read(prediction, target))
    z.sum().backward()
    assert z.isfinite().all()
    assert prediction.grad.isfinite().all()
    if surrogate == "target-frame":
        assert z.abs().max() < 60


@pytest.mark.parametrize("kind", TASKS)
def test_noise_of_draws_is_in_units_of_the_target(kind):
    task = type(TASKS[kind])(noise=0.1)
    _, target = pair(kind, 1)
    target = target.float().expand(4000, -1)
    batch = task.read(target.clone(), target)
    drawn, others = task.sample(batch, torch.Generator().manual_seed(0))
    assert_identical(others, target)
    z = TASKS[kind].see(drawn, target).sinh()[:, : {"rotated": 2, "upright": 2, "corners": 8}[kind]]
    # Of an upright box's centre, the mean of two corners.
    width = 0.1 / math.sqrt(2) if kind == "upright" else 0.1
    assert z.std(0).tolist() == pytest.approx([width] * z.shape[1], rel=0.08)
    assert z.mean(0).abs().max() < 0.01


# The signature of detectors


def plain_reduction(value, weight, reduction, avg_factor):
    """mmdetection's `weight_reduce_loss`."""
    if weight is not None:
        value = value * (weight.mean(-1) if weight.ndim > 1 else weight)
    if avg_factor is None:
        return {"none": value, "mean": value.mean(), "sum": value.sum()}[reduction]
    return value.sum() / avg_factor if reduction == "mean" else value


@pytest.mark.parametrize("case", ["boxes", "boxes-frame"])
@pytest.mark.parametrize("own", ["none", "mean", "sum"])
@pytest.mark.parametrize("override", [None, "none", "mean", "sum"])
@pytest.mark.parametrize("weight", [None, [1.0, 0.0, 2.0, 0.5], "each number"])
@pytest.mark.parametrize("avg_factor", [None, 2.5, torch.tensor(3.0)])
def test_weights_and_factors_are_those_of_mmdetection(case, own, override, weight, avg_factor):
    criterion = make_loss(case, reduction="none")
    train(criterion, case, range(2))
    pred, target = make_arguments(case, 7)
    value = criterion.eval()(pred, target)
    if weight == "each number":
        weight = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
        weight[3] = 0
    elif weight is not None:
        weight = torch.tensor(weight)
    criterion.reduction = own
    reduction = override or own
    if reduction == "sum" and avg_factor is not None:
        with pytest.raises(ValueError, match="avg_factor"):
            criterion(pred, target, weight, avg_factor, override)
        return
    expected = plain_reduction(value, weight, reduction, avg_factor)
    loss = criterion(pred, target, weight, avg_factor=avg_factor, reduction_override=override)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss.sum(), pred)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), pred)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("case", ["boxes", "boxes-frame"])
def test_boxes_without_weight_are_as_if_they_were_not_there(case):
    """Dense heads give every anchor, and the negatives a weight of zero and any target."""
    criterion, twin = make_loss(case), make_loss(case)
    for seed in range(3):
        pred, target = make_arguments(case, seed)
        dense = torch.cat([pred.detach(), torch.full((3, 5), math.nan)]).requires_grad_()
        targets = torch.cat([target, torch.full((3, 5), -1.0)])
        weight = torch.tensor([1.0] * 4 + [0.0] * 3)
        loss = criterion(dense, targets, weight, avg_factor=4)
        loss.backward()
        expected, gradient = step(twin, (pred, target))
        torch.testing.assert_close(loss.detach(), expected)
        torch.testing.assert_close(dense.grad[:4], gradient)
        assert not dense.grad[4:].any()
    assert_identical(snapshot(criterion), snapshot(twin))
    assert figures(criterion) == pytest.approx(figures(twin), nan_ok=True)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("case", ["boxes", "boxes-frame"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weightless", [True, False])
def test_a_batch_without_positives_is_a_zero_that_can_be_backwarded(
    case, first, reduction, weightless
):
    criterion = make_loss(case)
    if not first:
        train(criterion, case, range(2))
    before = snapshot(criterion)
    head = nn.Linear(3, 5)
    pred = head(torch.randn(6 if weightless else 0, 3))
    target, weight = torch.zeros(len(pred), 5), torch.zeros(len(pred), 5)
    factor = None if reduction == "sum" else 0
    loss = criterion(pred, target, weight, avg_factor=factor, reduction_override=reduction)
    assert loss.shape == ((len(pred),) if reduction == "none" else ())
    assert not loss.any()
    loss.sum().backward()
    assert not head.weight.grad.any()
    assert_identical(snapshot(criterion), before)
    plain = criterion(head(torch.randn(0, 3)), torch.zeros(0, 5))
    assert plain == 0
    plain.backward()


def test_it_takes_what_smooth_l1_loss_takes():
    pred, target = make_arguments("boxes")
    nn.SmoothL1Loss()(pred, target).backward()
    loss = make_loss("boxes")(pred, target)
    assert loss.shape == ()
    loss.backward()
    assert pred.grad.isfinite().all()


PRED, TARGET = torch.ones(2, 5), torch.ones(2, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], TARGET), TypeError, "pred must be a tensor of boxes; got list"),
        ((PRED, [1.0]), TypeError, "target must be a tensor of boxes; got list"),
        ((PRED.long(), TARGET), TypeError, "pred must be floating point"),
        ((PRED[:, :4], TARGET), ValueError, r"pred must have shape \(batch, 5\).*\(2, 4\)"),
        ((PRED, TARGET[0]), ValueError, r"target must have shape \(batch, 5\).*\(5,\)"),
        ((PRED, TARGET[:1]), ValueError, r"same shape.*\(2, 5\) and \(1, 5\)"),
        ((PRED, TARGET * math.nan), ValueError, "target of sample 0.*not finite"),
        ((PRED, -TARGET), ValueError, "target of sample 0.*negative width"),
        ((PRED, TARGET, [1, 1]), TypeError, "weight must be a tensor"),
        ((PRED, TARGET, torch.ones(3)), ValueError, r"weight must have shape \(2,\) or \(2, 5\)"),
        ((PRED, TARGET, torch.ones(2, device="meta")), TypeError, "weight is on the meta device"),
        ((PRED, TARGET, torch.ones(2) * 1j), TypeError, "weight must be real"),
        ((PRED, TARGET, None, "two"), TypeError, "avg_factor must be a number"),
        ((PRED, TARGET, None, torch.ones(2)), ValueError, r"avg_factor must be one.*\(2,\)"),
        ((PRED, TARGET, None, torch.tensor(1j)), TypeError, "avg_factor must be real"),
        ((PRED, TARGET, None, None, "avg"), ValueError, "reduction_override must be one of"),
        ((PRED,), TypeError, "target"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    criterion = make_loss("boxes")
    with pytest.raises(error, match=message):
        criterion(*arguments)
    assert criterion.stats["calls"] == 0


def test_a_factor_that_does_not_go_with_the_reduction_leaves_the_loss_as_it_was():
    criterion = make_loss("boxes")
    train(criterion, "boxes", range(2))
    before = snapshot(criterion)
    with pytest.raises(ValueError, match="avg_factor is what a 'mean' divides by"):
        criterion(*make_arguments("boxes"), avg_factor=2, reduction_override="sum")
    assert_identical(snapshot(criterion), before)


def test_weights_and_factors_have_no_say_in_the_graph():
    weight, factor = torch.rand(4, requires_grad=True), torch.tensor([3.0], requires_grad=True)
    with torch.inference_mode():
        other = weight.clone()
    criterion = make_loss("boxes")
    loss = criterion(*make_arguments("boxes"), weight, factor)
    assert loss.shape == ()
    expected = make_loss("boxes")(*make_arguments("boxes"), other, 3.0)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    assert weight.grad is factor.grad is None
    with torch.no_grad():
        assert not criterion(*make_arguments("boxes"), weight, factor).requires_grad


def test_unusable_tasks_are_refused():
    with pytest.raises(ValueError, match="form must be one of 'xyxy', 'cxcywh'"):
        boxes.AxisAligned("xywh")
    with pytest.raises(ValueError, match="noise must be at least 0"):
        boxes.Rotated(noise=-1)
    with pytest.raises(ValueError, match="needs a task with a distribution"):
        LearnedSurrogateLoss(rotated_iou, task=boxes.Rotated(), draws=2)


def test_repr_of_a_task():
    assert repr(boxes.Rotated()) == "Rotated()"
    assert repr(boxes.Corners(noise=0.1)) == "Corners(noise=0.1)"
    assert repr(boxes.AxisAligned("cxcywh", noise=0.1)) == "AxisAligned('cxcywh', noise=0.1)"


def test_a_surrogate_of_ones_own_sees_what_embedding_sees():
    seen = []

    class Own(nn.Module):
        def forward(self, z, y):
            seen.append((z, y))
            return (z - y).square().sum(-1)

    pred, target = make_arguments("boxes")
    LearnedSurrogateLoss(rotated_iou, task=boxes.Rotated(), surrogate=Own()).eval()(pred, target)
    numbers = ROTATED.for_surrogate("embedding")
    assert_identical(seen[0][1], numbers.expand(target))
    torch.testing.assert_close(seen[0][0].detach(), numbers.see(pred, target).detach())


def test_the_papers_form_without_labels_has_no_generator():
    with pytest.raises(ValueError, match="needs generator="):
        LearnedSurrogateLoss(
            rotated_iou, task=ROTATED, surrogate="embedding", fit=FitValues(data="global")
        )


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("surrogate", ROTATED.surrogates)
def test_every_form_learns(kind, surrogate):
    criterion = LearnedSurrogateLoss(
        rotated_iou, task=TASKS[kind], surrogate=surrogate, fit=FitValues(warm_up=0, every=1)
    )
    for seed in range(3):
        prediction, target = (b.float() for b in pair(kind, 8, seed))
        loss, gradient = step(criterion, (prediction.requires_grad_(), target))
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
    assert criterion.stats["updates"] == 3


def test_without_a_gradient_it_is_the_metric_until_the_surrogate_has_warmed_up():
    random = torch.Generator().manual_seed(0)
    labels = torch.rand(16, 5, generator=random) * 20 + 5
    boxed = labels + torch.randn(16, 5, generator=random)
    fit = FitValues(warm_up=20)
    criterion = LearnedSurrogateLoss(boxes.rotated_iou, task=boxes.Rotated(), fit=fit)
    error = 1 - boxes.rotated_iou(boxed, labels)
    wild = boxed.clone()
    wild[3] = torch.nan
    with torch.no_grad():
        assert criterion(boxed, labels).item() == pytest.approx(error.mean().item(), rel=1e-5)
        none = LearnedSurrogateLoss(
            boxes.rotated_iou, task=boxes.Rotated(), fit=fit, reduction="none"
        )
        torch.testing.assert_close(none(boxed, labels), error)
        assert none(wild, labels).isnan().nonzero().tolist() == [[3]]
        assert criterion.stats["calls"] == 0


def test_without_a_gradient_what_is_skipped_counts_as_the_others_and_nothing_changes():
    def failing(prediction, target):
        if prediction[0] > 50:
            raise ValueError
        return float((prediction - target).abs().mean())

    criterion = LearnedSurrogateLoss(
        failing, task=Tensors(smoothing=0), batched=False, on_metric_error="skip"
    )
    prediction, before = torch.ones(4, 3), snapshot(criterion)
    prediction[0] = 100.0
    with torch.no_grad():
        assert criterion(prediction, torch.zeros(4, 3)).item() == 1.0
    assert_identical(snapshot(criterion), before)
