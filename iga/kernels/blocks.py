"""Attention in linear memory: blocks of query rows, an engine for their geometry, plain torch for the rest.

    x_ij = cap(w_h G_ij)        logit_ij = q_i·k_j/√c + bias_ij + z_ij·b_h + x_ij        a_ij = softmax over valid keys

Forward keeps the log-sum-exp of every row and nothing of size N². Backward computes each block again: with
da_ij = ∂out_i·value_j, dlogit_ij = a_ij (da_ij − Σ_j a_ij da_ij + ∂lse_i); whole rows are at hand, so the sum is taken
from the numbers themselves, not from outputs that may have been rounded to half precision. The order of every sum is
fixed: no atomics, the same bits each time. Derivation: docs/theory.md, section 15. Values are attended in the frames'
dtype; the value points out of reach of TF32 and bf16. Flat shapes as in `iga.kernels.engine`; c hidden channels.
"""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from iga._typing import Bool, Float, Tensor
from iga.kernels.engine import Engine, Gradients

__all__ = ["Inputs", "InputGradients", "Outputs", "attend", "attend_backward", "row_blocks"]

# Elements of one [B, H, R, N] block. On a CPU a block and its temporaries should stay near the caches; on a GPU a
# block should fill the machine. 2^19 floats are 2 MB, 2^25 are 128 MB; backward holds about six of them.
BLOCK = {"cpu": 1 << 19}
BLOCK_ELSEWHERE = 1 << 25
# Elements of one block of z, [B, R, N, c_z].
PAIR_BLOCK = {"cpu": 1 << 22}


_kept = threading.local()


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything but the Gaussians, in the dtype of the frames; `points` are global, flattened to 3·pv columns."""

    q: Float[Tensor, "b h n c"]
    k: Float[Tensor, "b h n c"]
    v: Float[Tensor, "b h n d"]
    points: Float[Tensor, "b h n p3"]
    mask: Bool[Tensor, "b n"]
    geo_weight: Float[Tensor, "b h"]
    cap: float
    bias: Float[Tensor, "b h n n"] | None
    z: Float[Tensor, "b n n cz"] | None
    z_weight: Float[Tensor, "h cz"] | None


class Outputs(NamedTuple):
    """`pair` is Σ_j a_ij z_ij [B, H, N, c_z] (no columns without z); `rows` [B, H, N, 3]: the row's largest |x|, lowest
    log_det, and largest weight (empty unless asked for). Masked rows and rows without keys: 0, and lse = −∞."""

    values: Tensor
    points: Tensor
    pair: Tensor
    lse: Tensor
    rows: Tensor


class InputGradients(NamedTuple):
    """In the order of `Inputs`; None where nothing was asked for."""

    q: Tensor
    k: Tensor
    v: Tensor
    points: Tensor
    geo_weight: Tensor
    bias: Tensor | None
    z: Tensor | None
    z_weight: Tensor | None
    geometry: Gradients | None


def row_blocks(x: Inputs) -> Iterator[tuple[int, int]]:
    """(start, stop) of the blocks of query rows: as many rows as the block sizes above allow, at least one."""
    batch, heads, n, _ = x.q.shape
    if batch * n == 0:
        return
    kind = x.q.device.type
    rows = BLOCK.get(kind, BLOCK_ELSEWHERE) // max(1, batch * heads * n)
    if x.z is not None:
        rows = min(rows, PAIR_BLOCK.get(kind, BLOCK_ELSEWHERE) // max(1, batch * n * x.z.shape[-1]))
    rows = max(1, rows)
    for start in range(0, n, rows):
        yield start, min(n, start + rows)


def attend(engine: Engine, x: Inputs, *, statistics: bool) -> Outputs:
    """The attention of `x` with the engine's geometry."""
    batch, heads, n, _ = x.q.shape
    pair_channels = 0 if x.z is None else x.z.shape[-1]
    out = Outputs(
        x.v.new_empty(x.v.shape),
        x.points.new_empty(x.points.shape),
        x.q.new_empty(batch, heads, n, pair_channels),
        x.q.new_empty(batch, heads, n),
        x.q.new_empty(batch, heads, n, 3) if statistics else x.q.new_empty(0),
    )
    points = _exactly(x.points)
    for start, stop in row_blocks(x):
        rows = slice(start, stop)
        scores, lowest = engine.sums(start, stop, lowest=statistics, out=_scratch("scores", x, rows))
        z = _pair_block(x, rows)
        weights = _logits(x, rows, z)
        lse, absmax, largest = engine.weigh(weights, scores, x.geo_weight, x.cap, start, statistics)
        out.lse[:, :, rows] = lse
        out.values[:, :, rows] = weights @ x.v
        out.points[:, :, rows] = (weights.to(points.dtype) @ points).to(x.points.dtype)
        if z is not None:
            out.pair[:, :, rows] = (weights.transpose(1, 2) @ z).transpose(1, 2)
        if statistics:
            out.rows[:, :, rows] = _row_statistics(absmax, lowest, largest, x.mask[:, None, rows])
    return out


