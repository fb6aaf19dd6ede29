"""Laying a target text over the frames of a CTC output."""

import numpy as np
from numpy.typing import NDArray

Labels = list[list[int]]


def fit_to_frames(labels: Labels, frames: NDArray[np.int64]) -> Labels:
    """Drops the last labels of those texts that no path of so many frames can spell.

    A path needs a frame a label and a blank between equal neighbours.
    """
    fitting = []
    for text, available in zip(labels, frames.tolist(), strict=True):
        needed = 0
        for index, label in enumerate(text):
            needed += 1 + (index > 0 and label == text[index - 1])
            if needed > available:
                text = text[:index]
                break
        fitting.append(text)
    return fitting


def spread_evenly(
    labels: Labels, frames: NDArray[np.int64], length: int, blank: int
) -> NDArray[np.int64]:
    """Each label on one frame, evenly spaced over a sample's frames, blank on the others.

    Args:
        labels: class indices of each text, short enough for its frames.
        frames: `(batch,)`, each sample's number of frames.
        length: frames of the result.
        blank: class index.

    Returns:
        `(batch, length)` class indices, -1 beyond a sample's frames.
    """
    path = np.full((len(labels), length), blank)
    for row, text, available in zip(path, labels, frames.tolist(), strict=True):
        row[available:] = -1
        symbols = []
        for index, label in enumerate(text):
            symbols += [blank, label] if index and label == text[index - 1] else [label]
        for index, symbol in enumerate(symbols):
            row[(2 * index + 1) * available // (2 * len(symbols))] = symbol
    return path


def extend(labels: Labels, blank: int) -> NDArray[np.int64]:
    """CTC's extended labels: a blank before, between and after them.

    Returns:
        `(batch, 2 * longest + 1)` class indices, blank beyond a text's end.
    """
    longest = max((len(text) for text in labels), default=0)
    extended = np.full((len(labels), 2 * longest + 1), blank)
    for row, text in zip(extended, labels, strict=True):
        row[1 : 2 * len(text) : 2] = text
    return extended


def force_align(
    scores: NDArray[np.float32],
    extended: NDArray[np.int64],
    label_counts: NDArray[np.int64],
    frames: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The most probable path that spells each text (Viterbi over CTC's states).

    Args:
        scores: `(time, batch, states)`, log-probability of each state's class at each frame.
        extended: `(batch, states)`, from `extend`.
        label_counts: `(batch,)`, labels of each text, few enough for its frames.
        frames: `(batch,)`, each sample's number of frames.

    Returns:
        `(batch, time)` class indices, -1 beyond a sample's frames.
    """
    time, batch, states = scores.shape
    if not time:
        return np.full((batch, 0), -1)
    # A blank may be left out between two labels that differ.
    skippable = np.zeros((batch, states), dtype=bool)
    skippable[:, 3::2] = extended[:, 3::2] != extended[:, 1:-2:2]

    best = np.full((batch, states), -np.inf, dtype=np.float32)
    best[:, :2] = scores[0, :, :2]
    came_from = np.zeros((time, batch, states), dtype=np.int64)
    candidates = np.full((3, batch, states), -np.inf, dtype=np.float32)
    for frame in range(1, time):
        candidates[0] = best
        candidates[1, :, 1:] = best[:, :-1]
        candidates[2, :, 2:] = np.where(skippable[:, 2:], best[:, :-2], -np.inf)
        back = candidates.argmax(0)
        alive = (frame < frames)[:, None]
        came_from[frame] = np.where(alive, back, 0)
        best = np.where(alive, candidates.max(0) + scores[frame], best)

    rows = np.arange(batch)
    last_label = np.maximum(2 * label_counts - 1, 0)
    ends_on_label = best[rows, last_label] > best[rows, 2 * label_counts]
    state = np.where(ends_on_label, last_label, 2 * label_counts)
    path = np.empty((batch, time), dtype=np.int64)
    for frame in range(time - 1, -1, -1):
        path[:, frame] = extended[rows, state]
        state = state - came_from[frame, rows, state]
    path[np.arange(time) >= frames[:, None]] = -1
    return path
