"""The gradient check, and the page with pictures."""

import importlib.util
import itertools
import math
import warnings
from dataclasses import replace

import pytest
import torch
from conftest import assert_identical, l1, make_arguments, make_loss, snapshot, train
from torch import nn
from within import core_of

from learned_surrogates import Filter, Fit, LearnedSurrogateLoss, Tensors, boxes, text


class Ruler(nn.Module):
    """A surrogate whose gradient is the true one, or its opposite."""

    def __init__(self, sign: float = 1.0):
        super().__init__()
        self.sign = sign

    def forward(self, z, y):
        return 10 + self.sign * (z - y).abs().sum(-1)


def opaque_l1(prediction, target):
    return l1(prediction, target).numpy()


def batches(count=3, batch=32):
    return [make_arguments(seed=seed, batch=batch) for seed in range(count)]


VALUES, MEASURED = Tensors(smoothing=0), Tensors()
BOTH = pytest.mark.parametrize("task", [VALUES, MEASURED], ids=["values", "measured"])


def known_loss(metric=opaque_l1, sign=1.0, **options) -> LearnedSurrogateLoss:
    return LearnedSurrogateLoss(metric, **{"task": VALUES, "surrogate": Ruler(sign), **options})


@pytest.mark.parametrize(("sign", "helps"), [(1.0, True), (-1.0, False)])
def test_it_tells_a_right_gradient_from_a_wrong_one(sign, helps):
    check = known_loss(sign=sign).check(batches())
    assert check.helps == helps
    assert check.samples == 96
    changes = check.directions["this loss"].change
    assert all((change < 0) == helps for change in changes)
    assert ("lowers the error." in str(check)) == helps


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_measured_gradient_is_right_whatever_the_surrogate(sign):
    check = known_loss(sign=sign, task=MEASURED).check(batches())
    assert check.helps
    assert check.samples == 96
    assert check.expected
    assert all(change < 0 for change in check.directions["this loss"].change)
    # It is of 32 draws, and what it is held against of as many others.
    assert check.directions["this loss"].cosine > 0.8
    assert check.agreement > 0.5


def test_the_change_is_that_of_the_metric_after_the_step():
    arguments = make_arguments(batch=32)
    check = known_loss().check([arguments])
    prediction, target = arguments[0].detach(), arguments[1]
    spread = (prediction - prediction.mean(1, keepdim=True)).norm(dim=1).mean()
    direction = (prediction - target).sign()
    unit = direction * spread / direction.norm(dim=1).square().mean().sqrt()
    for step, change in zip(check.steps, check.directions["this loss"].change, strict=True):
        moved = l1(prediction - step * unit, target) - l1(prediction, target)
        assert change == pytest.approx(moved.mean().item(), abs=1e-5)
    assert check.error == pytest.approx(l1(prediction, target).mean().item(), rel=1e-5)
    assert check.decoded_error == check.error
    assert not check.expected
    assert "as decoded" not in str(check)


@pytest.mark.parametrize(("width", "far"), [(0.1, False), (3.0, True)])
def test_it_also_says_what_the_predictions_themselves_make(width, far):
    """Of draws that are far from them, too: what the loss lowers may be another thing."""
    arguments = make_arguments(batch=64)
    check = LearnedSurrogateLoss(opaque_l1, task=Tensors(smoothing=width)).check([arguments])
    prediction, target = arguments[0].detach(), arguments[1]
    own = l1(prediction, target)
    assert check.decoded_error == pytest.approx(own.mean().item(), rel=1e-5)
    assert check.error > check.decoded_error
    changes = check.directions["as decoded"]
    assert len(changes.change) == len(check.steps)
    assert all(change < 0 for change in changes.change[:2])
    assert f"{check.decoded_error:.4g} as decoded" in str(check)
    assert ("draw nearer" in str(check)) == far
    assert "as decoded" not in check.text
    assert len(check.plot().axes) == 2


def test_samples_that_fail_as_decoded_alone_are_left_out_of_that_alone():
    arguments = make_arguments(batch=64)
    own = arguments[0].detach()

    def metric(prediction, target):
        undrawn = (prediction == own).all(1)
        return l1(prediction, target).where(~(undrawn & (torch.arange(64) < 60)), torch.nan)

    options = {"batched": True, "higher_is_better": False, "on_metric_error": "skip"}
    check = LearnedSurrogateLoss(metric, **options).check([arguments])
    assert (check.samples, check.left_out) == (64, 0)
    assert math.isfinite(check.decoded_error)
    assert all(math.isfinite(change) for change in check.directions["as decoded"].change)


