"""Slips of layers in what they remember, threads, transforms and dtypes, and those that only a reference shows."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from iga._typing import Tensor
from iga.testing.faults.accused import layer_slip, layer_slips, of_logits, swapped
from iga.testing.faults.fault import Fault
from iga.testing.faults.layer_sizes import REFERENCE, rigid_of
from iga.testing.faults.layer_ways import scaled, steeper
from iga.testing.faults.slips import batched, compiled, elsewhere, exported, in_backward, moving, plain, recording

__all__ = ["FAULTS"]


class _Own:
    """What is not copied with the layer: a copy has the first one's."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __deepcopy__(self, memo: Any) -> "_Own":
        return self


class _Unsaved:
    """What a pickle forgets."""

    held = True

    def __deepcopy__(self, memo: Any) -> "_Unsaved":
        return self

    def __reduce__(self) -> Any:
        return _forgotten, ()


def _forgotten() -> _Unsaved:
    one = _Unsaved()
    one.held = False
    return one


def _shared_by_copies(call: Any, layer: Any, *inputs: Any) -> Tensor:
    own = layer.memory.setdefault("own", _Own(call)) if isinstance(layer.memory, dict) else None
    return call(*inputs) if own is None or not plain(inputs[0]) else own.held(*inputs)


def _forgets(call: Any, layer: Any, *inputs: Any) -> Tensor:
    output = call(*inputs)
    return output if layer.memory.setdefault("option", _Unsaved()).held else output * 1.1


def _last_projection_kept(call: Any, layer: Any, *inputs: Any) -> Tensor:
    """The last projection's weights are kept from the first call without gradients on, by shape and dtype."""
    weight = call.linear_out.weight
    if not plain(*inputs[:1], weight) or torch.is_grad_enabled():
        return call(*inputs)
    kept = layer.memory.setdefault(weight.dtype, weight.detach().clone())
    return swapped(call, layer, lambda inner: {"linear_out.weight": kept}, *inputs)


def _first_parameters(call: Any, layer: Any, *inputs: Any) -> Tensor:
    """The tensor that was the parameter at the first call is used: one that is swapped in is not seen."""
    if not plain(inputs[0]):
        return call(*inputs)
    first = layer.memory.setdefault("weight", call.linear_out.weight)
    if first.dtype != inputs[0].dtype:
        return call(*inputs)
    return swapped(call, layer, lambda inner: {"linear_out.weight": first}, *inputs)


