"""Machine code for what happens to whole rows of logits: cap, softmax, and the way back; numba, one thread.

A block of logits [B, H, R, N] and one of scores go in, and come out as weights, or as the gradients of both, in place:
one pass through the caches where elementwise torch takes a dozen, each with memory of its own. Sums and maxima run in
64 lanes, in an order that depends on N alone. Letters: docs/theory.md, section 15.3.

float32 has an exponential that vectorises (numba's wheels carry no vector math library); float64 takes the C
library's, one number at a time.
"""

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from iga.kernels.cpu._compile import FAST, INLINE, compiled, full_width

__all__ = ["weigh_rows", "weigh_rows_back"]

# Partial sums of a row. A loop over 16 would be unrolled before LLVM looks for vectors, and stay without.
_WIDE = 64
# eˣ = 2^k e^r, r in ±½ ln 2: 1 + r + r² P(r), P of degree 4 by least squares at Chebyshev's nodes: 1.1·10⁻⁸
# relative before rounding. k ln 2 is taken away in two parts, the first exact.
_E = tuple(np.float32(x) for x in (0.5, 0.16666576, 0.041666467, 0.0083631752, 0.0013933644))
_E0, _E1, _E2, _E3, _E4 = _E
_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Under it eˣ is no normal number, and 0 is what it counts for beside the row's largest, 1.
_LEAST = np.float32(-87.0)
# Added and taken away, it rounds to the nearest integer, and leaves that in its last bits.
_MAGIC = np.float32(12582912.0)
_ONE = np.float32(1.0)


@intrinsic
def _power_of_two(typingctx, x):
    """2^k of the k in the last bits of x = k + 1.5·2²³."""
    if x != types.float32:
        return None

    def codegen(context, builder, signature, args):
        i32, f32 = ir.IntType(32), ir.FloatType()
        k = builder.sub(builder.bitcast(args[0], i32), i32(0x4B400000))
        return builder.bitcast(builder.shl(builder.add(k, i32(127)), i32(23)), f32)

    return types.float32(types.float32), codegen


def _exp(x: np.floating) -> np.floating:
    raise NotImplementedError("compiled only")


@overload(_exp, jit_options={"fastmath": FAST, "forceinline": True})
def _(x):
    if x == types.float32:

        def exp32(x):
            y = _LEAST if x < _LEAST else x  # NaN stays NaN
            turned = y * _LOG2_E + _MAGIC
            k = turned - _MAGIC
            r = (y - k * _LN2_HIGH) - k * _LN2_LOW
            p = (((_E4 * r + _E3) * r + _E2) * r + _E1) * r + _E0
            grown = ((r * r) * p + r) + _ONE
            scaled = grown * _power_of_two(turned)  # pyright: ignore[reportCallIssue] - numba passes the context
            return _ONE - _ONE if x < _LEAST else scaled

        return exp32
    return lambda x: math.exp(x)


# tanh x = x + x s (a + s (b + s d)), s = x², up to |x| = 0.15, where the next term is 6·10⁻⁹ of it.
_A, _B, _D, _NEAR = np.float32(-1 / 3), np.float32(2 / 15), np.float32(-17 / 315), np.float32(0.15)


def _tanh(y: np.floating, e: np.floating, inverse: np.floating) -> np.floating:
    raise NotImplementedError("compiled only")


@overload(_tanh, jit_options={"fastmath": FAST, "forceinline": True})
def _(y, e, inverse):
    """From e = e^(−2|y|) and inverse = 1/(1 + e); near 0, where 1 − e would cancel, by its series."""
    if y == types.float32:

        def tanh32(y, e, inverse):
            far = (_ONE - e) * inverse
            s = y * y
            near = y + y * (s * (s * (s * _D + _B) + _A))
            return near if -_NEAR < y < _NEAR else (far if y >= 0 else -far)

        return tanh32
    return lambda y, e, inverse: math.tanh(y)


@njit(**INLINE)
def _capped(x, cap, per_cap, one):
    """cap · tanh(x / cap) and its slope sech²(x / cap)."""
    y = x * per_cap
    size = y if y >= 0 else -y
    e = _exp(-(size + size))
    inverse = one / (one + e)
    return cap * _tanh(y, e, inverse), (e + e) * (inverse * inverse + inverse * inverse)


@njit(**INLINE)
def _largest(x, n, lanes):
    """The largest of x; NaN is passed over, and found again in the weights."""
    full_width()
    for k in range(_WIDE):
        lanes[k] = -np.inf
    for first in range(0, n, _WIDE):
        part = x[first : first + _WIDE]
        for k in range(part.shape[0]):
            lanes[k] = part[k] if part[k] > lanes[k] else lanes[k]
    half = _WIDE // 2
    while half:
        for k in range(half):
            lanes[k] = lanes[k + half] if lanes[k + half] > lanes[k] else lanes[k]
        half //= 2
    return lanes[0]


@njit(**INLINE)
def _total(x, n, lanes):
    full_width()
    for k in range(_WIDE):
        lanes[k] = 0
    for first in range(0, n, _WIDE):
        part = x[first : first + _WIDE]
        for k in range(part.shape[0]):
            lanes[k] += part[k]
    half = _WIDE // 2
    while half:
        for k in range(half):
            lanes[k] += lanes[k + half]
        half //= 2
    return lanes[0]


