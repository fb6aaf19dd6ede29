"""The study of yeast: its metrics, its losses, its data where river is there."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, fbeta_score

from benchmarks import yeast


def some(seed=0):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(40, yeast.LABELS, generator=random)
    labels = (torch.rand(40, yeast.LABELS, generator=random) < 0.3).float()
    labels[:, 3] = 0  # a label that does not occur
    return logits, labels


def test_metrics_are_scikit_learn_s():
    logits, labels = some()
    there = labels.any(0)
    precision = average_precision_score(labels[:, there], logits[:, there])
    assert yeast.METRICS["AP"](logits, labels).item() == pytest.approx(1 - precision, abs=1e-6)
    f2 = fbeta_score(labels, logits > 0, beta=2, average="macro", zero_division=0)
    assert yeast.METRICS["F2"](logits, labels).item() == pytest.approx(1 - f2, abs=1e-6)


def test_thresholds_are_the_best_of_those_tried():
    logits, labels = some(1)
    moved = logits - yeast.best_thresholds(logits, labels)
    best = yeast.METRICS["F2"](moved, labels)
    assert best < yeast.METRICS["F2"](logits, labels)
    for threshold in np.arange(-4, 2.1, 0.5):
        assert best <= yeast.METRICS["F2"](logits - threshold, labels) + 1e-6


@pytest.mark.parametrize(
    ("metric", "method"), [(metric, m) for metric, own in yeast.LOSSES.items() for m in own]
)
def test_every_loss_pulls_towards_the_labels(metric, method):
    for package in ("libauc", "proxy-losses"):
        if package in method:
            pytest.importorskip(package.replace("-", "_"))
    _, labels = some()
    logits = (0.1 * torch.randn(labels.shape)).requires_grad_()
    objective = yeast.LOSSES[metric][method](0)
    for _ in range(8):  # what is measured is noisy
        objective(logits, labels, torch.arange(40)).backward()
    there = labels.any(0)
    pull = -logits.grad[:, there]
    assert pull[labels[:, there] > 0].mean() > pull[labels[:, there] == 0].mean()
    assert logits.grad.isfinite().all()


def test_the_data_are_dealt_anew_for_each_seed():
    pytest.importorskip("river")
    first, second = yeast.splits(0), yeast.splits(1)
    assert {split: len(labels) for split, (_, labels) in first.items()} == {
        "train": 1600,
        "validation": 400,
        "test": 417,
    }
    assert not torch.equal(first["test"][0], second["test"][0])
    # Elisseeff and Weston's labels: 4.2 a gene.
    assert yeast.genes()[1].sum(1).mean().item() == pytest.approx(4.237, abs=0.001)
