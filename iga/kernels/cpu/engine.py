"""The geometry on a CPU: numba kernels over tiles of keys, threads over fixed units of work.

Keys are packed once, structure of arrays, padded to whole tiles; a unit of work writes what no other unit writes, and
sums in an order that depends on the shapes alone: the same bits for any number of threads. Memory is linear in
B·H·P·N. Torch's thread count is respected; with one thread everything runs in the caller's.
"""

import math
from contextlib import AbstractContextManager

import numpy as np
import torch

from iga._typing import Float, Tensor
from iga.kernels.cpu._backward import add_tiles
from iga.kernels.cpu._finish import finish_sums
from iga.kernels.cpu._forward import FIELDS, LANES, add_rows
from iga.kernels.cpu._pack import pack_keys, widen_range
from iga.kernels.cpu._points import carry_points
from iga.kernels.cpu._rows import weigh_rows, weigh_rows_back
from iga.kernels.cpu.ready import BACKWARD, FORWARD, ready
from iga.kernels.cpu.share import granted
from iga.kernels.cpu.team import run_units
from iga.kernels.engine import Engine, Geometry, Gradients, Score
from iga.kernels.packing import SUMS, tiled

__all__ = ["CpuEngine"]

# A unit of the forward pass is some rows of one entry of the batch: at most this many, and UNITS a thread if there are.
# It may depend on the threads, since no sum runs over rows.
UNIT_ROWS, UNITS = 16, 4
# A unit of the backward pass: heads enough for this many points, which share products of rotations; the keys are split,
# at the price of an array of the rows' sums each, until there are this many units.
GROUP_POINTS, UNITS_BACK = 8, 16
# Numbers that one thread carries alone: a parallel region has its price, on a busy machine the wait for a core.
FEW_NUMBERS = 1 << 17
# Student-t in pairs takes ln(1 + x) of the rounded 1 + x, which costs about (ν + 3) units of rounding a point.
DOF_MAX = 8.0
# Points under one logarithm, at most: the sum of distances over one denominator takes two roundings more a point.
TOGETHER = {"student_t": (4, 2), "gaussian": (2,)}
# Room left under the ends of the dtype's range, a factor.
MARGIN = 1e3


