"""The geometry on a GPU: Triton kernels in float32, compiled at their first call for each form, P and tile.

`FusedEngine` gives blocks of scores and their gradients to `iga.kernels.blocks`; `flash_forward` is a whole forward
pass that keeps nothing of size N². Sums have one program and one order each, no atomics: the same bits every time.
With TRITON_INTERPRET=1 the kernels run on CPU tensors, slowly, for tests.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from iga._typing import Float, Tensor
from iga.kernels.blocks import Inputs, Outputs
from iga.kernels.choice import interpreted
from iga.kernels.engine import Engine, Geometry, Score
from iga.kernels.packing import SUMS, key_fields, tiled
from iga.kernels.triton._flash import flash_kernel
from iga.kernels.triton._gradients import gradient_kernel
from iga.kernels.triton._scores import score_kernel

__all__ = ["FLASH", "GRADIENT", "SCORE", "FusedEngine", "Launch", "flash_forward", "laid_out", "points_of_program"]


@dataclass(frozen=True)
class Launch:
    """How a kernel is laid out: rows of a tile, lanes (keys) of a tile, and the warps that share it."""

    rows: int
    lanes: int
    warps: int


# Chosen by the instructions of a pair-point in the code for sm_90: docs/kernels.md.
SCORE = Launch(rows=4, lanes=128, warps=4)
FLASH = Launch(rows=4, lanes=128, warps=4)
GRADIENT = Launch(rows=4, lanes=32, warps=4)
# Points of a program of gradients: as many as nine sums each leave without spilling. The clamp of a Student-t score
# takes more registers than that leaves.
MOST_POINTS, MOST_POINTS_CLAMPED = 8, 4
# Columns of values that the flash kernel multiplies at a time.
MOST_COLUMNS = 32
# ln(1 + x) by the hardware's logarithm errs by 2⁻²², and (ν + 3)/2 times that in a score: not beyond this ν.
DOF_MAX = 8.0


def laid_out(how: Launch) -> Launch:
    """`how`, or square tiles under the interpreter, which takes its time per program and not per number."""
    return replace(how, rows=how.lanes) if interpreted() else how


def points_of_program(points: int, score: Score) -> tuple[int, int]:
    """(groups, points of a program of gradients): as few groups as possible, filled as evenly as possible."""
    clamped = score.kind == "student_t" and score.log_det_min != -math.inf
    groups = -(-points // (MOST_POINTS_CLAMPED if clamped else MOST_POINTS))
    return groups, -(-points // groups)


class _Form:
    """A score as the kernels' numbers and switches."""

    def __init__(self, score: Score) -> None:
        student = score.kind == "student_t"
        dof = score.dof if student else 1.0
        self.power, self.dof = 0.5 * (dof + 3.0), dof
        clamped = score.log_det_min != -math.inf
        # The kernels' logarithms are binary.
        self.binary_power = math.log(2.0) * self.power
        self.binary_floor = score.log_det_min / math.log(2.0) if clamped else 0.0
        self.least = math.exp(min(score.log_det_min, 80.0)) if clamped else 0.0
        large = student and dof > DOF_MAX
        self.switches = {"STUDENT": student, "CLAMPED": clamped, "FAST": not (interpreted() or large)}
        self.large = large


