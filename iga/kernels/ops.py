"""The operator as torch sees it: `torch.ops.iga.gaussian_attention` and its backward, their fake kernels and vmap.

Flat tensors, no optional outputs (absent ones are empty), every option a number or a string: what torch.compile,
torch.export, autocast and opcheck ask for. Every output is contiguous, whatever the layout of the inputs: compilers lay
out memory by what the fake kernels promise. `iga.kernels` is the door for people: it checks, flattens and chooses;
`iga.kernels.derivatives` has the derivatives.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, get_type_hints

import torch

from iga._layers import sanitise
from iga._typing import Tensor
from iga.kernels import placing
from iga.kernels.blocks import Inputs, Outputs, attend, attend_backward
from iga.kernels.engine import Engine, Geometry, Score
from iga.kernels.masking import neutral

__all__ = [
    "DIFFERENTIABLE",
    "TENSORS",
    "Arguments",
    "computed",
    "engine_for",
    "gaussian_attention_backward_op",
    "gaussian_attention_op",
    "takes_flash",
]

# Scores of one call that are worth writing out, 256 MB in float32: fewer instructions than online softmax, and torch's
# own softmax and products. Above it the fused kernel keeps nothing. With z the blocks are needed anyway.
FLASH_FROM = 1 << 26


def engine_for(implementation: str) -> type[Engine]:
    """The engine of an implementation, imported on demand: numba and triton are loaded only where they run."""
    if implementation == "cpu":
        from iga.kernels.cpu.engine import CpuEngine

        return CpuEngine
    from iga.kernels.triton.engine import FusedEngine

    return FusedEngine


def takes_flash(q: Tensor, z: Tensor | None) -> bool:
    """Whether the fused implementation runs as one flash kernel: without z, from FLASH_FROM scores on."""
    batch, heads, n, _ = q.shape
    return z is None and batch * heads * n * n >= FLASH_FROM


class Arguments(NamedTuple):
    """Those of the operator, in order: shapes as in `iga.kernels.engine` and `iga.kernels.blocks`; value points are
    in their residues' frames. geo_bias moves no output; it is here for its gradient, zero rather than absent."""

    q: Tensor
    k: Tensor
    v: Tensor
    points: Tensor
    trans: Tensor
    rot: Tensor
    q_mean: Tensor
    q_sigma: Tensor
    k_mean: Tensor
    k_sigma: Tensor
    mask: Tensor
    geo_weight: Tensor
    geo_bias: Tensor
    bias: Tensor | None
    z: Tensor | None
    z_weight: Tensor | None
    score: str
    dof: float
    log_det_min: float
    cap: float
    implementation: str
    statistics: bool


# Positions of the tensor arguments, and those that have a gradient; `mask` has none.
TENSORS = Arguments._fields[:16]
DIFFERENTIABLE = tuple(name for name in TENSORS if name != "mask")

# Their names in the schemas, `Tensor? bias` say.
_TYPES = {Tensor: "Tensor", Tensor | None: "Tensor?", str: "str", float: "float", bool: "bool"}
_SCHEMA = ", ".join(f"{_TYPES[kind]} {name}" for name, kind in get_type_hints(Arguments).items())
_GIVEN = ("grad_values", "grad_points", "grad_pair", "grad_lse", "attended", "lse")
_WANTED = ("want_geometry", "want_bias", "want_z")


def _attention(*args: Any) -> tuple[Tensor, ...]:
    """(values, local points, pair, lse without geo_bias, row statistics): `iga.kernels.blocks.Outputs`."""
    a = Arguments(*args)
    return computed(a, flash=a.implementation == "fused" and takes_flash(a.q, a.z))


def computed(a: Arguments, *, flash: bool) -> tuple[Tensor, ...]:
    """The same by the flash kernel, or in blocks."""
    how = Score(a.score, a.dof, a.log_det_min)
    (q, k, v, points), trans, geometry = _neutral(a)
    with torch.autocast(q.device.type, enabled=False), _threads(a):
        engine = _engine(a.implementation, geometry, how)
        x = _inputs(q, k, v, engine.out(points, geometry.rot, trans), a)
        if flash:
            from iga.kernels.triton.engine import flash_forward

            out = flash_forward(x, geometry, how, statistics=a.statistics)
        else:
            out = attend(engine, x, statistics=a.statistics)
        attended = engine.back(out.points, geometry.rot, trans)
        found = (out.values.to(a.v.dtype), attended, out.pair, out.lse, out.rows)
        return tuple(x.contiguous() for x in found)


def _fake_attention(*args: Any) -> tuple[Tensor, ...]:
    a = Arguments(*args)
    batch, heads, n, _ = a.q.shape
    return (
        a.v.new_empty(a.v.shape),
        a.points.new_empty(a.points.shape),
        a.rot.new_empty(batch, heads, n, 0 if a.z is None else a.z.shape[-1]),
        a.rot.new_empty(batch, heads, n),
        a.rot.new_empty((batch, heads, n, 3) if a.statistics else (0,)),
    )


