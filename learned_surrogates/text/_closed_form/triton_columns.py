"""One character's way through one column of the edit-distance table, for GPUs (needs Triton).

As `column_kernels` has it, for all states at once: each of a column's nine numbers, probabilities
of `(h left of it, h)`, is a vector with an entry for each state. Older versions of Triton take no
tuples, so each number has a name: of nine, a letter from a to i in the order of the signs of the
pair; of three, m, z and p for -1, 0 and 1.
"""

import triton
import triton.language as tl


@triton.jit
def nine(row, STATES: tl.constexpr):
    return (
        tl.load(row), tl.load(row + STATES), tl.load(row + 2 * STATES),
        tl.load(row + 3 * STATES), tl.load(row + 4 * STATES), tl.load(row + 5 * STATES),
        tl.load(row + 6 * STATES), tl.load(row + 7 * STATES), tl.load(row + 8 * STATES),
    )  # fmt: skip


@triton.jit
def put(row, a, b, c, d, e, f, g, h, i, STATES: tl.constexpr):
    tl.store(row, a)
    tl.store(row + STATES, b)
    tl.store(row + 2 * STATES, c)
    tl.store(row + 3 * STATES, d)
    tl.store(row + 4 * STATES, e)
    tl.store(row + 5 * STATES, f)
    tl.store(row + 6 * STATES, g)
    tl.store(row + 7 * STATES, h)
    tl.store(row + 8 * STATES, i)


@triton.jit
def _inverse(mass, first):
    # Nothing comes from where there is less; a float32 of its inverse still has room above.
    inverse = tl.where(mass > 1e-20, 1.0 / tl.maximum(mass, 1e-20), 0.0)
    return tl.where(first, 1.0, inverse)


@triton.jit
def given_left(a, b, c, d, e, f, g, h, i, first):
    """Of pairs, the probabilities of h given h left of it, and the inverse of those of the latter.

    What is left of the first column is certain, and its pairs have the mass of the row.
    """
    m, z, p = _inverse(a + b + c, first), _inverse(d + e + f, first), _inverse(g + h + i, first)
    return a * m, b * m, c * m, d * z, e * z, f * z, g * p, h * p, i * p, m, z, p


@triton.jit
def _given_left_back(m, z, p, d_m, d_z, d_p, inverse, first):
    """The gradients of the three pairs with one h left of it, from those of what is given that."""
    mean = tl.where(first, 0.0, m * d_m + z * d_z + p * d_p)
    return (d_m - mean) * inverse, (d_z - mean) * inverse, (d_p - mean) * inverse


@triton.jit
def _turned(a, b, c, d, e, f, g, h, i, m, z, p, matches):
    """Of (v, h) with a probability for each h, the sums over what is (h', v')."""
    a, b, c, d, e, f, g, h, i = a * m, b * z, c * p, d * m, e * z, f * p, g * m, h * z, i * p
    return (
        tl.where(matches, i, 0.0), tl.where(matches, h, 0.0), g,
        tl.where(matches, f, 0.0), tl.where(matches, e, i), tl.where(matches, d, d + h),
        c, tl.where(matches, b, b + f), tl.where(matches, a, a + e),
    )  # fmt: skip


@triton.jit
def _turned_back(a, b, c, d, e, f, g, h, i, m, z, p, ordered, matches):
    """The gradients of (v, h) for one h to the right of v', from those of the pairs below.

    There v' of -1, 0 and 1 become h' of 1, 0 and -1, or else of 1, 1 and 0; m, z and p are the
    gradients of v' with that h.
    """
    a, b, c = c + m, tl.where(ordered, b, c) + z, tl.where(ordered, a, b) + p
    d, e, f = f + m, tl.where(ordered, e, f) + z, tl.where(ordered, d, e) + p
    g, h, i = i + m, tl.where(ordered, h, i) + z, tl.where(ordered, g, h) + p
    return (
        i, h, g,
        f, tl.where(matches, e, i), tl.where(matches, d, h),
        c, tl.where(matches, b, f), tl.where(matches, a, e),
    )  # fmt: skip


