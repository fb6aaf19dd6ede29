"""The study of users' metrics: its problems, its plain controls, its results file."""

import math
import warnings

import pytest
import torch

from benchmarks import any_metric, any_metric_page
from user_metrics import PROBLEMS
from user_metrics.methods import DEAR, METHODS, is_for, make_objective, plain_stats
from user_metrics.results import Results
from user_metrics.score_function import GroupRelative, ScoreFunction
from user_metrics.training import Run, tune

SPLITS = ("train", "validation", "test")


def as_prediction(problem, prediction, target):
    """The best prediction there is."""
    if problem.name == "sincos":
        return torch.stack([torch.deg2rad(target).sin(), torch.deg2rad(target).cos()], 1)
    if not target.is_floating_point():
        one_hot = torch.nn.functional.one_hot(target, prediction.shape[-1])
        return one_hot.float()
    if problem.kind in ("labels", "masks"):
        return target.sign() - 0.5 * (target == 0)
    return target


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_are_sound(name):
    problem = PROBLEMS[name]
    torch.manual_seed(0)
    model = problem.model()
    for split in SPLITS:
        inputs, targets = (part[:50] for part in problem.data[split])
        with torch.no_grad():
            prediction = model(inputs)
        error = problem.metric(prediction, targets)
        assert error.shape == (len(inputs),)
        assert error.isfinite().all()
        assert (error >= 0).all()
        assert problem.proxy(prediction, targets).shape == error.shape
        assert problem.trick is None or problem.trick.loss or problem.trick.decide
        if problem.trick and problem.trick.loss:
            assert problem.trick.loss(prediction, targets).shape == error.shape
        if problem.outputs:
            values = problem.outputs(prediction, targets)
            assert values.shape == prediction.shape[:2]
            torch.testing.assert_close(values.mean(1), error)
        if name != "packs":  # that hold five: no order is right for every demand
            best = problem.metric(as_prediction(problem, prediction, targets), targets)
            torch.testing.assert_close(best, torch.zeros_like(best), atol=1e-6, rtol=0)


def test_there_are_as_many_problems_as_promised():
    assert len(PROBLEMS) >= 20
    assert len({problem.kind for problem in PROBLEMS.values()}) >= 8
    assert sum("real data" in problem.sentence for problem in PROBLEMS.values()) >= 2


def step_metric(prediction, target):
    """One value an output, whose expectation under noise is the normal distribution."""
    return (prediction > target).float()


@pytest.mark.parametrize("form", ["mean", "outputs"])
@pytest.mark.parametrize("calls", [2, 16])
def test_the_score_function_is_unbiased(form, calls):
    torch.manual_seed(0)
    z, target = torch.randn(4, 3), torch.zeros(4, 3)
    metric = step_metric
    if form == "mean":
        metric = lambda prediction, target: step_metric(prediction, target).mean(-1)  # noqa: E731
    loss = ScoreFunction(metric, calls, seed=0)
    width = torch.tensor(0.8)
    normal = torch.distributions.Normal(0.0, float(width))
    expected = normal.log_prob(z).exp() / 3
    # Means over repetitions of the batch: as many independent estimates.
    many = (part.repeat(5000, 1) for part in (z, target))
    estimates = loss.gradient(*many, width).unflatten(0, (5000, 4))
    error = estimates.std(0) / math.sqrt(5000)
    assert ((estimates.mean(0) - expected).abs() < 4 * error).all()


def test_crediting_outputs_with_their_own_value_is_quieter():
    z, target = torch.zeros(2000, 20), torch.zeros(2000, 20)
    whole = ScoreFunction(lambda *args: step_metric(*args).mean(-1), 2, seed=0)
    single = ScoreFunction(step_metric, 2, seed=0)
    spreads = [loss.gradient(z, target, torch.tensor(1.0)).std() for loss in (whole, single)]
    assert spreads[1] < spreads[0] / 3


def test_the_group_relative_gradient_has_the_expected_one_s_direction():
    z, target = torch.tensor([[-1.0, 0.0, 2.0]]).repeat(4000, 1), torch.zeros(4000, 3)
    loss = GroupRelative(lambda *args: step_metric(*args).mean(-1), 16, seed=0)
    gradient = loss.gradient(z, target, torch.tensor(1.0)).mean(0)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z[0]).exp()
    assert torch.cosine_similarity(gradient, expected, dim=0) > 0.99


def test_the_width_is_a_share_of_the_smaller_spread():
    loss = ScoreFunction(step_metric, 2, seed=0)
    z = 5 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss.width(z, z + 0.0), torch.tensor(0.0))
    for _ in range(500):
        width = loss.width(z, torch.zeros(1000, dtype=torch.long))
    torch.testing.assert_close(width, 0.35 * z.std(0).mean(), rtol=1e-3, atol=0)


def run_with(figure, **stats):
    return Run(figure, figure, 1.0, 1.0, {"end": stats} if stats else {})


