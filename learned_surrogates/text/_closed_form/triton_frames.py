"""What one frame does to the row of the edit-distance table, for GPUs (needs Triton).

As in `row_kernels`, for all states at once: those of the characters, of nothing read, and what is
missing to a power of two, which has no probability. A row is, of each column, nine vectors of them.
"""

import triton
import triton.language as tl

from .triton_columns import back_through, given_left, nine, put, through


@triton.jit
def _sums(u, counts, own):
    """The sum of the states that count; and for each, of the others and what is not its own."""
    u = tl.where(counts, u, 0.0)
    total = tl.sum(u, 0)
    # Where one has nearly all, a difference would leave nothing of small numbers.
    most = u > 0.75 * total
    rest = tl.sum(tl.where(most, 0.0, u), 0)
    return total, tl.where(most, rest, total - u) + (1.0 - own) * u


@triton.jit
def _nine_sums(a, b, c, d, e, f, g, h, i, counts, own):
    ta, a = _sums(a, counts, own)
    tb, b = _sums(b, counts, own)
    tc, c = _sums(c, counts, own)
    td, d = _sums(d, counts, own)
    te, e = _sums(e, counts, own)
    tf, f = _sums(f, counts, own)
    tg, g = _sums(g, counts, own)
    th, h = _sums(h, counts, own)
    ti, i = _sums(i, counts, own)
    return ta, tb, tc, td, te, tf, tg, th, ti, a, b, c, d, e, f, g, h, i


@triton.jit
def _dot(a, b, c, d, e, f, g, h, i, xa, xb, xc, xd, xe, xf, xg, xh, xi):
    first, last = a * xa + b * xb + c * xc + d * xd + e * xe, f * xf + g * xg + h * xh + i * xi
    return first + last


@triton.jit
def _before(d_mix, x, none, counts, own, keep):
    """The gradient of a row of states, from those of what they mix and of the row after it."""
    return tl.where(counts, tl.sum(d_mix + none * x, 0), 0.0) - own * d_mix + keep * x


@triton.jit
def moves(characters, special, again, here, at, k, count, CTC: tl.constexpr):
    """What a frame does, by state: reads, reads nothing, and keeps of its own."""
    now = tl.load(characters + at * count + k, mask=k < count, other=0.0)
    none = tl.where(k == count, tl.load(special + at), 0.0)
    own, keep = tl.zeros_like(now), tl.where(k == count, 1.0, tl.zeros_like(now))
    if CTC:
        own = tl.where(k == count - 1, tl.load(again + at), tl.where(k < count, 1.0, 0.0))
        keep = own * now
    return now, none, own, tl.where(here, keep, 1.0)


@triton.jit
def forward(
    before, after, carries, spelt, columns, k, counts, now, none, own, keep,
    STATES: tl.constexpr, GRADIENT: tl.constexpr,
):  # fmt: skip
    """One frame; returns how many characters are read that are not read on, by state."""
    zero = tl.zeros_like(now)
    qa, qb, qc, qd, qe, qf, qg, qh, qi = zero, zero, zero, zero, zero, zero, zero + 1, zero, zero
    # Left of the first column, h is taken for -1, so that it stays so, with v = 1 to its right.
    read = zero
    left = k < 0
    for j in range(columns):
        at = j * 9 * STATES + k
        if GRADIENT:
            put(carries + at, qa, qb, qc, qd, qe, qf, qg, qh, qi, STATES)
        ua, ub, uc, ud, ue, uf, ug, uh, ui = nine(before + at, STATES)
        ta, tb, tc, td, te, tf, tg, th, ti, a, b, c, d, e, f, g, h, i = _nine_sums(
            ua, ub, uc, ud, ue, uf, ug, uh, ui, counts, own
        )
        read += tl.where(j == 0, now * (a + b + c), 0.0)
        a, b, c, d, e, f, g, h, i, _, _, _ = given_left(a, b, c, d, e, f, g, h, i, j == 0)
        matches = k == tl.load(spelt + j)
        a, b, c, d, e, f, g, h, i, qa, qb, qc, qd, qe, qf, qg, qh, qi = through(
            a, b, c, d, e, f, g, h, i, qa, qb, qc, qd, qe, qf, qg, qh, qi, left, matches
        )
        left = matches
        put(
            after + at,
            now * a + none * ta + keep * ua,
            now * b + none * tb + keep * ub,
            now * c + none * tc + keep * uc,
            now * d + none * td + keep * ud,
            now * e + none * te + keep * ue,
            now * f + none * tf + keep * uf,
            now * g + none * tg + keep * ug,
            now * h + none * th + keep * uh,
            now * i + none * ti + keep * ui,
            STATES,
        )
    return read


