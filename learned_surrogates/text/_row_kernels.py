"""The passes over frames and columns, compiled for the CPU (needs Numba): as `_difference_rows`.

Sample by sample, frame by frame and character by character, with unit costs, in float32: what
PyTorch does in dozens of operations a step is a few numbers in registers here.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

# Float32 numbers that are kept for the way back at a time; longer lines are passed over once more.
KEPT = 2**22

MOVES = "gain", "keep", "inverse", "leave", "special"
ONE = np.float32(1)
ZERO = np.float32(0)


def compiled(function: Any) -> Any:
    """Compiled at the first call, and kept in a file for later processes where one can be had."""
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no folder that may be written to
        return numba.njit(nogil=True, error_model="numpy")(function)


@compiled
def _mix(u, keep_own, inverse, characters, columns, ctc, mix, total):
    """Of each character, the mixture of the states it is read from; and the sum of all states."""
    states = characters + 1 if ctc else characters
    total[:columns] = ZERO
    if not ctc:
        for state in range(states):
            for j in range(columns):
                total[j] += u[state, j]
        for j in range(columns):
            mix[0, j] = total[j] * inverse[0]
        return
    # Sums of the states before a character and behind it: a difference would leave nothing of
    # small numbers.
    for state in range(states):
        if state < characters:
            for j in range(columns):
                mix[state, j] = total[j]
        for j in range(columns):
            total[j] += u[state, j]
    last = characters - 1
    behind = mix[characters]
    for j in range(columns):
        behind[j] = u[characters, j]
        mix[last, j] += keep_own * u[last, j]
    for k in range(last, -1, -1):
        for j in range(columns):
            mix[k, j] = (mix[k, j] + behind[j]) * inverse[k]
            behind[j] += u[k, j]


@compiled
def _forward(u, after, gain, keep, inverse, leave, special, spelt, columns, ctc, mix, carry, total):
    """One frame: `u` is `(h = -1 or 1, states, columns)`, `carry` what is left of each column."""
    characters = len(gain)
    for channel in range(2):
        _mix(u[channel], leave, inverse, characters, columns, ctc, mix[channel], total[channel])
    for k in range(characters):
        row = k if ctc else 0
        minus, plus = mix[0, row], mix[1, row]
        left, right = carry[0, k], carry[1, k]
        a, b = ZERO, ONE
        grown, kept = gain[k], keep[k]
        before_minus, before_plus = u[0, k], u[1, k]
        after_minus, after_plus = after[0, k], after[1, k]
        for j in range(columns):
            c, d = minus[j], plus[j]
            left[j], right[j] = a, b
            if spelt[j] == k:
                below, up = b, a
                a, b = d, c
            else:
                below, up = b * c, a + (ONE - a - b) * (ONE - c)
                a, b = d * a, c + (ONE - c - d) * (ONE - a)
            after_minus[j] = grown * below + kept * before_minus[j]
            after_plus[j] = grown * up + kept * before_plus[j]
    for channel in range(2):
        for j in range(columns):
            now = special * total[channel, j]
            # The end stays where it is; after a blank, nothing read is what it was.
            after[channel, characters, j] = now if ctc else now + u[channel, characters, j]


@compiled
def _backward(
    u, d_after, gain, keep, inverse, leave, special, spelt, columns, ctc, mix, carry, total,
    d_u, d_mix, d_total, d_gain, d_keep, d_mass,
):  # fmt: skip
    """One frame; `d_total` and `d_mix` are room. Returns the gradients of leave and special."""
    characters = len(gain)
    last = characters - 1
    states = characters + 1 if ctc else characters
    d_special, d_leave = ZERO, ZERO
    for channel in range(2):
        for j in range(columns):
            d_end = d_after[channel, characters, j]
            d_total[channel, j] = special * d_end
            d_special += total[channel, j] * d_end
            d_u[channel, characters, j] = ZERO if ctc else d_end
    for k in range(characters):
        row = k if ctc else 0
        minus, plus = mix[0, row], mix[1, row]
        left, right = carry[0, k], carry[1, k]
        d_minus, d_plus = d_after[0, k], d_after[1, k]
        before_minus, before_plus = u[0, k], u[1, k]
        into_minus, into_plus = d_mix[0, k], d_mix[1, k]
        grown, scale = gain[k], inverse[k]
        d_a, d_b, of_gain, of_keep, of_mass = ZERO, ZERO, ZERO, ZERO, ZERO
        for j in range(columns - 1, -1, -1):
            a, b, c, d = left[j], right[j], minus[j], plus[j]
            of_keep += d_minus[j] * before_minus[j] + d_plus[j] * before_plus[j]
            d_below, d_up = grown * d_minus[j], grown * d_plus[j]
            if spelt[j] == k:
                of_gain += d_minus[j] * b + d_plus[j] * a
                d_c, d_d = d_b, d_a
                d_a, d_b = d_up, d_below
            else:
                none = ONE - a - b
                level = ONE - c - d
                of_gain += d_minus[j] * b * c + d_plus[j] * (a + none * (ONE - c))
                d_c = d_below * b - d_up * none + d_b * a
                d_d = d_a * a - d_b * (ONE - a)
                d_a = d_up * c + d_a * d - d_b * level
                d_b = d_below * c - d_up * (ONE - c)
            of_mass -= d_c * c + d_d * d
            into_minus[j], into_plus[j] = d_c * scale, d_d * scale
        d_gain[k], d_keep[k], d_mass[k] = of_gain, of_keep, of_mass * scale
    for channel in range(2):
        for k in range(characters):
            for j in range(columns):
                d_total[channel, j] += d_mix[channel, k, j]
        for state in range(states):
            for j in range(columns):
                d_u[channel, state, j] = d_total[channel, j]
        for k in range(characters):
            for j in range(columns):
                d_u[channel, k, j] += keep[k] * d_after[channel, k, j]
        if ctc:
            for k in range(characters):
                for j in range(columns):
                    d_u[channel, k, j] -= d_mix[channel, k, j]
            for j in range(columns):
                d_leave += u[channel, last, j] * d_mix[channel, last, j]
                d_u[channel, last, j] += leave * d_mix[channel, last, j]
    return d_leave, d_special


@compiled
def _part(
    first, end, u, gain, keep, inverse, leave, special, spelt, columns, ctc, mix, carry, total
):
    """Frames from the first one to before the end; `u` has room for one more."""
    for n in range(first, end):
        at = n - first
        _forward(
            u[at], u[at + 1], gain[n], keep[n], inverse[n], leave[n], special[n],
            spelt, columns, ctc, mix[at], carry[at], total[at],
        )  # fmt: skip


@compiled
def _pass(
    gain, keep, inverse, leave, special, present, spelt, lengths, counts, ctc, gradient, most,
    mean, d_gain, d_keep, d_mass, d_leave, d_special,
):  # fmt: skip
    """All samples; `(time, batch, characters)` and `(time, batch)`, as `_difference_rows.Moves`."""
    time, batch, room = gain.shape
    width = spelt.shape[1]
    # Of a frame: states, mixtures and what is left of columns, of two channels each.
    size = max(1, min(time, most // (6 * (room + 1) * width)))
    if size < time:
        size = max(size, int(np.sqrt(time)))
    u = np.empty((size + 1, 2, room + 1, width), np.float32)
    starts = np.empty(((time + size - 1) // size, 2, room + 1, width), np.float32)
    mix = np.empty((size, 2, room + 1, width), np.float32)
    carry = np.empty((size, 2, room, width), np.float32)
    total = np.empty((size, 2, width), np.float32)
    d_u = np.empty((2, 2, room + 1, width), np.float32)
    d_mix = np.empty((2, room, width), np.float32)
    d_total = np.empty((2, width), np.float32)
    d_gains, d_keeps, d_masses = np.empty((3, room), np.float32)
    own = np.empty((3, time, room), np.float32)
    narrow = np.empty((2, time), np.float32)
    frames = np.empty(time, np.int64)
    for i in range(batch):
        columns, characters = lengths[i], counts[i] + 1
        last = characters - 1
        mean[i] = ZERO
        if columns == 0:
            continue
        # What the sample has, without gaps: its frames; its own characters, and the others, which
        # stand behind those of all samples.
        gains, keeps, inverses = own[0, :, :characters], own[1], own[2]
        leaves, specials = narrow
        count = 0
        for t in range(time):
            if present[i, t]:
                for k in range(characters):
                    at = k if k < last else room - 1
                    gains[count, k] = gain[t, i, at]
                    keeps[count, k] = keep[t, i, at]
                    inverses[count, k] = inverse[t, i, at]
                leaves[count], specials[count] = leave[t, i], special[t, i]
                frames[count] = t
                count += 1
        u[0, :, : characters + 1, :columns] = ZERO
        u[0, 1, characters if ctc else last, :columns] = ONE
        first, end = 0, 0
        for start in range(0, count, size):
            if start:
                u[0] = u[size]
            starts[start // size] = u[0]
            first, end = start, min(start + size, count)
            _part(
                first, end, u, gains, keeps, inverses, leaves, specials, spelt[i], columns, ctc,
                mix, carry, total,
            )  # fmt: skip
        for state in range(characters + 1):
            for j in range(columns):
                mean[i] += u[end - first, 1, state, j] - u[end - first, 0, state, j]
        if not gradient:
            continue
        now = 0
        d_u[now, 0, : characters + 1, :columns] = -ONE
        d_u[now, 1, : characters + 1, :columns] = ONE
        for start in range(first, -1, -size):
            if start != first:
                end = start + size
                u[0] = starts[start // size]
                _part(
                    start, end, u, gains, keeps, inverses, leaves, specials, spelt[i], columns,
                    ctc, mix, carry, total,
                )  # fmt: skip
            for n in range(end - 1, start - 1, -1):
                t, at = frames[n], n - start
                d_leave[t, i], d_special[t, i] = _backward(
                    u[at], d_u[now], gains[n], keeps[n], inverses[n], leaves[n], specials[n],
                    spelt[i], columns, ctc, mix[at], carry[at], total[at],
                    d_u[1 - now], d_mix, d_total, d_gains, d_keeps, d_masses,
                )  # fmt: skip
                now = 1 - now
                for k in range(characters):
                    into = k if k < last else room - 1
                    d_gain[t, i, into] = d_gains[k]
                    d_keep[t, i, into] = d_keeps[k]
                    d_mass[t, i, into] = d_masses[k]


def run(
    moves: dict[str, NDArray[np.float32]],
    present: NDArray[np.bool_],
    spelt: NDArray[np.int64],
    counts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    ctc: bool,
    gradient: bool,
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """As `_difference_rows.Rows.run`: means `(batch,)`, and five gradients, zero without one.

    Args:
        moves: of `_difference_rows.Moves`, but for `hold` and with `inverse` for `mass`.
        present: which frames there are, `(batch, time)`.
        spelt: the state of each column's character, `(batch, columns)`.
        counts: of distinct characters.
        lengths: of the targets.
        ctc: as there.
        gradient: whether to compute gradients.
    """
    arrays = [np.ascontiguousarray(moves[name]) for name in MOVES]
    mean = np.empty(arrays[0].shape[1], np.float32)
    d_moves = [np.zeros_like(array) for array in arrays]
    _pass(*arrays, present, spelt, lengths, counts, ctc, gradient, KEPT, mean, *d_moves)
    return mean, d_moves
