"""The public call of the attention: its arguments are checked and flattened, and one implementation runs.

Every ValueError names the argument, what was expected and what came."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch.nn.functional as F

from iga._arguments import FEATURE_DTYPES, GEOMETRY_DTYPES, check_dense, check_mask
from iga._typing import Bool, Float, Tensor
from iga.frame import Frame
from iga.functional import point_scale
from iga.kernels.blocks import Outputs
from iga.kernels.choice import choose
from iga.kernels.derivatives import attend_by_reference
from iga.kernels.ops import gaussian_attention_op
from iga.presets import IGAConfig, check_config

__all__ = ["Attended", "Statistics", "gaussian_attention"]

Gaussians = tuple[Tensor, Tensor]


class Statistics(NamedTuple):
    """What to watch in training, from the pass itself; no gradient. Per query row and head, valid pairs only.

    geo_absmax   largest |geometry logit| (weighted, gated, capped), 0 in a masked row
    log_det_min  lowest raw log_det, ln nm⁶; +inf in a row without valid pairs
    weight_max   largest softmax weight: the row is saturated where it exceeds `iga.diagnostics.SATURATION`

    Each [*b, h, n]. Returned by `gaussian_attention`, which raises. Source: docs/kernels.md.
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

    Returned by `gaussian_attention`, which raises. Source: docs/kernels.md.
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
    optional = {"gate": gate, "bias": bias, "z": z, "z_weight": z_weight}
    given = {"q": q, "k": k, "v": v, "value_points": value_points, "geo_scale": geo_scale, "geo_bias": geo_bias}
    _check(given | {name: x for name, x in optional.items() if x is not None}, query, key, frame, mask)
    dtype, device = frame.dtype, frame.trans.device
    lead, heads, points = mask.shape[:-1], q.shape[-3], query[0].shape[-3]
    chosen = choose(implementation, device, dtype, config, int(points))

    def flat(x: Tensor | None) -> Any:
        return None if x is None else x.reshape(math.prod(lead), *x.shape[len(lead) :])

    def shaped(x: Tensor) -> Tensor:
        return x.reshape(*lead, *x.shape[1:])

    weight = F.softplus(geo_scale.to(dtype)) * (point_scale(points, config) / config.temperature)
    weight = weight.expand(*lead, heads) if gate is None else gate.to(dtype)[..., None] * weight
    residues = (q, k, v, value_points.to(dtype).flatten(-2), frame.trans, frame.rot, *query, *key, mask, weight)
    inputs = (*map(flat, residues), geo_bias.to(dtype), flat(bias), flat(z), z_weight)
    cap = float("inf") if config.logit_cap is None else config.logit_cap
    if chosen == "reference" and mask.numel():
        out = attend_by_reference(inputs, config, cap)
    else:
        floor = float("-inf") if config.log_det_min is None else config.log_det_min
        out = Outputs(*gaussian_attention_op(*inputs, config.score, config.dof, floor, cap, chosen, statistics))
    return Attended(
        shaped(out.values),
        shaped(out.points).unflatten(-1, value_points.shape[-2:]),
        None if z is None else shaped(out.pair),
        shaped(out.lse) + geo_bias.to(dtype)[:, None],
        Statistics(*shaped(out.rows).unbind(-1)) if statistics else None,
        chosen,
    )


def _check(given: dict[str, Tensor], query: Gaussians, key: Gaussians, frame: Frame, mask: Tensor) -> None:
    """Raises ValueError for a shape, dtype or device that does not fit `gaussian_attention`; `given` are the others."""
    for name, pair in (("query", query), ("key", key)):
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(f"{name} must be a tuple (mean, sigma), each [*b, h, p, n, 3]; got {type(pair).__name__}")
    gaussians = {"query's mean": query[0], "query's sigma": query[1], "key's mean": key[0], "key's sigma": key[1]}
    for name, tensor in given.items():
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
    q = given["q"]
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
    if "z_weight" in given and "z" not in given:
        raise ValueError("z_weight was given without z: pass the pair features too, or neither")

    everything = {**given, **gaussians, "frame": frame.trans, "mask": mask}
    columns = given["z"].shape[-1] if "z" in given else 0
    of_points = ((*lead, heads, points, n, 3), "[*b, h, p, n, 3], with the p of query's mean")
    expected: dict[str, tuple[tuple[int | None, ...], str]] = {
        "k": ((*lead, heads, n, channels), "[*b, h, n, c], like q"),
        "v": ((*lead, heads, n, None), "[*b, h, n, cv]"),
        "value_points": ((*lead, heads, n, None, 3), "[*b, h, n, pv, 3]"),
        **dict.fromkeys(gaussians, of_points),
        "frame": ((*lead, n, 3), "one frame per residue, [*b, n]"),
        "mask": ((*lead, n), "[*b, n]"),
        "geo_scale": ((heads,), "[h]"),
        "geo_bias": ((heads,), "[h]"),
        "gate": (tuple(lead), "[*b]"),
        "bias": ((*lead, heads, n, n), "[*b, h, n, n]"),
        "z": ((*lead, n, n, None), "[*b, n, n, cz]"),
        "z_weight": ((heads, columns), "[h, cz], with the cz of z"),
    }
    for name, (shape, words) in expected.items():
        if name in everything:
            _check_shape(name, everything[name], shape, words)
    for name, tensor in everything.items():
        if tensor.device != q.device:
            raise ValueError(f"{name} is on {tensor.device} and q on {q.device}; move all tensors to one device")


def _check_shape(name: str, tensor: Tensor, expected: tuple[int | None, ...], words: str) -> None:
    """None matches any length."""
    fits = tensor.ndim == len(expected) and all(
        want is None or want == have for want, have in zip(expected, tensor.shape, strict=True)
    )
    if not fits:
        shown = ", ".join("any" if want is None else str(want) for want in expected)
        raise ValueError(f"{name} must be {words}: [{shown}]; got {list(tensor.shape)}")
