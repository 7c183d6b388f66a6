"""Machine code for the scores of query rows against all keys: numba, one thread, lanes run over the keys.

The closed form of docs/theory.md, section 5, per query row and tile of `LANES` keys. Q = R_iᵀR_j and its squares are
formed once for all heads and points. Keys lie as [..., tile, field, LANES]: nothing but multiples of LANES separates
the fields, so that one check tells the compiler that they do not overlap what is written.

Points are taken *together*, up to four, with one division and one logarithm for the product of their determinants;
`iga.kernels.cpu.engine` decides from the range of the inputs how many can be, so that no product leaves the range of
the dtype. *Apart*, a point is computed wherever a float32 evaluation by `iga.overlap` stays in range, and with the
clamp of log_det.

Determinants, numerators, and what becomes of them are loops of their own: one of all three is longer than a processor
looks ahead over, and would wait at the end of each chain.

The functions are compiled without parallel=True and release the GIL: threads are the caller's.
"""

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from iga.kernels.cpu._compile import FAST, INLINE, aligned, compiled, full_width

__all__ = ["FIELDS", "LANES", "add_rows"]

LANES = 128
# Fields of a key and point: mean (3), v = σ² (3), w (3), p; w_k the product of the two other v, p that of all three.
FIELDS = 10


# ln(1 + f) = f + f² (f P(f) − ½) on [√½ − 1, √2 − 1], P of degree 6 by a weighted minimax fit of the relative error
# (3.2·10⁻⁸ before rounding). Evaluated in float32 with fused multiply-adds: 1.6·2⁻²⁴ relative over every float32 of
# the interval; with the term e·ln 2 of the exponent, 3·2⁻²⁴.
_P = tuple(
    np.float32(x) for x in (0.3333391, -0.25001338, 0.19963063, -0.16577585, 0.14914767, -0.14267486, 0.087004356)
)
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = _P
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_LN2 = np.float32(math.log(2.0))
_SQRT_HALF_BITS = int(np.float32(math.sqrt(0.5)).view(np.int32))


@intrinsic
def _split(typingctx, x):
    """(e, m) with x = m·2^e, m in [√½, √2), both float32; for positive normal numbers."""
    if x != types.float32:
        return None

    def codegen(context, builder, signature, args):
        i32, f32 = ir.IntType(32), ir.FloatType()
        bits = builder.bitcast(args[0], i32)
        e = builder.ashr(builder.sub(bits, i32(_SQRT_HALF_BITS)), i32(23))
        m = builder.bitcast(builder.sub(bits, builder.shl(e, i32(23))), f32)
        return context.make_tuple(builder, signature.return_type, (builder.sitofp(e, f32), m))

    return types.UniTuple(types.float32, 2)(x), codegen


def _ln(x: np.floating) -> np.floating:
    raise NotImplementedError("compiled only")


@overload(_ln, jit_options={"fastmath": FAST, "forceinline": True})
def _(x):
    if x == types.float32:

        def ln32(x):
            e, m = _split(x)  # pyright: ignore[reportCallIssue] - numba passes the context
            f = m - _ONE
            p = ((((((_P6 * f + _P5) * f + _P4) * f + _P3) * f + _P2) * f + _P1) * f + _P0) * f - _HALF
            # x − x is 0, and NaN where x is NaN or infinite: the exponent of those says nothing
            return (e * _LN2 + ((f * f) * p + f)) + (x - x)

        return ln32
    return lambda x: math.log(x)


@njit(**INLINE)
def _relative(r, rot_j, q, n):
    """Q = R_iᵀR_j and its squares for n keys: fields 0-8 and 9-17 of q, row-major."""
    full_width()
    for k in range(3):
        for l in range(3):  # noqa: E741 - the letter of the formula
            at, first, second, third = (3 * k + l) * LANES, l * LANES, (3 + l) * LANES, (6 + l) * LANES
            for j in range(n):
                x = r[k] * rot_j[first + j] + r[3 + k] * rot_j[second + j] + r[6 + k] * rot_j[third + j]
                q[at + j] = x
                q[9 * LANES + at + j] = x * x


@njit(**INLINE)
def _determinant(a, q, key, j):
    """det of one query point against key j: log_det = ln det."""
    _, _, _, _, _, _, v0, v1, v2, w0, w1, w2, p = a
    x0, x1, x2 = key[3 * LANES + j], key[4 * LANES + j], key[5 * LANES + j]
    u0, u1, u2 = key[6 * LANES + j], key[7 * LANES + j], key[8 * LANES + j]
    q00, q01, q02 = q[9 * LANES + j], q[10 * LANES + j], q[11 * LANES + j]
    q10, q11, q12 = q[12 * LANES + j], q[13 * LANES + j], q[14 * LANES + j]
    q20, q21, q22 = q[15 * LANES + j], q[16 * LANES + j], q[17 * LANES + j]
    det = p + key[9 * LANES + j]
    det += w0 * (q00 * x0 + q01 * x1 + q02 * x2)
    det += w1 * (q10 * x0 + q11 * x1 + q12 * x2)
    det += w2 * (q20 * x0 + q21 * x1 + q22 * x2)
    det += v0 * (q00 * u0 + q01 * u1 + q02 * u2)
    det += v1 * (q10 * u0 + q11 * u1 + q12 * u2)
    det += v2 * (q20 * u0 + q21 * u1 + q22 * u2)
    return det


