"""Cures of attention that are public and none of this package's, on both layers, as subclasses of them.

    qk_norm    LayerNorm of q and of k by head, gain and bias learned (Dehghani et al. 2023, ViT-22B). Geometry: the raw
               offsets and scales of a Gaussian layer over all points of a head; IPA's points divided by the root mean
               square of their length over a head's points, times a learned length
    soft_cap   the whole logit x becomes c tanh(x/c), c = 50 (Gemma 2)
    spectral   σReparam (Zhai et al. 2023): every projection of queries and keys W becomes γ W/‖W‖₂, γ learned, from 1;
               ‖W‖₂ by the power iteration, one step a call in training
    softplus   of a Gaussian layer alone: σ = σ_min + ln(1 + eˣ) nm, x = log s + d, in place of the exponential with a
               floor (docs/experiment/sweep.md); under the ceiling of the config, if it has one

IPA's value points come from the same projection as its key points and are left as they are, but by "spectral".
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from iga import taps
from iga._layers import masked_softmax, value_points_out
from iga._typing import Float, Tensor
from iga.attention import InvariantGaussianAttention
from iga.functional import PointGaussians, Trace, _show, geometry_logits, joined, point_scores
from iga.gaussian import GaussianRigid
from iga.ipa import InvariantPointAttention
from iga.kernels import Statistics
from iga.presets import IGAConfig
from iga.rotation import rotate

__all__ = ["CAP", "attended", "cured", "logits_with", "softplus_sigma"]

CAP = 50.0
# Under the root of the norm of the content, as LayerNorm has it, and of the geometry.
_EPS_CONTENT, _EPS_GEOMETRY = 1e-5, 1e-6


def cured(
    layer: InvariantGaussianAttention | InvariantPointAttention, cure: str
) -> InvariantGaussianAttention | InvariantPointAttention:
    """`layer`, fresh, of a class that has the cure; its own weights stay as they were drawn."""
    made: Any = layer
    gaussian = isinstance(layer, InvariantGaussianAttention)
    match cure:
        case "qk_norm":
            made.__class__ = _NormedGaussian if gaussian else _NormedPoint
            _add_norms(layer)
        case "soft_cap":
            made.__class__ = _CappedGaussian if gaussian else _CappedPoint
        case "spectral":
            for name in _projections(layer):
                _reparametrise(getattr(layer, name))
        case "softplus" if gaussian:
            made.__class__ = _SoftplusGaussian
        case _:
            raise ValueError(f"{type(layer).__name__} has no cure {cure!r}")
    return layer


def attended(
    layer: InvariantGaussianAttention, trace: Trace, logits: Float[Tensor, "*b h q k"]
) -> tuple[Float[Tensor, "*b n c_s"], Float[Tensor, "*b h q k"]]:
    """(the output of a call with other logits, its weights): all else as its trace has it, a soft cap included."""
    made = _attended(layer, trace, _capped(logits) if isinstance(layer, _CappedGaussian) else logits)
    assert made.output is not None
    return made.output, made.weights


def logits_with(trace: Trace, geo_scaled: Float[Tensor, "*b h q k"]) -> Float[Tensor, "*b h q k"]:
    """The logits of a call whose geometry's part is another."""
    logits = trace.scalar + geo_scaled + trace.geo_bias.to(trace.scalar)[:, None, None]
    return logits if trace.pair_bias is None else logits + trace.pair_bias


def _attended(layer: InvariantGaussianAttention, trace: Trace, logits: Tensor) -> Trace:
    """The trace of a call with these logits."""
    v, value_points, pair_values = trace.values
    weights = masked_softmax(logits, trace.mask[..., None, None, :])
    points = value_points_out(weights, trace.rigid.frame, value_points.to(weights.dtype))
    pair = None
    if pair_values is not None:
        pair = weights.transpose(-3, -2).to(pair_values.dtype) @ pair_values
    features = joined(weights.to(v.dtype) @ v, points, pair, layer.eps)
    output = layer._projected_out(features, trace.mask)
    return replace(trace, logits=logits, weights=weights, features=features, output=output)


def _capped(logits: Tensor) -> Tensor:
    return CAP * (logits / CAP).tanh()


class _CappedPoint(InvariantPointAttention):
    def _softmax(self, logits: Tensor, valid: Tensor) -> Tensor:
        return super()._softmax(_capped(logits), valid)


class _CappedGaussian(InvariantGaussianAttention):
    """Dense, whatever the implementation: no kernel has this cap."""

    def _computed(
        self, s: Tensor, z: Tensor | None, rigid: GaussianRigid, mask: Tensor, t: Any, statistics: bool
    ) -> tuple[Tensor, Statistics | None]:
        with taps.listen(None):  # it would show the logits without the cap
            trace = self.trace(s, z, rigid, mask, t=t)
        output, weights = attended(self, trace, trace.logits)
        if taps.listening():
            _show(replace(trace, logits=_capped(trace.logits), weights=weights))
        return output, _statistics(trace, weights) if statistics else None


def softplus_sigma(x: Float[Tensor, "..."], config: IGAConfig) -> Float[Tensor, "..."]:
    """σ = σ_min + ln(1 + eˣ), nm, and at most the ceiling of `config`; its floor's kind has no part in it."""
    sigma = config.sigma_min + F.softplus(x, threshold=40.0)  # above it x alone, in float64 the same to rounding
    return sigma if config.sigma_max is None else sigma.clamp(max=config.sigma_max)