def l1_by_output(prediction, target):
    return (prediction - target).abs()


@pytest.mark.parametrize("metric", [l1, l1_by_output])
def test_the_cosine_with_a_differentiable_metric(metric):
    check = known_loss(metric, base_loss=nn.MSELoss()).check(batches())
    assert check.agreement == pytest.approx(1.0)
    assert check.directions["this loss"].cosine == pytest.approx(1.0)
    assert 0 < check.directions["base loss"].cosine < 0.99


def test_there_is_no_cosine_where_there_is_no_truth():
    check = known_loss().check(batches())
    assert math.isnan(check.agreement)
    assert math.isnan(check.directions["this loss"].cosine)


@BOTH
def test_cosines_with_respect_to_parameters(task):
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    inputs, target = torch.randn(64, 3), torch.randn(64, 3)
    check = known_loss(l1, -1.0, task=task).check(
        [(model(inputs), target)], parameters=model.parameters()
    )
    assert check.of_parameters
    if task is VALUES:
        assert check.directions["this loss"].cosine == pytest.approx(-1.0, abs=1e-5)
    else:
        assert check.directions["this loss"].cosine > 0.9


@BOTH
def test_predictions_without_a_graph_have_no_parameters(task):
    with pytest.raises(ValueError, match="gradients enabled"):
        known_loss(l1, task=task).check(
            [(torch.randn(4, 3), torch.randn(4, 3))], parameters=nn.Linear(3, 3).parameters()
        )


@pytest.mark.parametrize("case", ["ctc-auto", "characters-auto"])
def test_the_score_estimate_is_the_expected_metrics_gradient(case):
    """Against a finite difference of the mean over very many draws, along one direction.

    Both have a standard error of some .01; tolerance .06 of a slope of about 1.
    """
    criterion = make_loss(case)
    arguments = make_arguments(case, seed=3, batch=1, length=6)
    task, metric = criterion.task, core_of(criterion).oracle.metric
    random = torch.Generator().manual_seed(0)

    def expected(prediction, draws):
        batch = task.read(prediction, *arguments[1:])
        batch_of = [metric(*task.sample(batch, random))[0] for _ in range(draws)]
        return torch.stack(batch_of).mean().item()

    batch = task.read(*arguments)
    total = torch.zeros_like(arguments[0])
    mean = expected(arguments[0], 500)
    count = 8000
    for _ in range(count):
        *pair, score = task.sample_with_score(batch, random)
        total += (metric(*pair)[0].float() - mean) * score / count
    direction = total.detach() / total.detach().norm()
    step = 0.5
    ahead, behind = (
        expected(arguments[0].detach() + sign * step * direction, 6000) for sign in (1, -1)
    )
    assert (ahead - behind) / (2 * step) == pytest.approx(total.norm().item(), abs=0.06)


@pytest.mark.parametrize("case", ["tensors", "measured", "ctc-auto", "characters-auto"])
def test_a_check_changes_nothing(case):
    criterion = make_loss(case)
    train(criterion, case, range(3))
    before, stats = snapshot(criterion), dict(criterion.stats)
    stream = torch.random.get_rng_state()
    criterion.check([make_arguments(case, 7)], draws=4)
    assert_identical(snapshot(criterion), before)
    assert criterion.stats == pytest.approx(stats, nan_ok=True)
    assert torch.equal(torch.random.get_rng_state(), stream)


@pytest.mark.parametrize("case", ["tensors", "measured", "characters-auto"])
def test_a_check_of_a_loss_that_was_never_called_changes_nothing(case):
    criterion, never = make_loss(case, warm_up=20), make_loss(case, warm_up=20)
    criterion.check([make_arguments(case, 7)], draws=2)
    assert_identical(snapshot(criterion), snapshot(never))
    assert_identical(train(criterion, case, range(3)), train(never, case, range(3)))


@BOTH
def test_a_single_number_a_sample_is_moved_too(task):
    random = torch.Generator().manual_seed(0)
    arguments = torch.randn(64, generator=random), torch.randn(64, generator=random)
    metric = lambda z, y: (z - y).abs().numpy()  # noqa: E731
    assert known_loss(metric, task=task).check([arguments]).helps


