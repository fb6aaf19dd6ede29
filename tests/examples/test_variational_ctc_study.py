"""The study behind docs/confidence.md."""

import itertools

import numpy as np
import pytest
import torch

from benchmarks import variational_ctc as study
from lib.recogniser import CLASSES, load, read
from lib.weights import CHECKPOINTS
from lib.word_images import WordImages


@pytest.fixture(scope="module")
def words():
    return study.columns_of("validation", 12, layers=2)


def test_the_control_begins_with_what_the_recogniser_reads(words):
    images, labels = WordImages("validation", study.EVALUATION_SEED).batch(12)
    with torch.no_grad():
        expected = load(CHECKPOINTS / "ctc.safetensors")(images)
    assert labels == words[1]
    found = study.Reader("CTC, its layer kept", layers=2).log_probs(words[0])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", study.METHODS)
def test_a_few_steps_lower_the_loss(method, words):
    torch.manual_seed(0)
    before = study.Reader(method, 2).eval().loss(*words)
    model = study.trained(method, 3e-3, 0, words, steps=5, layers=2)
    assert model.eval().loss(*words) < before
    assert model.log_probs(words[0]).exp().sum(2).sub(1).abs().max() < 1e-5


def test_confidences_are_of_the_best_path_and_of_all_that_read_the_same():
    random = torch.Generator().manual_seed(0)
    logits = torch.full((4, 2, CLASSES), -50.0, dtype=torch.float64)
    logits[..., :3] = torch.randn(4, 2, 3, generator=random)
    log_probs = logits.log_softmax(2)
    readings = read(log_probs, "ctc")
    found = study.confidences(log_probs, readings)
    for sample, reading in enumerate(readings):
        chances = {}
        for path in itertools.product(range(3), repeat=4):
            one_hot = torch.nn.functional.one_hot(torch.tensor(path), CLASSES)[:, None]
            chance = log_probs[range(4), sample, list(path)].sum().exp().item()
            chances.setdefault(read(one_hot, "ctc")[0], []).append(chance)
        assert found["path"][sample].exp().item() == pytest.approx(max(chances[reading]))
        assert found["text"][sample].exp().item() == pytest.approx(sum(chances[reading]))


def test_recall_is_of_what_is_right_and_kept():
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    right = np.array([True, True, False, True, True])
    # Two are kept without an error; with one error among five the precision is .8.
    assert study.recall_at(right, confidence, 0.98) == 0.5
    assert study.recall_at(right, confidence, 0.8) == 1.0
    assert study.recall_at(~right, confidence, 0.98) == 0.0


def test_the_rate_is_that_of_the_first_seed():
    rows = [
        {"layers": n, "method": "CTC", "rate": rate, "seed": s, "validation": {"distance": each}}
        for n, rate, s, each in (
            (1, 1, 0, 5),
            (1, 2, 0, 4),
            (1, 2, 1, 9),
            (1, 1, 1, 1),
            (4, 1, 0, 1),
        )
    ]
    assert study.best(rows, "CTC", layers=1) == rows[1:3]
