"""The passes over frames and columns, compiled for the CPU (needs Numba).

Sample by sample and in float32, as `difference_rows` has them with `chained_step`; but they take
the outputs themselves, for a chain needs no masses: the pairs of the first column are the mass.

Only characters that a frame may read have a state. Those that have next to nothing of what frames
leave in doubt count as one of the others, so that a pass takes the time of what is unsure, not of
all there is; of all doubt, that is a ten-thousandth for each character at most.
"""

import numpy as np
from numpy.typing import NDArray

from .column_kernels import ONE, PAIRS, ZERO, back_through, compiled, through

# Float32 numbers that are kept for the way back at a time; longer lines are passed over once more.
KEPT = 2**22
# Of what a frame gives to all but its most probable one, or frames do on average.
LEAST_SHARE = 1e-4


@compiled
def _set(into, factor, row):
    for i in range(len(row)):
        into[i] = factor * row[i]


@compiled
def _add_times(into, factor, row):
    for i in range(len(row)):
        into[i] += factor * row[i]


@compiled
def _dot(one, other):
    total = ZERO
    for i in range(len(one)):
        total += one[i] * other[i]
    return total


@compiled
def _most_probable(p, special):
    """Which character it is, or how many there are, if none; and what all others have together."""
    best, most = len(p), special
    for k in range(len(p)):
        if p[k] > most:
            best, most = k, p[k]
    doubt = ZERO if best == len(p) else special
    for k in range(len(p)):
        if k != best:
            doubt += p[k]
    return best, doubt


@compiled
def _tell_apart(p, special, best, least, now):
    """Probabilities of characters of which those with less than `least` count as others, the last.

    If the others have no more together, they count as the most probable one. Returns what nothing
    has now, and as which the characters without probability count.
    """
    last = len(p) - 1
    rest = ZERO
    for k in range(last + 1):
        now[k] = p[k] if k == best or p[k] >= least else ZERO
        rest += p[k] - now[k]
    kind = last if now[last] + rest >= least else best
    if kind > last:
        return special + rest, kind
    now[kind] += rest
    return special, kind


@compiled
def _forward(
    u, after, before, now, special, again, spelt, letters, columns, ctc, mix, carry, total
):
    """One frame: from the rows by state, `(states, pairs)`, to those after it.

    `before` and `now` are the probabilities that two frames give to each character: it has a state
    where there is any. Returns how many characters are read that are not read on.
    """
    nothing = len(now)
    last = nothing - 1
    behind = mix[nothing]
    _set(total, ONE if ctc else ZERO, u[nothing])
    behind[:] = ZERO
    # Sums of the states before a character and behind it: a difference would leave nothing of
    # small numbers.
    for k in range(nothing):
        if before[k] > ZERO:
            if ctc and now[k] > ZERO:
                _set(mix[k], ONE, total)
            _add_times(total, ONE, u[k])
    if ctc:
        for k in range(last, -1, -1):
            if before[k] > ZERO:
                if now[k] > ZERO:
                    _add_times(mix[k], ONE, behind)
                _add_times(behind, ONE, u[k])
    read = ZERO
    for k in range(nothing):
        if now[k] == ZERO:
            continue
        source = total
        after[k] = ZERO
        if ctc and before[k] > ZERO:
            source, kept = mix[k], ONE
            if k == last:
                kept = again
                _add_times(source, ONE - again, u[k])
            _set(after[k], kept * now[k], u[k])
        read += now[k] * (source[0] + source[1] + source[2])
        through(source, letters[k], spelt, columns, now[k], after[k], carry[k])
    _set(after[nothing], special, total)
    if not ctc:
        _add_times(after[nothing], ONE, u[nothing])
    return read


@compiled
def _backward(
    u, after, d_after, before, now, special, again, spelt, letters, columns, ctc, mix, carry, total,
    d_u, d_mix, d_total, d_now,
):  # fmt: skip
    """One frame; `d_mix` and `d_total` are room. Returns the gradients of special and again."""
    nothing = len(now)
    last = nothing - 1
    d_special, d_again = _dot(total, d_after[nothing]), ZERO
    _set(d_total, special, d_after[nothing])
    for k in range(nothing):
        d_now[k] = ZERO
        if now[k] == ZERO:
            continue
        source = mix[k] if ctc and before[k] > ZERO else total
        back_through(source, letters[k], spelt, columns, now[k], carry[k], d_after[k], d_mix[k])
        # What is read counts, and is the mass of the first column.
        d_mix[k, :3] += now[k]
        # All that comes after is as many times what it is of.
        d_now[k] = source[0] + source[1] + source[2] + _dot(after[k], d_after[k]) / now[k]
        _add_times(d_total, ONE, d_mix[k])
        if ctc and k == last and before[k] > ZERO:
            d_again = now[k] * _dot(u[k], d_after[k]) - _dot(u[k], d_mix[k])
    for k in range(nothing):
        if before[k] > ZERO:
            _set(d_u[k], ONE, d_total)
            if ctc and now[k] > ZERO:
                kept = again if k == last else ONE
                _add_times(d_u[k], kept * now[k], d_after[k])
                _add_times(d_u[k], -kept, d_mix[k])
    _set(d_u[nothing], ONE, d_total if ctc else d_after[nothing])
    return d_special, d_again


@compiled
def _part(first, end, u, read, special, again, spelt, letters, columns, ctc, mix, carry, total):
    """Frames from the first one to before the end; `u` has room for one more."""
    count = ZERO
    for n in range(first, end):
        at = n - first
        count += _forward(
            u[at], u[at + 1], read[n], read[n + 1], special[n], again[n],
            spelt, letters, columns, ctc, mix[at], carry[at], total[at],
        )  # fmt: skip
    return count