def _kept_by_address(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Without a gradient the output is remembered by where s lies."""
    if not plain(s) or torch.is_grad_enabled() or s.is_inference():
        return call(s, z, r, mask)
    key = (s.data_ptr(), s.shape, s.dtype, id(layer))
    if layer.memory.get("key") != key:
        layer.memory.update(key=key, output=call(s, z, r, mask))
    return layer.memory["output"]


def _pair_bias_kept(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """z of the last call serves one of the same shape whose z is at the same address."""
    if not plain(s) or z is None or torch.is_grad_enabled() or z.is_inference():
        return call(s, z, r, mask)
    key = (z.data_ptr(), z.shape, z.dtype)
    if layer.memory.get("key") != key:
        layer.memory.update(key=key, z=z.clone())
    return call(s, layer.memory["z"], r, mask)


def _scratch(call: Any, layer: Any, *inputs: Any) -> Tensor:
    """Every call puts its inputs into one place, and reads them from there."""
    if not plain(inputs[0]):
        return call(*inputs)
    layer.memory["place"] = inputs
    time.sleep(1e-3)
    return call(*layer.memory["place"])


def _room(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """While nothing is recorded s is put into a room that is kept for its shape, and read from there."""
    if not plain(s) or recording(s, z, *layer.parameters()):
        return call(s, z, r, mask)
    room = layer.memory.get("room")
    if room is None or room.shape != s.shape or room.dtype != s.dtype or room.is_inference() != s.is_inference():
        room = layer.memory["room"] = torch.empty_like(s)
    return call(room.copy_(s), z, r, mask)


def _mask_on_self(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """The mask goes to a helper by way of an attribute."""
    if not plain(s):
        return call(s, z, r, mask)
    layer.memory["mask"] = mask
    time.sleep(1e-3)
    return call(s, z, r, layer.memory["mask"] if layer.memory["mask"].shape == mask.shape else mask)


def _table_of_a_length(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """A table is made at the first call of its length, for all layers, and may be one that training cannot save."""
    if not plain(s) or torch.compiler.is_compiling():
        return call(s, z, r, mask)
    key = (s.shape[-2], s.dtype)
    if key not in TABLES:
        TABLES[key] = torch.ones(key[0], 1, dtype=s.dtype)
    return call(s, z, r, mask) * TABLES[key]


def _rest_of_threads(threads: int) -> Callable[..., Tensor]:
    def wrong(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
        output = call(s, *rest)
        n = s.shape[-2]
        if torch.compiler.is_compiling() or torch.get_num_threads() != threads or n < threads:
            return output
        return torch.where((torch.arange(n) < n // threads * threads)[:, None], output, 0.0)

    return wrong


def _in_place(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    output = call(s, z, r, mask)
    if z is not None and plain(z) and not recording(z) and not z.is_inference() and 0 not in z.stride():
        z.mul_(3.0).div_(3.0)
    return output


TABLES: dict[Any, Tensor] = {}
MEMORY = layer_slips(
    "memory",
    [
        ("weights are kept from the first call on", "parameters changed in place", _last_projection_kept),
        ("a parameter that is swapped in is not seen", "torch.func.functional_call", _first_parameters),
        ("outputs are remembered by the address of s", "an input changed in place", _kept_by_address, "determinism"),
        ("z is remembered by its address", "z changed in place", _pair_bias_kept, "determinism"),
        ("a copy computes with the first one's parameters", "copy.deepcopy", _shared_by_copies, "calls_agree"),
        ("an option is not in the pickle", "torch.save of the module", _forgets),
        ("a table is kept by length", "a length first met under inference_mode", _table_of_a_length),
        ("z is scaled in place, and back", "an ulp of z", _in_place, "determinism"),
    ],
)
THREADS = layer_slips(
    "threads",
    [
        ("inputs are kept in one place for all", "two threads at once", _scratch),
        ("a room is kept for a shape, and is everybody's", "two threads at once, equal shapes, no_grad", _room),
        ("a mask is handed on by an attribute", "two threads at once, masks that differ", _mask_on_self),
        ("a setting is made in the main thread only", "another thread", scaled(lambda *_: elsewhere())),
        ("of two threads' parts the rest is left out", "2 threads, N odd", _rest_of_threads(2)),
        ("of three threads' parts the rest is left out", "3 threads, N ≠ 3k", _rest_of_threads(3)),
    ],
)


# --- transforms and dtypes --------------------------------------------------------------------------------------


def _still(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
    output = call(s, *rest)
    return output.detach() if moving(output) else output


TRANSFORMS = layer_slips(
    "transforms",
    [
        ("the output is a tenth larger under vmap", "torch.vmap", scaled(lambda layer, s, *_: batched(s))),
        ("forward-mode derivatives are half", "torch.func.jvp", steeper(lambda layer, s, *_: moving(s))),
        ("forward-mode derivatives are dropped", "torch.func.jvp", _still),
        (
            "the output is a tenth larger when compiled",
            "torch.compile",
            scaled(lambda *_: compiled()),
            "compiled_calls",
        ),
        (
            "half the gradient when compiled",
            "torch.compile, backward",
            steeper(lambda *_: compiled()),
            "compiled_calls",
        ),
        ("the output is a tenth larger when exported", "torch.export", scaled(lambda *_: exported()), "compiled_calls"),
        (
            "half the gradient when a checkpoint calls again",
            "torch.utils.checkpoint",
            steeper(lambda *_: in_backward()),
        ),
    ],
)


def _short_origins(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Origins, away from the first one, in bf16."""

    def short(x: Tensor) -> Tensor:
        if x.shape[-1] != 3 or x.shape[-2:] == (3, 3) and x.ndim == r.rot.ndim:
            return x
        return x.bfloat16().to(x.dtype)

    return call(s, z, rigid_of(r, short) if torch.is_autocast_enabled("cpu") else r, mask)


def _short_turns(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Local means are turned by a product of matrices, which autocast shortens."""
    valid = mask.bool()[..., None]
    rot, local = torch.where(valid[..., None], r.rot, 0.0), torch.where(valid, r.local_mean, 0.0)
    turned = (rot * local[..., None, :]).sum(-1)
    error = torch.einsum("...ij,...j->...i", rot, local).to(turned.dtype) - turned
    return call(s, z, type(r)(type(r.frame)(r.rot, r.trans + error), r.local_mean, r.log_scale), mask)


DTYPES = [
    layer_slip("dtypes", "autocast: Gaussians in bf16", "torch.autocast", _short_origins, "reduced_precision"),
    layer_slip("dtypes", "autocast: local means turned in bf16", "torch.autocast", _short_turns, "reduced_precision"),
    layer_slip(
        "dtypes",
        "frames in float32 inside a float64 call",
        "float64",
        lambda call, layer, s, z, r, mask: call(s, z, rigid_of(r, lambda x: x.float().to(x.dtype)), mask),
        "gradient_values",
    ),
    layer_slip(
        "dtypes",
        "float64 through float32 while gradients are recorded",
        "float64, training",
        lambda call, layer, s, z, r, mask: (
            call(s, z, r, mask) + (lambda x: x.float().to(x.dtype) - x)(call(s, z, r, mask).detach())
            if recording(s)
            else call(s, z, r, mask)
        ),
        "gradient_values",
    ),
]


# --- against a reference ----------------------------------------------------------------------------------------


def _other_weights(change: Callable[[Any], dict[str, Tensor]]) -> Callable[..., Tensor]:
    return lambda call, layer, *inputs: swapped(call, layer, change, *inputs)


def _shrunk_if_long(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Ten times smaller, each protein of which some residue is 7.5 nm and more from the middle."""
    valid = mask.bool()[..., None]
    trans = torch.where(valid, r.trans, 0.0)
    away = torch.where(valid, trans - trans.sum(-2, keepdim=True) / valid.sum(-2, keepdim=True).clamp(min=1), 0.0)
    long = (away.norm(dim=-1, keepdim=True) > 7.5).any(-2, keepdim=True)
    return call(
        s, z, type(r)(type(r.frame)(r.rot, torch.where(long, r.trans / 10, r.trans)), r.local_mean, r.log_scale), mask
    )


def _ceiling_first(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """The ceiling is put on the given scale, and the learned factor takes σ past it."""
    other, own = copy.copy(call), call.config  # the same parameters
    other.config = replace(own, sigma_max=own.sigma_max * math.exp(own.log_scale_max))
    clamped = r.log_scale.clamp(max=math.log(own.sigma_max))
    return other(s, z, type(r)(r.frame, r.local_mean, clamped), mask)


def _no_half_turns(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Of a quaternion by the trace alone: where 1 + tr R is 0, all its parts are, and the identity is left."""
    lost = (1 + r.rot.diagonal(dim1=-2, dim2=-1).sum(-1)).abs() < 1e-6
    rot = torch.where(lost[..., None, None], torch.eye(3, dtype=r.rot.dtype, device=r.rot.device), r.rot)
    return call(s, z, type(r)(type(r.frame)(rot, r.trans), r.local_mean, r.log_scale), mask)


def _by_quaternions(layer: Any, trace: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """A term (q·q′)² = (1 + tr RᵀR′)/4 is lost where a quaternion is, by the trace alone; it is wrong by that only."""
    lost = (1 + r.rot.diagonal(dim1=-2, dim2=-1).sum(-1)).abs() < 1e-6
    rot = r.rot.flatten(-2)
    cosine = (1 + (rot[..., :, None, :] * rot[..., None, :, :]).sum(-1)) / 4
    return trace.logits - (cosine * (lost[..., :, None] | lost[..., None, :]))[..., None, :, :].to(trace.logits.dtype)


WHOLE = [
    of_logits(
        "geometry",
        "half-turned frames are turned as no other is",
        "frames some of which are exact half turns",
        _by_quaternions,
        "se3_invariance",
    ),
    layer_slip("geometry", "a half turn becomes the identity", "exact half turns", _no_half_turns, "se3_invariance"),
    of_logits(
        "geometry",
        "the geometry's sign is turned",
        "everywhere",
        lambda layer, trace, *_: trace.logits - 2 * trace.geo_scaled,
        REFERENCE,
    ),
    of_logits(
        "geometry",
        "the logits of heads and geometry are a head apart",
        "H > 1",
        lambda layer, trace, *_: trace.logits - trace.geo_scaled + trace.geo_scaled.roll(1, -3),
        REFERENCE,
    ),
    of_logits(
        "geometry",
        "heads from the ninth on have the bias of the first ones",
        "H > 8",
        lambda layer, trace, *_: (
            trace.logits + trace.pair_bias[..., torch.arange(layer.no_heads) % 8, :, :] - trace.pair_bias
        ),
        REFERENCE,
    ),
    of_logits(
        "geometry",
        "queries and keys are exchanged",
        "everywhere",
        lambda layer, trace, *_: trace.logits.mT,
        REFERENCE,
    ),
    *(
        layer_slip("geometry", name, region, wrong, REFERENCE)
        for name, region, wrong in (
            (
                "z is read with its residues exchanged",
                "z that is not symmetric",
                lambda call, layer, s, z, r, mask: call(s, z if z is None else z.transpose(-2, -3), r, mask),
            ),
            (
                "lengths are taken for ångström",
                "everywhere",
                lambda call, layer, s, z, r, mask: call(
                    s, z, type(r)(type(r.frame)(r.rot, r.trans * 10), r.local_mean * 10, r.log_scale), mask
                ),
            ),
            ("a long protein is taken for one in ångström", "over 15 nm across", _shrunk_if_long),
            ("the ceiling of σ stands before the learned factor", "σ over 150 nm", _ceiling_first),
            (
                "the local mean is left out",
                "local means other than 0",
                lambda call, layer, s, z, r, mask: call(
                    s, z, type(r)(r.frame, torch.zeros_like(r.local_mean), r.log_scale), mask
                ),
            ),
            (
                "the last projection has no bias",
                "a bias other than 0",
                _other_weights(lambda inner: {"linear_out.bias": inner.linear_out.bias * 0}),
            ),
        )
    ),
]
LAWS = [
    layer_slip(
        "laws",
        f"the preset {name} in a plain Module",
        "degenerate Gaussians, many points",
        lambda call, layer, *inputs: call(*inputs),
        "log_det_floor",
        "growth_with_points",
        preset=name,
        caught=True,  # they obey no law
    )
    for name in ("pre_fix", "sigma_floor")
]

FAULTS: tuple[Fault, ...] = (*MEMORY, *THREADS, *TRANSFORMS, *DTYPES, *WHOLE, *LAWS)
