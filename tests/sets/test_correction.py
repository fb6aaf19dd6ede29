"""How much of what draws correct by is taken: where it is signal, noise, and between."""

import pytest
import torch
from torch import nn

from learned_surrogates import Batch
from learned_surrogates._sets.correction import HORIZON, Correction

SAMPLES = 32


def read(signal: float, noise: float, readings: int = 400, seed: int = 0) -> Correction:
    """Of corrections of a layer's outputs with this mean and deviation in its bias."""
    torch.manual_seed(seed)
    layer, correction = nn.Linear(4, 2), Correction()
    for _ in range(readings):
        prediction = layer(torch.randn(SAMPLES, 4))
        batch = Batch(prediction=prediction, target=torch.zeros(SAMPLES))
        parts = signal + noise * torch.randn(prediction.shape) * SAMPLES**0.5
        correction.read(batch, parts / SAMPLES)
    return correction


def test_nothing_is_taken_before_anything_is_known():
    """The draws of the first steps are noise that has ruined models: masks have thousands."""
    assert Correction().share == 0.0
    assert read(1.0, 0.0, readings=5).share == 0.0


def test_of_single_samples_all_is_taken():
    """Chance cannot be told there, and without the correction the gradient is biased for good."""
    correction, random = Correction(), torch.Generator().manual_seed(0)
    for _ in range(20):
        prediction = torch.randn(1, 4, generator=random, requires_grad=True)
        batch = Batch(prediction=prediction, target=torch.zeros(1))
        correction.read(batch, torch.randn(1, 4, generator=random))
        assert correction.share == 1.0


def test_single_samples_after_a_larger_batch_have_all_of_it():
    correction, random = read(0.0, 1.0, readings=1), torch.Generator().manual_seed(0)
    assert correction.share == 0.0
    batch = Batch(prediction=torch.randn(1, 4, requires_grad=True), target=torch.zeros(1))
    correction.read(batch, torch.randn(1, 4, generator=random))
    assert correction.share == 1.0
    restored = Correction()
    restored.load(correction.save(), torch.device("cpu"))
    assert restored.share == 1.0


def test_of_signal_all_is_taken():
    assert read(1.0, 0.0).share > 0.99


@pytest.mark.parametrize("readings", [100, 300])
def test_of_noise_nothing_is_taken_however_it_falls(readings):
    """What a mean's square is by chance would give half of them a share."""
    shares = [read(0.0, 1.0, readings, seed).share for seed in range(16)]
    assert sum(share > 0 for share in shares) <= 2 and max(shares) < 0.1


def test_between_them_the_mean_squared_error_is_least():
    """Signal b and noise V, of a step, in 2 x 4 weights whose inputs vary and 2 biases."""
    signal, noise = 0.7, 1.0
    # The weights' parts have the inputs' mean, 0, and add noise: of signal, too.
    b2 = 2 * signal**2
    variance = 10 * noise**2 + 8 * signal**2 / SAMPLES
    wanted = b2 / (b2 + variance / HORIZON)
    assert 0.2 < wanted < 0.8
    shares = [read(signal, noise, 400, seed).share for seed in range(6)]
    assert sum(shares) / len(shares) == pytest.approx(wanted, abs=0.1)


def test_its_state_goes_on_where_it_was():
    correction, loaded = read(0.3, 1.0, 40), Correction()
    state = correction.save()
    assert not loaded.faults(state)
    loaded.load(state, torch.device("cpu"))
    assert loaded.share == correction.share != 1.0


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"correction.readings": torch.tensor(-1)}, "correction.readings must not be negative"),
        ({"correction.figures": torch.full((8,), torch.nan, dtype=torch.float64)}, "not finite"),
        ({"correction.vectors": torch.zeros(3, 2)}, "correction.vectors must have shape"),
    ],
)
def test_an_impossible_state_is_named(change, fault):
    faults = Correction().faults(read(0.3, 1.0, 12).save() | change)
    assert any(fault in error for error in faults)


def test_readings_without_their_means_are_missed():
    state = read(0.3, 1.0, 12).save()
    del state["correction.vectors"]
    assert Correction().faults(state) == ["correction.vectors is missing"]


def test_one_sample_is_not_weighed():
    """What it is held against is a mean of others, from which chance is not told."""
    correction = Correction()
    for _ in range(40):
        batch = Batch(prediction=torch.ones(1, 3), target=torch.zeros(1))
        correction.read(batch, torch.randn(1, 3))
    assert correction.quality.readings == 0
    assert correction.share == 1.0
