"""The dense form of the operator: what it computes, in plain differentiable torch, N² · H · P intermediates and all.

It defines what is right for every implementation, serves the historical textbook form, and has second derivatives.
Its geometry is `iga.functional`'s: the closed form of `iga.overlap`, by broadcasting.
"""

import torch

from iga._layers import masked_softmax, sanitise
from iga._typing import Float, Tensor
from iga.functional import PointGaussians, point_scores
from iga.kernels import placing
from iga.kernels.blocks import Inputs, Outputs
from iga.kernels.engine import Geometry
from iga.presets import IGAConfig

__all__ = ["attend_densely"]


def attend_densely(x: Inputs, trans: Float[Tensor, "b n 3"], geometry: Geometry, config: IGAConfig) -> Outputs:
    """What `iga.kernels.blocks.attend` returns, statistics included, but with value points in their residues'
    frames, coming and going; tensors keep their graph."""
    mask, cap = x.mask, x.cap
    _, log_det, score = point_scores(
        PointGaussians(geometry.rot, geometry.q_mean, geometry.q_sigma),
        PointGaussians(geometry.rot, geometry.k_mean, geometry.k_sigma),
        config,
    )
    geo = x.geo_weight[:, :, None, None] * score.sum(dim=-3)
    if cap != float("inf"):
        geo = cap * (geo / cap).tanh()
    logits = (x.q @ x.k.mT) * x.q.shape[-1] ** -0.5 + geo
    pair_mask = mask[:, :, None] & mask[:, None, :]
    if x.bias is not None:
        logits = logits + sanitise(x.bias, pair_mask[:, None].expand_as(x.bias))
    z = None if x.z is None else sanitise(x.z, pair_mask).to(x.q.dtype)
    if z is not None and x.z_weight is not None:
        logits = logits + (z @ x.z_weight.mT).movedim(-1, 1)
    valid = pair_mask[:, None]
    weights = masked_softmax(logits, valid)
    pair = logits.new_zeros(*x.q.shape[:-1], 0) if z is None else (weights.transpose(1, 2) @ z).transpose(1, 2)
    rows = _row_statistics(geo.detach(), log_det.detach(), weights.detach(), valid)
    placed = placing.out(x.points, geometry.rot, trans)
    attended = (weights.double() @ placed.double()).to(x.points.dtype)
    attended = placing.back(attended, geometry.rot, trans)
    return Outputs(weights @ x.v, attended, pair, _log_sum_exp(logits, valid), rows)


def _log_sum_exp(logits: Tensor, valid: Tensor) -> Tensor:
    """log Σ exp over the valid keys, −∞ with zero gradient in a row without any."""
    some = valid.any(dim=-1)
    kept = logits.masked_fill(~valid, float("-inf")).masked_fill(~some[..., None], 0.0)
    return kept.logsumexp(dim=-1).masked_fill(~some, float("-inf"))


def _row_statistics(geo: Tensor, log_det: Tensor, weights: Tensor, valid: Tensor) -> Tensor:
    lowest = log_det.amin(dim=-3).masked_fill(~valid, float("inf")).amin(dim=-1)
    parts = [geo.abs().masked_fill(~valid, 0.0).amax(dim=-1), lowest.to(geo.dtype), weights.amax(dim=-1)]
    return torch.stack(parts, dim=-1)
