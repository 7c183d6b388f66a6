"""The operator as torch sees it: `torch.ops.iga.gaussian_attention` and its backward, fake kernels, autograd, vmap.

Flat tensors, no optional outputs (absent ones are empty), every option a number or a string: what torch.compile,
torch.export, autocast and opcheck ask for. `iga.kernels` is the door for people: it checks, flattens and chooses.

The backward computes each block again. Where a second derivative is wanted (create_graph, torch.func) it is built by
`iga.kernels.reference` instead, in dense memory: the blocked backward is not itself differentiable.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from iga._attention_ops import sanitise
from iga._typing import Tensor
from iga.kernels import placing
from iga.kernels.blocked import Inputs, NoEngine, Outputs, attend, attend_backward
from iga.kernels.engine import Engine, Geometry, Score
from iga.kernels.masking import neutral
from iga.kernels.reference import attend_densely
from iga.presets import IGAConfig

__all__ = ["DIFFERENTIABLE", "engine_for", "takes_flash"]

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
        return out.values.to(v.dtype), attended, out.pair, out.lse, out.rows


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
        return [
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
    moved = [trans, rot, q_mean, q_sigma, k_mean, k_sigma]
    return [
        *(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v, points)),
        *(
            torch.empty_like(t, memory_format=torch.contiguous_format) if want_geometry else rot.new_empty(0)
            for t in moved
        ),
        torch.empty_like(geo_weight),
        torch.empty_like(geo_bias),
        torch.empty_like(bias) if want_bias and bias is not None else rot.new_empty(0),
        torch.empty_like(z) if want_z and z is not None else rot.new_empty(0),
        torch.empty_like(z_weight) if want_z and z_weight is not None else rot.new_empty(0),
    ]


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


def _setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
    ctx.save_for_backward(*inputs[: len(TENSORS)], output[1], output[3])
    ctx.options = inputs[len(TENSORS) :]
    ctx.mark_non_differentiable(output[4])
    ctx.set_materialize_grads(True)


def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    inputs, computed = saved[: len(TENSORS)], saved[len(TENSORS) :]
    wanted = dict(zip(TENSORS, ctx.needs_input_grad, strict=False))
    if torch.is_grad_enabled():
        found = _backward_densely(inputs, ctx.options, grads[:4], wanted)
    else:
        moved = any(wanted[name] for name in ("trans", "rot", "q_mean", "q_sigma", "k_mean", "k_sigma"))
        flags = (moved, wanted["bias"], wanted["z"] or wanted["z_weight"])
        given = (*(g.contiguous() for g in grads[:4]), *computed, *inputs)
        made = gaussian_attention_backward_op(*given, *ctx.options, *flags)
        found = dict(zip(DIFFERENTIABLE, made, strict=True))
    by_name = (found.get(name) if wanted[name] else None for name in TENSORS)
    return (*by_name, *(None for _ in ctx.options))


def _backward_densely(
    inputs: Sequence[Tensor | None],
    options: Sequence[Any],
    grads: Sequence[Tensor],
    wanted: dict[str, bool],
) -> dict[str, Tensor | None]:
    """The same gradients as functions that can be differentiated again: the reference, and its graph."""
    named = dict(zip(TENSORS, inputs, strict=True))
    score, dof, log_det_min, cap, _, _ = options
    clamp = None if log_det_min == float("-inf") else log_det_min
    config = IGAConfig(score=score, dof=dof, log_det_min=clamp)
    geometry = Geometry(*(named[name] for name in ("rot", "mask", "q_mean", "q_sigma", "k_mean", "k_sigma")))  # pyright: ignore[reportArgumentType]
    dtype = named["points"].dtype  # pyright: ignore[reportOptionalMemberAccess]
    q, k, v, points, trans, geo_weight = (named[name].to(dtype) for name in (*DIFFERENTIABLE[:5], "geo_weight"))  # pyright: ignore[reportOptionalMemberAccess]
    (q, k, v, points), trans, geometry = neutral((q, k, v, points), trans, geometry)
    z_weight = named["z_weight"]
    out = attend_densely(
        q,
        k,
        v,
        points,
        trans,
        geometry,
        geo_weight,
        named["bias"],
        named["z"],
        None if z_weight is None else z_weight.to(dtype),
        config=config,
        cap=cap,
    )
    leaves = {name: named[name] for name in DIFFERENTIABLE if wanted[name] and name != "geo_bias"}
    found = torch.autograd.grad(
        list(out[:4]),
        [leaf for leaf in leaves.values() if leaf is not None],
        [g.to(o.dtype) for g, o in zip(grads, out[:4], strict=True)],
        create_graph=True,
        allow_unused=True,
    )
    result: dict[str, Tensor | None] = dict(zip(leaves, found, strict=True))
    result["geo_bias"] = torch.zeros_like(named["geo_bias"])  # pyright: ignore[reportArgumentType]
    return result


gaussian_attention_op.register_autograd(_backward, setup_context=_setup_context)


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
