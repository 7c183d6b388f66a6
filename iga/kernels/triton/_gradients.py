"""Triton kernel of the gradients: the nine sums of every row and point over the keys, in the row's own frame.

With S = D_i + Q D_j Qᵀ, A = adj S, u = A g / det, e and f as in `cpu._backward` (docs/theory.md, section 15):

    Σ_j e u        Σ_j M,  M = e u uᵀ + f A

Called twice, the second time with the roles of queries and keys exchanged: each side is formed in the frame in which
its Gaussian is diagonal, and each sum has one program and one order. A tile of 4 rows and 32 keys leaves one element a
thread, whose rotations serve up to 8 points. docs/kernels.md has the count of instructions.
"""

import triton
import triton.language as tl

from iga.kernels.triton._math import load_rotation, reciprocal, relative

__all__ = ["gradient_kernel"]


@triton.jit(do_not_specialize=["tiles", "rows", "first_row_tile", "first_key_tile", "key_tiles"])
def gradient_kernel(
    rot, of_rows, of_keys, gamma, out, tiles, rows, first_row_tile, first_key_tile, key_tiles, heads,
    dof, power, least,
    TILES: tl.constexpr, GROUPS: tl.constexpr, POINTS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
    STUDENT: tl.constexpr, CLAMPED: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """out [B, H, GROUPS·POINTS, 9, rows]: sums over key_tiles tiles of keys from first_key_tile on.

    rot [B, tiles, 9, LANES], of_rows and of_keys [B, H, tiles, GROUPS·POINTS, 6, LANES] (mean, v), gamma
    [B, H, rows, key_tiles·LANES] = ∂loss/∂score. Rows begin at tile first_row_tile. dof = ν, power = (ν + 3)/2;
    det < least: log_det is clamped and has no slope. TILES as in `flash_kernel`, of key_tiles. Programs: tiles of ROWS
    rows, then groups of points, then heads, then B.
    """
    pid = tl.program_id(0)
    row_tiles = rows // ROWS
    first = pid % row_tiles * ROWS
    group = pid // row_tiles % GROUPS
    entry = (pid // row_tiles // GROUPS).to(tl.int64)
    batch = entry // heads
    lane = tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, LANES)[None, :]
    row_tile = first_row_tile + first // LANES
    a = load_rotation(rot + (batch * tiles + row_tile) * (9 * LANES) + first % LANES + lane, LANES)
    stride = GROUPS * POINTS * 6 * LANES
    at_row = of_rows + (entry * tiles + row_tile) * stride + group * (POINTS * 6 * LANES) + first % LANES + lane
    at_key = of_keys + (entry * tiles + first_key_tile) * stride + group * (POINTS * 6 * LANES) + column
    at_rot = rot + (batch * tiles + first_key_tile) * (9 * LANES) + column
    at_gamma = gamma + (entry * rows + first + lane) * (key_tiles * LANES) + column
    sums = (tl.zeros([ROWS, LANES], tl.float32),) * (9 * POINTS)
    for _ in range(TILES if TILES > 0 else key_tiles):
        q = relative(a, load_rotation(at_rot, LANES))
        weight = tl.load(at_gamma)
        grown = ()
        for p in tl.static_range(POINTS):
            e, f, t, c = _slopes(
                a, q, weight, at_row + p * (6 * LANES), at_key + p * (6 * LANES), dof, power, least,
                LANES, STUDENT, CLAMPED, FAST,
            )  # fmt: skip
            grown = grown + _added(sums, 9 * p, e, f, t, c)
        sums = grown
        at_rot += 9 * LANES
        at_key += stride
        at_gamma += LANES
    place = out + (entry * GROUPS + group) * (9 * POINTS * rows) + first + tl.arange(0, ROWS)
    for k in tl.static_range(9 * POINTS):
        tl.store(place + k * rows, tl.sum(sums[k], axis=1))


@triton.jit
def _slopes(
    a, q, weight, at_row, at_key, dof, power, least,
    LANES: tl.constexpr, STUDENT: tl.constexpr, CLAMPED: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """e, f, u and A (00, 11, 22, 01, 02, 12) of one point."""
    a0, a1, a2, a3, a4, a5, a6, a7, a8 = a
    q00, q01, q02, q10, q11, q12, q20, q21, q22 = q
    v0, v1, v2 = tl.load(at_row + 3 * LANES), tl.load(at_row + 4 * LANES), tl.load(at_row + 5 * LANES)
    w0, w1, w2 = v1 * v2, v2 * v0, v0 * v1
    d0 = tl.load(at_row) - tl.load(at_key)
    d1 = tl.load(at_row + LANES) - tl.load(at_key + LANES)
    d2 = tl.load(at_row + 2 * LANES) - tl.load(at_key + 2 * LANES)
    x0, x1, x2 = tl.load(at_key + 3 * LANES), tl.load(at_key + 4 * LANES), tl.load(at_key + 5 * LANES)
    u0, u1, u2 = x1 * x2, x2 * x0, x0 * x1
    # The diagonals of Y = Q D_j Qᵀ and of Z = adj Y, but Z_00, which A_00 alone needs
    y00 = x0 * (q00 * q00) + x1 * (q01 * q01) + x2 * (q02 * q02)
    y11 = x0 * (q10 * q10) + x1 * (q11 * q11) + x2 * (q12 * q12)
    y22 = x0 * (q20 * q20) + x1 * (q21 * q21) + x2 * (q22 * q22)
    z11 = u0 * (q10 * q10) + u1 * (q11 * q11) + u2 * (q12 * q12)
    z22 = u0 * (q20 * q20) + u1 * (q21 * q21) + u2 * (q22 * q22)
    c00 = w0 + v1 * y22 + v2 * y11 + u0 * (q00 * q00) + u1 * (q01 * q01) + u2 * (q02 * q02)
    c11 = w1 + v2 * y00 + v0 * y22 + z11
    c22 = w2 + v0 * y11 + v1 * y00 + z22
    # det S = p_i + p_j + Σ w_ik Y_kk + Σ v_ik Z_kk, of which v_i0 A_00 is all that has w_i1, w_i2 or Z_00 in it
    det = u0 * x0 + v0 * c00 + w0 * y00 + v1 * z11 + v2 * z22
    # A_kl = Z_kl − v_im Y_kl = Σ_n (w_jn − v_im v_jn) Q_kn Q_ln
    c01 = (u0 - v2 * x0) * (q00 * q10) + (u1 - v2 * x1) * (q01 * q11) + (u2 - v2 * x2) * (q02 * q12)
    c02 = (u0 - v1 * x0) * (q00 * q20) + (u1 - v1 * x1) * (q01 * q21) + (u2 - v1 * x2) * (q02 * q22)
    c12 = (u0 - v0 * x0) * (q10 * q20) + (u1 - v0 * x1) * (q11 * q21) + (u2 - v0 * x2) * (q12 * q22)
    inverse = reciprocal(det, FAST)
    g0 = (a0 * d0 + a3 * d1 + a6 * d2) * inverse
    g1 = (a1 * d0 + a4 * d1 + a7 * d2) * inverse
    g2 = (a2 * d0 + a5 * d1 + a8 * d2) * inverse
    t0 = c00 * g0 + c01 * g1 + c02 * g2
    t1 = c01 * g0 + c11 * g1 + c12 * g2
    t2 = c02 * g0 + c12 * g1 + c22 * g2
    e = 0.5 * weight
    f = -0.5 * weight * inverse
    if STUDENT:
        # dist_sq as a sum of squares: gᵀA g / det would lose κ²
        h0 = q00 * t0 + q10 * t1 + q20 * t2
        h1 = q01 * t0 + q11 * t1 + q21 * t2
        h2 = q02 * t0 + q12 * t1 + q22 * t2
        total = dof + v0 * (t0 * t0) + v1 * (t1 * t1) + v2 * (t2 * t2)
        total += x0 * (h0 * h0) + x1 * (h1 * h1) + x2 * (h2 * h2)
        e = power * weight * reciprocal(total, FAST)
    if CLAMPED:
        f = tl.where(det >= least, f, 0.0)
    return e, f, (t0, t1, t2), (c00, c11, c22, c01, c02, c12)


@triton.jit
def _added(sums, first: tl.constexpr, e, f, t, c):
    """The nine sums from `first` on, with one tile's contribution."""
    t0, t1, t2 = t
    c00, c11, c22, c01, c02, c12 = c
    e0, e1 = e * t0, e * t1
    return (
        sums[first] + e * t0,
        sums[first + 1] + e * t1,
        sums[first + 2] + e * t2,
        sums[first + 3] + e * (t0 * t0) + f * c00,
        sums[first + 4] + e * (t1 * t1) + f * c11,
        sums[first + 5] + e * (t2 * t2) + f * c22,
        sums[first + 6] + e0 * t1 + f * c01,
        sums[first + 7] + e0 * t2 + f * c02,
        sums[first + 8] + e1 * t2 + f * c12,
    )
