"""The gradient check, and the page with pictures."""

import itertools
import math

import pytest
import torch
from conftest import assert_identical, l1, make_arguments, make_loss, snapshot, train
from torch import nn

from learned_surrogates import LearnedSurrogateLoss, Tensors, text


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


@pytest.mark.parametrize(("sign", "helps"), [(1.0, True), (-1.0, False)])
def test_it_tells_a_right_gradient_from_a_wrong_one(sign, helps):
    check = LearnedSurrogateLoss(opaque_l1, surrogate=Ruler(sign)).check(batches())
    assert check.helps == helps
    assert check.samples == 96
    changes = check.directions["surrogate"].change
    assert all((change < 0) == helps for change in changes)
    assert ("lowers the error." in str(check)) == helps


def test_the_change_is_that_of_the_metric_after_the_step():
    arguments = make_arguments(batch=32)
    check = LearnedSurrogateLoss(opaque_l1, surrogate=Ruler()).check([arguments])
    prediction, target = arguments[0].detach(), arguments[1]
    spread = (prediction - prediction.mean(1, keepdim=True)).norm(dim=1).mean()
    direction = (prediction - target).sign()
    unit = direction * spread / direction.norm(dim=1).square().mean().sqrt()
    for step, change in zip(check.steps, check.directions["surrogate"].change, strict=True):
        moved = l1(prediction - step * unit, target) - l1(prediction, target)
        assert change == pytest.approx(moved.mean().item(), abs=1e-5)
    assert check.error == pytest.approx(l1(prediction, target).mean().item(), rel=1e-5)
    assert not check.expected


def test_the_cosine_with_a_differentiable_metric():
    check = LearnedSurrogateLoss(l1, surrogate=Ruler(), base_loss=nn.MSELoss()).check(batches())
    assert check.agreement == pytest.approx(1.0)
    assert check.directions["surrogate"].cosine == pytest.approx(1.0)
    assert 0 < check.directions["base loss"].cosine < 0.99


def test_there_is_no_cosine_where_there_is_no_truth():
    check = LearnedSurrogateLoss(opaque_l1, surrogate=Ruler()).check(batches())
    assert math.isnan(check.agreement)
    assert math.isnan(check.directions["surrogate"].cosine)


def test_cosines_with_respect_to_parameters():
    model = nn.Linear(3, 3)
    inputs, target = torch.randn(64, 3), torch.randn(64, 3)
    check = LearnedSurrogateLoss(l1, surrogate=Ruler(-1.0)).check(
        [(model(inputs), target)], parameters=model.parameters()
    )
    assert check.of_parameters
    assert check.directions["surrogate"].cosine == pytest.approx(-1.0, abs=1e-5)


def test_predictions_without_a_graph_have_no_parameters():
    with pytest.raises(ValueError, match="gradients enabled"):
        LearnedSurrogateLoss(l1, surrogate=Ruler()).check(
            [(torch.randn(4, 3), torch.randn(4, 3))], parameters=nn.Linear(3, 3).parameters()
        )


@pytest.mark.parametrize("case", ["ctc-grid", "characters-grid"])
def test_the_score_estimate_is_the_expected_metrics_gradient(case):
    """Against a finite difference of the mean over very many draws, along one direction.

    Both have a standard error of some .01; tolerance .06 of a slope of about 1.
    """
    criterion = make_loss(case)
    arguments = make_arguments(case, seed=3, batch=1, length=6)
    task, metric = criterion.task, criterion._learner.pairs.metric
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
        *pair, score = task.scored_sample(batch, random)
        total += (metric(*pair)[0].float() - mean) * score / count
    direction = total.detach() / total.detach().norm()
    step = 0.5
    ahead, behind = (
        expected(arguments[0].detach() + sign * step * direction, 6000) for sign in (1, -1)
    )
    assert (ahead - behind) / (2 * step) == pytest.approx(total.norm().item(), abs=0.06)


