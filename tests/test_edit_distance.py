import pickle

import numpy as np
import pytest
from hypothesis import given, strategies as st

from learned_surrogates.text import (
    WeightedEditDistance,
    edit_distance,
    normalized_edit_distance,
    normalized_word_edit_distance,
    word_edit_distance,
)

words = st.text("ab ", max_size=8)
METRICS = (
    edit_distance,
    normalized_edit_distance,
    word_edit_distance,
    normalized_word_edit_distance,
)


def textbook(a, b):
    """Wagner and Fischer's table."""
    table = [[max(i, j) if not i * j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1,
                table[i][j - 1] + 1,
                table[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
            )
    return table[-1][-1]


@given(st.lists(st.tuples(words, words), max_size=5))
def test_distances_equal_the_textbook(pairs):
    predictions, targets = [a for a, _ in pairs], [b for _, b in pairs]
    characters = [textbook(a, b) for a, b in pairs]
    split = [(a.split(), b.split()) for a, b in pairs]
    in_words = [textbook(a, b) for a, b in split]
    longest = [max(len(a), len(b), 1) for a, b in pairs]
    most_words = [max(len(a), len(b), 1) for a, b in split]
    np.testing.assert_array_equal(edit_distance(predictions, targets), characters)
    np.testing.assert_array_equal(word_edit_distance(predictions, targets), in_words)
    np.testing.assert_allclose(
        normalized_edit_distance(predictions, targets), np.divide(characters, longest)
    )
    np.testing.assert_allclose(
        normalized_word_edit_distance(predictions, targets), np.divide(in_words, most_words)
    )


@given(words, words, words)
def test_edit_distances_are_metrics(a, b, c):
    for distance in (edit_distance, word_edit_distance):
        ab, ba, bc, ac, aa = distance([a, b, b, a, a], [b, a, c, c, a])
        assert aa == 0
        assert ab == ba
        assert ac <= ab + bc
    assert (edit_distance([a], [b])[0] == 0) == (a == b)
    assert (word_edit_distance([a], [b])[0] == 0) == (a.split() == b.split())


@given(words, words)
def test_edit_distances_are_bounded(a, b):
    assert abs(len(a) - len(b)) <= edit_distance([a], [b])[0] <= max(len(a), len(b))
    assert 0 <= normalized_edit_distance([a], [b])[0] <= 1
    assert 0 <= normalized_word_edit_distance([a], [b])[0] <= 1


@pytest.mark.parametrize("metric", METRICS)
def test_result_is_one_float_a_pair(metric):
    result = metric(["ab", "c", ""], ["ab", "d", "x y"])
    assert result.dtype == np.float64
    assert result.shape == (3,)
    assert metric([], []).shape == (0,)


@pytest.mark.parametrize("metric", METRICS)
def test_a_string_in_place_of_a_list_is_refused(metric):
    with pytest.raises(TypeError, match="predictions must be a list of strings"):
        metric("abc", ["abc"])
    with pytest.raises(TypeError, match="targets must be a list of strings"):
        metric(["abc"], "abc")


@pytest.mark.parametrize("metric", METRICS)
def test_lists_of_different_lengths_are_refused(metric):
    with pytest.raises(ValueError, match="2 predictions for 1 targets"):
        metric(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="1 predictions for 2 targets"):
        metric(["a"], ["a", "b"])


def textbook_weighted(reading, target, additional, missing, wrong, worth):
    """The table row by row; costs of errors, times what a character is worth."""
    table = [[0.0] * (len(target) + 1) for _ in range(len(reading) + 1)]
    for i in range(len(reading) + 1):
        for j in range(len(target) + 1):
            ways = []
            if i:
                ways.append(table[i - 1][j] + additional * worth(reading[i - 1]))
            if j:
                ways.append(table[i][j - 1] + missing * worth(target[j - 1]))
            if i and j:
                cost = wrong * worth(target[j - 1]) * (reading[i - 1] != target[j - 1])
                ways.append(table[i - 1][j - 1] + cost)
            table[i][j] = min(ways, default=0.0)
    return table[-1][-1]


costs = st.sampled_from([0.5, 1, 2.25, 10])


@given(
    st.lists(st.tuples(words, words), max_size=5),
    st.tuples(costs, costs, costs),
    st.none() | st.dictionaries(st.sampled_from("ab"), costs),
)
def test_weighted_distances_equal_the_textbook(pairs, errors, characters):
    additional, missing, wrong = errors
    metric = WeightedEditDistance(
        additional=additional, missing=missing, wrong=wrong, characters=characters
    )
    actual = metric([a for a, _ in pairs], [b for _, b in pairs])
    expected = [
        textbook_weighted(a, b, *errors, lambda c: (characters or {}).get(c, 1)) for a, b in pairs
    ]
    np.testing.assert_allclose(actual, expected)


@pytest.mark.parametrize("missing", [1, 0.123])
@pytest.mark.parametrize("cost", [1e-4, 3e-5, 1e9, 1e16, 1e19, 1e300])
def test_costs_may_be_of_any_size(cost, missing):
    found = WeightedEditDistance(additional=cost, missing=missing)(["abc", "b"], ["a", "ab"])
    np.testing.assert_allclose(found, [2 * cost, missing])


@pytest.mark.parametrize(("cost", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError)])
def test_a_wrong_cost_is_named(cost, error):
    with pytest.raises(error, match="missing"):
        WeightedEditDistance(missing=cost)


def test_a_wrong_worth_of_characters_is_named():
    with pytest.raises(ValueError, match=r"characters\['ab'\]"):
        WeightedEditDistance(characters={"ab": 0})
    with pytest.raises(ValueError, match="more than one cost for 'b'"):
        WeightedEditDistance(characters={"ab": 2, "b": 3})
    with pytest.raises(TypeError, match="predictions must be a list"):
        WeightedEditDistance(characters={"ab": 2})("ab", ["ab"])


@pytest.mark.parametrize("mark", ["|", "▁", "; "])
def test_words_are_separated_by_what_separates_them(mark):
    predictions, targets = ["the cat  sat", "a", "", " a b"], ["the cats sat down", "b", "c", "a c"]
    marked = [[each.replace(" ", mark) for each in side] for side in (predictions, targets)]
    for distance in (word_edit_distance, normalized_word_edit_distance):
        expected = distance(predictions, targets)
        np.testing.assert_array_equal(distance(*marked, separator=mark), expected)


@pytest.mark.parametrize("mark", ["|", "▁", "Ġ", "␣"])
def test_an_alphabet_with_another_separator_is_doubted(mark):
    marked = [each.replace(" ", mark) for each in ["the cat sat", "a"]]
    with pytest.warns(UserWarning, match=f"one word a text.*separator='[{mark}]'"):
        assert word_edit_distance(marked, ["the", "a"]).tolist() == [1, 0]
    # One word, marked as such, or one with a mark among others.
    word_edit_distance([f"{mark}cat"], ["cat"])
    word_edit_distance([f"a{mark}b"], ["a c"])
    with pytest.raises(ValueError, match="separator must be"):
        word_edit_distance(["a"], ["a"], separator="")


@pytest.mark.parametrize("costs", [{"wrong": 2.5}, {"wrong": 5}, {"characters": {"0": 10}}])
def test_a_weighted_distance_can_be_pickled(costs):
    distance = WeightedEditDistance(**costs)
    twin = pickle.loads(pickle.dumps(distance))
    pair = ["abc0", "b"], ["ab1", "b"]
    np.testing.assert_array_equal(twin(*pair), distance(*pair))
