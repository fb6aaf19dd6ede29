import numpy as np
import pytest
import torch

from learned_surrogates.boxes import RandomDistortions, rotated_iou

# The 99.9 % quantile of chi-squared with 19 degrees of freedom.
CHI_SQUARED = 43.82
LABELS = {
    4: torch.tensor([[10.0, 10.0, 50.0, 20.0], [0.0, 5.0, 8.0, 90.0]]),
    5: torch.tensor([[50.0, 40.0, 30.0, 8.0, 1.2], [9.0, 9.0, 5.0, 5.0, -0.3]]),
    8: torch.tensor([[0.0, 0.0, 9.0, 1.0, 8.0, 5.0, 1.0, 4.0], [5.0, 5, 9, 5, 9, 9, 5, 9]]),
}


@pytest.mark.parametrize("numbers", LABELS)
@pytest.mark.parametrize("labels", [True, False])
def test_iou_is_uniform(numbers, labels):
    generator = RandomDistortions(LABELS[numbers] if labels else None, numbers=numbers, pool=4000)
    predictions, targets = generator(1, np.random.default_rng(0))
    assert predictions.shape == targets.shape == (1, numbers)
    counts = torch.histc(generator.ious, 20, 0, 1)
    assert ((counts - 200).square() / 200).sum() < CHI_SQUARED
    drawn = rotated_iou(*generator(4000, np.random.default_rng(1)))
    assert abs(drawn.mean() - 0.5) < 0.03
    assert (torch.histc(drawn, 4, 0, 1) / 4000 - 0.25).abs().max() < 0.04


@pytest.mark.parametrize("numbers", LABELS)
def test_the_pool_knows_its_ious(numbers):
    generator = RandomDistortions(LABELS[numbers], pool=300)
    generator(1, np.random.default_rng(0))
    torch.testing.assert_close(rotated_iou(*generator._pairs), generator.ious, atol=1e-5, rtol=0)
    targets = {tuple(row) for row in generator._pairs[1].tolist()}
    assert targets == {tuple(row) for row in LABELS[numbers].tolist()}


def test_distortions_are_of_everything_and_of_some_alone():
    generator = RandomDistortions(LABELS[5][:1], pool=3000)
    predictions, targets = generator(3000, np.random.default_rng(0))
    errors = predictions - targets
    middle = (generator.ious > 0.5) & (generator.ious < 0.7)
    assert (errors.std(0) > torch.tensor([1.0, 1.0, 1.0, 1.0, 0.05])).all()
    assert middle.sum() > 300


def test_pairs_follow_from_the_seeds():
    first, second = (RandomDistortions(LABELS[5], pool=200) for _ in range(2))
    for _ in range(2):
        one = first(20, np.random.default_rng(1))
        two = second(20, np.random.default_rng(1))
        assert all(torch.equal(a, b) for a, b in zip(one, two))
    other = RandomDistortions(LABELS[5], pool=200, seed=1)(20, np.random.default_rng(1))
    assert not torch.equal(other[0], one[0])
    assert not torch.equal(first(20, np.random.default_rng(2))[0], one[0])


def test_labels_without_an_area_are_left_out():
    labels = torch.cat([LABELS[5], torch.zeros(3, 5)])
    generator = RandomDistortions(labels.numpy(), pool=100)
    assert repr(generator) == "RandomDistortions(2 labels, pool=100)"
    assert rotated_iou(*generator(100, np.random.default_rng(0))).max() > 0.5


def test_labels_that_float32_cannot_distort_still_end():
    generator = RandomDistortions(torch.tensor([[1e9, 1e9, 1e9 + 64, 1e9 + 64]]), pool=20)
    predictions, targets = generator(20, np.random.default_rng(0))
    assert predictions.isfinite().all()
    assert targets.isfinite().all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": torch.zeros(3, 5)}, ValueError, "a box that has an area"),
        ({"labels": torch.zeros(0, 5)}, ValueError, "a box that has an area"),
        ({"labels": torch.zeros(3, 6)}, ValueError, "labels must have shape"),
        ({"labels": -torch.ones(3, 5)}, ValueError, "labels of sample 0.*negative width"),
        ({"labels": "boxes"}, TypeError, "labels must be a tensor; got str"),
        ({"numbers": 6}, ValueError, "numbers must be 4, 5 or 8"),
        ({"pool": 0}, ValueError, "pool must be at least 1"),
        ({"pool": 1.5}, TypeError, "pool must be an integer"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
    ],
)
def test_wrong_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        RandomDistortions(**options)
