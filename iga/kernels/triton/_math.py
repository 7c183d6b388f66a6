"""The closed form in Triton: what the kernels of scores, of attention and of gradients share.

Tiles are [query rows, keys]. Rotations come as nine fields, row by row, `LANES` numbers apart. Letters are those of
docs/theory.md, sections 5 and 15. Everything is elementwise arithmetic: no tensor cores, hence no TF32.

FAST takes the hardware's approximate reciprocal (1 ulp), exponential and logarithm (2⁻²² relative; the logarithm
between ½ and 2 2⁻²² absolute); it is off under the interpreter, which knows no PTX, and where Student's ν is so large
that (ν + 3)/2 times that error would count. Without it they are the compiler's, correct to an ulp or two.
"""

import triton
import triton.language as tl

__all__ = ["exponential", "load_rotation", "logarithm", "overlap", "reciprocal", "relative", "score"]

LN_2 = tl.constexpr(0.6931471805599453)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def reciprocal(x, FAST: tl.constexpr):
    if FAST:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return 1.0 / x


@triton.jit
def logarithm(x, FAST: tl.constexpr):
    """log₂ x."""
    if FAST:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.log2(x)


@triton.jit
def exponential(x, FAST: tl.constexpr):
    """eˣ; by the hardware 2⁻²² relative, beside the rounding of x log₂ e."""
    if FAST:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x * LOG2_E], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.exp(x)


@triton.jit
def load_rotation(pointer, LANES: tl.constexpr):
    """The nine entries of a rotation, row by row."""
    return (
        tl.load(pointer),
        tl.load(pointer + LANES),
        tl.load(pointer + 2 * LANES),
        tl.load(pointer + 3 * LANES),
        tl.load(pointer + 4 * LANES),
        tl.load(pointer + 5 * LANES),
        tl.load(pointer + 6 * LANES),
        tl.load(pointer + 7 * LANES),
        tl.load(pointer + 8 * LANES),
    )


@triton.jit
def relative(a, b):
    """Q = R_iᵀR_j of the rotations a (queries) and b (keys), row by row."""
    a0, a1, a2, a3, a4, a5, a6, a7, a8 = a
    b0, b1, b2, b3, b4, b5, b6, b7, b8 = b
    return (
        a0 * b0 + a3 * b3 + a6 * b6,
        a0 * b1 + a3 * b4 + a6 * b7,
        a0 * b2 + a3 * b5 + a6 * b8,
        a1 * b0 + a4 * b3 + a7 * b6,
        a1 * b1 + a4 * b4 + a7 * b7,
        a1 * b2 + a4 * b5 + a7 * b8,
        a2 * b0 + a5 * b3 + a8 * b6,
        a2 * b1 + a5 * b4 + a8 * b7,
        a2 * b2 + a5 * b5 + a8 * b8,
    )


@triton.jit
def overlap(a, b, q, query, key, LANES: tl.constexpr):
    """(num, det) of one point: dist_sq = num / det, log_det = ln det. q: `relative(a, b)`.

    query points at 13 fields: mean, σ, v = σ², w (w_k the product of the two other v), p (that of all three); key at
    6: mean and v.
    """
    a0, a1, a2, a3, a4, a5, a6, a7, a8 = a
    b0, b1, b2, b3, b4, b5, b6, b7, b8 = b
    q00, q01, q02, q10, q11, q12, q20, q21, q22 = q
    s0, s1, s2 = tl.load(query + 3 * LANES), tl.load(query + 4 * LANES), tl.load(query + 5 * LANES)
    v0, v1, v2 = tl.load(query + 6 * LANES), tl.load(query + 7 * LANES), tl.load(query + 8 * LANES)
    w0, w1, w2 = tl.load(query + 9 * LANES), tl.load(query + 10 * LANES), tl.load(query + 11 * LANES)
    d0 = tl.load(query) - tl.load(key)
    d1 = tl.load(query + LANES) - tl.load(key + LANES)
    d2 = tl.load(query + 2 * LANES) - tl.load(key + 2 * LANES)
    x0, x1, x2 = tl.load(key + 3 * LANES), tl.load(key + 4 * LANES), tl.load(key + 5 * LANES)
    u0, u1, u2 = x1 * x2, x2 * x0, x0 * x1
    g0 = a0 * d0 + a3 * d1 + a6 * d2
    g1 = a1 * d0 + a4 * d1 + a7 * d2
    g2 = a2 * d0 + a5 * d1 + a8 * d2
    h0 = b0 * d0 + b3 * d1 + b6 * d2
    h1 = b1 * d0 + b4 * d1 + b7 * d2
    h2 = b2 * d0 + b5 * d1 + b8 * d2
    det = tl.load(query + 12 * LANES) + u0 * x0
    det += w0 * ((q00 * q00) * x0 + (q01 * q01) * x1 + (q02 * q02) * x2)
    det += w1 * ((q10 * q10) * x0 + (q11 * q11) * x1 + (q12 * q12) * x2)
    det += w2 * ((q20 * q20) * x0 + (q21 * q21) * x1 + (q22 * q22) * x2)
    det += v0 * ((q00 * q00) * u0 + (q01 * q01) * u1 + (q02 * q02) * u2)
    det += v1 * ((q10 * q10) * u0 + (q11 * q11) * u1 + (q12 * q12) * u2)
    det += v2 * ((q20 * q20) * u0 + (q21 * q21) * u1 + (q22 * q22) * u2)
    num = w0 * (g0 * g0) + w1 * (g1 * g1) + w2 * (g2 * g2)
    num += u0 * (h0 * h0) + u1 * (h1 * h1) + u2 * (h2 * h2)
    # σ_ik T_kl = σ_ik (q_l × g)_k, with σ g formed once for the three l
    g02, g01 = s0 * g2, s0 * g1
    g10, g12 = s1 * g0, s1 * g2
    g21, g20 = s2 * g1, s2 * g0
    num += x0 * _square(g02, g01, g10, g12, g21, g20, q00, q10, q20)
    num += x1 * _square(g02, g01, g10, g12, g21, g20, q01, q11, q21)
    num += x2 * _square(g02, g01, g10, g12, g21, g20, q02, q12, q22)
    return num, det


@triton.jit
def _square(g02, g01, g10, g12, g21, g20, q0, q1, q2):
    t0 = g02 * q1 - g01 * q2
    t1 = g10 * q2 - g12 * q0
    t2 = g21 * q0 - g20 * q1
    return t0 * t0 + t1 * t1 + t2 * t2


@triton.jit
def score(
    num, det, per_dof, power, floor, STUDENT: tl.constexpr, LARGE_DOF: tl.constexpr, CLAMPED: tl.constexpr,
    FAST: tl.constexpr,
):  # fmt: skip
    """The score of one point, from `overlap`. Logarithms are binary, and their factors come with ln 2 in them:
    per_dof = 1/ν, power = ln 2 (ν + 3)/2, floor = log_det_min / ln 2 where CLAMPED."""
    log_det = logarithm(det, FAST)
    if CLAMPED:
        log_det = tl.maximum(log_det, floor)
    dist_sq = num * reciprocal(det, FAST)
    if STUDENT:
        x = dist_sq * per_dof
        y = 1.0 + x
        grown = logarithm(y, FAST)
        if LARGE_DOF:
            # ln(1 + x) = ln y + (what rounding took from y) / y: accurate however small x is
            grown += LOG2_E * ((x - (y - 1.0)) / y)
        return -power * grown - (0.5 * LN_2) * log_det
    else:
        return -0.5 * dist_sq - (0.5 * LN_2) * log_det
