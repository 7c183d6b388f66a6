"""Machine code for the gradients of the scores: numba, one thread, lanes run over the keys.

With S = D_i + Q D_j Qᵀ in the frame of the query, g = R_iᵀδ, A = adj S by sums of mixed terms (no cancellation on its
diagonal), u = A g / det, and γ = ∂loss/∂score, e = −γ ∂score/∂dist_sq, f = γ ∂score/∂log_det:

    Y = Q D_j Qᵀ,  Z = adj Y = Σ_l w_jl q_l q_lᵀ
    A_kk = w_ik + v_ia Y_bb + v_ib Y_aa + Z_kk        A_kl = Σ_n (w_jn − v_im v_jn) Q_kn Q_ln   (a, b, m the others)
    M = ∂loss/∂S = e u uᵀ + f A / det                 ∂loss/∂μ_i = −2 R_i Σ e u

so that Σ e u and Σ M, nine sums per query and point, are all that the query needs. The key has the same in its own
frame, with S' = D_j + Qᵀ D_i Q and h = R_jᵀδ: each side is formed where its Gaussian is diagonal, since a matrix turned
from one frame into the other would lose κ² where it has to lose κ. docs/theory.md, section 15.

Three loops for a point: what the query's frame gives, what the key's gives, and what needs both. One loop of all has
some 330 vector instructions, more than a processor looks ahead over, and would wait at its divisions.
"""

from numba import njit

from iga.kernels.cpu._compile import INLINE, aligned, compiled, full_width

__all__ = ["LANES", "SUMS", "add_tiles"]

# As in `_forward`: a module of kernels stands by itself.
LANES = 128
FIELDS = 10
# Sums per query or key and point: e u (3), then M: 00, 11, 22, 01, 02, 12.
SUMS = 9


@njit(fastmath={"contract", "reassoc", "nsz"}, forceinline=True)
def _plus(a, b):
    """a + b, as a link of a sum that may be taken lane by lane: nothing else may be reordered."""
    return a + b


@njit(**INLINE)
def _products(r, rot_j, q, j):
    """Products of entries of Q = R_iᵀR_j for key j: Q_kl² (fields 0-8), Q_kl Q_ml (9-17), Q_kl Q_km (18-26)."""
    q00 = r[0] * rot_j[j] + r[3] * rot_j[3 * LANES + j] + r[6] * rot_j[6 * LANES + j]
    q01 = r[0] * rot_j[LANES + j] + r[3] * rot_j[4 * LANES + j] + r[6] * rot_j[7 * LANES + j]
    q02 = r[0] * rot_j[2 * LANES + j] + r[3] * rot_j[5 * LANES + j] + r[6] * rot_j[8 * LANES + j]
    q10 = r[1] * rot_j[j] + r[4] * rot_j[3 * LANES + j] + r[7] * rot_j[6 * LANES + j]
    q11 = r[1] * rot_j[LANES + j] + r[4] * rot_j[4 * LANES + j] + r[7] * rot_j[7 * LANES + j]
    q12 = r[1] * rot_j[2 * LANES + j] + r[4] * rot_j[5 * LANES + j] + r[7] * rot_j[8 * LANES + j]
    q20 = r[2] * rot_j[j] + r[5] * rot_j[3 * LANES + j] + r[8] * rot_j[6 * LANES + j]
    q21 = r[2] * rot_j[LANES + j] + r[5] * rot_j[4 * LANES + j] + r[8] * rot_j[7 * LANES + j]
    q22 = r[2] * rot_j[2 * LANES + j] + r[5] * rot_j[5 * LANES + j] + r[8] * rot_j[8 * LANES + j]
    q[j], q[LANES + j], q[2 * LANES + j] = q00 * q00, q01 * q01, q02 * q02
    q[3 * LANES + j], q[4 * LANES + j], q[5 * LANES + j] = q10 * q10, q11 * q11, q12 * q12
    q[6 * LANES + j], q[7 * LANES + j], q[8 * LANES + j] = q20 * q20, q21 * q21, q22 * q22
    q[9 * LANES + j], q[10 * LANES + j], q[11 * LANES + j] = q00 * q10, q01 * q11, q02 * q12
    q[12 * LANES + j], q[13 * LANES + j], q[14 * LANES + j] = q00 * q20, q01 * q21, q02 * q22
    q[15 * LANES + j], q[16 * LANES + j], q[17 * LANES + j] = q10 * q20, q11 * q21, q12 * q22
    q[18 * LANES + j], q[19 * LANES + j], q[20 * LANES + j] = q00 * q01, q10 * q11, q20 * q21
    q[21 * LANES + j], q[22 * LANES + j], q[23 * LANES + j] = q00 * q02, q10 * q12, q20 * q22
    q[24 * LANES + j], q[25 * LANES + j], q[26 * LANES + j] = q01 * q02, q11 * q12, q21 * q22


