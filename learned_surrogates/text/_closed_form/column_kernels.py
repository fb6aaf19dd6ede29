"""One character's way through the columns of the edit-distance table, compiled (needs Numba).

As `chained_step`, in float32: a row is the probabilities of pairs of neighbouring steps, `(h left
of it, h)`, nine a column. Nine numbers are named by the signs of a pair, and three by one sign: m,
z and p for -1, 0 and 1.
"""

from typing import Any

import numba
import numpy as np

ONE = np.float32(1)
ZERO = np.float32(0)
PAIRS = 9
# Nothing comes from where there is less; a float32 of its inverse still has room above.
LEAST = np.float32(1e-20)
# Numba imports SciPy where it first compiles, and there denormal numbers are flushed to zero: of
# that, NumPy before 2.0 warns, unless it has looked at a type before.
LOOKED_AT = [np.finfo(kind) for kind in (np.float32, np.float64)]


def compiled(function: Any) -> Any:
    """Compiled at the first call, and kept in a file for later processes where one can be had."""
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no folder that may be written to
        return numba.njit(nogil=True, error_model="numpy")(function)


@compiled
def _nine(row, at):
    return (
        row[at], row[at + 1], row[at + 2], row[at + 3], row[at + 4],
        row[at + 5], row[at + 6], row[at + 7], row[at + 8],
    )  # fmt: skip


@compiled
def _given_left(x, first):
    """Of pairs, the probabilities of h given h left of it, and what they were divided by.

    What is left of the first column is certain, and its pairs have the mass of the row.
    """
    if first:
        return x, (ONE, ONE, ONE)
    a, b, c, d, e, f, g, h, i = x
    m, z, p = a + b + c, d + e + f, g + h + i
    m = ONE / m if m > LEAST else ZERO
    z = ONE / z if z > LEAST else ZERO
    p = ONE / p if p > LEAST else ZERO
    return (a * m, b * m, c * m, d * z, e * z, f * z, g * p, h * p, i * p), (m, z, p)


@compiled
def _turned(q, matches, m, z, p):
    """Of (v, h) with a probability for each h, the sums over what is (h', v')."""
    mm, mz, mp, zm, zz, zp, pm, pz, pp = q
    if matches:
        return pp * p, pz * z, pm * m, zp * p, zz * z, zm * m, mp * p, mz * z, mm * m
    return (
        ZERO, ZERO, pm * m, ZERO, pp * p, zm * m + pz * z, mp * p, mz * z + zp * p, mm * m + zz * z
    )  # fmt: skip


@compiled
def _turned_back(d, matches):
    """Of the gradients of (h', v'), those of (v, h)."""
    if matches:
        return d[8], d[7], d[6], d[5], d[4], d[3], d[2], d[1], d[0]
    return d[8], d[7], d[6], d[5], d[8], d[7], d[2], d[5], d[4]


@compiled
def _lower(matches, m, z, p):
    """h' of the pairs (v, h), summed; `m` has those of h = -1, by v."""
    if matches:
        return m[2] + z[2] + p[2], m[1] + z[1] + p[1], m[0] + z[0] + p[0]
    return m[2], z[2] + p[2] + m[1], z[1] + p[1] + m[0] + z[0] + p[0]


@compiled
def _raised(d, ordered, m, z, p):
    """The gradients of (h', v') for one h to the right of v', from those of the pairs below.

    There v' of -1, 0 and 1 become h' of 1, 0 and -1, or else of 1, 1 and 0.
    """
    if ordered:
        return (
            d[2] + m, d[1] + z, d[0] + p,
            d[5] + m, d[4] + z, d[3] + p,
            d[8] + m, d[7] + z, d[6] + p,
        )  # fmt: skip
    return (
        d[2] + m, d[2] + z, d[1] + p,
        d[5] + m, d[5] + z, d[4] + p,
        d[8] + m, d[8] + z, d[7] + p,
    )  # fmt: skip