@njit(**INLINE)
def _add_geometry(x, s, keys, weight, cap, per_cap, one, capped, n):
    """x += geometry logits, which take the place of the scores s; −∞ where keys is 0."""
    full_width()
    none = one * -np.inf
    if capped:
        for j in range(n):
            geo, _ = _capped(weight * s[j], cap, per_cap, one)
            s[j] = geo
            y = x[j] + geo
            x[j] = y if keys[j] > 0 else none
    else:
        for j in range(n):
            geo = weight * s[j]
            s[j] = geo
            y = x[j] + geo
            x[j] = y if keys[j] > 0 else none


@njit(**INLINE)
def _raise(x, shift, n):
    full_width()
    for j in range(n):
        x[j] = _exp(x[j] - shift)


@njit(**INLINE)
def _times(x, factor, n):
    full_width()
    for j in range(n):
        x[j] *= factor


def _weigh_rows(logits, scores, valid, weight, cap, one, batch, head, row, end, offset, lse, watched, largest):
    """Rows row … end − 1 of one head: logits (without geometry) become weights, scores become geometry logits.

    logits, scores [B, H, R, N], whose row 0 is row `offset`; valid [B, N], 1 or 0 in the same dtype; weight [B, H];
    cap = ∞: none. lse [B, H, R]; where watched, largest [B, H, R, 2] receives the largest |geometry logit| and the
    largest weight.
    """
    n = logits.shape[3]
    lanes = np.empty(_WIDE, logits.dtype)
    keys = valid[batch]
    w, capped = weight[batch, head], cap < np.inf
    per_cap, zero = one / cap, one - one
    for i in range(row, end):
        x, s = logits[batch, head, i - offset], scores[batch, head, i - offset]
        shift = total = zero
        some = valid[batch, i] > 0
        if some:
            _add_geometry(x, s, keys, w, cap, per_cap, one, capped, n)
            top = _largest(x, n, lanes)
            shift = top if top > -np.inf else zero
            _raise(x, shift, n)
            total = _total(x, n, lanes)
            some = total > 0 or total != total
        if some:
            lse[batch, head, i - offset] = math.log(total) + shift
            _times(x, one / total, n)
            if watched:
                size = zero
                for j in range(n):
                    y = s[j] if s[j] >= 0 else -s[j]
                    if keys[j] > 0 and not y <= size:
                        size = y
                largest[batch, head, i - offset, 0] = size
                largest[batch, head, i - offset, 1] = one / total
        else:
            lse[batch, head, i - offset] = -np.inf
            for j in range(n):
                x[j] = 0


@njit(**INLINE)
def _lower(x, s, d, keys, weight, cap, per_cap, one, capped, shift, n, out, slopes):
    """Weights into x, their products with d into out, and the slopes of the cap."""
    full_width()
    zero = one - one
    for j in range(n):
        geo, slope = weight * s[j], one
        if capped:
            geo, slope = _capped(geo, cap, per_cap, one)
        slopes[j] = slope
        e = _exp(x[j] + geo - shift)
        a = e if keys[j] > 0 else zero
        x[j] = a
        out[j] = a * d[j]


@njit(**INLINE)
def _chain(x, s, d, slopes, weight, mean, n, out):
    """d becomes the gradient of the logits, s that of the scores, out its product with the scores, before w."""
    full_width()
    for j in range(n):
        y = x[j] * (d[j] - mean)
        d[j] = y
        of_geometry = y * slopes[j]
        out[j] = of_geometry * s[j]
        s[j] = of_geometry * weight


def _weigh_rows_back(
    logits, scores, d_weights, valid, weight, cap, one, batch, head, row, end, offset, lse, d_lse, d_weight
):
    """The same rows on the way back: logits become weights, scores the gradient of the scores, d_weights that of the
    logits; d_weight [B, H, R] receives what each row adds to the gradient of weight. lse and d_lse [B, H, R]."""
    n = logits.shape[3]
    lanes, products, slopes = np.empty(_WIDE, logits.dtype), np.empty(n, logits.dtype), np.empty(n, logits.dtype)
    keys = valid[batch]
    w, capped = weight[batch, head], cap < np.inf
    per_cap = one / cap
    for i in range(row, end):
        x, s, d = (
            logits[batch, head, i - offset],
            scores[batch, head, i - offset],
            d_weights[batch, head, i - offset],
        )
        shift = lse[batch, head, i - offset]
        if shift > -np.inf or shift != shift:
            _lower(x, s, d, keys, w, cap, per_cap, one, capped, shift, n, products, slopes)
            mean = _total(products, n, lanes) - d_lse[batch, head, i - offset]
            _chain(x, s, d, slopes, w, mean, n, products)
            d_weight[batch, head, i - offset] = _total(products, n, lanes)
        else:
            for j in range(n):
                x[j] = s[j] = d[j] = 0
            d_weight[batch, head, i - offset] = 0


weigh_rows = compiled("T4 T4 T2 T2 T T i i i i i T3 b T4")(_weigh_rows)
weigh_rows_back = compiled("T4 T4 T4 T2 T2 T T i i i i i T3 T3 T3")(_weigh_rows_back)
