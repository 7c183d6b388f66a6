"""The public call of the attention: its arguments are checked and flattened, and one implementation runs.

Every ValueError names the argument, what was expected and what came."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F

from iga._arguments import FEATURE_DTYPES, GEOMETRY_DTYPES, check_dense, check_mask
from iga._typing import Bool, Float, Tensor
from iga.frame import Frame
from iga.functional import point_scale
from iga.kernels.blocks import Outputs
from iga.kernels.choice import choose
from iga.kernels.derivatives import attend_by_reference
from iga.kernels.engine import Geometry
from iga.kernels.ops import gaussian_attention_op
from iga.presets import IGAConfig, check_config

__all__ = ["Attended", "Statistics", "check_arguments", "gaussian_attention"]

Gaussians = tuple[Tensor, Tensor]


class Statistics(NamedTuple):
    """What to watch in training, from the pass itself; no gradient. Per query row and head, valid pairs only.

    geo_absmax   largest |geometry logit| (weighted, gated, capped), 0 in a masked row
    log_det_min  lowest raw log_det, ln nm⁶; +inf in a row without valid pairs
    weight_max   largest softmax weight: the row is saturated where it exceeds `iga.diagnostics.SATURATION`
    """

    geo_absmax: Float[Tensor, "*b h n"]
    log_det_min: Float[Tensor, "*b h n"]
    weight_max: Float[Tensor, "*b h n"]


@dataclass(frozen=True, eq=False)
class Attended:
    """The outputs of one call; rows of masked queries and rows without keys are 0.

    values  [*b, h, n, cv], in the dtype of v        points  [*b, h, n, pv, 3], nm, in the query's frame
    pair    Σ_j a_ij z_ij [*b, h, n, cz], None without z
    lse     log Σ_j exp(logit_ij) over valid keys [*b, h, n], −inf where there are none; differentiable
    """

    values: Tensor
    points: Tensor
    pair: Tensor | None
    lse: Tensor
    statistics: Statistics | None
    implementation: str


def gaussian_attention(
    q: Float[Tensor, "*b h n c"],
    k: Float[Tensor, "*b h n c"],
    v: Float[Tensor, "*b h n cv"],
    value_points: Float[Tensor, "*b h n pv 3"],
    query: Gaussians,
    key: Gaussians,
    frame: Frame,
    mask: Bool[Tensor, "*b n"],
    *,
    geo_scale: Float[Tensor, " h"],
    geo_bias: Float[Tensor, " h"],
    config: IGAConfig,
    gate: Float[Tensor, "*b"] | None = None,
    bias: Float[Tensor, "*b h n n"] | None = None,
    z: Float[Tensor, "*b n n cz"] | None = None,
    z_weight: Float[Tensor, "h cz"] | None = None,
    implementation: str = "auto",
    statistics: bool = False,
) -> Attended:
    """Attention whose logits carry the overlap of Gaussians:

        logit_ij = q_i·k_j/√c + bias_ij + z_ij·z_weight_h + cap(gate · softplus(geo_scale_h) · G_ij / T) + geo_bias_h
        G_ij = {1, P^(−1/2), 1/P} Σ_p score(dist_sq_ijp, log_det_ijp)

    query, key   (mean, sigma) of the points' Gaussians, each [*b, h, p, n, 3], nm: global means; sigma > 0 along the
                 axes of the residue's frame
    frame        [*b, n]: axes of the Gaussians, and the frames of the value points, which are given and returned local
    mask         [*b, n] bool, True = valid. A masked residue takes no part, whatever stands there, NaN included
    config       form, score, dof, log_det_min, point_scaling, temperature and logit_cap are read here
    gate         factor on the geometry per sample, [*b]
    bias, z      logits of the caller's, [*b, h, n, n]; pair features [*b, n, n, cz], attended as they are, and through
                 z_weight [h, cz] part of the logits
    implementation, statistics   see `iga.kernels`, `Statistics`

    Geometry (frame, means, sigmas) is float32 or float64; q, k, v, bias and z may be half precision, and are computed
    in the geometry's dtype. Differentiable in every tensor but mask; second derivatives are dense. rot has the gradient
    along SO(3) (the tangent); off it the implementations differ. Raises ValueError where shapes, devices, dtypes or the
    implementation do not fit. docs/theory.md, section 15.
    """
    check_config(config)
    check_arguments(q, k, v, value_points, query, key, frame, mask, geo_scale, geo_bias, gate, bias, z, z_weight)
    dtype, device = frame.dtype, frame.trans.device
    chosen = choose(implementation, device, dtype, config)
    lead, heads, points = mask.shape[:-1], q.shape[-3], query[0].shape[-3]

    def flat(x: Tensor) -> Tensor:
        return x.reshape(math.prod(lead), *x.shape[len(lead) :])

    weight = F.softplus(geo_scale.to(dtype)) * (point_scale(points, config) / config.temperature)
    weight = weight.expand(*lead, heads) if gate is None else gate.to(dtype)[..., None] * weight
    geometry = Geometry(*map(flat, (frame.rot, mask, *query, *key)))
    tensors = (*map(flat, (q, k, v, value_points.to(dtype).flatten(-2), frame.trans)),)
    pair_inputs = (None if bias is None else flat(bias), None if z is None else flat(z), z_weight)
    out = _run(chosen, tensors, geometry, flat(weight), geo_bias.to(dtype), pair_inputs, config, statistics)

    def shaped(x: Tensor) -> Tensor:
        return x.reshape(*lead, *x.shape[1:])

    return Attended(
        shaped(out.values),
        shaped(out.points).unflatten(-1, value_points.shape[-2:]),
        None if z is None else shaped(out.pair),
        shaped(out.lse) + geo_bias.to(dtype)[:, None],
        Statistics(*shaped(out.rows).unbind(-1)) if statistics else None,
        chosen,
    )


def _run(
    chosen: str,
    tensors: tuple[Tensor, ...],
    geometry: Geometry,
    weight: Tensor,
    geo_bias: Tensor,
    pair_inputs: tuple[Tensor | None, Tensor | None, Tensor | None],
    config: IGAConfig,
    statistics: bool,
) -> Outputs:
    """`tensors` are q, k, v, value points and translations. Masked residues become neutral here, or in the operator."""
    cap = float("inf") if config.logit_cap is None else config.logit_cap
    *features, trans = tensors
    gaussians = (trans, geometry.rot, geometry.q_mean, geometry.q_sigma, geometry.k_mean, geometry.k_sigma)
    inputs = (*features, *gaussians, geometry.mask, weight, geo_bias, *pair_inputs)
    if chosen == "reference" and geometry.rot.numel():
        return attend_by_reference(inputs, config, cap)
    floor = float("-inf") if config.log_det_min is None else config.log_det_min
    return Outputs(*gaussian_attention_op(*inputs, config.score, config.dof, floor, cap, chosen, statistics))


def check_arguments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    value_points: Tensor,
    query: tuple[Tensor, Tensor],
    key: tuple[Tensor, Tensor],
    frame: Frame,
    mask: Tensor,
    geo_scale: Tensor,
    geo_bias: Tensor,
    gate: Tensor | None,
    bias: Tensor | None,
    z: Tensor | None,
    z_weight: Tensor | None,
) -> None:
    """Raises ValueError for a shape, dtype or device that does not fit `gaussian_attention`."""
    for name, pair in (("query", query), ("key", key)):
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(f"{name} must be a tuple (mean, sigma), each [*b, h, p, n, 3]; got {type(pair).__name__}")
    named = {"q": q, "k": k, "v": v, "value_points": value_points, "bias": bias, "z": z, "z_weight": z_weight}
    named |= {"geo_scale": geo_scale, "geo_bias": geo_bias, "gate": gate}
    gaussians = {"query's mean": query[0], "query's sigma": query[1], "key's mean": key[0], "key's sigma": key[1]}
    for name, tensor in named.items():
        if tensor is not None or name in ("q", "k", "v", "value_points", "geo_scale", "geo_bias"):
            check_dense(name, tensor, FEATURE_DTYPES)
    check_mask(mask)
    if not isinstance(frame, Frame):
        raise ValueError(f"frame must be an iga.Frame, got {type(frame).__name__}: iga.frame.rigid_to_frame makes one")
    if frame.dtype not in GEOMETRY_DTYPES:
        raise ValueError(
            f"frame must be float32 or float64, got {frame.dtype}; call .float(): geometry needs the digits"
        )
    for name, tensor in gaussians.items():
        if isinstance(tensor, Tensor) and tensor.dtype != frame.dtype:
            raise ValueError(
                f"{name} must have the dtype of frame, {frame.dtype}, got {tensor.dtype}; convert one of them"
            )
        check_dense(name, tensor, GEOMETRY_DTYPES)
    if q.ndim < 3:
        raise ValueError(f"q must be [*b, h, n, c], got {list(q.shape)}")
    if query[0].ndim < 4:
        raise ValueError(f"query's mean must be [*b, h, p, n, 3], got {list(query[0].shape)}")
    *lead, heads, n, channels = q.shape
    points = query[0].shape[-3]
    if points < 1 or heads < 1 or channels < 1:
        raise ValueError(
            f"q {list(q.shape)} and query's mean {list(query[0].shape)} need at least 1 head, channel, point"
        )

    of_points = (*lead, heads, points, n, 3)
    _shape("k", k, q.shape, "[*b, h, n, c], like q")
    _shape("v", v, (*lead, heads, n, None), "[*b, h, n, cv]")
    _shape("value_points", value_points, (*lead, heads, n, None, 3), "[*b, h, n, pv, 3]")
    for name, tensor in gaussians.items():
        _shape(name, tensor, of_points, "[*b, h, p, n, 3], with the p of query's mean")
    _shape("frame", frame.trans, (*lead, n, 3), "one frame per residue, [*b, n]")
    _shape("mask", mask, (*lead, n), "[*b, n]")
    _shape("geo_scale", geo_scale, (heads,), "[h]")
    _shape("geo_bias", geo_bias, (heads,), "[h]")
    if gate is not None:
        _shape("gate", gate, tuple(lead), "[*b]")
    if bias is not None:
        _shape("bias", bias, (*lead, heads, n, n), "[*b, h, n, n]")
    if z is not None:
        _shape("z", z, (*lead, n, n, None), "[*b, n, n, cz]")
        if z_weight is not None:
            _shape("z_weight", z_weight, (heads, z.shape[-1]), "[h, cz], with the cz of z")
    elif z_weight is not None:
        raise ValueError("z_weight was given without z: pass the pair features too, or neither")

    device = q.device
    for name, tensor in {**named, **gaussians, "mask": mask, "frame": frame.trans}.items():
        if tensor is not None and tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device} and q on {device}; move all tensors to one device")


def _shape(name: str, tensor: Tensor, expected: Sequence[int | None], words: str) -> None:
    """None matches any length."""
    fits = tensor.ndim == len(expected) and all(
        want is None or want == have for want, have in zip(expected, tensor.shape, strict=True)
    )
    if not fits:
        shown = ", ".join("any" if want is None else str(want) for want in expected)
        raise ValueError(f"{name} must be {words}: [{shown}]; got {list(tensor.shape)}")
