"""The operator as torch sees it: `torch.ops.iga.gaussian_attention` and its backward, their fake kernels and vmap.

Flat tensors, no optional outputs (absent ones are empty), every option a number or a string: what torch.compile,
torch.export, autocast and opcheck ask for. Every output is contiguous, whatever the layout of the inputs: compilers lay
out memory by what the fake kernels promise. `iga.kernels` is the door for people: it checks, flattens and chooses;
`iga.kernels.derivatives` has the derivatives.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from iga._attention_ops import sanitise
from iga._typing import Tensor
from iga.kernels import placing
from iga.kernels.blocked import Inputs, NoEngine, Outputs, attend, attend_backward
from iga.kernels.engine import Engine, Geometry, Score
from iga.kernels.masking import neutral

__all__ = [
    "DIFFERENTIABLE",
    "TENSORS",
    "engine_for",
    "gaussian_attention_backward_op",
    "gaussian_attention_op",
    "takes_flash",
]

# Positions of the operator's tensor arguments that have a gradient; `mask` has none.
TENSORS = (
    *("q", "k", "v", "points", "trans", "rot", "q_mean", "q_sigma", "k_mean", "k_sigma"),
    *("mask", "geo_weight", "geo_bias", "bias", "z", "z_weight"),
)
DIFFERENTIABLE = tuple(name for name in TENSORS if name != "mask")

# Scores of one call that are worth writing out, 256 MB in float32: fewer instructions than online softmax, and torch's
# own softmax and products. Above it the fused kernel keeps nothing. With z the blocks are needed anyway.
FLASH_FROM = 1 << 26


def engine_for(implementation: str) -> Callable[[Geometry, Score], Engine]:
    """The engine of an implementation, imported on demand: numba and triton are loaded only where they run."""
    if implementation == "cpu":
        from iga.kernels.cpu import CpuEngine

        return CpuEngine
    from iga.kernels.fused import FusedEngine

    return FusedEngine


def takes_flash(q: Tensor, z: Tensor | None) -> bool:
    """Whether the fused implementation runs as one flash kernel: without z, from FLASH_FROM scores on."""
    batch, heads, n, _ = q.shape
    return z is None and batch * heads * n * n >= FLASH_FROM


@torch.library.custom_op("iga::gaussian_attention", mutates_args=())
def gaussian_attention_op(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    points: torch.Tensor,
    trans: torch.Tensor,
    rot: torch.Tensor,
    q_mean: torch.Tensor,
    q_sigma: torch.Tensor,
    k_mean: torch.Tensor,
    k_sigma: torch.Tensor,
    mask: torch.Tensor,
    geo_weight: torch.Tensor,
    geo_bias: torch.Tensor,
    bias: torch.Tensor | None,
    z: torch.Tensor | None,
    z_weight: torch.Tensor | None,
    score: str,
    dof: float,
    log_det_min: float,
    cap: float,
    implementation: str,
    statistics: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(values, points, pair, lse without geo_bias, row statistics) of `iga.kernels.blocked.Outputs`; but value points
    are in their residues' frames, coming and going.

    geo_bias moves no output; it is here for its gradient, which is zero rather than absent.
    """
    how = Score(score, dof, log_det_min)
    (q, k, v, points), trans, geometry = neutral(
        (q, k, v, points), trans, Geometry(rot, mask, q_mean, q_sigma, k_mean, k_sigma), look=True
    )
    with torch.autocast(q.device.type, enabled=False):
        if implementation == "fused" and takes_flash(q, z):
            from iga.kernels.fused import flash_forward

            placed = placing.out(points, geometry.rot, trans)
            out = flash_forward(q, k, v, placed, geometry, how, geo_weight, cap, bias, statistics=statistics)
            attended = placing.back(out.points, geometry.rot, trans)
        else:
            engine = _engine(implementation, geometry, how)
            placed = engine.out(points, geometry.rot, trans)
            x = _inputs(q, k, v, placed, mask, geo_weight, cap, bias, z, z_weight)
            out = attend(engine, x, statistics=statistics)
            attended = engine.back(out.points, geometry.rot, trans)
        values, attended, pair, lse, rows = _laid_out((out.values.to(v.dtype), attended, out.pair, out.lse, out.rows))
        return values, attended, pair, lse, rows