@compiled
def through(mix, letter, spelt, columns, grown, after, carry):
    """Adds the row below `mix`, where this letter has been read, `grown` times to `after`.

    `carry` is what comes to each column from the left: the pairs (v, h) of the column before.
    """
    # Left of the first column, h is taken for -1, so that it stays so, with v = 1 to its right.
    q = (ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ONE, ZERO, ZERO)
    left = False
    for j in range(columns):
        at = j * PAIRS
        for i in range(PAIRS):
            carry[at + i] = q[i]
        c, _ = _given_left(_nine(mix, at), j == 0)
        m = _turned(q, left, c[0], c[3], c[6])
        z = _turned(q, left, c[1], c[4], c[7])
        p = _turned(q, left, c[2], c[5], c[8])
        own = spelt[j] == letter
        low = (
            _lower(own, m[0:3], z[0:3], p[0:3])
            + _lower(own, m[3:6], z[3:6], p[3:6])
            + _lower(own, m[6:9], z[6:9], p[6:9])
        )
        for i in range(PAIRS):
            after[at + i] += grown * low[i]
        q = (
            m[0] + m[3] + m[6], z[0] + z[3] + z[6], p[0] + p[3] + p[6],
            m[1] + m[4] + m[7], z[1] + z[4] + z[7], p[1] + p[4] + p[7],
            m[2] + m[5] + m[8], z[2] + z[5] + z[8], p[2] + p[5] + p[8],
        )  # fmt: skip
        left = own


@compiled
def back_through(mix, letter, spelt, columns, grown, carry, d_after, d_mix):
    """Writes the gradient of `mix`, from that of the row below it."""
    d_q = (ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO)
    for j in range(columns - 1, -1, -1):
        at = j * PAIRS
        own = spelt[j] == letter
        left = j > 0 and spelt[j - 1] == letter
        q = _nine(carry, at)
        c, scale = _given_left(_nine(mix, at), j == 0)
        a, b, e, f, g, h, i, n, o = _nine(d_after, at)
        low = (
            grown * a, grown * b, grown * e, grown * f, grown * g,
            grown * h, grown * i, grown * n, grown * o,
        )  # fmt: skip
        m = _turned_back(_raised(low, True, d_q[0], d_q[3], d_q[6]), left)
        z = _turned_back(_raised(low, own, d_q[1], d_q[4], d_q[7]), left)
        p = _turned_back(_raised(low, own, d_q[2], d_q[5], d_q[8]), left)
        for i in range(3):
            d_m = q[i] * m[i] + q[i + 3] * m[i + 3] + q[i + 6] * m[i + 6]
            d_z = q[i] * z[i] + q[i + 3] * z[i + 3] + q[i + 6] * z[i + 6]
            d_p = q[i] * p[i] + q[i + 3] * p[i + 3] + q[i + 6] * p[i + 6]
            mean = ZERO
            if j > 0:
                mean = d_m * c[3 * i] + d_z * c[3 * i + 1] + d_p * c[3 * i + 2]
            d_mix[at + 3 * i] = (d_m - mean) * scale[i]
            d_mix[at + 3 * i + 1] = (d_z - mean) * scale[i]
            d_mix[at + 3 * i + 2] = (d_p - mean) * scale[i]
        d_q = (
            m[0] * c[0] + z[0] * c[1] + p[0] * c[2],
            m[1] * c[3] + z[1] * c[4] + p[1] * c[5],
            m[2] * c[6] + z[2] * c[7] + p[2] * c[8],
            m[3] * c[0] + z[3] * c[1] + p[3] * c[2],
            m[4] * c[3] + z[4] * c[4] + p[4] * c[5],
            m[5] * c[6] + z[5] * c[7] + p[5] * c[8],
            m[6] * c[0] + z[6] * c[1] + p[6] * c[2],
            m[7] * c[3] + z[7] * c[4] + p[7] * c[5],
            m[8] * c[6] + z[8] * c[7] + p[8] * c[8],
        )
