"""Triton kernel of the whole attention: online softmax over tiles of keys, nothing of size N² read but a bias.

A program owns 4 query rows of one head and walks over the keys; scores as in `_scores`. Values and value points
are columns of one matrix, taken WIDE at a time, as many as stay in registers; products are in IEEE float32 ("ieee": no
TF32). Addresses are a scalar that moves and offsets that do not: the additions are the scalar unit's.
"""

import triton
import triton.language as tl

from iga.kernels.triton._math import exponential, load_rotation, overlap, reciprocal, relative, score

__all__ = ["flash_kernel"]

# |x| under which tanh is its series to x⁷, whose next term is under 2⁻²⁷ of it there.
_SERIES = tl.constexpr(0.15)


@triton.jit(do_not_specialize=["n", "tiles"])
def flash_kernel(
    rot, query, key, valid, q, k, values, geo_weight, bias, out, lse, statistics, n, tiles, heads, scale, cap,
    per_dof, power, floor,
    POINTS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr,
    PARTS: tl.constexpr, TILES: tl.constexpr,
    STUDENT: tl.constexpr, LARGE_DOF: tl.constexpr, CLAMPED: tl.constexpr, CAPPED: tl.constexpr,
    BIASED: tl.constexpr, WATCHED: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """out [B, H, n, PARTS·WIDE], lse [B, H, n] and, where WATCHED, statistics [B, H, n, 3]: the row's largest |geometry
    logit|, its least det, its largest weight, over valid keys.

    Packed as for `score_kernel`; q, k [B, H, tiles·LANES, CHANNELS], values [B, H, tiles·LANES, PARTS·WIDE], padded
    with zeros; geo_weight [B, H]; bias [B, H, n, n]. TILES: `tiles` where it is to be a constant, as the interpreter of
    older releases has it, or 0. Programs: tiles of ROWS rows, then heads, then B.
    """
    pid = tl.program_id(0)
    row_tiles = (n + ROWS - 1) // ROWS
    first = pid % row_tiles * ROWS
    entry = (pid // row_tiles).to(tl.int64)
    batch = entry // heads
    lane = tl.arange(0, ROWS)[:, None] + tl.multiple_of(first % LANES, ROWS)  # as in `score_kernel`
    column = tl.arange(0, LANES)
    a = load_rotation(rot + (batch * tiles + first // LANES) * (9 * LANES) + lane, LANES)
    at_query = query + (entry * tiles + first // LANES) * (POINTS * 13 * LANES) + lane
    of_tile = column[None, :]
    at_key = key + entry * tiles * (POINTS * 6 * LANES)
    at_rot = rot + batch * tiles * (9 * LANES)
    at_valid = valid + batch * tiles * LANES
    row = first + tl.arange(0, ROWS)
    channel, feature = tl.arange(0, CHANNELS), tl.arange(0, WIDE)
    rows_q = tl.load(q + (entry * tiles * LANES + row)[:, None] * CHANNELS + channel[None, :])
    at_k = k + entry * tiles * (LANES * CHANNELS)
    of_k = column[None, :] * CHANNELS + channel[:, None]
    at_value = values + entry * tiles * (LANES * PARTS * WIDE)
    of_value = column[:, None] * (PARTS * WIDE) + feature[None, :]
    weight = tl.load(geo_weight + entry)
    if CAPPED:
        weight = weight / cap
    in_range = row < n

    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = (tl.zeros([ROWS, WIDE], tl.float32),) * PARTS
    largest = tl.zeros([ROWS], tl.float32)
    lowest = tl.full([ROWS], float("inf"), tl.float32)
    for tile in range(TILES if TILES > 0 else tiles):
        b = load_rotation(at_rot + of_tile, LANES)
        turn = relative(a, b)
        geo = tl.zeros([ROWS, LANES], tl.float32)
        least = tl.full([ROWS, LANES], float("inf"), tl.float32)
        at_point, at_key_point = at_query, at_key + of_tile
        for _ in range(POINTS):
            num, det = overlap(a, b, turn, at_point, at_key_point, LANES)
            if WATCHED:
                least = tl.minimum(least, det)
            geo += score(num, det, per_dof, power, floor, STUDENT, LARGE_DOF, CLAMPED, FAST)
            at_point += 13 * LANES
            at_key_point += 6 * LANES
        geo *= weight
        if CAPPED:
            geo = cap * _tanh(geo, FAST)
        there = tl.load(at_valid + column)[None, :] > 0
        logits = tl.dot(rows_q, tl.load(at_k + of_k), input_precision="ieee") * scale + geo
        if BIASED:
            index = tile * LANES + column
            inside = in_range[:, None] & (index < n)[None, :]
            added = tl.load(bias + (entry * n + row)[:, None] * n + index[None, :], mask=inside, other=0.0)
            logits += added.to(tl.float32)
        logits = tl.where(there, logits, float("-inf"))
        if WATCHED:
            largest = tl.maximum(largest, tl.max(tl.where(there, tl.abs(geo), 0.0), axis=1))
            lowest = tl.minimum(lowest, tl.min(tl.where(there, least, float("inf")), axis=1))
        higher = tl.maximum(top, tl.max(logits, axis=1))
        # −∞ as long as no valid key has come: shifted by 0, its weights are exp(−∞) = 0
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        weights = exponential(logits - shift[:, None], FAST)
        kept = exponential(top - shift, FAST)
        total = total * kept + tl.sum(weights, axis=1)
        grown = ()
        for part in tl.static_range(PARTS):
            block = tl.load(at_value + part * WIDE + of_value)
            grown = grown + (sums[part] * kept[:, None] + tl.dot(weights, block, input_precision="ieee"),)
        sums = grown
        top = higher
        at_rot += 9 * LANES
        at_key += POINTS * 6 * LANES
        at_valid += LANES
        at_k += LANES * CHANNELS
        at_value += LANES * PARTS * WIDE

    # a masked row is a row without keys
    known = (tl.load(valid + batch * tiles * LANES + row, mask=in_range, other=0) > 0) & (total > 0)
    share = 1.0 / tl.where(known, total, 1.0)
    place = entry * n + row
    for part in tl.static_range(PARTS):
        at_out = out + place[:, None] * (PARTS * WIDE) + part * WIDE + feature[None, :]
        tl.store(at_out, tl.where(known[:, None], sums[part] * share[:, None], 0.0), mask=in_range[:, None])
    tl.store(lse + place, tl.where(known, tl.log(tl.where(known, total, 1.0)) + top, float("-inf")), mask=in_range)
    if WATCHED:
        tl.store(statistics + place * 3, tl.where(known, largest, 0.0), mask=in_range)
        tl.store(statistics + place * 3 + 1, tl.where(known, lowest, float("inf")), mask=in_range)
        tl.store(statistics + place * 3 + 2, tl.where(known, share, 0.0), mask=in_range)


@triton.jit
def _tanh(x, FAST: tl.constexpr):
    """By the exponential, and near 0, where 1 − e⁻²ˣ would cancel, by its series."""
    e = exponential(tl.abs(x) * -2.0, FAST)
    far = (1.0 - e) * reciprocal(1.0 + e, FAST)
    s = x * x
    near = x * (1.0 + s * (-1.0 / 3.0 + s * (2.0 / 15.0 - s * (17.0 / 315.0))))
    return tl.where(tl.abs(x) < _SERIES, near, tl.where(x < 0.0, -far, far))
