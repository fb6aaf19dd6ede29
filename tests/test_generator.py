import numpy as np
import pytest

from learned_surrogates.text import RandomEdits, edit_distance

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["surrogate", "loss", "metric", "edit", "distances", "a", "gradient", "frame", "it"]
# The 99.9 % quantiles of chi-squared with 3, 5 and 10 degrees of freedom.
CHI_SQUARED = {3: 16.27, 5: 20.52, 10: 29.59}


@pytest.mark.parametrize("words", [None, WORDS])
@pytest.mark.parametrize(("max_distance", "max_length"), [(3, 9), (5, 10), (10, 10)])
def test_true_distance_is_uniform(words, max_distance, max_length):
    generator = RandomEdits(LETTERS, words, max_distance=max_distance, max_length=max_length)
    predictions, targets = generator(1500, np.random.default_rng(0))
    distances = edit_distance(predictions, targets).astype(int)
    counts = np.bincount(distances, minlength=max_distance + 1)
    expected = 1500 / (max_distance + 1)
    assert len(counts) == max_distance + 1
    assert ((counts - expected) ** 2 / expected).sum() < CHI_SQUARED[max_distance]


@pytest.mark.parametrize("words", [None, WORDS])
def test_strings_stay_within_the_length_and_the_alphabet(words):
    generator = RandomEdits(LETTERS, words, max_distance=6, max_length=9)
    predictions, targets = generator(300, np.random.default_rng(0))
    assert len(predictions) == len(targets) == 300
    assert max(map(len, predictions + targets)) <= 9
    assert set("".join(predictions + targets)) <= set(LETTERS)


def test_targets_are_the_words_that_fit():
    generator = RandomEdits(LETTERS, [*WORDS, "extraordinarily"], max_length=9, max_distance=3)
    _, targets = generator(300, np.random.default_rng(0))
    assert set(targets) == set(WORDS)


def test_random_targets_have_every_length():
    generator = RandomEdits(LETTERS, max_distance=2, max_length=5)
    _, targets = generator(300, np.random.default_rng(0))
    assert {len(target) for target in targets} == {1, 2, 3, 4, 5}


def test_an_alphabet_of_one_letter_still_ends():
    generator = RandomEdits("a", max_distance=5, max_length=5)
    predictions, targets = generator(20, np.random.default_rng(0))
    assert set("".join(predictions + targets)) == {"a"}


def test_pairs_follow_from_the_seed():
    generator = RandomEdits(LETTERS)
    first = generator(20, np.random.default_rng(1))
    assert first == generator(20, np.random.default_rng(1))
    assert first != generator(20, np.random.default_rng(2))


def test_successive_draws_differ():
    generator, rng = RandomEdits(LETTERS), np.random.default_rng(1)
    assert generator(20, rng) != generator(20, rng)


@pytest.mark.parametrize(("max_distance", "max_length"), [(0, 5), (6, 5), (-1, 5)])
def test_unreachable_distances_are_refused(max_distance, max_length):
    with pytest.raises(ValueError, match="max_distance"):
        RandomEdits(LETTERS, max_distance=max_distance, max_length=max_length)


def test_a_length_or_distance_that_is_no_integer_is_named():
    with pytest.raises(TypeError, match="max_distance must be an integer"):
        RandomEdits(LETTERS, max_distance=2.5)
    with pytest.raises(TypeError, match="max_length must be an integer"):
        RandomEdits(LETTERS, max_length="10")


def test_words_that_are_all_too_long_are_refused():
    with pytest.raises(ValueError, match="max_length=3"):
        RandomEdits(LETTERS, ["surrogate"], max_distance=3, max_length=3)


def test_an_empty_alphabet_is_refused():
    with pytest.raises(ValueError, match="alphabet"):
        RandomEdits("")


def test_repr_tells_the_source_and_the_range():
    assert "random strings" in repr(RandomEdits(LETTERS))
    assert "9 words" in repr(RandomEdits(LETTERS, WORDS, max_distance=4))
    assert "max_distance=4" in repr(RandomEdits(LETTERS, WORDS, max_distance=4))


def test_words_of_another_alphabet_are_left_out():
    generator = RandomEdits("abc", ["cab", "don't", "ab"], max_distance=2)
    assert set(generator(50, np.random.default_rng(0))[1]) == {"cab", "ab"}