@njit(**INLINE)
def _adjugate(v, w, y00, y11, y22, z00, z11, z22, x0, x1, x2, u0, u1, u2, q, at):
    """adj(diag(v) + Y) from the diagonals of Y and Z = adj Y, the v and w of the other side, and, from field `at` on,
    the products of Q that the rest is made of: entries 00, 11, 22, 01, 02, 12."""
    v0, v1, v2 = v
    w0, w1, w2 = w
    return (
        w0 + v1 * y22 + v2 * y11 + z00,
        w1 + v2 * y00 + v0 * y22 + z11,
        w2 + v0 * y11 + v1 * y00 + z22,
        _dot(u0 - v2 * x0, u1 - v2 * x1, u2 - v2 * x2, q, at),
        _dot(u0 - v1 * x0, u1 - v1 * x1, u2 - v1 * x2, q, at + 3 * LANES),
        _dot(u0 - v0 * x0, u1 - v0 * x1, u2 - v0 * x2, q, at + 6 * LANES),
    )


@njit(**INLINE)
def _dot(x0, x1, x2, a, at):
    """The product with three fields in a row; `at` is no literal, of which each would be compiled by itself."""
    return x0 * a[at] + x1 * a[at + LANES] + x2 * a[at + 2 * LANES]


@njit(**INLINE)
def _dot_apart(x0, x1, x2, a, at):
    return x0 * a[at] + x1 * a[at + 3 * LANES] + x2 * a[at + 6 * LANES]


@njit(**INLINE)
def _query_side(r, mu, v, w, p, q, key, gamma, c, n, work, row):
    """Of one query point and n keys: 1/det, −f, u into fields 0-4 of `work`, and f A / det into the query's sums."""
    full_width()
    half, one, _, _, least = c
    m00 = m11 = m22 = m01 = m02 = m12 = p - p
    for j in range(n):
        x0, x1, x2 = key[3 * LANES + j], key[4 * LANES + j], key[5 * LANES + j]
        u0, u1, u2 = key[6 * LANES + j], key[7 * LANES + j], key[8 * LANES + j]
        y00, y11, y22 = _dot(x0, x1, x2, q, j), _dot(x0, x1, x2, q, 3 * LANES + j), _dot(x0, x1, x2, q, 6 * LANES + j)
        z00, z11, z22 = _dot(u0, u1, u2, q, j), _dot(u0, u1, u2, q, 3 * LANES + j), _dot(u0, u1, u2, q, 6 * LANES + j)
        a = _adjugate(v, w, y00, y11, y22, z00, z11, z22, x0, x1, x2, u0, u1, u2, q, 9 * LANES + j)
        # p_i + w_i1 Y_11 + w_i2 Y_22 + v_i0 Z_00 is v_i0 A_00
        det = key[9 * LANES + j] + v[0] * a[0] + w[0] * y00 + v[1] * z11 + v[2] * z22
        inverse = one / det
        weight = gamma[j] * half
        f = weight * inverse if det >= least else weight - weight
        d0, d1, d2 = mu[0] - key[j], mu[1] - key[LANES + j], mu[2] - key[2 * LANES + j]
        g0 = r[0] * d0 + r[3] * d1 + r[6] * d2
        g1 = r[1] * d0 + r[4] * d1 + r[7] * d2
        g2 = r[2] * d0 + r[5] * d1 + r[8] * d2
        work[j] = inverse
        work[LANES + j] = f
        work[2 * LANES + j] = (a[0] * g0 + a[3] * g1 + a[4] * g2) * inverse
        work[3 * LANES + j] = (a[3] * g0 + a[1] * g1 + a[5] * g2) * inverse
        work[4 * LANES + j] = (a[4] * g0 + a[5] * g1 + a[2] * g2) * inverse
        m00, m11, m22 = _plus(m00, f * a[0]), _plus(m11, f * a[1]), _plus(m22, f * a[2])
        m01, m02, m12 = _plus(m01, f * a[3]), _plus(m02, f * a[4]), _plus(m12, f * a[5])
    row[3] -= m00
    row[4] -= m11
    row[5] -= m22
    row[6] -= m01
    row[7] -= m02
    row[8] -= m12