class CpuEngine(Engine):
    """Engine in float32 or float64 on CPU tensors."""

    def __init__(self, geometry: Geometry, score: Score) -> None:
        super().__init__(geometry, score)
        g, self.dtype = self.geometry, str(geometry.rot.dtype).removeprefix("torch.")
        ready(self.dtype, FORWARD)
        batch, n = g.mask.shape
        self.tiles = -(-n // LANES)
        rot = g.rot.reshape(batch, n, 9)
        keys, ranges = _packed(g, self.tiles)
        self.together = _together(ranges, score, g.rot.dtype)
        self.student = score.kind == "student_t"
        self._arrays = tuple(t.numpy() for t in (rot, g.q_mean, g.q_sigma, tiled(rot, LANES), keys, g.mask))
        self._forward, self._backward = _constants(score, self._arrays[0].dtype.type)
        self._valid_keys = g.mask.to(g.rot.dtype).numpy()

    @staticmethod
    def threads(heads: int) -> AbstractContextManager[None]:
        return granted(heads)

    def sums(self, start: int, stop: int, lowest: bool = False, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        g = self.geometry
        batch, heads, _, n, _ = g.k_mean.shape
        if out is None:
            out = g.rot.new_empty(batch, heads, stop - start, n)
        low = g.rot.new_full((batch, heads, stop - start) if lowest else (0, 0, 0), float("inf"))
        rows = min(UNIT_ROWS, -(-batch * (stop - start) // (UNITS * torch.get_num_threads())))
        written = (lowest, out.numpy(), low.numpy())

        def unit(b: int, row: int) -> None:
            end = min(stop, row + rows)
            add_rows(*self._arrays, self._forward, self.student, self.together, b, row, end, start, *written)

        run_units(unit, [(b, row) for b in range(batch) for row in range(start, stop, rows)])
        return out, low.log_() if lowest else low.reshape(0)

    def add_gradients(self, start: int, stop: int, gamma: Float[Tensor, "b h r n"]) -> None:
        ready(self.dtype, BACKWARD)
        g = self.geometry
        batch, heads, points, n, _ = g.k_mean.shape
        group = min(heads, -(-GROUP_POINTS // points))
        groups = -(-heads // group)
        parts = min(self.tiles, -(-UNITS_BACK // (batch * groups)))
        size = -(-self.tiles // parts)
        if self._sums is None:
            of_keys = g.rot.new_zeros(batch, heads, points, self.tiles, SUMS * LANES)
            self._sums = g.rot.new_zeros(batch, heads, points, n, SUMS), of_keys
        of_rows, keys = (sums.numpy() for sums in self._sums)
        weights = _array(gamma)
        rows = np.zeros((parts, batch, heads, points, stop - start, SUMS), keys.dtype)

        def unit(b: int, head: int, part: int) -> None:
            tile = part * size
            where = (b, head, min(heads, head + group), tile, min(self.tiles, tile + size), start)
            add_tiles(*self._arrays[:5], weights, self._backward, self.student, *where, rows[part], keys)

        run_units(unit, [(b, h, k) for b in range(batch) for h in range(0, heads, group) for k in range(parts)])
        for part in rows:
            of_rows[:, :, :, start:stop] += part

    def gradients(self) -> Gradients:
        if self._sums is None:
            return super().gradients()
        g, kind = self.geometry, self._arrays[0].dtype.type
        batch, n = g.mask.shape
        found = Gradients(torch.zeros_like(g.rot), *map(torch.empty_like, (g.q_mean, g.q_sigma, g.k_mean, g.k_sigma)))
        rot, q_mean, q_sigma, k_mean, k_sigma = (t.numpy() for t in found)
        of_rows, of_keys = (sums.flatten(3).numpy() for sums in self._sums)
        sides = (
            (g.q_sigma.numpy(), of_rows, 1, kind(-2.0), q_mean, q_sigma),
            (g.k_sigma.numpy(), of_keys, LANES, kind(2.0), k_mean, k_sigma),
        )

        def unit(b: int, row: int) -> None:
            for sigma, sums, lanes, factor, *written in sides:
                where = (b, row, min(n, row + LANES))
                finish_sums(self._arrays[0], sigma, sums, lanes, factor, *where, *written, rot.reshape(batch, n, 9))

        run_units(unit, [(b, row) for b in range(batch) for row in range(0, n, LANES)])
        return found

    def weigh(
        self, logits: Tensor, scores: Tensor, geo_weight: Tensor, cap: float, start: int, watched: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As the base's, whole rows in one pass."""
        lse, largest = logits.new_empty(logits.shape[:3]), logits.new_zeros(*logits.shape[:3], 2)
        given = (logits.numpy(), scores.numpy(), self._valid_keys, _array(geo_weight), *self._row_constants(cap))
        written = (start, lse.numpy(), watched, largest.numpy())
        run_units(lambda *where: weigh_rows(*given, *where, *written), self._row_units(logits, start))
        return lse, largest[..., 0], largest[..., 1]

    def weigh_back(
        self,
        logits: Tensor,
        scores: Tensor,
        d_weights: Tensor,
        geo_weight: Tensor,
        cap: float,
        start: int,
        lse: Tensor,
        d_lse: Tensor,
    ) -> Float[Tensor, "b h"]:
        ready(self.dtype, BACKWARD)
        d_weight = logits.new_empty(logits.shape[:3])
        blocks = (logits.numpy(), scores.numpy(), d_weights.numpy())
        given = (*blocks, self._valid_keys, _array(geo_weight), *self._row_constants(cap))
        written = (start, _array(lse), _array(d_lse), d_weight.numpy())
        run_units(lambda *where: weigh_rows_back(*given, *where, *written), self._row_units(logits, start))
        return d_weight.sum(dim=-1, dtype=torch.float64)

    def out(self, points: Tensor, rot: Tensor, trans: Tensor) -> Float[Tensor, "b h n p3"]:
        return _carried(points, rot, trans, False)

    def back(self, points: Tensor, rot: Tensor, trans: Tensor) -> Float[Tensor, "b h n p3"]:
        return _carried(points, rot, trans, True)

    def _row_units(self, block: Tensor, start: int) -> list[tuple[int, ...]]:
        """(b, head, row, end): UNITS a thread at the least, where there are as many heads or rows."""
        batch, heads, rows, _ = block.shape
        parts = min(rows, -(-UNITS * torch.get_num_threads() // (batch * heads)))
        size = -(-rows // parts)
        return [
            (b, h, start + first, start + min(rows, first + size))
            for b in range(batch)
            for h in range(heads)
            for first in range(0, rows, size)
        ]

    def _row_constants(self, cap: float) -> tuple[np.floating, np.floating]:
        kind = self._arrays[0].dtype.type
        return kind(cap), kind(1.0)


def _array(x: Tensor) -> np.ndarray:
    """Contiguous: a kernel is compiled for no other arrays."""
    return x.detach().contiguous().numpy()


def _carried(points: Tensor, rot: Tensor, trans: Tensor, home: bool) -> Tensor:
    moved = torch.empty_like(points, memory_format=torch.contiguous_format)
    given, written = tuple(map(_array, (points, rot.flatten(-2), trans))), moved.numpy()
    batch, heads, n, columns = moved.shape
    rows = max(-(-batch * n // torch.get_num_threads()), FEW_NUMBERS // (heads * max(1, columns)), 1)
    units = [(b, row) for b in range(batch) for row in range(0, n, rows)]
    run_units(lambda b, row: carry_points(*given, home, b, row, min(n, row + rows), written), units)
    return moved


def _constants(score: Score, kind: type[np.floating]) -> tuple[tuple[np.floating, ...], tuple[np.floating, ...]]:
    """(½, 1, 1/ν, (ν + 3)/2, log_det_min) for the forward kernels, (½, 1, ν, (ν + 3)/2, least det) for the others."""
    dof = score.dof if score.kind == "student_t" else 1.0
    power = 0.5 * (dof + 3.0)
    least = math.exp(min(score.log_det_min, 700.0))
    with np.errstate(over="ignore"):
        forward = tuple(kind(x) for x in (0.5, 1.0, 1.0 / dof, power, score.log_det_min))
        return forward, tuple(kind(x) for x in (0.5, 1.0, dof, power, least))


def _together(ranges: list[np.ndarray], score: Score, dtype: torch.dtype) -> int:
    """The most points that may share a division and a logarithm; 1: none. See the module `_forward`.

    With v = σ² in [v₀, v₁], S has its eigenvalues in [2v₀, 2v₁]: det in [8v₀³, 8v₁³], num ≤ |δ|² (2v₁)² and dist_sq ≤
    |δ|²/(2v₀) bound every product of k. A clamp needs each log_det, unless no det can come under it. NaN: 1.
    `ranges`: [2, 3], least and largest coordinates, of query means, query sigmas, key means, key sigmas.
    """
    student = score.kind == "student_t"
    if student and score.dof > DOF_MAX:
        return 1
    query, q_sigma, key, k_sigma = (x.astype(np.float64) for x in ranges)
    low, high = np.minimum(q_sigma[0], k_sigma[0]).min(), np.maximum(q_sigma[1], k_sigma[1]).max()
    reach = np.maximum(query[1] - key[0], key[1] - query[0])
    dof = score.dof if student else 1.0
    with np.errstate(all="ignore"):
        v_low, v_high, delta_sq = low**2, high**2, (reach**2).sum()
        least, most = 8 * v_low**3, 8 * v_high**3 + delta_sq * (2 * v_high) ** 2 * max(1.0, 1.0 / dof)
        grown = 1 + delta_sq / (2 * v_low * dof)
        limits = torch.finfo(dtype)
        for count in TOGETHER[score.kind]:
            most_of_all = max(2 * most**count, grown**count) if low > 0 else math.inf
            if least**count > MARGIN * limits.tiny and most_of_all < limits.max / MARGIN:
                inert = score.log_det_min == -math.inf or math.log(least) >= score.log_det_min
                return count if inert else 1
    return 1


def _packed(g: Geometry, tiles: int) -> tuple[Tensor, list[np.ndarray]]:
    """`tiled(key_fields(…), LANES)`, and the ranges that `_may_pool` asks for, NaN where a coordinate is."""
    batch, heads, points, _, _ = g.k_mean.shape
    keys = g.k_mean.new_empty(batch, heads, points, tiles, FIELDS * LANES)
    packed, arrays = keys.numpy(), tuple(t.numpy() for t in (g.q_mean, g.q_sigma, g.k_mean, g.k_sigma))
    ranges = [np.array([[np.inf] * 3, [-np.inf] * 3], dtype=packed.dtype) for _ in arrays]

    def unit(b: int, h: int) -> None:
        if b < 0:
            widen_range(arrays[h].reshape(-1, 3), ranges[h])
        else:
            pack_keys(*arrays[2:], LANES, b, h, packed)

    of_ranges = [(-1, number) for number in range(len(arrays))]
    run_units(unit, of_ranges + [(b, h) for b in range(batch) for h in range(heads)])
    return keys, ranges