@BOTH
def test_samples_on_which_the_metric_fails_are_left_out(task):
    def failing(prediction, target):
        if target[0] > 0:
            raise OSError
        return l1(prediction[None], target[None])[0]

    arguments = make_arguments(batch=32)
    options = {"task": task, "base_loss": nn.MSELoss(reduction="sum")}
    usable = arguments[1][:, 0] <= 0
    alone = known_loss(failing, batched=False, **options).check(
        [tuple(part[usable] for part in arguments)]
    )
    check = known_loss(failing, on_metric_error="skip", **options).check([arguments])
    assert check.samples == alone.samples == usable.sum()
    # Draws of other samples are in between.
    assert check.error == pytest.approx(alone.error, rel=1e-6 if task is VALUES else 0.05)
    assert check.helps
    assert sum(count for *_, count in check.bins) == check.samples
    with pytest.raises(ValueError, match="does not fail"):
        known_loss(failing, on_metric_error="skip", **options).check(
            [tuple(part[~usable] for part in arguments)]
        )


@BOTH
def test_samples_whose_prediction_is_not_finite_are_left_out(task):
    """Also where the metric has a value for them."""
    prediction, target = make_arguments(batch=32)
    prediction = prediction.detach().clone()
    prediction[:4] = torch.nan
    metric = lambda z, y: l1(z.nan_to_num(), y)  # noqa: E731
    check = known_loss(metric, task=task).check([(prediction, target)])
    assert (check.samples, check.left_out) == (28, 4)
    assert "4 more samples are left out" in str(check)
    with pytest.raises(ValueError, match="4 samples are left out"):
        known_loss(metric, task=task).check([(prediction[:4], target[:4])])


def test_the_truth_of_a_metric_for_one_sample():
    class Largest(nn.Module):
        def forward(self, z, y):
            return (z - y).abs().amax(-1)

    metric = lambda z, y: (z - y).abs().max()  # noqa: E731
    check = known_loss(metric, surrogate=Largest(), batched=False).check(batches())
    assert check.directions["this loss"].cosine == pytest.approx(1.0)


def test_the_truth_of_a_metric_for_a_batch_of_one():
    class Largest(nn.Module):
        def forward(self, z, y):
            return (z - y).abs().amax(-1)

    metric = lambda z, y: (z - y).abs().amax(-1).mean(dim=0) if z.ndim == 2 else None  # noqa: E731
    check = known_loss(metric, surrogate=Largest()).check(batches())
    assert check.directions["this loss"].cosine == pytest.approx(1.0)


def test_there_is_no_truth_in_another_form_than_the_predictions():
    task = boxes.AxisAligned("cxcywh")
    target = torch.tensor([[4.0, 5.0, 2.0, 3.0]]).repeat(32, 1)
    prediction = target + 0.1 * torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    check = LearnedSurrogateLoss(l1, task=task, surrogate=Ruler()).check([(prediction, target)])
    assert math.isnan(check.agreement)


def test_one_odd_sample_does_not_hide_the_truth_of_the_others():
    prediction, target = (part.detach() for part in make_arguments("boxes", batch=32))
    prediction[0, 2] = -1.0  # the metric gets 0
    criterion = make_loss("boxes", l1, base_loss=nn.L1Loss())
    empty = prediction[:0], target[:0]
    check = criterion.check([(prediction, target), empty])
    assert check.samples == 32
    assert check.directions["base loss"].cosine == pytest.approx(1.0)


def test_numbers_in_padding_do_not_matter():
    criterion = make_loss("ctc-auto", base_loss=nn.CTCLoss())
    log_probs, targets, lengths, target_lengths = make_arguments("ctc", batch=16)
    checks = []
    for padding in (0.0, math.nan):
        present = torch.arange(len(log_probs))[:, None] < lengths
        padded = log_probs.detach().where(present[..., None], padding)
        checks.append(criterion.check([(padded, targets, lengths, target_lengths)], draws=8))
    for check in checks:
        assert math.isfinite(check.directions["this loss"].cosine)
    cosines = [check.directions["this loss"].cosine for check in checks]
    assert cosines[0] == pytest.approx(cosines[1])
    changes = checks[1].directions["this loss"].change
    assert len(set(changes)) > 1