@pytest.mark.parametrize("case", ["tensors", "ctc-grid", "characters-grid"])
def test_a_check_changes_nothing(case):
    criterion = make_loss(case)
    train(criterion, case, range(3))
    before, stats = snapshot(criterion), dict(criterion.stats)
    stream = torch.random.get_rng_state()
    criterion.check([make_arguments(case, 7)], draws=4)
    assert_identical(snapshot(criterion), before)
    assert criterion.stats == pytest.approx(stats, nan_ok=True)
    assert torch.equal(torch.random.get_rng_state(), stream)


def test_named_arguments_and_noise():
    criterion = LearnedSurrogateLoss(opaque_l1, surrogate=Ruler(), task=Tensors(noise=0.3))
    prediction, target = make_arguments(batch=64)
    check = criterion.check([{"prediction": prediction, "target": target}], draws=16)
    assert check.expected
    assert check.helps
    assert check.directions["surrogate"].cosine > 0.5


def test_bins_hold_all_samples_once():
    check = LearnedSurrogateLoss(opaque_l1, surrogate=Ruler()).check(batches())
    assert sum(count for *_, count in check.bins) == check.samples
    assert all(low <= high for low, high, _ in check.bins)
    assert len(check.directions["surrogate"].by_bin) == len(check.bins)


def test_no_batches_and_too_few_draws_are_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        make_loss().check([])
    with pytest.raises(ValueError, match="draws"):
        make_loss().check([make_arguments()], draws=1)


def test_pictures():
    pytest.importorskip("matplotlib")
    criterion = LearnedSurrogateLoss(l1, surrogate=Ruler(), base_loss=nn.MSELoss())
    figure = criterion.check(batches()).plot()
    assert figure.axes[0].get_ylabel() == "change of the error"


@pytest.mark.parametrize("options", [{}, {"filter": 0.5}, {"penalty_weight": 0.1}])
def test_the_report_has_a_picture_a_section(options, tmp_path):
    pytest.importorskip("matplotlib")
    criterion = make_loss(base_loss=nn.MSELoss(), **options)
    for seed in range(12):
        criterion(*make_arguments(seed=seed, batch=16))
    page = criterion.report(tmp_path / "new" / "report.html", criterion.check(batches()))
    written = page.read_text()
    assert written.count("<img") == 5
    assert "trusted" in written
    assert "http" not in written  # everything is on the page


def test_the_report_of_a_loss_that_was_never_called(tmp_path):
    pytest.importorskip("matplotlib")
    page = make_loss().report(tmp_path / "report.html")
    assert "warming up" in page.read_text()


def test_the_report_names_metrics_that_look_like_html(tmp_path):
    pytest.importorskip("matplotlib")
    page = LearnedSurrogateLoss(lambda z, y: l1(z, y), task=Tensors()).report(tmp_path / "r.html")
    assert "&lt;lambda&gt;" in page.read_text()


def test_the_history_survives_saving_and_stays_small(monkeypatch):
    monkeypatch.setattr("learned_surrogates._history.MOST_ROWS", 10)
    criterion, twin = make_loss(), make_loss()
    train(criterion, "tensors", range(35))
    history = criterion._learner.history
    assert 5 <= len(history.rows) <= 10
    calls = history.columns()["calls"]
    assert calls == sorted(calls)
    assert len({b - a for a, b in itertools.pairwise(calls)}) == 1
    twin.load_state_dict(snapshot(criterion))
    for loss in (criterion, twin):
        train(loss, "tensors", range(35, 50))
    assert_identical(snapshot(twin), snapshot(criterion))


def test_edit_distance_of_text_can_be_checked_at_once():
    """The net that comes with the package needs no call before."""
    random = torch.Generator().manual_seed(1)
    target = torch.randint(1, 9, (96, 5), generator=random)
    logits = 2 * torch.randn(96, 9, 5, generator=random)
    logits.scatter_add_(1, target[:, None], torch.full((96, 1, 5), 4.0))
    task = text.Characters("abcdefgh")
    check = LearnedSurrogateLoss(text.edit_distance, task=task).check([(logits, target)], draws=128)
    assert check.helps
    assert check.directions["surrogate"].cosine > 0.75
