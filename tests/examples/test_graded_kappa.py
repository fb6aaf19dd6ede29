"""The study of kappa: its metric, its losses, its ways to say a grade."""

import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from benchmarks import graded_kappa as study
from lib import runs


def some(count=200, seed=0):
    random = torch.Generator().manual_seed(seed)
    grades = torch.randint(0, 5, (count,), generator=random)
    logits = -(grades[:, None] - study.GRADES).square() / 2
    return logits + 1.5 * torch.randn(count, 5, generator=random), grades


def test_the_metric_is_scikit_learn_s():
    logits, grades = some()
    found = cohen_kappa_score(logits.argmax(1), grades, weights="quadratic")
    assert study.kappa_error(logits.argmax(1), grades).item() == pytest.approx(1 - found, abs=1e-9)


def test_soft_kappa_is_that_of_a_matrix_of_probabilities():
    logits, grades = some()
    said, true = logits.softmax(1).double(), torch.eye(5, dtype=torch.float64)[grades]
    weights = torch.tensor([[(i - j) ** 2 for j in range(5)] for i in range(5)])
    by_chance = torch.outer(true.sum(0), said.sum(0)) / len(grades)
    expected = (weights * (true.T @ said)).sum() / (weights * by_chance).sum()
    torch.testing.assert_close(study.soft_kappa(logits, grades), expected, atol=1e-5, rtol=0)


def test_ordinal_regression_is_a_question_for_each_step():
    logits, grades = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.3, 0.1]])), torch.tensor([2])
    right = torch.tensor([0.9, 0.7, 0.6, 0.9])  # not at most 0, nor 1; at most 2, and 3
    torch.testing.assert_close(study.of_cumulative(logits, grades), -right.log().mean())


@pytest.mark.parametrize("loss", study.LOSSES)
def test_every_loss_pulls_towards_the_grades(loss):
    logits, grades = some(64)
    logits = (0.1 * logits).requires_grad_()
    objective = study.LOSSES[loss](0)
    for _ in range(20):  # what is measured is noisy
        objective(logits, grades).backward()
    moved = (logits - logits.grad / logits.grad.std()).softmax(1) @ study.GRADES
    together = torch.stack([moved - logits.softmax(1) @ study.GRADES, grades.float()])
    assert together.corrcoef()[0, 1] > 0.5


def test_grades_are_stretched_as_validation_says():
    logits, grades = some()
    timid = logits / 8  # expected grades are all about the middle
    errors = {
        way: study.kappa_error(say(timid, (timid, grades)), grades).item()
        for way, say in study.WAYS.items()
    }
    assert errors["stretched"] < errors["expected grade"] - 0.1


@pytest.mark.parametrize("problem", study.PROBLEMS)
def test_data_are_dealt_anew_for_each_seed(problem):
    make_data, make_model = study.PROBLEMS[problem]
    first, second = make_data(0), make_data(1)
    assert not torch.equal(first["test"][1], second["test"][1])
    shares = torch.cat([grades for _, grades in first.values()]).bincount(minlength=5).double()
    wanted = torch.tensor([0.40, 0.25, 0.18, 0.12, 0.05], dtype=torch.float64)
    torch.testing.assert_close(shares / shares.sum(), wanted, atol=0.02, rtol=0)
    assert make_model()(first["train"][0][:3]).shape == (3, 5)


def test_runs_take_the_place_of_those_that_they_repeat(monkeypatch, tmp_path):
    results = tmp_path / "runs.json"
    monkeypatch.setattr(study, "PROBLEMS", {"diabetes": study.PROBLEMS["diabetes"]})
    sizes = ["--seeds", "2", "--before", "2", "--steps", "2"]
    monkeypatch.setattr(
        "sys.argv",
        ["graded_kappa", *sizes, "--losses", "soft kappa", "Sets()", "--results", str(results)],
    )
    study.main()
    once = runs.read(results)
    study.main()
    assert runs.read(results) == once
    assert [row["loss"] for row in once[::3]] == ["checkpoint", "soft kappa", "Sets()"]
    assert {row["way"] for row in once} == set(study.WAYS)
    assert all(len(row["test"]) == 2 for row in once)
