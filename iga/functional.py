"""The arithmetic of Invariant Gaussian Attention: tensors in, logits and outputs out, no parameters.

    u = offset_max · tanh(raw_u)          d = log_scale_max · tanh(raw_s)
    σ = floor(exp(log s + d))             μ = R (m + u ⊙ σ) + t
    score_p = score(dist_sq, log_det)     G = Σ_p score_p · {1, P^(−1/2), 1/P}
    geo_scaled = cap(gate · softplus(geo_scale) · G / temperature)
    logit = q·k/√c + pair_bias + geo_scaled + geo_bias

then softmax over the valid keys. Shapes in docs/theory.md's letters (`iga._typing`): pair-point tensors are
[*b, h, p, q, k], keys last, so that the arithmetic runs over contiguous keys. The geometry is elementwise arithmetic
in the frames' dtype (float32 or float64), which TF32 and autocast cannot reach.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from iga import taps
from iga._arguments import FEATURE_DTYPES, check_dense, check_mask, holds
from iga._float_range import sigma_limits
from iga._layers import masked_softmax, value_points_out
from iga._typing import Bool, Float, Tensor
from iga.gaussian import GaussianRigid, floored_sigma
from iga.overlap import gaussian_overlap, gaussian_overlap_textbook, gaussian_score, student_t_score
from iga.presets import IGAConfig, check_config
from iga.rotation import check_alike, check_geometry, rotate

__all__ = [
    "PointGaussians",
    "Trace",
    "gaussian_attention",
    "geometry_logits",
    "joined",
    "point_gaussians",
    "point_scale",
    "point_scores",
]


@dataclass(frozen=True, eq=False)
class PointGaussians:
    """The Gaussians of every head and point: `rot` [*b, n, 3, 3], global `mean` and `sigma` [*b, h, p, n, 3], nm."""

    rot: Float[Tensor, "*b n 3 3"]
    mean: Float[Tensor, "*b h p n 3"]
    sigma: Float[Tensor, "*b h p n 3"]


@dataclass(frozen=True, eq=False)
class Trace:
    """Every intermediate of one call, for diagnostics and checks. Tensors keep their autograd graph.

    rigid              the residues' Gaussians as used: masked ones neutral, translations centred
    query, key         PointGaussians
    raw_query, raw_key (raw_u, raw_s) before tanh, each [*b, h, p, n, 3]
    dist_sq, log_det   [*b, h, p, q, k], raw: before any clamp
    score              [*b, h, p, q, k]
    geo_raw            G, [*b, h, q, k]
    geo_scaled         the geometry's part of the logit: gated, weighted, tempered, capped; without geo_bias
    scalar, pair_bias  the other two parts; pair_bias is None without pair features
    logits, weights    [*b, h, q, k]; weights are exactly zero on masked keys
    geo_weight         gate · softplus(geo_scale), [*b or 1.., h, 1, 1]; geo_bias [h]
    mask               [*b, n], True = valid
    values             (v [*b, h, k, c], value points in the keys' frames [*b, h, k, pv, 3], pair values or None)
    features           what goes into the last projection, [*b, n, ·]
    output             [*b, n, c_s]; None from the functional core, which has no last projection

    Lengths in nm, log_det in ln nm⁶, logits in nats. Made by `trace` of the
    layers, which raises. Source: docs/theory.md, section 2.
    """

    rigid: GaussianRigid
    query: PointGaussians
    key: PointGaussians
    raw_query: tuple[Tensor, Tensor]
    raw_key: tuple[Tensor, Tensor]
    dist_sq: Tensor
    log_det: Tensor
    score: Tensor
    geo_raw: Tensor
    geo_scaled: Tensor
    scalar: Tensor
    pair_bias: Tensor | None
    logits: Tensor
    weights: Tensor
    geo_weight: Tensor
    geo_bias: Tensor
    mask: Tensor
    values: tuple[Tensor, Tensor, Tensor | None]
    features: Tensor
    output: Tensor | None = None

    @property
    def pair_mask(self) -> Bool[Tensor, "*b q k"]:
        """True where query and key are both valid."""
        return self.mask[..., :, None] & self.mask[..., None, :]


def point_gaussians(
    r: GaussianRigid,
    raw_offset: Float[Tensor, "*b h p n 3"],
    raw_log_scale: Float[Tensor, "*b h p n 3"],
    config: IGAConfig,
) -> PointGaussians:
    """Each head's and point's Gaussian: the residue's, moved by a bounded offset and scaled by a bounded factor.

    The floor acts in both places: on the σ that scales the offset, and on the σ of the covariance. Raises ValueError
    where the raw numbers have another dtype than `r`, and, of CPU tensors, where scales without a ceiling leave the
    range that the closed form has in that dtype (docs/theory.md, section 5).
    """
    for name, raw in (("raw_offset", raw_offset), ("raw_log_scale", raw_log_scale)):
        check_geometry(name, raw, 3)
        check_alike(name, raw, "r", r.trans)
    log_sigma = r.log_scale[..., None, None, :, :] + config.log_scale_max * raw_log_scale.tanh()
    sigma = floored_sigma(log_sigma, sigma_min=config.sigma_min, sigma_max=config.sigma_max, floor=config.floor)
    if config.sigma_max is None and config.form == "closed":
        _check_ceiling(sigma, config)
    local = r.local_mean[..., None, None, :, :] + config.offset_max * raw_offset.tanh() * sigma
    mean = rotate(r.rot[..., None, None, :, :, :], local) + r.trans[..., None, None, :, :]
    return PointGaussians(r.rot, mean, sigma)


def _check_ceiling(sigma: Tensor, config: IGAConfig) -> None:
    """Raises ValueError where a σ is too large for its dtype; of values that are not looked at, see `holds`."""
    info = torch.finfo(sigma.dtype)
    _, high = sigma_limits(0.0, config.offset_max, (info.tiny, info.max))
    if not holds(lambda x: ~(x > high), sigma):
        largest = float(sigma.detach().amax())
        raise ValueError(
            f"log_scale must give σ of at most {high:.2g} nm in {sigma.dtype}, got {largest:.2g} nm (docs/theory.md, "
            "section 5): lengths are nm; or give config a sigma_max, above which σ stays"
        )


def point_scores(query: PointGaussians, key: PointGaussians, config: IGAConfig) -> tuple[Tensor, Tensor, Tensor]:
    """(dist_sq, log_det, score), each [*b, h, p, q, k]: every query Gaussian against every key Gaussian."""
    pairs = (
        query.rot[..., None, None, :, None, :, :],
        query.mean[..., :, None, :],
        query.sigma[..., :, None, :],
        key.rot[..., None, None, None, :, :, :],
        key.mean[..., None, :, :],
        key.sigma[..., None, :, :],
    )
    if config.form == "closed":
        dist_sq, log_det = gaussian_overlap(*pairs)
    else:
        dist_sq, log_det = gaussian_overlap_textbook(*pairs, jitter=config.jitter)
    if config.score == "student_t":
        return dist_sq, log_det, student_t_score(dist_sq, log_det, dof=config.dof, log_det_min=config.log_det_min)
    return dist_sq, log_det, gaussian_score(dist_sq, log_det, log_det_min=config.log_det_min)


def point_scale(points: int, config: IGAConfig) -> float:
    """The factor on the sum over `points` scores: 1, P^(−1/2) or 1/P."""
    return {"sum": 1.0, "rsqrt": points**-0.5, "mean": 1.0 / points}[config.point_scaling]


def geometry_logits(
    score: Float[Tensor, "*b h p q k"], geo_weight: Float[Tensor, "..."], config: IGAConfig
) -> tuple[Tensor, Tensor]:
    """(G, geo_scaled), each [*b, h, q, k]; `geo_weight` broadcasts against them."""
    check_geometry("score", score)
    check_geometry("geo_weight", geo_weight)
    geo_raw = score.sum(dim=-3) * point_scale(score.shape[-3], config)
    geo_scaled = geo_weight * geo_raw / config.temperature
    if config.logit_cap is not None:
        geo_scaled = config.logit_cap * (geo_scaled / config.logit_cap).tanh()
    return geo_raw, geo_scaled


def _check_features(**tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None:
            check_dense(name, tensor, FEATURE_DTYPES)


def joined(
    values: Float[Tensor, "*b h n cv"],
    points: Float[Tensor, "*b h n pv 3"],
    pair: Float[Tensor, "*b n h cp"] | None,
    eps: float = 1e-8,
) -> Float[Tensor, "*b n features"]:
    """What was attended as one row per residue, in OpenFold's order and the dtype of `values`: scalar values [h·cv],
    the value points' x, y, z [3·h·pv], their norms [h·pv], pair values [h·cp] (absent without). Values and pair values
    may be half precision, points may not.

    eps, nm², stands under the root of the norms: a finite gradient at the origin."""
    _check_features(values=values, pair=pair)
    check_geometry("points", points, 3)
    norms = (points.square().sum(dim=-1) + eps).sqrt()
    parts = [
        values.transpose(-3, -2).flatten(-2),
        points.transpose(-4, -3).movedim(-1, -3).flatten(-3),
        norms.transpose(-3, -2).flatten(-2),
    ]
    if pair is not None:
        parts.append(pair.flatten(-2))
    return torch.cat([part.to(values.dtype) for part in parts], dim=-1)


def gaussian_attention(
    q: Float[Tensor, "*b h n c"],
    k: Float[Tensor, "*b h n c"],
    v: Float[Tensor, "*b h n c"],
    value_points: Float[Tensor, "*b h n pv 3"],
    r: GaussianRigid,
    raw_query: tuple[Tensor, Tensor],
    raw_key: tuple[Tensor, Tensor],
    mask: Bool[Tensor, "*b n"],
    *,
    geo_scale: Float[Tensor, " h"],
    geo_bias: Float[Tensor, " h"],
    config: IGAConfig,
    pair_bias: Float[Tensor, "*b h q k"] | None = None,
    pair_values: Float[Tensor, "*b q k cz"] | None = None,
    gate: Float[Tensor, "*b"] | None = None,
    eps: float = 1e-8,
) -> Trace:
    """One attention over the residues of `r`; returns the Trace, whose `features` are the outputs, `joined`.

    Masked residues must already be neutral (finite). `eps` as `joined` has it. q, k, v and the other features may be
    half precision; integers and complex numbers raise ValueError, as does a mask that is not bool.
    """
    check_config(config)
    _check_features(q=q, k=k, v=v, value_points=value_points, geo_scale=geo_scale, geo_bias=geo_bias)
    _check_features(pair_bias=pair_bias, pair_values=pair_values, gate=gate)
    for name, raw in (("raw_query", raw_query), ("raw_key", raw_key)):
        _check_features(**{f"{name}[0]": raw[0], f"{name}[1]": raw[1]})
    check_mask(mask)
    geometry = torch.promote_types(r.dtype, torch.float32)
    raw_query, raw_key = ((u.to(geometry), d.to(geometry)) for u, d in (raw_query, raw_key))
    query, key = (point_gaussians(r, *raw, config) for raw in (raw_query, raw_key))
    dist_sq, log_det, score = point_scores(query, key, config)

    geo_weight = F.softplus(geo_scale.to(geometry))[:, None, None]
    if gate is not None:
        geo_weight = gate.to(geometry)[..., None, None, None] * geo_weight
    geo_raw, geo_scaled = geometry_logits(score, geo_weight, config)

    scalar = (q @ k.mT).to(geometry) * q.shape[-1] ** -0.5
    logits = scalar + geo_scaled + geo_bias.to(geometry)[:, None, None]
    if pair_bias is not None:
        pair_bias = pair_bias.to(geometry)
        logits = logits + pair_bias
    weights = masked_softmax(logits, mask[..., None, None, :])

    values = weights.to(v.dtype) @ v  # [*b, h, n, c]
    points = value_points_out(weights, r.frame, value_points.to(geometry))  # [*b, h, n, pv, 3]
    pair = None
    if pair_values is not None:
        by_query = weights.transpose(-3, -2).to(pair_values.dtype)  # [*b, q, h, k]
        pair = by_query @ pair_values
    features = joined(values, points, pair, eps)
    trace = Trace(
        rigid=r,
        query=query,
        key=key,
        raw_query=raw_query,
        raw_key=raw_key,
        dist_sq=dist_sq,
        log_det=log_det,
        score=score,
        geo_raw=geo_raw,
        geo_scaled=geo_scaled,
        scalar=scalar,
        pair_bias=pair_bias,
        logits=logits,
        weights=weights,
        geo_weight=geo_weight,
        geo_bias=geo_bias,
        mask=mask,
        values=(v, value_points, pair_values),
        features=features,
    )
    if taps.listening():
        _show(trace)
    return trace


def _show(trace: Trace) -> None:
    """The trace through the taps of those who listen (`iga.taps`)."""
    for gaussians, residues in ((trace.query, "q"), (trace.key, "k")):
        taps.show("sigma", gaussians.sigma, dims=f"b h p {residues} x")
        taps.show("mean", gaussians.mean, dims=f"b h p {residues} x")
    for name, tensor in (("dist_sq", trace.dist_sq), ("log_det", trace.log_det), ("score", trace.score)):
        taps.show(name, tensor, dims="b h p q k")
    for name, tensor in (("geometry_logit", trace.geo_scaled), ("logits", trace.logits), ("weights", trace.weights)):
        taps.show(name, tensor, dims="b h q k")
    taps.show("values", trace.values[0], dims="b h k c")
