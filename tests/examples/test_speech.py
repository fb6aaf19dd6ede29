"""Speech: what is said to whom, its features, and that padding changes nothing."""

import builtins
import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from lib.speech import espeak, features, sentences, sets
from lib.speech.recogniser import STRIDE, Recogniser, arguments, read

SPLITS = ("train", "validation", "test")
needs_espeak = pytest.mark.skipif(not find_spec("espeakng_loader"), reason="needs espeakng-loader")


def test_no_two_splits_share_a_sentence_a_word_or_a_voice():
    said = {s: sentences.sentences(s, 400, np.random.default_rng(0)) for s in SPLITS}
    # Frames of the sentences: they are in all.
    known = {"hundred", "costs", "dollars", "pounds", "euros", "the", "each", "our", "at"}
    known |= {"meets", "calls", "leaves", *sentences.ONES, *sentences.TENS, *sentences.ORDINALS}
    known |= set(sentences.MONTHS)
    listed = {s: {w for text in said[s] for w in text.split()} - known for s in SPLITS}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not set(said[one]) & set(said[other])
        assert not listed[one] & listed[other]
        assert not set(sets.VARIANTS[one]) & set(sets.VARIANTS[other])
    assert min(map(len, listed.values())) > 300
    assert set("".join(said["train"])) == set(sentences.ALPHABET)


@pytest.mark.parametrize(
    "value, words",
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (300, "three hundred"),
        (211, "two hundred eleven"),
        (999, "nine hundred ninety nine"),
    ],
)
def test_numbers_in_words(value, words):
    assert sentences.number(value) == words


def test_a_batch_is_of_sentences_that_are_about_as_long():
    lengths = np.random.default_rng(0).integers(100, 400, 330)
    spoken = [torch.zeros(features.BANDS, length) for length in lengths]
    chosen = list(sets.batches(spoken, 45, 0))
    assert len(chosen) == 45 and {len(each) for each in chosen} == {sets.BATCH}
    # 20 batches of the 330 sentences, none of them twice.
    assert len(set(np.ravel(chosen[:20]))) == 320 and chosen[:20] != chosen[20:40]
    spreads = [np.ptp(lengths[each]) for each in chosen]
    assert np.mean(spreads) < 300 / sets.SORTED * 2
    assert list(sets.batches(spoken, 45, 0)) == chosen != list(sets.batches(spoken, 45, 1))
    with pytest.raises(ValueError, match="at least 160 sentences are needed; got 159"):
        next(sets.batches(spoken[:159], 1, 0))


def tone(hertz, amplitude=0.5, seconds=0.5):
    samples = torch.arange(int(seconds * espeak.RATE))
    return amplitude * torch.sin(2 * math.pi * hertz * samples / espeak.RATE)


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 5000.0])
def test_a_tone_is_in_its_band_every_ten_milliseconds(hertz):
    bands = features.log_mel(tone(hertz))
    assert bands.shape == (features.BANDS, 51)
    # Centres are evenly spaced on the scale of mels, the two ends left out.
    low, high, here = (2595 * math.log10(1 + f / 700) for f in (60, 8000, hertz))
    expected = (here - low) / (high - low) * (features.BANDS + 1) - 1
    assert abs(bands[:, 25].argmax().item() - expected) <= 1


def test_features_are_natural_logarithms_of_power():
    loud, quiet = features.log_mel(tone(1000)), features.log_mel(tone(1000, 0.25))
    heard = quiet > math.log(features.FLOOR) + 1
    torch.testing.assert_close(
        (loud - quiet)[heard], torch.full((int(heard.sum()),), math.log(4)), rtol=0, atol=1e-3
    )
    silence = features.log_mel(torch.zeros(2205))
    torch.testing.assert_close(silence, torch.full_like(silence, math.log(features.FLOOR)))


def test_what_is_behind_a_sentence_changes_nothing():
    model = Recogniser(8).eval()
    torch.manual_seed(0)
    short, long = torch.randn(features.BANDS, 61), torch.randn(features.BANDS, 100)
    with torch.no_grad():
        both, targets, lengths, target_lengths = arguments(model, [short, long], ["a b", "zz"])
        alone, *_ = arguments(model, [short], ["a b"])
    assert both.shape == (34, 2, len(sentences.ALPHABET) + 1)
    assert lengths.tolist() == [21, 34] == [math.ceil(n / STRIDE) for n in (61, 100)]
    assert targets.tolist() == [[2, 1, 3], [27, 27, 0]] and target_lengths.tolist() == [3, 2]
    torch.testing.assert_close(both[:21, :1], alone)
    assert read(model, [short, long])[0] == read(model, [short])[0]


def test_the_package_that_lacks_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "espeakng_loader":
            raise ModuleNotFoundError(name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match="pip install --group speech"):
        sets.spoken("train", 1, 0)


@needs_espeak
def test_the_same_seed_is_spoken_alike():
    one, again = sets.spoken("test", 4, 0), sets.spoken("test", 4, 0)
    assert one.texts == again.texts
    for ours, theirs in zip(one.features, again.features, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.shape[0] == features.BANDS and 100 < ours.shape[1] < 600
        torch.testing.assert_close(
            ours.float().mean(1), torch.zeros(features.BANDS), atol=1e-2, rtol=0
        )


@needs_espeak
def test_every_voice_is_known():
    synthesiser = espeak.Synthesiser()
    for variant in (each for split in sets.VARIANTS.values() for each in split):
        for accent in sets.ACCENTS[:1] if variant != "f1" else sets.ACCENTS:
            assert synthesiser.say("one", espeak.Voice(f"{accent}+{variant}")).any()
    for unknown in ("en-us+nobody", "nowhere+f1"):
        with pytest.raises(ValueError, match="no voice"):
            synthesiser.say("one", espeak.Voice(unknown))