@triton.jit
def _lower(a, b, c, d, e, f, g, h, i, matches):
    """h' of the pairs (v, h), summed: a, b and c are those of h = -1, by v, and so on."""
    return (
        tl.where(matches, c + f + i, c),
        tl.where(matches, b + e + h, f + i + b),
        tl.where(matches, a + d + g, e + h + a + d + g),
    )


@triton.jit
def through(a, b, c, d, e, f, g, h, i, qa, qb, qc, qd, qe, qf, qg, qh, qi, left, own):
    """The row below, and the pairs (v, h) that come out to the right.

    Args:
        a to i: of the row above, the probabilities given h left of it.
        qa to qi: what comes from the left, the pairs (v, h) of the column before.
        left: whether the column before matches.
        own: whether this one does.
    """
    ma, mb, mc, md, me, mf, mg, mh, mi = _turned(qa, qb, qc, qd, qe, qf, qg, qh, qi, a, d, g, left)
    za, zb, zc, zd, ze, zf, zg, zh, zi = _turned(qa, qb, qc, qd, qe, qf, qg, qh, qi, b, e, h, left)
    pa, pb, pc, pd, pe, pf, pg, ph, pi = _turned(qa, qb, qc, qd, qe, qf, qg, qh, qi, c, f, i, left)
    a, b, c = _lower(ma, mb, mc, za, zb, zc, pa, pb, pc, own)
    d, e, f = _lower(md, me, mf, zd, ze, zf, pd, pe, pf, own)
    g, h, i = _lower(mg, mh, mi, zg, zh, zi, pg, ph, pi, own)
    return (
        a, b, c, d, e, f, g, h, i,
        ma + md + mg, za + zd + zg, pa + pd + pg,
        mb + me + mh, zb + ze + zh, pb + pe + ph,
        mc + mf + mi, zc + zf + zi, pc + pf + pi,
    )  # fmt: skip


@triton.jit
def back_through(
    a, b, c, d, e, f, g, h, i, m, z, p, qa, qb, qc, qd, qe, qf, qg, qh, qi,
    la, lb, lc, ld, le, lf, lg, lh, li, ra, rb, rc, rd, re, rf, rg, rh, ri, left, own, first,
):  # fmt: skip
    """The gradients of the row above, and of the pairs (v, h) that come from the left.

    Args:
        a to i, m, z, p: as `given_left` has them, of the row above.
        qa to qi: what comes from the left.
        la to li: the gradient of the row below.
        ra to ri: the gradient of the pairs that come out to the right.
        left: whether the column before matches.
        own: whether this one does.
        first: whether it is the first.
    """
    ma, mb, mc, md, me, mf, mg, mh, mi = _turned_back(
        la, lb, lc, ld, le, lf, lg, lh, li, ra, rd, rg, True, left
    )
    za, zb, zc, zd, ze, zf, zg, zh, zi = _turned_back(
        la, lb, lc, ld, le, lf, lg, lh, li, rb, re, rh, own, left
    )
    pa, pb, pc, pd, pe, pf, pg, ph, pi = _turned_back(
        la, lb, lc, ld, le, lf, lg, lh, li, rc, rf, ri, own, left
    )
    da, db, dc = _given_left_back(
        a, b, c,
        qa * ma + qd * md + qg * mg, qa * za + qd * zd + qg * zg, qa * pa + qd * pd + qg * pg,
        m, first,
    )  # fmt: skip
    dd, de, df = _given_left_back(
        d, e, f,
        qb * mb + qe * me + qh * mh, qb * zb + qe * ze + qh * zh, qb * pb + qe * pe + qh * ph,
        z, first,
    )  # fmt: skip
    dg, dh, di = _given_left_back(
        g, h, i,
        qc * mc + qf * mf + qi * mi, qc * zc + qf * zf + qi * zi, qc * pc + qf * pf + qi * pi,
        p, first,
    )  # fmt: skip
    return (
        da, db, dc, dd, de, df, dg, dh, di,
        ma * a + za * b + pa * c, mb * d + zb * e + pb * f, mc * g + zc * h + pc * i,
        md * a + zd * b + pd * c, me * d + ze * e + pe * f, mf * g + zf * h + pf * i,
        mg * a + zg * b + pg * c, mh * d + zh * e + ph * f, mi * g + zi * h + pi * i,
    )  # fmt: skip
