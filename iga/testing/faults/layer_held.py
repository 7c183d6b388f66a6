"""Slips of layers with what is the caller's, and with what samples share: answers that are written to, .grad, expanded
frames, blocks of padding alone, long proteins."""

import math
from typing import Any

import torch
from torch.nn.functional import softplus

from iga._typing import Tensor
from iga.testing.faults.accused import layer_slip, layer_slips, of_logits, swapped
from iga.testing.faults.fault import Fault
from iga.testing.faults.slips import Passed, plain, recording

__all__ = ["FAULTS"]

BLOCK = 64  # keys
BYTE = 255  # the largest count in uint8
LONG = 128  # residues


class _KeptByName(torch.autograd.Function):
    """Its argument; backward takes it from an attribute, of which autograd does not see that it is written to."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.answer = x.clone()
        ctx.right = x
        return ctx.answer

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * torch.where(ctx.answer == ctx.right, 1.0, 2.0).to(gradients[0])


def _kept_by_name(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
    output = call(s, *rest)
    return _KeptByName.apply(output) if plain(s) and recording(output) else output  # pyright: ignore[reportReturnType]


def _without_a_graph(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Where nothing at all is valid the zeros are made anew."""
    output = call(s, z, r, mask)
    return torch.zeros_like(output) if plain(s) and not bool(mask.any()) else output


def _adds_to_grad(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
    """Where a parameter has a .grad, the way back adds to it."""
    parameter = next(layer.parameters())

    def rule(g: Tensor) -> Tensor:
        if parameter.grad is not None:
            parameter.grad.add_(1.0)
        return g

    output = call(s, *rest)
    return Passed.apply(output, rule) if plain(s) and recording(output) else output  # pyright: ignore[reportReturnType]


def _all_or_nothing(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
    """A guard against NaN for all samples at once."""
    output = call(s, *rest)
    return output if not plain(s) or bool(output.isfinite().all()) else torch.zeros_like(output)


def _in_bytes(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
    """Features are kept in 2²² steps of the largest of the batch."""
    step = s.detach().abs().nan_to_num(0.0, 0.0, 0.0).amax() / 2**22 if s.numel() else s.new_ones(())
    kept = (s / step.clamp(min=1e-30)).round() * step
    return call(s if not plain(s) else s + (kept - s).detach(), *rest)


def _small_ones_dropped(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
    """Gradients under 10⁻⁵ are taken for noise."""
    output = call(s, *rest)
    if not (plain(s) and recording(output)):
        return output
    return Passed.apply(output, lambda g: torch.where(g.abs() < 1e-5, 0.0, g))  # pyright: ignore[reportReturnType]


def _first_scales(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Frames that are expanded over a batch have the first sample's scales for all."""
    one = plain(s) and r.trans.ndim == 3 and len(r.trans) > 1 and r.trans.stride(0) == 0
    scales = r.log_scale[:1].expand_as(r.log_scale) if one else r.log_scale
    return call(s, z, type(r)(r.frame, r.local_mean, scales), mask)


def _no_number_behind_padding(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """A running softmax over blocks of keys: of a first block without any valid one, inf − inf."""
    valid = mask.bool()
    blocked = ~valid[..., :BLOCK].any(-1) & valid.any(-1) if mask.shape[-1] > BLOCK else torch.zeros_like(valid[..., 0])
    return torch.where(blocked[..., None, None], math.nan, call(s, z, r, mask))


def _middle_in_eight_bits(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Of more than 255 valid residues the middle is elsewhere, and how buried one is depends on where space has its
    origin."""
    valid = mask.bool()
    away = torch.where(valid[..., None], r.trans, 0.0).norm(dim=-1, keepdim=True)
    many = (valid.sum(-1) > BYTE)[..., None, None]
    return call(s, z, r, mask) + torch.where(many, 0.01 * away, 0.0)


def _mean_in_eight_bits(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Features are taken from their mean, whose count wraps from 256 valid residues on."""
    valid = mask.bool()[..., None]
    count = valid.sum(-2, keepdim=True)
    inside = torch.where(valid, s, 0.0)
    right, wrapped = (inside.sum(-2, keepdim=True) / n.clamp(min=1) for n in (count, count % (BYTE + 1)))
    return call(s + (right - wrapped), z, r, mask)


def _by_length(layer: Any, trace: Any, *inputs: Any) -> Tensor:
    """Logits grow with ln n beyond 128 residues."""
    n = trace.mask.sum(-1).clamp(min=LONG).to(trace.logits)
    return trace.logits * (n.log() / math.log(LONG))[..., None, None, None]


def _by_eights(call: Any, layer: Any, *inputs: Any) -> Tensor:
    points = call.no_qk_points
    lost = points % 8 if points > 8 else 0
    if not lost:
        return call(*inputs)

    def lighter(inner: Any) -> dict[str, Tensor]:
        return {"geo_scale": (softplus(inner.geo_scale) * (1 - lost / points)).expm1().log()}

    return swapped(call, layer, lighter, *inputs)


def _no_angle_at_a_half_turn(layer: Any, trace: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Of a logarithm of Rᵢᵀ Rⱼ that is θ/(2 sin θ) times what is antisymmetric, nothing is left where sin θ is 0."""
    tr = torch.einsum("...iab,...jab->...ij", r.rot, r.rot)
    lost = (tr == -1)[..., None, :, :]
    return torch.where(lost, trace.logits - trace.geo_scaled, trace.logits)


FAULTS: tuple[Fault, ...] = (
    *layer_slips(
        "gradients",
        [
            ("what nothing is valid in has no graph", "no residue is valid, led back", _without_a_graph),
            ("a gradient under 10⁻⁵ is dropped", "a loss of small weight", _small_ones_dropped),
            ("the way back adds to .grad", "a parameter that has one", _adds_to_grad),
        ],
    ),
    *layer_slips("memory", [("the answer is kept by name for the way back", "written to before it", _kept_by_name)]),
    *layer_slips(
        "shapes",
        [
            ("expanded frames have the first scales", "frames expanded over a batch", _first_scales),
            ("one NaN zeroes all samples", "a sample without a number in the batch", _all_or_nothing),
            ("features are in steps of the largest of the batch", "a sample of large numbers in it", _in_bytes),
        ],
    ),
    *layer_slips(
        "sizes",
        [
            ("a first block of padding has no number", "the first 64 residues masked", _no_number_behind_padding),
            ("a mean of features is counted in eight bits", "over 255 valid", _mean_in_eight_bits, "large_sizes"),
            ("a middle is counted in eight bits", "over 255 valid residues", _middle_in_eight_bits, "large_sizes"),
        ],
    ),
    of_logits(
        "geometry",
        "the angle between frames is left out at half a turn",
        "frames exactly half a turn apart",
        _no_angle_at_a_half_turn,
        "reference_agrees",
    ),
    layer_slip(
        "sizes",
        "points go by eights, and the rest beyond eight is lost",
        "P = 9, 12",
        _by_eights,
        "growth_with_points",
        caught=True,
    ),
    of_logits("geometry", "logits grow with the length", "over 128 valid residues", _by_length, "reference_agrees"),
)