@njit(**INLINE)
def _key_side(mu, v, w, q, rot_j, key, n, work):
    """The same in the frames of the keys: u into fields 5-7 of `work`, −f A / det into fields 8-13."""
    full_width()
    for j in range(n):
        x = key[3 * LANES + j], key[4 * LANES + j], key[5 * LANES + j]
        u = key[6 * LANES + j], key[7 * LANES + j], key[8 * LANES + j]
        v0, v1, v2 = v
        w0, w1, w2 = w
        y00 = _dot_apart(v0, v1, v2, q, j)
        y11 = _dot_apart(v0, v1, v2, q, LANES + j)
        y22 = _dot_apart(v0, v1, v2, q, 2 * LANES + j)
        z00 = _dot_apart(w0, w1, w2, q, j)
        z11 = _dot_apart(w0, w1, w2, q, LANES + j)
        z22 = _dot_apart(w0, w1, w2, q, 2 * LANES + j)
        a = _adjugate(x, u, y00, y11, y22, z00, z11, z22, v0, v1, v2, w0, w1, w2, q, 18 * LANES + j)
        d0, d1, d2 = mu[0] - key[j], mu[1] - key[LANES + j], mu[2] - key[2 * LANES + j]
        h0 = _dot_apart(d0, d1, d2, rot_j, j)
        h1 = _dot_apart(d0, d1, d2, rot_j, LANES + j)
        h2 = _dot_apart(d0, d1, d2, rot_j, 2 * LANES + j)
        inverse, f = work[j], work[LANES + j]
        work[5 * LANES + j] = (a[0] * h0 + a[3] * h1 + a[4] * h2) * inverse
        work[6 * LANES + j] = (a[3] * h0 + a[1] * h1 + a[5] * h2) * inverse
        work[7 * LANES + j] = (a[4] * h0 + a[5] * h1 + a[2] * h2) * inverse
        work[8 * LANES + j] = f * a[0]
        work[9 * LANES + j] = f * a[1]
        work[10 * LANES + j] = f * a[2]
        work[11 * LANES + j] = f * a[3]
        work[12 * LANES + j] = f * a[4]
        work[13 * LANES + j] = f * a[5]


