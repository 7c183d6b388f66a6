"""The derivatives of `torch.ops.iga.gaussian_attention`, in every mode that torch has.

.backward() computes each block again. Every other derivative (create_graph, torch.func, forward mode, batched
gradients) is that of the reference, in dense memory: the blocked passes are not themselves differentiable. Nothing here
is silently zero: a derivative is right, or it is refused. vmap alone needs none, and stays with the kernels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad

from iga._typing import Tensor
from iga.kernels.blocks import Inputs, Outputs
from iga.kernels.engine import Geometry
from iga.kernels.masking import neutral
from iga.kernels.ops import DIFFERENTIABLE, TENSORS, gaussian_attention_backward_op, gaussian_attention_op
from iga.kernels.reference import attend_densely
from iga.kernels.trust import BACKWARD, branch_of, distrust, say_wrong
from iga.presets import IGAConfig

__all__ = ["attend_by_reference"]

GEOMETRY = ("trans", "rot", "q_mean", "q_sigma", "k_mean", "k_sigma")


def attend_by_reference(inputs: Sequence[Tensor | None], config: IGAConfig, cap: float) -> Outputs:
    """The operator as plain torch: `inputs` in the order of `TENSORS`, and every output of `attend_densely`.

    geo_bias moves no output: its gradient is zero, and present, as the kernels have it.
    """
    named: dict[str, Any] = dict(zip(TENSORS, inputs, strict=True))
    rot, geo_bias, dtype = named["rot"], named["geo_bias"], named["rot"].dtype
    *features, trans = (named[name].to(dtype) for name in ("q", "k", "v", "points", "trans"))
    geometry = Geometry(*(named[name] for name in ("rot", "mask", *GEOMETRY[2:])))
    (q, k, v, points), trans, geometry = neutral(tuple(features), trans, geometry)
    bias, z, z_weight = (None if (t := named[name]) is None else t.to(dtype) for name in ("bias", "z", "z_weight"))
    x = Inputs(q, k, v, points, geometry.mask, named["geo_weight"].to(dtype), cap, bias, z, z_weight)
    with torch.autocast("cpu" if rot.is_meta else rot.device.type, enabled=False):  # there is none for meta
        out = attend_densely(x, trans, geometry, config)
    return out._replace(values=(out.values + 0.0 * geo_bias[:, None, None]).to(named["v"].dtype))


def _of_options(inputs: Sequence[Tensor | None], options: Sequence[Any]) -> Outputs:
    """`attend_by_reference` for the operator's options: score, dof, log_det_min, cap, implementation, statistics."""
    score, dof, log_det_min, cap, _, statistics = options
    clamp = None if log_det_min == float("-inf") else log_det_min
    out = attend_by_reference(inputs, IGAConfig(score=score, dof=dof, log_det_min=clamp), cap)
    return out if statistics else out._replace(rows=out.rows.new_empty(0))


class _Blocked(torch.autograd.Function):
    """The kernels, with the backward pass in blocks: what .backward() runs."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, *args: Any) -> tuple[Tensor, ...]:
        output = _below(gaussian_attention_op, keyset, args)
        ctx.save_for_backward(*args[: len(TENSORS)], output[1], output[3])
        ctx.options = args[len(TENSORS) :]
        ctx.mark_non_differentiable(output[4])
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: checkpointing makes them anew at each reading
        inputs, computed = saved[: len(TENSORS)], saved[len(TENSORS) :]
        wanted = dict(zip(TENSORS, ctx.needs_input_grad[1:], strict=False))
        beyond = torch.is_grad_enabled() or _has_tangent(grads) or _are_batched(grads)
        if beyond or _distrusted(inputs, ctx.options):
            found = _backward_by_reference(inputs, ctx.options, grads[:4], wanted)
        else:
            moved = any(wanted[name] for name in GEOMETRY)
            flags = (moved, wanted["bias"], wanted["z"] or wanted["z_weight"])
            given = (*(g.contiguous() for g in grads[:4]), *computed, *inputs)
            made = gaussian_attention_backward_op(*given, *ctx.options, *flags)
            found = dict(zip(DIFFERENTIABLE, made, strict=True))
        by_name = (found.get(name) if wanted[name] else None for name in TENSORS)
        return (None, *by_name, *(None for _ in ctx.options))


def _distrusted(inputs: Sequence[Tensor | None], options: Sequence[Any]) -> bool:
    """True where the kernels' gradients are wrong on this device, which is said once."""
    rot, q_mean = (inputs[TENSORS.index(name)] for name in ("rot", "q_mean"))
    assert rot is not None and q_mean is not None
    score, dof, floor, _, implementation, _ = options
    if implementation not in ("cpu", "fused") or rot.numel() == 0:
        return False
    branch = branch_of(score, dof, floor != float("-inf"))
    reason = distrust(implementation, rot.device, rot.dtype, branch, int(q_mean.shape[2]), BACKWARD)
    if reason is not None:
        say_wrong(implementation, "gradients are those of the reference", reason)
    return reason is not None