def test_classes_may_be_masked():
    criterion = make_loss("characters-auto")
    logits, target = make_arguments("characters", batch=16)
    masked = logits.detach().clone()
    masked[:, -1] = -math.inf
    check = criterion.check([(masked, target.clamp(max=5))], draws=8)
    assert all(math.isfinite(change) for change in check.directions["this loss"].change)
    assert len(set(check.directions["this loss"].change)) > 1
    assert math.isfinite(check.directions["this loss"].cosine)


def test_predictions_made_in_inference_mode():
    criterion = make_loss("characters-auto", base_loss=nn.CrossEntropyLoss())
    expected = criterion.check([make_arguments("characters", 3)], draws=4)
    with torch.inference_mode():
        copies = [part.clone() for part in make_arguments("characters", 3)]
        inside = criterion.check([copies], draws=4)
    assert str(criterion.check([copies], draws=4)) == str(inside) == str(expected)


@BOTH
def test_small_steps_of_predictions_in_half_precision(task):
    prediction, target = make_arguments(batch=64)
    half = (100 + prediction).detach().to(torch.bfloat16), (100 + target).to(torch.bfloat16)
    same = tuple(part.float() for part in half)
    criterion = known_loss(task=task)
    assert str(criterion.check([half])) == str(criterion.check([same]))


@BOTH
def test_gradients_of_parameters_are_added_up_over_batches(task):
    model = nn.Linear(3, 3)
    inputs, target = torch.randn(64, 3), torch.randn(64, 3)
    criterion = known_loss(l1, task=task, base_loss=nn.MSELoss(reduction="sum"))
    cosines = [
        criterion.check(
            [(model(x), y) for x, y in zip(inputs.split(size), target.split(size), strict=True)],
            parameters=model.parameters(),
        )
        .directions["base loss"]
        .cosine
        for size in (64, 16)
    ]
    # The truth is known, or estimated by draws that are others in other batches.
    assert cosines[0] == pytest.approx(cosines[1], abs=1e-6 if task is VALUES else 0.1)