def attend_backward(
    engine: Engine, x: Inputs, lse: Tensor, grad: Outputs, *, want_geometry: bool, want_bias: bool, want_z: bool
) -> InputGradients:
    """The gradients of Σ ⟨grad, out⟩, from the `lse` of `attend`; `grad.rows` is ignored: statistics have none."""
    scale = x.q.shape[-1] ** -0.5
    # Contiguous, whatever the layout of the inputs, as `iga.kernels.ops` promises.
    d_q, d_k, d_v = (t.new_zeros(t.shape) for t in (x.q, x.k, x.v))
    points, d_out_points = _exactly(x.points), _exactly(grad.points)
    d_points = torch.zeros_like(points)
    d_weight = torch.zeros_like(x.geo_weight, dtype=torch.float64)
    d_bias = x.bias.new_zeros(x.bias.shape) if want_bias and x.bias is not None else None
    d_z = x.z.new_zeros(x.z.shape) if want_z and x.z is not None else None
    d_z_weight = torch.zeros_like(x.z_weight) if want_z and x.z_weight is not None else None
    d_lse = torch.where(lse == float("-inf"), 0.0, grad.lse)
    for start, stop in row_blocks(x):
        rows = slice(start, stop)
        scores, _ = engine.sums(start, stop, out=_scratch("scores", x, rows))
        z = _pair_block(x, rows)
        weights = _logits(x, rows, z)
        d_values, d_at = grad.values[:, :, rows], d_out_points[:, :, rows]
        d_logits = torch.matmul(d_values, x.v.mT, out=_scratch("d_logits", x, rows))
        d_logits += d_at @ points.mT
        if z is not None:
            d_pair = grad.pair[:, :, rows].transpose(1, 2)
            d_logits += (d_pair @ z.mT).transpose(1, 2)
        # in place: logits become weights, their gradient takes the place of the weights', and γ that of the scores
        d_weight += engine.weigh_back(
            weights, scores, d_logits, x.geo_weight, x.cap, start, lse[:, :, rows], d_lse[:, :, rows]
        )
        d_v += weights.mT @ d_values
        d_points += weights.mT.to(points.dtype) @ d_at
        d_q[:, :, rows] = (d_logits @ x.k) * scale
        d_k += (d_logits.mT @ x.q[:, :, rows]) * scale
        if d_bias is not None:
            d_bias[:, :, rows] = d_logits
        if d_z_weight is not None and z is not None:
            d_z_weight += d_logits.permute(1, 0, 2, 3).flatten(1) @ z.flatten(0, 2)
        if d_z is not None:
            block = weights.permute(0, 2, 3, 1) @ grad.pair[:, :, rows].transpose(1, 2)
            if x.z_weight is not None:
                block += d_logits.permute(0, 2, 3, 1) @ x.z_weight
            d_z[:, rows] = block.mul_(_pair_mask(x, rows))
        if want_geometry:
            engine.add_gradients(start, stop, scores)
    d_points, d_weight = d_points.to(x.points.dtype), d_weight.to(x.geo_weight.dtype)
    geometry = engine.gradients() if want_geometry else None
    return InputGradients(d_q, d_k, d_v, d_points, d_weight, d_bias, d_z, d_z_weight, geometry)


def _scratch(name: str, x: Inputs, rows: slice) -> Tensor | None:
    """Memory for a block [B, H, R, N] that lives as long as its turn in the loop.

    On a CPU it is kept for the thread's next call: fresh pages of a few MB cost as much as what is computed in them.
    Other devices have allocators that keep memory, and get None. What outlives the call must not carry its modes: an
    inference tensor could never be written in training, and a default device is no matter of these blocks.
    """
    if x.q.device.type != "cpu":
        return None
    batch, heads, n, _ = x.q.shape
    shape = (batch, heads, rows.stop - rows.start, n)
    kept: dict[str, Tensor] = vars(_kept)
    key, numel = f"{name}, {x.q.dtype}", math.prod(shape)
    if key not in kept or kept[key].numel() < numel:
        with torch.inference_mode(False):
            kept[key] = torch.empty(numel, dtype=x.q.dtype, device="cpu")
    return kept[key][:numel].view(shape)


def _exactly(points: Tensor) -> Tensor:
    """Value points in a dtype whose products nothing shortens: float64 where TF32 or bf16 may stand in for float32."""
    whole = points.device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
    return points if whole else points.double()


def _logits(x: Inputs, rows: slice, z: Tensor | None) -> Tensor:
    """The logits of a block without their geometry, in `_scratch` memory; at masked residues they may be anything."""
    logits = torch.matmul(x.q[:, :, rows] * x.q.shape[-1] ** -0.5, x.k.mT, out=_scratch("logits", x, rows))
    if x.bias is not None:
        logits += x.bias[:, :, rows]
    if z is not None and x.z_weight is not None:
        logits += (z @ x.z_weight.mT).permute(0, 3, 1, 2)
    return logits


def _pair_mask(x: Inputs, rows: slice) -> Tensor:
    return (x.mask[:, rows, None] & x.mask[:, None, :])[..., None]


def _pair_block(x: Inputs, rows: slice) -> Tensor | None:
    """z of a block, with zeros where a residue is masked: what stands there may be NaN."""
    if x.z is None:
        return None
    return x.z[:, rows].to(x.q.dtype).masked_fill(~_pair_mask(x, rows), 0.0)


def _row_statistics(absmax: Tensor, lowest: Tensor, largest: Tensor, valid: Tensor) -> Tensor:
    """The three of `Outputs.rows`, neutral in masked rows."""
    parts = (absmax.masked_fill(~valid, 0.0), lowest.to(absmax.dtype).masked_fill(~valid, float("inf")), largest)
    return torch.stack(parts, dim=-1)