class FusedEngine(Engine):
    """Engine in float32, on CUDA tensors (or CPU tensors under the interpreter)."""

    def __init__(self, geometry: Geometry, score: Score) -> None:
        super().__init__(geometry, score)
        self.form, self.groups = _Form(score), points_of_program(geometry.q_mean.shape[2], score)

    def sums(self, start: int, stop: int, lowest: bool = False, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        g, form = self.geometry, self.form
        batch, heads, points, n, _ = g.k_mean.shape
        rot, query, key, valid, tiles = self._forward
        if out is None:
            out = g.rot.new_empty(batch, heads, stop - start, n)
        low = g.rot.new_empty((tiles, batch, heads, stop - start) if lowest else 0)
        how = laid_out(SCORE)
        first = start // how.rows
        grid = (tiles * (-(-stop // how.rows) - first) * batch * heads,)
        launch(
            score_kernel, grid, how, rot, query, key, valid, out, low, n, tiles, first, start, stop, heads,
            1.0 / form.dof, form.binary_power, form.binary_floor, POINTS=points, LARGE_DOF=form.large, LOWEST=lowest,
            **form.switches,
        )  # fmt: skip
        return out, low.amin(0).log_() if lowest else low

    def add_gradients(self, start: int, stop: int, gamma: Float[Tensor, "b h r n"]) -> None:
        g = self.geometry
        batch, heads, points, n, _ = g.k_mean.shape
        if self._sums is None:
            zeros = g.rot.new_zeros(2, batch, heads, points, n, SUMS)
            self._sums = zeros[0], zeros[1]
        lanes, tiles = GRADIENT.lanes, -(-n // GRADIENT.lanes)
        tile, end = start // lanes, -(-stop // lanes)
        # Whole tiles of rows and keys, with weight 0 where a row is not of this block or a key is none.
        whole = gamma.new_zeros(batch, heads, (end - tile) * lanes, tiles * lanes)
        whole[:, :, start - tile * lanes : stop - tile * lanes, :n] = gamma.detach()
        rows = self._nine_sums(whole, tile, 0, of_rows="query")
        keys = self._nine_sums(whole.mT.contiguous(), 0, tile, of_rows="key")
        of_rows, of_keys = self._sums
        of_rows[:, :, :, start:stop] += rows[:, :, :, start - tile * lanes : stop - tile * lanes]
        of_keys += keys[:, :, :, :n]

    @cached_property
    def _forward(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        return pack_forward(self.geometry)

    @cached_property
    def _backward(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Rotations, and mean and v of queries and keys, points padded to whole groups, in tiles of the gradients."""
        g, lanes = self.geometry, GRADIENT.lanes
        groups, of_program = self.groups
        packed = {}
        for name, mean, sigma in (("query", g.q_mean, g.q_sigma), ("key", g.k_mean, g.k_sigma)):
            fields = key_fields(mean, sigma)[..., :6]
            missing = groups * of_program - fields.shape[2]
            fields = torch.cat([fields, fields.new_ones(*fields.shape[:2], missing, *fields.shape[3:])], dim=2)
            packed[name] = tiled(fields, lanes).transpose(2, 3).contiguous()
        return tiled(g.rot.flatten(-2), lanes), packed

    def _nine_sums(self, gamma: Tensor, row_tile: int, key_tile: int, *, of_rows: str) -> Float[Tensor, "b h p r 9"]:
        g, form = self.geometry, self.form
        batch, heads, points, n, _ = g.k_mean.shape
        rot, packed = self._backward
        groups, of_program = self.groups
        rows, key_tiles = gamma.shape[2], gamma.shape[3] // GRADIENT.lanes
        out = gamma.new_empty(batch, heads, groups * of_program, SUMS, rows)
        how = laid_out(GRADIENT)
        grid = (rows // how.rows * groups * batch * heads,)
        others = "key" if of_rows == "query" else "query"
        launch(
            gradient_kernel, grid, how, rot, packed[of_rows], packed[others], gamma, out, rot.shape[1], rows,
            row_tile, key_tile, key_tiles, heads, form.dof, form.power, form.least,
            TILES=_constant(key_tiles), GROUPS=groups, POINTS=of_program,
            **form.switches,
        )  # fmt: skip
        return out[:, :, :points].mT


def flash_forward(x: Inputs, geometry: Geometry, score: Score, *, statistics: bool) -> Outputs:
    """What `iga.kernels.blocks.attend` returns, without pair features, from one kernel.

    Products are in float32, value points too: their sum errs by n·2⁻²⁴ of their distance from the origin.
    """
    batch, heads, n, channels = x.q.shape
    form = _Form(score)
    rot, query, key, valid, tiles = pack_forward(geometry)
    columns = torch.cat([x.v, x.points], dim=-1)
    packed = [_padded(each, tiles * FLASH.lanes) for each in (x.q, x.k, columns)]
    total = packed[2].shape[-1]
    wide = min(total, MOST_COLUMNS)
    out = rot.new_empty(batch, heads, n, total)
    lse = rot.new_empty(batch, heads, n)
    rows = rot.new_empty((batch, heads, n, 3) if statistics else 0)
    capped, how = x.cap != math.inf, laid_out(FLASH)
    launch(
        flash_kernel, (-(-n // how.rows) * batch * heads,), how, rot, query, key, valid, *packed,
        x.geo_weight.to(rot.dtype).contiguous(), rot if x.bias is None else x.bias.contiguous(), out, lse, rows, n,
        tiles, heads, channels**-0.5, x.cap if capped else 1.0, 1.0 / form.dof, form.binary_power, form.binary_floor,
        POINTS=geometry.q_mean.shape[2], CHANNELS=packed[0].shape[-1], WIDE=wide, TILES=_constant(tiles),
        PARTS=total // wide, LARGE_DOF=form.large, CAPPED=capped, BIASED=x.bias is not None, WATCHED=statistics,
        **form.switches,
    )  # fmt: skip
    if statistics:
        rows[..., 1].log_()
    of_values, of_points, _ = out.split([x.v.shape[-1], x.points.shape[-1], total - columns.shape[-1]], dim=-1)
    # Memory of their own: parts of one tensor would be aliases, which an operator may not return.
    of_values, of_points = (part.clone(memory_format=torch.contiguous_format) for part in (of_values, of_points))
    return Outputs(of_values, of_points, rot.new_empty(batch, heads, n, 0), lse, rows)


def pack_forward(g: Geometry) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """(rot, query, key, valid, tiles) as `score_kernel` and `flash_kernel` read them."""
    lanes, n = SCORE.lanes, g.rot.shape[1]
    of_query = key_fields(g.q_mean, g.q_sigma)
    of_query = torch.cat([g.q_mean, g.q_sigma, of_query[..., 3:]], dim=-1)
    query, key = (
        tiled(x, lanes).transpose(2, 3).contiguous() for x in (of_query, key_fields(g.k_mean, g.k_sigma)[..., :6])
    )
    tiles = -(-n // lanes)
    valid = torch.nn.functional.pad(g.mask, (0, tiles * lanes - n)).to(torch.int32)
    return tiled(g.rot.flatten(-2), lanes), query, key, valid, tiles


def launch(kernel: Any, grid: tuple[int], how: Launch, *args: Any, **switches: Any) -> None:
    """One launch on the device of the tensors; nothing for an empty grid."""
    if grid[0] == 0:
        return
    device = args[0].device
    options = {"num_warps": how.warps, "enable_fp_fusion": True}
    with torch.cuda.device(device) if device.type == "cuda" else torch.no_grad():
        kernel[grid](*args, ROWS=how.rows, LANES=how.lanes, **switches, **options)


def _constant(tiles: int) -> int:
    """The bound of a loop over tiles as a constant, for interpreters that take no other; 0: it is known at run time."""
    return tiles if interpreted() else 0


def _padded(x: Float[Tensor, "b h n c"], rows: int) -> Float[Tensor, "b h rows wide"]:
    """Zeros after the last row, and columns to what a product of tiles takes: 16, or a multiple of MOST_COLUMNS."""
    *_, n, columns = x.shape
    wide = 16 if columns <= 16 else -(-columns // MOST_COLUMNS) * MOST_COLUMNS
    return torch.nn.functional.pad(x, (0, wide - columns, 0, rows - n)).contiguous()