@njit(**INLINE)
def _numerator(r, a, q, rot_j, key, j):
    """num of one query point against key j: dist_sq = num / det."""
    mu0, mu1, mu2, s0, s1, s2, _, _, _, w0, w1, w2, _ = a
    d0 = mu0 - key[j]
    d1 = mu1 - key[LANES + j]
    d2 = mu2 - key[2 * LANES + j]
    g0 = r[0] * d0 + r[3] * d1 + r[6] * d2
    g1 = r[1] * d0 + r[4] * d1 + r[7] * d2
    g2 = r[2] * d0 + r[5] * d1 + r[8] * d2
    h0 = rot_j[j] * d0 + rot_j[3 * LANES + j] * d1 + rot_j[6 * LANES + j] * d2
    h1 = rot_j[LANES + j] * d0 + rot_j[4 * LANES + j] * d1 + rot_j[7 * LANES + j] * d2
    h2 = rot_j[2 * LANES + j] * d0 + rot_j[5 * LANES + j] * d1 + rot_j[8 * LANES + j] * d2
    x0, x1, x2 = key[3 * LANES + j], key[4 * LANES + j], key[5 * LANES + j]
    u0, u1, u2 = key[6 * LANES + j], key[7 * LANES + j], key[8 * LANES + j]
    num = w0 * (g0 * g0) + w1 * (g1 * g1) + w2 * (g2 * g2)
    num += u0 * (h0 * h0) + u1 * (h1 * h1) + u2 * (h2 * h2)
    # σ_ik T_kl = σ_ik (q_l × g)_k, with σ g formed once for the three l
    g02, g01 = s0 * g2, s0 * g1
    g10, g12 = s1 * g0, s1 * g2
    g21, g20 = s2 * g1, s2 * g0
    num += x0 * _square(g02, g01, g10, g12, g21, g20, q[j], q[3 * LANES + j], q[6 * LANES + j])
    num += x1 * _square(g02, g01, g10, g12, g21, g20, q[LANES + j], q[4 * LANES + j], q[7 * LANES + j])
    num += x2 * _square(g02, g01, g10, g12, g21, g20, q[2 * LANES + j], q[5 * LANES + j], q[8 * LANES + j])
    return num


@njit(**INLINE)
def _square(g02, g01, g10, g12, g21, g20, q0, q1, q2):
    t0 = g02 * q1 - g01 * q2
    t1 = g10 * q2 - g12 * q0
    t2 = g21 * q0 - g20 * q1
    return t0 * t0 + t1 * t1 + t2 * t2


@njit(**INLINE)
def _point(mean, sigma):
    s0, s1, s2 = sigma[0], sigma[1], sigma[2]
    v0, v1, v2 = s0 * s0, s1 * s1, s2 * s2
    w0, w1, w2 = v1 * v2, v2 * v0, v0 * v1
    return mean[0], mean[1], mean[2], s0, s1, s2, v0, v1, v2, w0, w1, w2, w0 * v0


@njit(**INLINE)
def _determinants(a, q, key, n, at):
    """det of one query point against n keys: field 0 of `at`."""
    full_width()
    for j in range(n):
        at[j] = _determinant(a, q, key, j)


@njit(**INLINE)
def _lower(at, n, low):
    full_width()
    for j in range(n):
        low[j] = at[j] if at[j] < low[j] else low[j]


@njit(**INLINE)
def _start(student, one, at):
    """The products below of no point."""
    first = one if student else one - one
    for j in range(LANES):
        at[LANES + j] = first
        at[2 * LANES + j] = one


@njit(**INLINE)
def _student_join(r, a, q, rot_j, key, c, n, at):
    """One point more: field 1 of `at` is Π (1 + D/ν) det, field 2 Π det."""
    full_width()
    per_dof = c[2]
    for j in range(n):
        num, det = _numerator(r, a, q, rot_j, key, j), at[j]
        at[LANES + j] *= num * per_dof + det
        at[2 * LANES + j] *= det


@njit(**INLINE)
def _student_together(c, n, at, acc):
    full_width()
    half, _, _, power, _ = c
    for j in range(n):
        grown, both = at[LANES + j], at[2 * LANES + j]
        # Π (1 + D/ν) by one division: an error of det cancels
        acc[j] -= power * _ln(grown / both) + half * _ln(both)


