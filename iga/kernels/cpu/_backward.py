"""Machine code for the gradients of the scores: numba, one thread, lanes run over the keys.

With S = D_i + Q D_j Qᵀ in the frame of the query, g = R_iᵀδ, A = adj S by sums of mixed terms (no cancellation on its
diagonal), u = A g / det, and γ = ∂loss/∂score, e = −γ ∂score/∂dist_sq, f = γ ∂score/∂log_det:

    Y = Q D_j Qᵀ,  Z = adj Y = Σ_l w_jl q_l q_lᵀ
    A_kk = w_ik + v_ia Y_bb + v_ib Y_aa + Z_kk        A_kl = Z_kl − v_im Y_kl   (a, b the other two, m the third)
    M = ∂loss/∂S = e u uᵀ + f A / det                 ∂loss/∂μ_i = −2 R_i Σ e u

so that Σ e u and Σ M, nine sums per query and point, are all that the query needs. The key has the same in its own
frame, with S' = D_j + Qᵀ D_i Q and h = R_jᵀδ: each side is formed where its Gaussian is diagonal, since a matrix turned
from one frame into the other would lose κ² where it has to lose κ. docs/theory.md, section 15.
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
def _adjugate(v0, v1, v2, w0, w1, w2, y00, y11, y22, y01, y02, y12, z00, z11, z22, z01, z02, z12):
    """adj(diag(v) + Y) from Y, Z = adj Y: entries 00, 11, 22, 01, 02, 12."""
    return (
        w0 + v1 * y22 + v2 * y11 + z00,
        w1 + v2 * y00 + v0 * y22 + z11,
        w2 + v0 * y11 + v1 * y00 + z22,
        z01 - v2 * y01,
        z02 - v1 * y02,
        z12 - v0 * y12,
    )


@njit(**INLINE)
def _times(a, x0, x1, x2, factor):
    a00, a11, a22, a01, a02, a12 = a
    return (
        (a00 * x0 + a01 * x1 + a02 * x2) * factor,
        (a01 * x0 + a11 * x1 + a12 * x2) * factor,
        (a02 * x0 + a12 * x1 + a22 * x2) * factor,
    )


@njit(**INLINE)
def _dot(x0, x1, x2, a, at):
    """The product with three fields in a row; `at` is no literal, of which each would be compiled by itself."""
    return x0 * a[at] + x1 * a[at + LANES] + x2 * a[at + 2 * LANES]


@njit(**INLINE)
def _dot_apart(x0, x1, x2, a, at):
    return x0 * a[at] + x1 * a[at + 3 * LANES] + x2 * a[at + 6 * LANES]


@njit(**INLINE)
def _point(r, mean, sigma, q, rot_j, key, gamma, c, student, n, sums, row):
    """One query point against the n keys of a tile: adds to the sums of the keys, and to the nine of the query."""
    full_width()
    half, one, dof, power, least = c
    mu0, mu1, mu2 = mean[0], mean[1], mean[2]
    v0, v1, v2 = sigma[0] * sigma[0], sigma[1] * sigma[1], sigma[2] * sigma[2]
    w0, w1, w2 = v1 * v2, v2 * v0, v0 * v1
    p = w0 * v0
    e0 = e1 = e2 = m00 = m11 = m22 = m01 = m02 = m12 = p - p
    for j in range(n):
        d0, d1, d2 = mu0 - key[j], mu1 - key[LANES + j], mu2 - key[2 * LANES + j]
        x0, x1, x2 = key[3 * LANES + j], key[4 * LANES + j], key[5 * LANES + j]
        u0, u1, u2 = key[6 * LANES + j], key[7 * LANES + j], key[8 * LANES + j]
        y00, y11, y22 = _dot(x0, x1, x2, q, j), _dot(x0, x1, x2, q, 3 * LANES + j), _dot(x0, x1, x2, q, 6 * LANES + j)
        y01, y02, y12 = (
            _dot(x0, x1, x2, q, 9 * LANES + j),
            _dot(x0, x1, x2, q, 12 * LANES + j),
            _dot(x0, x1, x2, q, 15 * LANES + j),
        )
        z00, z11, z22 = _dot(u0, u1, u2, q, j), _dot(u0, u1, u2, q, 3 * LANES + j), _dot(u0, u1, u2, q, 6 * LANES + j)
        z01, z02, z12 = (
            _dot(u0, u1, u2, q, 9 * LANES + j),
            _dot(u0, u1, u2, q, 12 * LANES + j),
            _dot(u0, u1, u2, q, 15 * LANES + j),
        )
        det = p + key[9 * LANES + j]
        det += w0 * y00 + w1 * y11 + w2 * y22
        det += v0 * z00 + v1 * z11 + v2 * z22
        inverse = one / det
        a = _adjugate(v0, v1, v2, w0, w1, w2, y00, y11, y22, y01, y02, y12, z00, z11, z22, z01, z02, z12)
        g0 = r[0] * d0 + r[3] * d1 + r[6] * d2
        g1 = r[1] * d0 + r[4] * d1 + r[7] * d2
        g2 = r[2] * d0 + r[5] * d1 + r[8] * d2
        s0, s1, s2 = _times(a, g0, g1, g2, inverse)

        y00, y11, y22 = (
            _dot_apart(v0, v1, v2, q, j),
            _dot_apart(v0, v1, v2, q, LANES + j),
            _dot_apart(v0, v1, v2, q, 2 * LANES + j),
        )
        y01, y02, y12 = (
            _dot(v0, v1, v2, q, 18 * LANES + j),
            _dot(v0, v1, v2, q, 21 * LANES + j),
            _dot(v0, v1, v2, q, 24 * LANES + j),
        )
        z00, z11, z22 = (
            _dot_apart(w0, w1, w2, q, j),
            _dot_apart(w0, w1, w2, q, LANES + j),
            _dot_apart(w0, w1, w2, q, 2 * LANES + j),
        )
        z01, z02, z12 = (
            _dot(w0, w1, w2, q, 18 * LANES + j),
            _dot(w0, w1, w2, q, 21 * LANES + j),
            _dot(w0, w1, w2, q, 24 * LANES + j),
        )
        b = _adjugate(x0, x1, x2, u0, u1, u2, y00, y11, y22, y01, y02, y12, z00, z11, z22, z01, z02, z12)
        h0, h1, h2 = (
            _dot_apart(d0, d1, d2, rot_j, j),
            _dot_apart(d0, d1, d2, rot_j, LANES + j),
            _dot_apart(d0, d1, d2, rot_j, 2 * LANES + j),
        )
        t0, t1, t2 = _times(b, h0, h1, h2, inverse)

        weight = gamma[j] * half
        e = weight
        if student:
            # dist_sq as a sum of squares: gᵀA g / det would lose κ²
            dist_sq = v0 * (s0 * s0) + v1 * (s1 * s1) + v2 * (s2 * s2)
            dist_sq += x0 * (t0 * t0) + x1 * (t1 * t1) + x2 * (t2 * t2)
            e = gamma[j] * power / (dof + dist_sq)
        f = -weight * inverse if det >= least else weight - weight

        es0, es1, es2 = e * s0, e * s1, e * s2
        e0, e1, e2 = _plus(e0, es0), _plus(e1, es1), _plus(e2, es2)
        m00, m11, m22 = (
            _plus(m00, es0 * s0 + f * a[0]),
            _plus(m11, es1 * s1 + f * a[1]),
            _plus(m22, es2 * s2 + f * a[2]),
        )
        m01, m02, m12 = (
            _plus(m01, es0 * s1 + f * a[3]),
            _plus(m02, es0 * s2 + f * a[4]),
            _plus(m12, es1 * s2 + f * a[5]),
        )
        et0, et1, et2 = e * t0, e * t1, e * t2
        sums[j] += et0
        sums[LANES + j] += et1
        sums[2 * LANES + j] += et2
        sums[3 * LANES + j] += et0 * t0 + f * b[0]
        sums[4 * LANES + j] += et1 * t1 + f * b[1]
        sums[5 * LANES + j] += et2 * t2 + f * b[2]
        sums[6 * LANES + j] += et0 * t1 + f * b[3]
        sums[7 * LANES + j] += et0 * t2 + f * b[4]
        sums[8 * LANES + j] += et1 * t2 + f * b[5]
    row[0] += e0
    row[1] += e1
    row[2] += e2
    row[3] += m00
    row[4] += m11
    row[5] += m22
    row[6] += m01
    row[7] += m02
    row[8] += m12


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
    weights = aligned(LANES, keys.dtype)
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
                for j in range(width):
                    weights[j] = gamma[batch, h, i, first + j]
                for j in range(width, padded):
                    weights[j] = 0
                for p in range(points):
                    _point(
                        r, mean[batch, h, p, start + i], sigma[batch, h, p, start + i], q, rot_j, keys[batch, h, p, t],
                        weights, c, student, padded, sums[batch, h, p, t], rows[batch, h, p, i],
                    )  # fmt: skip


add_tiles = compiled("T3 T5 T5 T3 T5 T4 T*5 b i i i i i i T5 T5")(_add_tiles)