def test_results_merge(tmp_path):
    key = {"batch": 64, "steps": 600, "method": "score-2", "rate": 0.001}
    first, second = (Results(tmp_path / "a" / "p.json", {"problem": "p"}) for _ in range(2))
    first.add(2, run_with(0.2), "abc", **key)
    second.add(0, run_with(0.123456789, r2=0.5), "abc", **key)
    first.add(1, run_with(0.1), "abc", **key | {"method": "proxy"})
    row = second.find(**key)
    assert row["seeds"] == [0, 2]
    assert row["test"] == [0.12346, 0.2]
    assert row["stats"] == {"0": {"end": {"r2": 0.5}}}
    second.add(2, run_with(0.4), "def", **key)
    assert first.find(**key)["test"] == [0.12346, 0.4]

    other = first.add(0, run_with(0.3, r2=0.1), "def", **key | {"rate": 0.01})
    first.keep_stats_of(other)
    assert "stats" not in first.find(**key)
    assert first.find(rate=0.01)["stats"]
    first.drop(method="score-2")
    assert [row["method"] for row in second.read()] == ["proxy"]


def test_a_study_goes_on_where_it_stopped(tmp_path, monkeypatch):
    arguments = ["--problems", "tumour", "--methods", "proxy", "--batch", "8", "--steps", "2"]
    arguments += ["--results", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]
    made = []
    monkeypatch.setattr(any_metric, "checkpoint", lambda problem, *args: problem.model())
    monkeypatch.setattr(any_metric, "tune", lambda *args, **options: made.append(options) or run())
    run = lambda: run_with(0.01 * len(made))  # noqa: E731
    any_metric.main([*arguments, "--seeds", "2"])
    assert [options["rate"] for options in made[::2]] == list(any_metric.RATES)
    any_metric.main([*arguments, "--seeds", "3"])
    # The first rate is the best.
    assert [(options["rate"], options["seed"]) for options in made[12:]] == [(1e-4, 2)]
    any_metric.main([*arguments, "--seeds", "2", "--again"])
    assert len(made) == 25


@pytest.mark.parametrize("method", [*METHODS, *DEAR])
def test_methods_train(method):
    problem = PROBLEMS["off_by_1"]
    assert is_for(method, problem)
    torch.manual_seed(0)
    model = problem.model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        objective = make_objective(method, problem, seed=0)
        run = tune(model, problem, objective, rate=1e-3, seed=0, steps=3)
    assert 0 < run.test < 1
    assert run.milliseconds > 0
    assert bool(plain_stats(objective)) == method.startswith("package")


def test_the_page_compares_each_method_at_its_best_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(any_metric_page, "PICTURE", tmp_path / "picture.png")
    for name, share in {"off_by_1": 0.1, "costs": 1.2}.items():
        results = Results(tmp_path / f"{name}.json", {})
        key = {"batch": 64, "steps": 600, "rate": 0.001}
        for seed in range(3):
            results.add(seed, run_with(0.5 + 0.01 * seed), "abc", method="proxy", **key)
            results.add(seed, run_with(0.51 * share), "abc", method="score-2", **key)
        for seed in range(2):  # of a rate that was not chosen
            results.add(seed, run_with(0.3), "abc", method="proxy", **key | {"rate": 0.01})
    page = any_metric_page.PAGES[0].read_text()
    text = any_metric_page.filled(page, tmp_path)
    assert text != page
    assert any_metric_page.filled(text, tmp_path) == text
    assert "(_static/picture.png)" in text
    assert "score function, 2 calls, against the proxy: -65 % in the geometric mean" in text
    assert "lower in 1 of 2, above in 1, at worst +20.0 %" in text
    assert "| 0.51 ± 0.01 | **0.051** ± 0 |" in text
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_the_pages_tables_are_those_of_the_results(monkeypatch):
    monkeypatch.setattr(any_metric_page, "draw", lambda *_: None)
    for page in any_metric_page.PAGES:
        assert any_metric_page.filled(page.read_text(), any_metric_page.RESULTS) == page.read_text()


def test_the_page_of_slow_metrics_has_the_problems_with_a_budget(tmp_path):
    for name in ("off_by_1", "costs"):
        results = Results(tmp_path / f"{name}.json", {})
        for method, steps, figure in (("proxy", 600, 0.5), ("package-2", 150, 0.25)):
            results.add(0, run_with(figure), "abc", method=method, steps=steps, batch=64, rate=1e-3)
    key = {"method": "package-quarter", "steps": 600, "batch": 64, "rate": 1e-3}
    results.add(0, run_with(0.2), "abc", **key)
    lines = any_metric_page.dear(tmp_path)
    assert lines[0].count("|") == 5
    assert lines[2:] == [f"| {PROBLEMS['costs'].sentence} | 0.5 ± 0 | 0.25 ± 0 | **0.2** ± 0 |"]
    page = any_metric_page.filled(any_metric_page.PAGES[1].read_text(), tmp_path)
    assert lines[2] in page