@triton.jit
def backward(
    before, carries, d_after, d_before, spelt, columns, k, counts, now, none, own, keep,
    STATES: tl.constexpr,
):  # fmt: skip
    """One frame; returns the gradients of what it reads, reads as nothing and keeps, by state."""
    zero = tl.zeros_like(now)
    ra, rb, rc, rd, re, rf, rg, rh, ri = zero, zero, zero, zero, zero, zero, zero, zero, zero
    d_now, d_none, d_own = zero, zero, zero
    for step in range(columns):
        j = columns - 1 - step
        at = j * 9 * STATES + k
        matches = k == tl.load(spelt + j)
        left = (k == tl.load(spelt + tl.maximum(j - 1, 0))) & (j > 0)
        ua, ub, uc, ud, ue, uf, ug, uh, ui = nine(before + at, STATES)
        ta, tb, tc, td, te, tf, tg, th, ti, a, b, c, d, e, f, g, h, i = _nine_sums(
            ua, ub, uc, ud, ue, uf, ug, uh, ui, counts, own
        )
        d_now += tl.where(j == 0, a + b + c, 0.0)
        a, b, c, d, e, f, g, h, i, m, z, p = given_left(a, b, c, d, e, f, g, h, i, j == 0)
        qa, qb, qc, qd, qe, qf, qg, qh, qi = nine(carries + at, STATES)
        xa, xb, xc, xd, xe, xf, xg, xh, xi = nine(d_after + at, STATES)
        la, lb, lc, ld, le, lf, lg, lh, li, _, _, _, _, _, _, _, _, _ = through(
            a, b, c, d, e, f, g, h, i, qa, qb, qc, qd, qe, qf, qg, qh, qi, left, matches
        )
        d_none += _dot(ta, tb, tc, td, te, tf, tg, th, ti, xa, xb, xc, xd, xe, xf, xg, xh, xi)
        kept = _dot(ua, ub, uc, ud, ue, uf, ug, uh, ui, xa, xb, xc, xd, xe, xf, xg, xh, xi)
        d_now += _dot(la, lb, lc, ld, le, lf, lg, lh, li, xa, xb, xc, xd, xe, xf, xg, xh, xi)
        d_now += own * kept
        da, db, dc, dd, de, df, dg, dh, di, ra, rb, rc, rd, re, rf, rg, rh, ri = back_through(
            a, b, c, d, e, f, g, h, i, m, z, p, qa, qb, qc, qd, qe, qf, qg, qh, qi,
            now * xa, now * xb, now * xc, now * xd, now * xe, now * xf,
            now * xg, now * xh, now * xi,
            ra, rb, rc, rd, re, rf, rg, rh, ri, left, matches, j == 0,
        )  # fmt: skip
        # What is read counts, and is the mass of the first column.
        read = tl.where(j == 0, now, 0.0)
        da, db, dc = da + read, db + read, dc + read
        d_own += now * kept
        d_own -= _dot(ua, ub, uc, ud, ue, uf, ug, uh, ui, da, db, dc, dd, de, df, dg, dh, di)
        put(
            d_before + at,
            _before(da, xa, none, counts, own, keep),
            _before(db, xb, none, counts, own, keep),
            _before(dc, xc, none, counts, own, keep),
            _before(dd, xd, none, counts, own, keep),
            _before(de, xe, none, counts, own, keep),
            _before(df, xf, none, counts, own, keep),
            _before(dg, xg, none, counts, own, keep),
            _before(dh, xh, none, counts, own, keep),
            _before(di, xi, none, counts, own, keep),
            STATES,
        )
    return d_now, d_none, d_own