@njit(**INLINE)
def _both_sides(v, key, gamma, c, student, n, work, sums, row):
    """e from the u of both sides, and what it contributes to the sums of the keys and of the query."""
    full_width()
    half, _, dof, power, _ = c
    v0, v1, v2 = v
    e0 = e1 = e2 = m00 = m11 = m22 = m01 = m02 = m12 = v0 - v0
    for j in range(n):
        s0, s1, s2 = work[2 * LANES + j], work[3 * LANES + j], work[4 * LANES + j]
        t0, t1, t2 = work[5 * LANES + j], work[6 * LANES + j], work[7 * LANES + j]
        e = gamma[j] * half
        if student:
            # dist_sq as a sum of squares: gᵀA g / det would lose κ²
            dist_sq = v0 * (s0 * s0) + v1 * (s1 * s1) + v2 * (s2 * s2)
            dist_sq += key[3 * LANES + j] * (t0 * t0) + key[4 * LANES + j] * (t1 * t1) + key[5 * LANES + j] * (t2 * t2)
            e = gamma[j] * power / (dof + dist_sq)
        es0, es1, es2 = e * s0, e * s1, e * s2
        e0, e1, e2 = _plus(e0, es0), _plus(e1, es1), _plus(e2, es2)
        m00, m11, m22 = _plus(m00, es0 * s0), _plus(m11, es1 * s1), _plus(m22, es2 * s2)
        m01, m02, m12 = _plus(m01, es0 * s1), _plus(m02, es0 * s2), _plus(m12, es1 * s2)
        et0, et1, et2 = e * t0, e * t1, e * t2
        sums[j] += et0
        sums[LANES + j] += et1
        sums[2 * LANES + j] += et2
        sums[3 * LANES + j] += et0 * t0 - work[8 * LANES + j]
        sums[4 * LANES + j] += et1 * t1 - work[9 * LANES + j]
        sums[5 * LANES + j] += et2 * t2 - work[10 * LANES + j]
        sums[6 * LANES + j] += et0 * t1 - work[11 * LANES + j]
        sums[7 * LANES + j] += et0 * t2 - work[12 * LANES + j]
        sums[8 * LANES + j] += et1 * t2 - work[13 * LANES + j]
    row[0] += e0
    row[1] += e1
    row[2] += e2
    row[3] += m00
    row[4] += m11
    row[5] += m22
    row[6] += m01
    row[7] += m02
    row[8] += m12


@njit(**INLINE)
def _point(r, mean, sigma, q, rot_j, key, gamma, c, student, n, work, sums, row):
    """One query point against the n keys of a tile: adds to the sums of the keys, and to the nine of the query."""
    mu = mean[0], mean[1], mean[2]
    v = sigma[0] * sigma[0], sigma[1] * sigma[1], sigma[2] * sigma[2]
    w = v[1] * v[2], v[2] * v[0], v[0] * v[1]
    _query_side(r, mu, v, w, w[0] * v[0], q, key, gamma, c, n, work, row)
    _key_side(mu, v, w, q, rot_j, key, n, work)
    _both_sides(v, key, gamma, c, student, n, work, sums, row)


def _add_tiles(
    rot, mean, sigma, rot_keys, keys, gamma, c, student, batch, head, head_end, tile, tile_end, start, rows, sums
):
    """Adds what gamma [B, H, R, N] of query rows start … start + R − 1 contributes, for heads and tiles of one entry.

    rows [B, H, P, R, SUMS]: sums over these tiles; sums [B, H, P, tiles, SUMS·LANES]: over these rows. Other arrays as
    in `add_rows`; c = (½, 1, ν, (ν + 3)/2, least determinant that is not clamped).
    """
    full_width()
    if keys.shape[4] != FIELDS * LANES or sums.shape[4] != SUMS * LANES:
        raise ValueError("keys are packed for another kernel")
    points, n = mean.shape[2], mean.shape[3]
    q = aligned(27 * LANES, keys.dtype)
    weights, work = aligned(LANES, keys.dtype), aligned(14 * LANES, keys.dtype)
    for t in range(tile, tile_end):
        first = t * LANES
        width = min(LANES, n - first)
        padded = min(LANES, (width + 15) // 16 * 16)
        rot_j = rot_keys[batch, t]
        for i in range(gamma.shape[2]):
            m = rot[batch, start + i]
            r = (m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8])
            for j in range(padded):
                _products(r, rot_j, q, j)
            for h in range(head, head_end):
                given = gamma[batch, h, i, first : first + width]
                for j in range(width):
                    weights[j] = given[j]
                for j in range(width, padded):
                    weights[j] = 0
                for p in range(points):
                    _point(
                        r, mean[batch, h, p, start + i], sigma[batch, h, p, start + i], q, rot_j, keys[batch, h, p, t],
                        weights, c, student, padded, work, sums[batch, h, p, t], rows[batch, h, p, i],
                    )  # fmt: skip


add_tiles = compiled("T3 T5 T5 T3 T5 T4 T*5 b i i i i i i T5 T5")(_add_tiles)