def test_one_unbatched_sample_has_no_standard_error():
    log_probs, targets, lengths, target_lengths = make_arguments("ctc", batch=1)
    one = log_probs.detach()[:, 0], targets[0, : target_lengths[0]], lengths[0], target_lengths[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check = make_loss("ctc-auto", base_loss=nn.CTCLoss()).check([one], draws=4)
        assert "nan" in str(check)
        assert not check.helps
        assert "One sample does not tell" in check.verdict
        if importlib.util.find_spec("matplotlib"):
            check.plot().canvas.draw()


def test_named_arguments_and_noise():
    criterion = known_loss(task=Tensors(smoothing=0.3))
    prediction, target = make_arguments(batch=64)
    check = criterion.check([{"prediction": prediction, "target": target}], draws=16)
    assert check.expected
    assert check.helps
    assert check.directions["this loss"].cosine > 0.5


@BOTH
def test_bins_hold_all_samples_once(task):
    check = known_loss(task=task).check(batches())
    assert sum(count for *_, count in check.bins) == check.samples
    assert all(low <= high for low, high, _ in check.bins)
    assert len(check.directions["this loss"].by_bin) == len(check.bins)


def test_no_batches_and_too_few_draws_are_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        make_loss().check([])
    with pytest.raises(ValueError, match="draws"):
        make_loss().check([make_arguments()], draws=1)


@BOTH
def test_pictures(task):
    pytest.importorskip("matplotlib")
    figure = known_loss(l1, task=task, base_loss=nn.MSELoss()).check(batches()).plot()
    what = "error" if task is VALUES else "expected error"
    assert figure.axes[0].get_ylabel() == f"change of the {what}"


@pytest.mark.parametrize("options", [{}, {"filter": 0.5}, {"penalty_weight": 0.1}])
def test_the_report_has_a_picture_a_section(options, tmp_path):
    pytest.importorskip("matplotlib")
    criterion = make_loss(base_loss=nn.MSELoss(), **options)
    for seed in range(12):
        criterion(*make_arguments(seed=seed, batch=16))
    page = criterion.report(tmp_path / "new" / "report.html", criterion.check(batches()))
    written = page.read_text()
    assert written.count("<img") == 5
    assert "of a constant predictor" in written
    assert "http" not in written  # everything is on the page


def test_the_report_of_a_loss_that_was_never_called(tmp_path):
    pytest.importorskip("matplotlib")
    page = make_loss().report(tmp_path / "report.html")
    assert "warming up" in page.read_text()


def test_a_report_without_predictions_says_so(tmp_path):
    pytest.importorskip("matplotlib")
    criterion = make_loss("characters", data="local-global", base_loss=nn.CrossEntropyLoss())
    criterion.warm_up(updates=5)
    assert "too few predictions" in criterion.report(tmp_path / "r.html").read_text()


def test_the_report_on_another_default_device(tmp_path):
    pytest.importorskip("matplotlib")
    criterion = make_loss(filter=Filter(2.0, relative=True))
    train(criterion, "tensors", range(5))
    with torch.device("meta"):
        page = criterion.report(tmp_path / "r.html")
    assert page.read_text().count("<img") == 4


def test_the_report_names_metrics_that_look_like_html(tmp_path):
    pytest.importorskip("matplotlib")
    page = LearnedSurrogateLoss(lambda z, y: l1(z, y), task=Tensors()).report(tmp_path / "r.html")
    assert "&lt;lambda&gt;" in page.read_text()


def test_the_history_survives_saving_and_stays_small(monkeypatch):
    monkeypatch.setattr("learned_surrogates._learning.history.MOST_ROWS", 10)
    criterion, twin = make_loss(), make_loss()
    train(criterion, "tensors", range(35))
    history = core_of(criterion).learner.history
    assert 5 <= len(history.rows) <= 10
    calls = history.columns()["calls"]
    assert calls == sorted(calls)
    assert len({b - a for a, b in itertools.pairwise(calls)}) == 1
    twin.load_state_dict(criterion.state_dict())
    for loss in (criterion, twin):
        train(loss, "tensors", range(35, 50))
    assert_identical(snapshot(twin), snapshot(criterion))


def test_edit_distance_of_text_can_be_checked_at_once():
    """The net that comes with the package needs no call before."""
    random = torch.Generator().manual_seed(1)
    target = torch.randint(1, 9, (96, 5), generator=random)
    logits = 2 * torch.randn(96, 9, 5, generator=random)
    logits.scatter_add_(1, target[:, None], torch.full((96, 1, 5), 4.0))
    task = text.PerPosition("abcdefgh")
    check = LearnedSurrogateLoss(text.edit_distance, task=task).check([(logits, target)], draws=128)
    assert check.helps
    assert check.directions["this loss"].cosine > 0.75


@pytest.mark.parametrize("samples, most", [(3, 3), (32, 6)])
def test_what_chance_alone_lowers_is_seldom_said_to_help(samples, most):
    """A metric whose mean under noise is the same everywhere; 2.5 % of 60 are 1.5."""

    def chance(z, y):
        return (z.double() * 1e4).frac().abs().mean(-1)

    found = 0
    for seed in range(60):
        torch.manual_seed(seed)
        criterion = LearnedSurrogateLoss(chance, higher_is_better=False, surrogate="none")
        batch = torch.randn(samples, 5), torch.randn(samples, 5)
        found += criterion.check([batch], draws=4).helps
    assert found <= most


def test_it_says_how_noisy_a_step_is_where_that_is_known():
    random = torch.Generator().manual_seed(0)
    criterion = LearnedSurrogateLoss(lambda z, y: (z[:, 0] > 9).float(), surrogate="none")
    batches = [(torch.randn(8, 40, generator=random), torch.zeros(8, 40)) for _ in range(60)]
    assert math.isnan(criterion.check(batches[:2]).signal_to_noise)
    metric = lambda z, y: (z[:, 0] > torch.rand(len(z), generator=random)).float()  # noqa: E731
    noisy = LearnedSurrogateLoss(metric, batched=True, surrogate="none", fit=Fit(every=1))
    for z, y in batches:
        noisy(z.clone().requires_grad_(), y).backward()
    check = noisy.check(batches[:4])
    assert check.signal_to_noise == noisy.stats["gradient/signal_to_noise"] < 0.5
    assert ("a step's signal over noise" in str(check)) == (check.signal_to_noise < 0.05)
    told = replace(check, signal_to_noise=0.01)
    assert "was 0.01: the smaller" in str(told)