def _attention_backward(*args: Any) -> list[Tensor]:
    """The gradients in the order of `DIFFERENTIABLE`; an empty tensor where nothing was wanted."""
    (grad_values, grad_points, grad_pair, grad_lse, attended, lse), a, (want_geometry, want_bias, want_z) = _split(args)
    (q, k, v, points), trans, geometry = _neutral(a)
    dtype = a.rot.dtype
    with torch.autocast(q.device.type, enabled=False), _threads(a):
        engine = _engine(a.implementation, geometry, Score(a.score, a.dof, a.log_det_min))
        rot, here = geometry.rot, torch.zeros_like(trans)
        x = _inputs(q, k, v, engine.out(points, rot, trans), a)
        d_at, none = engine.out(grad_points, rot, here), rot.new_empty(0)
        grad = Outputs(grad_values.to(dtype), d_at, grad_pair, grad_lse, none)
        d = attend_backward(engine, x, lse, grad, want_geometry=want_geometry, want_bias=want_bias, want_z=want_z)
        moved: Sequence[Tensor | None] = (None,) * 6
        if d.geometry is not None:
            # y = R x + t on the way in, x' = Rᵀ (y' − t) on the way out; nothing comes from masked rows
            turned = placing.outer(d.points, points) + placing.outer(engine.out(attended, rot, here), grad_points)
            shifted = (d.points - d_at).unflatten(-1, (-1, 3)).sum(dim=(1, 3))
            turned, shifted = sanitise(turned, a.mask), sanitise(shifted, a.mask)
            moved = (shifted, d.geometry.rot + turned, *d.geometry[1:])
        of_features = (d.q.to(a.q.dtype), d.k.to(a.k.dtype), d.v.to(a.v.dtype), engine.back(d.points, rot, here))
        of_weight = None if d.z_weight is None or a.z_weight is None else d.z_weight.to(a.z_weight.dtype)
        found = (*of_features, *moved, d.geo_weight, torch.zeros_like(a.geo_bias), d.bias, d.z, of_weight)
        # Empty tensors of their own: one that is returned twice would be an alias, which an operator may not return.
        return [rot.new_empty(0) if x is None else x.contiguous() for x in found]


def _fake_attention_backward(*args: Any) -> list[Tensor]:
    _, a, (want_geometry, want_bias, want_z) = _split(args)
    moved = a[4:10] if want_geometry else (None,) * 6
    of_z = (a.z, a.z_weight) if want_z else (None, None)
    given = (a.q, a.k, a.v, a.points, *moved, a.geo_weight, a.geo_bias, a.bias if want_bias else None, *of_z)
    return [a.rot.new_empty(0) if x is None else x.new_empty(x.shape) for x in given]


def _split(args: Sequence[Any]) -> tuple[Sequence[Any], Arguments, Sequence[bool]]:
    """The backward operator's arguments: what it is given, those of the call, and what is wanted."""
    return args[: len(_GIVEN)], Arguments(*args[len(_GIVEN) : -len(_WANTED)]), args[-len(_WANTED) :]


def _neutral(a: Arguments) -> tuple[Any, Tensor, Geometry]:
    geometry = Geometry(a.rot, a.mask, a.q_mean, a.q_sigma, a.k_mean, a.k_sigma)
    return neutral((a.q, a.k, a.v, a.points), a.trans, geometry, look=True)


def _engine(implementation: str, geometry: Geometry, score: Score) -> Engine:
    return (engine_for(implementation) if geometry.rot.numel() else Engine)(geometry, score)


def _threads(a: Arguments) -> AbstractContextManager[None]:
    """Who computes the call; with z torch's own products would depend on it, to a rounding, and all threads do."""
    kind = engine_for(a.implementation) if a.rot.numel() and a.z is None else Engine
    return kind.threads(a.q.shape[0] * a.q.shape[1])


def _inputs(q: Tensor, k: Tensor, v: Tensor, points: Tensor, a: Arguments) -> Inputs:
    """Everything small in the dtype of the frames; what is of size N² stays as it came until its block is read."""
    dtype = points.dtype
    weight = None if a.z_weight is None else a.z_weight.to(dtype)
    return Inputs(q.to(dtype), k.to(dtype), v.to(dtype), points, a.mask, a.geo_weight, a.cap, a.bias, a.z, weight)


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


def _defined(name: str, schema: str, function: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """The operator of that name and schema, which `iga.kernels.derivatives` differentiates.

    torch.library.custom_op would make every first call wait a second for torch._dynamo, compiled or not.
    """
    _library.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"iga::{name}", fake, lib=_library)
    op = getattr(torch.ops.iga, name).default
    torch.library.register_vmap(f"iga::{name}", _one_by_one(op), lib=_library)
    return op


_library = torch.library.Library("iga", "DEF")
gaussian_attention_op = _defined(
    "gaussian_attention", f"({_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)", _attention, _fake_attention
)
gaussian_attention_backward_op = _defined(
    "gaussian_attention_backward",
    f"({', '.join([*(f'Tensor {x}' for x in _GIVEN), _SCHEMA, *(f'bool {x}' for x in _WANTED)])}) -> Tensor[]",
    _attention_backward,
    _fake_attention_backward,
)