@njit(**INLINE)
def _gaussian_join(r, a, q, rot_j, key, n, at):
    """One point more: field 2 of `at` is Π det, and field 1 what that must divide to be Σ D."""
    full_width()
    for j in range(n):
        num, det, both = _numerator(r, a, q, rot_j, key, j), at[j], at[2 * LANES + j]
        at[LANES + j] = at[LANES + j] * det + num * both
        at[2 * LANES + j] = both * det


@njit(**INLINE)
def _gaussian_together(c, n, at, acc):
    full_width()
    half = c[0]
    for j in range(n):
        both = at[2 * LANES + j]
        acc[j] -= half * (at[LANES + j] / both + _ln(both))


@njit(**INLINE)
def _numerators(r, a, q, rot_j, key, n, at):
    """num of one query point against n keys: field 1 of `at`."""
    full_width()
    for j in range(n):
        at[LANES + j] = _numerator(r, a, q, rot_j, key, j)


@njit(**INLINE)
def _gaussian_apart(c, n, at, acc):
    full_width()
    half, _, _, _, floor = c
    for j in range(n):
        num, det = at[LANES + j], at[j]
        log_det = _ln(det)
        acc[j] -= half * (num / det + (floor if log_det < floor else log_det))


@njit(**INLINE)
def _student_apart(c, n, at, acc):
    full_width()
    half, one, per_dof, power, floor = c
    for j in range(n):
        num, det = at[LANES + j], at[j]
        log_det = _ln(det)
        x = num / det * per_dof
        y = one + x
        # ln(1 + x) = ln y + (what rounding took from y) / y: accurate however small x is
        grown = _ln(y) + (x - (y - one)) / y
        acc[j] -= power * grown + half * (floor if log_det < floor else log_det)


def _add_rows(rot, mean, sigma, rot_keys, keys, valid, c, student, together, batch, row, end, offset, lowest, out, low):
    """Scores of query rows row … end − 1 of one batch entry, summed over points, into out[batch, :, row − offset, :].

    rot [B, N, 9], mean and sigma [B, H, P, N, 3], rot_keys [B, tiles, 9·LANES], keys [B, H, P, tiles, FIELDS·LANES],
    valid [B, N]; c = (½, 1, 1/ν, (ν + 3)/2, log_det_min); `together` points share a logarithm, 1: none do.
    out [B, H, R, N]; low [B, H, R] receives the least determinant over valid keys and points where `lowest`.
    """
    full_width()
    if keys.shape[4] != FIELDS * LANES:
        raise ValueError("keys are packed for another kernel")
    heads, points, n = mean.shape[1], mean.shape[2], mean.shape[3]
    tiles = rot_keys.shape[1]
    q = aligned(18 * LANES, keys.dtype)
    acc = aligned(LANES, keys.dtype)
    least = aligned(LANES, keys.dtype)
    at = aligned(3 * LANES, keys.dtype)
    for tile in range(tiles):
        first = tile * LANES
        width = min(LANES, n - first)
        padded = min(LANES, (width + 15) // 16 * 16)
        rot_j = rot_keys[batch, tile]
        for i in range(row, end):
            m = rot[batch, i]
            r = (m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8])
            _relative(m, rot_j, q, padded)
            for h in range(heads):
                for j in range(LANES):
                    acc[j] = 0
                    least[j] = np.inf
                for p in range(points):
                    a = _point(mean[batch, h, p, i], sigma[batch, h, p, i])
                    key = keys[batch, h, p, tile]
                    _determinants(a, q, key, padded, at)
                    if lowest:
                        _lower(at, padded, least)
                    turn = p % together
                    last = turn == together - 1 or p == points - 1
                    if turn == 0 and last:
                        _numerators(r, a, q, rot_j, key, padded, at)
                        if student:
                            _student_apart(c, padded, at, acc)
                        else:
                            _gaussian_apart(c, padded, at, acc)
                        continue
                    if turn == 0:
                        _start(student, c[1], at)
                    if student:
                        _student_join(r, a, q, rot_j, key, c, padded, at)
                        if last:
                            _student_together(c, padded, at, acc)
                    else:
                        _gaussian_join(r, a, q, rot_j, key, padded, at)
                        if last:
                            _gaussian_together(c, padded, at, acc)
                for j in range(width):
                    out[batch, h, i - offset, first + j] = acc[j]
                if lowest:
                    x = low[batch, h, i - offset]
                    for j in range(width):
                        if valid[batch, first + j] and least[j] < x:
                            x = least[j]
                    low[batch, h, i - offset] = x


add_rows = compiled("T3 T5 T5 T3 T5 b2 T*5 b i i i i i b T4 T3")(_add_rows)