@gaussian_attention_op.register_fake
def _(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    points: torch.Tensor,
    trans: torch.Tensor,
    rot: torch.Tensor,
    q_mean: torch.Tensor,
    q_sigma: torch.Tensor,
    k_mean: torch.Tensor,
    k_sigma: torch.Tensor,
    mask: torch.Tensor,
    geo_weight: torch.Tensor,
    geo_bias: torch.Tensor,
    bias: torch.Tensor | None,
    z: torch.Tensor | None,
    z_weight: torch.Tensor | None,
    score: str,
    dof: float,
    log_det_min: float,
    cap: float,
    implementation: str,
    statistics: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    batch, heads, n, _ = q.shape
    dtype = rot.dtype
    return (
        v.new_empty(v.shape),
        points.new_empty(points.shape),
        rot.new_empty(batch, heads, n, 0 if z is None else z.shape[-1]),
        rot.new_empty(batch, heads, n),
        rot.new_empty((batch, heads, n, 3) if statistics else (0,), dtype=dtype),
    )


@torch.library.custom_op("iga::gaussian_attention_backward", mutates_args=())
def gaussian_attention_backward_op(
    grad_values: torch.Tensor,
    grad_points: torch.Tensor,
    grad_pair: torch.Tensor,
    grad_lse: torch.Tensor,
    attended: torch.Tensor,
    lse: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    points: torch.Tensor,
    trans: torch.Tensor,
    rot: torch.Tensor,
    q_mean: torch.Tensor,
    q_sigma: torch.Tensor,
    k_mean: torch.Tensor,
    k_sigma: torch.Tensor,
    mask: torch.Tensor,
    geo_weight: torch.Tensor,
    geo_bias: torch.Tensor,
    bias: torch.Tensor | None,
    z: torch.Tensor | None,
    z_weight: torch.Tensor | None,
    score: str,
    dof: float,
    log_det_min: float,
    cap: float,
    implementation: str,
    statistics: bool,
    want_geometry: bool,
    want_bias: bool,
    want_z: bool,
) -> list[torch.Tensor]:
    """The gradients in the order of `DIFFERENTIABLE`; an empty tensor where nothing was wanted."""
    (q, k, v, points), trans, geometry = neutral(
        (q, k, v, points), trans, Geometry(rot, mask, q_mean, q_sigma, k_mean, k_sigma), look=True
    )
    dtype = rot.dtype
    with torch.autocast(q.device.type, enabled=False):
        engine = _engine(implementation, geometry, Score(score, dof, log_det_min))
        rot, here = geometry.rot, torch.zeros_like(trans)
        x = _inputs(q, k, v, engine.out(points, rot, trans), mask, geo_weight, cap, bias, z, z_weight)
        d_at, none = engine.out(grad_points, rot, here), rot.new_empty(0)
        grad = Outputs(grad_values.to(dtype), d_at, grad_pair, grad_lse, none)
        d = attend_backward(engine, x, lse, grad, want_geometry=want_geometry, want_bias=want_bias, want_z=want_z)
        moved = [rot.new_empty(0) for _ in range(6)]
        if d.geometry is not None:
            # y = R x + t on the way in, x' = Rᵀ (y' − t) on the way out; nothing comes from masked rows
            turned = placing.outer(d.points, points) + placing.outer(engine.out(attended, rot, here), grad_points)
            shifted = (d.points - d_at).unflatten(-1, (-1, 3)).sum(dim=(1, 3))
            turned, shifted = sanitise(turned, mask), sanitise(shifted, mask)
            moved = [shifted, d.geometry.rot + turned, *d.geometry[1:]]
        found = [
            d.q.to(q.dtype),
            d.k.to(k.dtype),
            d.v.to(v.dtype),
            engine.back(d.points, rot, here),
            *moved,
            d.geo_weight,
            torch.zeros_like(geo_bias),
            rot.new_empty(0) if d.bias is None else d.bias,
            rot.new_empty(0) if d.z is None else d.z,
            rot.new_empty(0) if d.z_weight is None or z_weight is None else d.z_weight.to(z_weight.dtype),
        ]
        return list(_laid_out(found))


@gaussian_attention_backward_op.register_fake
def _(
    grad_values: torch.Tensor,
    grad_points: torch.Tensor,
    grad_pair: torch.Tensor,
    grad_lse: torch.Tensor,
    attended: torch.Tensor,
    lse: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    points: torch.Tensor,
    trans: torch.Tensor,
    rot: torch.Tensor,
    q_mean: torch.Tensor,
    q_sigma: torch.Tensor,
    k_mean: torch.Tensor,
    k_sigma: torch.Tensor,
    mask: torch.Tensor,
    geo_weight: torch.Tensor,
    geo_bias: torch.Tensor,
    bias: torch.Tensor | None,
    z: torch.Tensor | None,
    z_weight: torch.Tensor | None,
    score: str,
    dof: float,
    log_det_min: float,
    cap: float,
    implementation: str,
    statistics: bool,
    want_geometry: bool,
    want_bias: bool,
    want_z: bool,
) -> list[torch.Tensor]:
    geometry = (trans, rot, q_mean, q_sigma, k_mean, k_sigma)
    moved = geometry if want_geometry else (None,) * 6
    of_z = (z, z_weight) if want_z else (None, None)
    given = (q, k, v, points, *moved, geo_weight, geo_bias, bias if want_bias else None, *of_z)
    return [rot.new_empty(0) if x is None else x.new_empty(x.shape) for x in given]


def _laid_out(outputs: Iterable[Tensor]) -> Iterable[Tensor]:
    """What the fake kernels promise of every output: contiguous."""
    return (x.contiguous() for x in outputs)


def _engine(implementation: str, geometry: Geometry, score: Score) -> Engine:
    empty = geometry.rot.numel() == 0
    return NoEngine(geometry, score) if empty else engine_for(implementation)(geometry, score)


def _inputs(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    points: Tensor,
    mask: Tensor,
    geo_weight: Tensor,
    cap: float,
    bias: Tensor | None,
    z: Tensor | None,
    z_weight: Tensor | None,
) -> Inputs:
    """Everything small in the dtype of the frames; what is of size N² stays as it came until its block is read."""
    dtype = points.dtype
    weight = None if z_weight is None else z_weight.to(dtype)
    return Inputs(q.to(dtype), k.to(dtype), v.to(dtype), points, mask, geo_weight, cap, bias, z, weight)


def _one_by_one(op: Callable[..., Any]) -> Callable[..., Any]:
    """The batching rule of `op`: one call after another. Its own batch dimension is the quick way."""

    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        calls = [
            op(*(a if d is None else a.select(d, i) for a, d in zip(args, in_dims, strict=True)))
            for i in range(info.batch_size)
        ]
        out = [torch.stack(parts) for parts in zip(*calls, strict=True)]
        return (out, [0] * len(out)) if isinstance(calls[0], list) else (tuple(out), (0,) * len(out))

    return rule


gaussian_attention_op.register_vmap(_one_by_one(gaussian_attention_op))
gaussian_attention_backward_op.register_vmap(_one_by_one(gaussian_attention_backward_op))