@torch.enable_grad()
def _backward_by_reference(
    inputs: Sequence[Tensor | None],
    options: Sequence[Any],
    grads: Sequence[Tensor],
    wanted: dict[str, bool],
) -> dict[str, Tensor | None]:
    """The same gradients as functions that can be differentiated again: the reference, and its graph."""
    # Views: one tensor may have been given as two arguments, and each has a gradient of its own.
    inputs = [None if x is None else x.view_as(x) for x in inputs]
    out = _of_options(inputs, options)
    leaves = {n: x for n, x in zip(TENSORS, inputs, strict=True) if wanted[n] and x is not None}
    # without z there is no pair value that depends on anything
    ends = [(o, g.to(o.dtype)) for o, g in zip(out[:4], grads, strict=True) if o.requires_grad]
    given = ([o for o, _ in ends], list(leaves.values()), [g for _, g in ends])
    found = torch.autograd.grad(*given, create_graph=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def _forward_kernel(keyset: Any, *args: Any) -> Any:
    tensors = [x for x in args[: len(TENSORS)] if x is not None]
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    if args[TENSORS.index("rot")].numel() and _goes_beyond_backward(tensors, wanted):
        return tuple(_of_options(args[: len(TENSORS)], args[len(TENSORS) :]))
    return _Blocked.apply(keyset, *args) if wanted else _below(gaussian_attention_op, keyset, args)


def _backward_kernel(keyset: Any, *args: Any) -> Any:
    tensors = [x for x in args if isinstance(x, Tensor)]
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    if wanted or _goes_beyond_backward(tensors, wanted):
        raise NotImplementedError(
            "iga::gaussian_attention_backward has no derivative of its own. Differentiate iga::gaussian_attention, "
            'whose higher derivatives are those of implementation="reference", or take that implementation'
        )
    return _below(gaussian_attention_backward_op, keyset, args)


def _goes_beyond_backward(tensors: Sequence[Tensor], wanted: bool) -> bool:
    """Whether torch.func (grad, vjp, jvp) or forward mode wants a derivative of this call. Under vmap alone a call
    comes here sample by sample, with no transform above it."""
    return (wanted and torch._C._are_functorch_transforms_active()) or _has_tangent(tensors)


def _has_tangent(tensors: Sequence[Tensor]) -> bool:
    """Whether forward mode carries a derivative on one of them."""
    # No open level, no tangents; but the count is Python's, and a compiler's tracer opens levels without it.
    closed = forward_ad._current_level < 0 and not torch._C._are_functorch_transforms_active()
    if closed and all(type(x) in (Tensor, torch.nn.Parameter) for x in tensors):
        return False
    return any(forward_ad.unpack_dual(x, level=0).tangent is not None for x in tensors)


def _are_batched(grads: Sequence[Tensor]) -> bool:
    """Whether they came by is_grads_batched, whose batches are of an older kind than vmap's, without rules."""
    return any(torch._C._functorch.is_legacy_batchedtensor(g) for g in grads)  # pyright: ignore[reportAttributeAccessIssue]


def _below(op: Any, keyset: Any, args: Sequence[Any]) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)


_library = torch.library.Library("iga", "FRAGMENT")
_library.impl("gaussian_attention", _forward_kernel, "Autograd", with_keyset=True)
_library.impl("gaussian_attention_backward", _backward_kernel, "Autograd", with_keyset=True)
