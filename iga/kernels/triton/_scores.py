"""Triton kernel of the scores: Σ_p score_p of a block of query rows against all keys, one tile a program.

A tile of 4 rows and 128 keys on 4 warps leaves four elements a thread: the fields of its key are loaded once for four
rows, those of its rows in one vector. Points are the innermost loop. docs/kernels.md has the count of instructions.
"""

import triton
import triton.language as tl

from iga.kernels.triton._math import load_rotation, overlap, relative, score

__all__ = ["score_kernel"]


@triton.jit(do_not_specialize=["n", "tiles", "first_tile", "start", "stop"])
def score_kernel(
    rot, query, key, valid, out, low, n, tiles, first_tile, start, stop, heads, per_dof, power, floor,
    POINTS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, STUDENT: tl.constexpr, LARGE_DOF: tl.constexpr,
    CLAMPED: tl.constexpr, LOWEST: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """out [B, H, stop − start, n] of rows start … stop − 1; low [tiles, B, H, stop − start]: the least det of each tile
    over valid keys and points, where LOWEST.

    rot [B, tiles, 9, LANES], query [B, H, tiles, POINTS, 13, LANES], key [B, H, tiles, POINTS, 6, LANES], valid
    [B, tiles·LANES] (1 or 0). Programs: key tiles, then tiles of ROWS rows from
    `first_tile` on, then heads, then B.
    """
    pid = tl.program_id(0)
    tile = pid % tiles
    row_tiles = (stop + ROWS - 1) // ROWS - first_tile
    row_tile = pid // tiles % row_tiles
    entry = (pid // tiles // row_tiles).to(tl.int64)  # b · heads + h
    batch = entry // heads
    first = (first_tile + row_tile) * ROWS
    # Older compilers lose sight of it: rows begin at a multiple of ROWS, so their fields come in one vector.
    lane = tl.arange(0, ROWS)[:, None] + tl.multiple_of(first % LANES, ROWS)
    column = tl.arange(0, LANES)[None, :]
    a = load_rotation(rot + (batch * tiles + first // LANES) * (9 * LANES) + lane, LANES)
    b = load_rotation(rot + (batch * tiles + tile) * (9 * LANES) + column, LANES)
    q = relative(a, b)
    at_query = query + (entry * tiles + first // LANES) * (POINTS * 13 * LANES) + lane
    at_key = key + (entry * tiles + tile) * (POINTS * 6 * LANES) + column
    total = tl.zeros([ROWS, LANES], tl.float32)
    least = tl.full([ROWS, LANES], float("inf"), tl.float32)
    for _ in range(POINTS):
        num, det = overlap(a, b, q, at_query, at_key, LANES)
        if LOWEST:
            least = tl.minimum(least, det)
        total += score(num, det, per_dof, power, floor, STUDENT, LARGE_DOF, CLAMPED, FAST)
        at_query += 13 * LANES
        at_key += 6 * LANES
    row = first + tl.arange(0, ROWS)
    wanted = (row >= start) & (row < stop)
    place = entry * (stop - start) + row - start
    key_index = tile * LANES + column
    tl.store(out + place[:, None] * n + key_index, total, mask=wanted[:, None] & (key_index < n))
    if LOWEST:
        there = tl.load(valid + (batch * tiles + tile) * LANES + column) > 0
        entries = tl.num_programs(0) // tiles // row_tiles
        least = tl.min(tl.where(there, least, float("inf")), axis=1)
        tl.store(low + tile * (entries * (stop - start)) + place, least, mask=wanted)