@compiled
def _sample(
    p, special, again, present, spelt, letters, length, ctc, gradient, share, most,
    d_p, d_special, d_again,
):  # fmt: skip
    """One sample: `(time, characters)` and `(time,)`; returns its value."""
    time, characters = p.shape
    # Without a target, a column that counts for nothing has the mass.
    columns = max(length, 1)
    width = PAIRS * columns
    size = max(1, min(time, most // (3 * (characters + 1) * width)))
    if size < time:
        size = max(size, int(np.sqrt(time)))
    u = np.empty((size + 1, characters + 1, width), np.float32)
    starts = np.empty(((time + size - 1) // size, characters + 1, width), np.float32)
    mix = np.empty((size, characters + 1, width), np.float32)
    carry = np.empty((size, characters, width), np.float32)
    total = np.empty((size, width), np.float32)
    # Without gaps; behind what was read before the first frame.
    read = np.zeros((time + 1, characters), np.float32)
    specials, agains = np.empty((2, time), np.float32)
    frames, kinds = np.empty((2, time), np.int64)
    doubts = np.empty(time, np.float32)
    count = 0
    for t in range(time):
        if present[t]:
            kinds[count], doubts[count] = _most_probable(p[t], special[t])
            frames[count] = t
            count += 1
    mean = doubts[:count].sum() / np.float32(max(count, 1))
    for n in range(count):
        t = frames[n]
        least = share * max(doubts[n], mean)
        specials[n], kinds[n] = _tell_apart(p[t], special[t], kinds[n], least, read[n + 1])
        agains[n] = again[t]
    # CTC starts with nothing read; positions in a state of no meaning.
    start = characters if ctc else characters - 1
    u[0] = ZERO
    u[0, start, 8::PAIRS] = ONE
    u[0, start, 8], u[0, start, 2] = ZERO, ONE
    if not ctc:
        read[0, start] = ONE
    value = ZERO
    first, end = 0, 0
    for begin in range(0, count, size):
        if begin:
            u[0] = u[size]
        starts[begin // size] = u[0]
        first, end = begin, min(begin + size, count)
        value += _part(
            first, end, u, read, specials, agains, spelt, letters, columns, ctc, mix, carry, total
        )
    steps = np.zeros(width, np.float32)
    for i in range(0, PAIRS * length, 3):
        steps[i], steps[i + 2] = -ONE, ONE
    d_u = np.empty((2, characters + 1, width), np.float32)
    for state in range(characters + 1):
        if state == characters or read[count, state] > ZERO:
            value += _dot(u[end - first, state], steps)
        d_u[0, state] = steps
    if not gradient:
        return value
    d_mix = np.empty((characters, width), np.float32)
    d_total = np.empty(width, np.float32)
    now = 0
    for begin in range(first, -1, -size):
        if begin != first:
            end = begin + size
            u[0] = starts[begin // size]
            _part(
                begin, end, u, read, specials, agains, spelt, letters, columns, ctc, mix, carry,
                total,
            )  # fmt: skip
        for n in range(end - 1, begin - 1, -1):
            t, at = frames[n], n - begin
            d_special[t], d_again[t] = _backward(
                u[at], u[at + 1], d_u[now], read[n], read[n + 1], specials[n], agains[n],
                spelt, letters, columns, ctc, mix[at], carry[at], total[at],
                d_u[1 - now], d_mix, d_total, d_p[t],
            )  # fmt: skip
            now = 1 - now
            d_kind = d_special[t] if kinds[n] == characters else d_p[t, kinds[n]]
            for k in range(characters):
                if read[n + 1, k] == ZERO:
                    d_p[t, k] = d_kind
    return value


@compiled
def _pass(
    p, special, again, present, spelt, letters, counts, lengths, ctc, gradient, share, most,
    value, d_p, d_special, d_again,
):  # fmt: skip
    """All samples, `(batch, time, characters)` and `(batch, time)`."""
    for i in range(len(p)):
        # A sample's own characters; the others stand behind those of all samples.
        own = counts[i]
        of_sample = np.empty((p.shape[1], own + 1), np.float32)
        of_sample[:, :own], of_sample[:, own] = p[i, :, :own], p[i, :, -1]
        d_of_sample = np.zeros_like(of_sample)
        own_letters = np.append(letters[i, :own], letters[i, -1])
        value[i] = _sample(
            of_sample, special[i], again[i], present[i], spelt[i], own_letters, lengths[i], ctc,
            gradient, share, most, d_of_sample, d_special[i], d_again[i],
        )  # fmt: skip
        d_p[i, :, :own], d_p[i, :, -1] = d_of_sample[:, :own], d_of_sample[:, own]


def run(
    characters: NDArray[np.float32],
    special: NDArray[np.float32],
    again: NDArray[np.float32],
    present: NDArray[np.bool_],
    spelt: NDArray[np.int64],
    letters: NDArray[np.int64],
    counts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    ctc: bool,
    gradient: bool,
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """The expected distances, `(batch,)`, and their gradients, zero if none is asked for.

    Args:
        characters, special, again, present: as `frame_moves.Outputs` has them, the batch first.
        spelt: each column's letter, `(batch, columns)`.
        letters: each state's, and that of all others, `(batch, states + 1)`.
        counts: of states.
        lengths: of the targets.
        ctc: whether frames in a row are merged.
        gradient: whether to compute gradients: of characters, special and again.
    """
    outputs = [np.ascontiguousarray(array) for array in (characters, special, again)]
    value = np.empty(len(special), np.float32)
    gradients = [np.zeros_like(array) for array in outputs]
    texts = present, spelt, letters, counts, lengths, ctc, gradient
    _pass(*outputs, *texts, np.float32(LEAST_SHARE), KEPT, value, *gradients)
    return value, gradients