def _softplus_gaussians(r: GaussianRigid, raw: tuple[Tensor, Tensor], config: IGAConfig) -> PointGaussians:
    """`iga.functional.point_gaussians` with the other σ, in the offset and in the covariance."""
    raw_offset, raw_log_scale = raw
    sigma = softplus_sigma(r.log_scale[..., None, None, :, :] + config.log_scale_max * raw_log_scale.tanh(), config)
    local = r.local_mean[..., None, None, :, :] + config.offset_max * raw_offset.tanh() * sigma
    mean = rotate(r.rot[..., None, None, :, :, :], local) + r.trans[..., None, None, :, :]
    return PointGaussians(r.rot, mean, sigma)


class _SoftplusGaussian(InvariantGaussianAttention):
    """Dense, whatever the implementation: the ways to the kernels have no other σ."""

    def trace(
        self, s: Tensor, z: Tensor | None, r: Any, mask: Tensor, *, t: Tensor | float | None = None, **gaussian: Any
    ) -> Trace:
        with taps.listen(None):  # it would show the floored exponential
            plain = super().trace(s, z, r, mask, t=t, **gaussian)
        raws = plain.raw_query, plain.raw_key
        query, key = (_softplus_gaussians(plain.rigid, raw, self.config) for raw in raws)
        dist_sq, log_det, score = point_scores(query, key, self.config)
        geo_raw, geo_scaled = geometry_logits(score, plain.geo_weight, self.config)
        own = replace(plain, query=query, key=key, dist_sq=dist_sq, log_det=log_det, score=score)
        own = replace(own, geo_raw=geo_raw, geo_scaled=geo_scaled)
        made = _attended(self, own, logits_with(own, geo_scaled))
        if taps.listening():
            _show(made)
        return made

    def _computed(
        self, s: Tensor, z: Tensor | None, rigid: GaussianRigid, mask: Tensor, t: Any, statistics: bool
    ) -> tuple[Tensor, Statistics | None]:
        made = self.trace(s, z, rigid, mask, t=t)
        assert made.output is not None
        return made.output, _statistics(made, made.weights) if statistics else None


def _statistics(trace: Trace, weights: Tensor) -> Statistics:
    with torch.no_grad():
        out = ~trace.pair_mask[..., None, :, :]
        largest = trace.geo_scaled.abs().masked_fill(out, 0.0).amax(dim=-1)
        lowest = trace.log_det.amin(dim=-3).masked_fill(out, torch.inf).amin(dim=-1)
        return Statistics(largest, lowest, weights.masked_fill(out, 0.0).amax(dim=-1))


def _add_norms(layer: Any) -> None:
    heads, width = layer.no_heads, layer.c_hidden
    layer.content_gain = nn.Parameter(torch.ones(2, heads, 1, width))
    layer.content_bias = nn.Parameter(torch.zeros(2, heads, 1, width))
    layer.geometry_gain = nn.Parameter(torch.ones(4, heads))


class _NormedContent(nn.Module):
    content_gain: Tensor
    content_bias: Tensor

    def _scalars(self, s: Float[Tensor, "*b n c_s"]) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super()._scalars(s)  # pyright: ignore[reportAttributeAccessIssue] - of the layer that this stands before
        q, k = (
            F.layer_norm(x, x.shape[-1:], eps=_EPS_CONTENT) * gain + bias
            for x, gain, bias in zip((q, k), self.content_gain, self.content_bias, strict=True)
        )
        return q, k, v


class _NormedGaussian(_NormedContent, InvariantGaussianAttention):
    geometry_gain: Tensor

    def _projected(self, s: Float[Tensor, "*b n c_s"]) -> Any:
        features, raw = super()._projected(s)
        gains = iter(self.geometry_gain)
        normed = tuple(tuple(_unit(x, next(gains)[:, None, None, None], (-3, -1)) for x in one) for one in raw)
        return features, normed


class _NormedPoint(_NormedContent, InvariantPointAttention):
    geometry_gain: Tensor

    def _local_points(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[*b, n, h, p, 3] each: query and key points of root mean square length 1 nm, times a learned factor."""
        q, k, v = super()._local_points(s)
        q, k = (_unit(x, gain[:, None, None], (-2, -1)) for x, gain in zip((q, k), self.geometry_gain, strict=False))
        return q, k, v


def _unit(x: Tensor, gain: Tensor, over: tuple[int, int]) -> Tensor:
    """x divided by its root mean square over two dimensions, times `gain`."""
    return gain * x / (x.square().mean(dim=over, keepdim=True) + _EPS_GEOMETRY).sqrt()


def _projections(layer: nn.Module) -> list[str]:
    """The names of the projections of queries and keys; the values of a joint projection go with its keys."""
    made = [name for name, _ in layer.named_children()]
    ending = ("_q", "_k", "_kv", "_q_offsets", "_k_offsets", "_q_scales", "_k_scales", "_q_points", "_kv_points")
    return [name for name in made if name.startswith("linear") and name.removeprefix("linear") in ending]


def _reparametrise(projection: nn.Module) -> None:
    spectral_norm(projection)
    parametrize.register_parametrization(projection, "weight", _Gain(), unsafe=True)


class _Gain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(()))

    def forward(self, weight: Float[Tensor, "a b"]) -> Float[Tensor, "a b"]:
        return self.gamma * weight
