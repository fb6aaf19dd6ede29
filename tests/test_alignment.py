from itertools import groupby, pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from learned_surrogates import text
from learned_surrogates.text._alignment import (
    extend,
    fit_to_frames,
    force_align,
    spread_evenly,
)


def spelled(path, blank):
    return [label for label, _ in groupby(path) if label != blank]


def best_by_brute_force(log_probs, label, blank):
    """The score of the most probable of all paths that spell the label."""
    frames, classes = log_probs.shape
    paths = product(range(classes), repeat=frames)
    return max(
        sum(log_probs[t, c] for t, c in enumerate(path))
        for path in paths
        if spelled(path, blank) == label
    )


problems = st.tuples(
    st.integers(0, 2),
    st.lists(st.tuples(st.integers(1, 5), st.lists(st.integers(0, 1), max_size=5)), min_size=1),
    st.integers(0, 2**16),
)


def shortest(label):
    return len(label) + sum(a == b for a, b in pairwise(label))


@given(problems)
def test_forced_alignment_is_the_best_of_all_paths(problem):
    blank, samples, seed = problem
    others = [c for c in range(3) if c != blank]
    frames = np.array([count for count, _ in samples])
    labels = fit_to_frames([[others[i] for i in label] for _, label in samples], frames)
    time = int(frames.max())
    scores = np.random.default_rng(seed).normal(size=(time, len(samples), 3)).astype(np.float32)
    extended = extend(labels, blank)
    of_states = np.stack([scores[:, i, row] for i, row in enumerate(extended)], 1)
    counts = np.array([len(label) for label in labels])
    paths = force_align(of_states, extended, counts, frames)
    assert paths.shape == (len(samples), time)
    for sample, (path, label, count) in enumerate(zip(paths, labels, frames, strict=True)):
        assert (path[count:] == -1).all()
        assert spelled(path[:count].tolist(), blank) == label
        score = scores[np.arange(count), sample, path[:count]].sum()
        best = best_by_brute_force(scores[:count, sample], label, blank)
        assert score == pytest.approx(best, abs=1e-4)


@given(st.lists(st.integers(1, 2), max_size=7), st.integers(0, 6))
def test_fit_to_frames_keeps_the_longest_prefix_that_some_path_spells(label, frames):
    (kept,) = fit_to_frames([label], np.array([frames]))
    possible = [label[:n] for n in range(len(label) + 1) if shortest(label[:n]) <= frames]
    assert kept == possible[-1]


@given(st.lists(st.integers(1, 2), max_size=5), st.integers(0, 4), st.integers(0, 3))
def test_evenly_spread_paths_spell_the_label(label, spare, padding):
    frames = shortest(label) + spare
    (path,) = spread_evenly([label], np.array([frames]), frames + padding, 0).tolist()
    assert path[frames:] == [-1] * padding
    assert spelled(path[:frames], 0) == label


def test_evenly_spread_labels_stand_in_the_middle_of_their_parts():
    path = spread_evenly([[1, 2, 3], [1, 1]], np.array([9, 9]), 9, 0)
    assert path.tolist() == [[0, 1, 0, 0, 2, 0, 0, 3, 0], [0, 1, 0, 0, 0, 0, 0, 1, 0]]


def test_extended_labels():
    assert extend([[1, 2], [], [3]], 0).tolist() == [[0, 1, 0, 2, 0], [0] * 5, [0, 3, 0, 0, 0]]


def test_no_frames_and_no_samples():
    none = np.zeros((0, 2, 1), dtype=np.float32)
    two = np.zeros(2, dtype=np.int64)
    assert force_align(none, extend([[], []], 0), two, two).shape == (2, 0)
    nobody = force_align(np.zeros((4, 0, 1), dtype=np.float32), extend([], 0), two[:0], two[:0])
    assert nobody.shape == (0, 4)


@pytest.mark.parametrize("bad", [torch.nan, -torch.inf])
def test_alignment_survives_impossible_frames(bad):
    log_probs = torch.randn(6, 1, 3, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    log_probs[2:4] = bad
    batch = text.CTC("ab").read(log_probs, [[1, 2, 2]], [6], [3])
    assert spelled((batch.target[0] - 1).tolist(), 0) == [1, 2, 2]


def test_alignment_follows_the_prediction_and_even_layout_does_not():
    early = torch.full((8, 1, 3), -5.0)
    early[0, 0, 1] = early[1, 0, 2] = 5
    early[2:, 0, 0] = 5
    arguments = (early.log_softmax(-1), [[1, 2]], [8], [2])
    aligned = text.CTC("ab").read(*arguments).target[0] - 1
    even = text.CTC("ab", layout="even").read(*arguments).target[0] - 1
    assert aligned.tolist() == [1, 2, 0, 0, 0, 0, 0, 0]
    assert even.tolist() == [0, 0, 1, 0, 0, 0, 2, 0]
