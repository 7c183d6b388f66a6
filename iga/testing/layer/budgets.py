"""Rounding budgets of a score, a geometry logit and an output: those of `iga.bounds`, propagated.

Derived in docs/theory.md, section 8. Everything is evaluated in float64 from a trace, pair by pair,
so that an example is judged by its own condition κ and not by the worst of all.
"""

from typing import cast

import torch

from iga import bounds
from iga._plain import is_plain
from iga._typing import Float, Tensor
from iga.functional import Trace
from iga.gaussian import GaussianRigid
from iga.presets import IGAConfig
from iga.testing.contract import Contract
from iga.testing.judges import overlap as oracle
from iga.testing.layer.subject import TracedLayer
from iga.testing.targets import TargetError, one_line

__all__ = ["cap", "condition", "condition_of", "displacement", "drift", "geometry_logit", "local_reach", "output"]


def condition(trace: Trace, contract: Contract) -> Float[Tensor, "*b h p q k"]:
    """κ of each pair and point: largest over smallest σ, no larger than the contract allows."""
    return condition_of(trace.query.sigma, trace.key.sigma, contract)


def condition_of(query: Tensor, key: Tensor, contract: Contract) -> Float[Tensor, "*b h p q k"]:
    """The same of the σ of queries and of keys, [*b, h, p, n, 3]."""
    query, key = query.detach().double(), key.detach().double()
    largest = torch.maximum(query.amax(dim=-1)[..., :, None], key.amax(dim=-1)[..., None, :])
    smallest = torch.minimum(query.amin(dim=-1)[..., :, None], key.amin(dim=-1)[..., None, :])
    return (largest / smallest).clamp(max=contract.sigma_max / contract.sigma_min)


def local_reach(trace: Trace) -> tuple[Tensor, Tensor]:
    """|m| + |u ⊙ σ| + |t| of each query and key Gaussian, [*b, h, p, n]: what its mean's rounding is relative to."""
    rigid = trace.rigid
    trans = rigid.trans.detach().double()[..., None, None, :, :]
    local = rigid.local_mean.detach().double().norm(dim=-1)[..., None, None, :]
    reach = []
    for gaussians in (trace.query, trace.key):
        offset = (gaussians.mean.detach().double() - trans).norm(dim=-1) + local  # ≥ |u ⊙ σ|
        reach.append(local + offset + trans.norm(dim=-1))
    return reach[0], reach[1]


def drift(rigid: GaussianRigid, dtype: torch.dtype | None = None) -> float:
    """How far the given matrices are from rotations, in units of u of `dtype`; no less than rounding a rotation does.

    `dtype` is that of the scores, where it is not the matrices' own: a layer that computes in float64 is given
    rotations that were rounded to float32.
    """
    given = float(oracle.drift(rigid.rot).amax()) / bounds.unit_roundoff(dtype or rigid.dtype)
    return max(bounds.ROUNDED_DRIFT, given)


def displacement(trace: Trace, contract: Contract, extra: float = 0.0) -> Float[Tensor, "*b h p q k"]:
    """Error of √dist_sq from the rounding of the two means; `extra` nm of error of their distance besides."""
    query, key = local_reach(trace)
    rounded = bounds.mean_budget(query[..., :, None] + key[..., None, :], contract.sigma_min, trace.dist_sq.dtype)
    return rounded + bounds.displacement_bound(extra, contract.sigma_min)


def geometry_logit(
    trace: Trace, config: IGAConfig, contract: Contract, moved: Tensor | float = 0.0
) -> Float[Tensor, "*b h q k"]:
    """Absolute error of G when √dist_sq erred by `moved`: the points' errors summed and scaled, and the sum's own."""
    arguments = (trace.dist_sq.detach().double(), trace.log_det.detach().double(), condition(trace, contract))
    dtype, off = trace.dist_sq.dtype, drift(trace.rigid)
    if config.score == "student_t":
        scores = bounds.student_t_score_budget(
            *arguments, dtype, dof=config.dof, moved=moved, drift=off, roundings=bounds.REFERENCE
        )
    else:
        scores = bounds.gaussian_score_budget(*arguments, dtype, moved=moved, drift=off, roundings=bounds.REFERENCE)
    points = trace.score.shape[-3]
    terms = torch.as_tensor(scores) + bounds.point_sum_budget(points, dtype) * trace.score.detach().double().abs()
    return terms.sum(dim=-3) * points ** (bounds.scaling_exponent(config.point_scaling) - 1.0)


def cap(trace: Trace, limit: float) -> float:
    """c as the layer's dtype can hold it: c rounded, tanh at most 1, and their product rounded."""
    return limit * (1 + 2 * bounds.unit_roundoff(trace.geo_scaled.dtype))


def output(
    trace: Trace, logit: Float[Tensor, "*b h q k"], position: float, layer: torch.nn.Module
) -> Float[Tensor, "*b n c_s"]:
    """Absolute error of the layer's output when logits err by `logit` and positions by `position` nm.

    A logit that errs by at most Δ in a row changes each weight by a factor within e^{±2Δ}; values, points and pair
    values follow their weights; the last projection adds up absolute values. Matrix products of n terms add n·u.
    """
    u = bounds.unit_roundoff(trace.dist_sq.dtype)
    weights = trace.weights.detach().double()
    n = weights.shape[-1]
    # rounding of the other logit terms and of softmax itself, with the geometry's
    others = 8 * u * (trace.logits.detach().double().abs() + trace.scalar.detach().double().abs())
    row = (logit + others).amax(dim=-1, keepdim=True)
    factor = torch.expm1(2 * row).clamp(max=1e30) + 2 * n * u  # finite, so that 0 times it is 0
    v, local, pair = trace.values
    values = factor * (weights @ v.detach().double().abs())  # [*b, h, q, c]
    trans = trace.rigid.trans.detach().double()
    reach = (trans[..., :, None, :] - trans[..., None, :, :]).norm(dim=-1)[..., None, :, :]  # [*b, 1, q, k]
    length = local.detach().double().norm(dim=-1)  # [*b, h, k, pv]
    size = weights @ length + (weights * reach).sum(dim=-1, keepdim=True)  # a bound on |point - own origin|
    extent = trans.norm(dim=-1).amax()
    points = factor * size + position + 8 * u * (size + extent)  # [*b, h, q, pv]
    by_point = points.transpose(-3, -2).flatten(-2)
    # the features' order: values; x, y, z of the points, each bounded by the point's error; norms; pair values
    parts = [values.transpose(-3, -2).flatten(-2), by_point, by_point, by_point, by_point]
    if pair is not None:
        by_query = (factor * weights).transpose(-3, -2)
        parts.append((by_query @ pair.detach().double().abs()).flatten(-2))
    features = torch.cat(parts, dim=-1)
    width = features.shape[-1]
    gain = _gain(layer, width, trace.features.dtype)
    rounding = width * u * (trace.features.detach().double().abs() @ gain.T)
    return features @ gain.T + rounding


def _gain(layer: torch.nn.Module, width: int, dtype: torch.dtype) -> Float[Tensor, "c_s features"]:
    """|W| of the last projection, float64: its weight, or, where it is wrapped, what its calls make of unit vectors."""
    last = cast(TracedLayer, layer).linear_out
    if is_plain(last):
        return last.weight.detach().double().abs()[:, :width]  # pyright: ignore[reportCallIssue]
    unit = torch.eye(int(getattr(last, "in_features", width)), dtype=dtype)
    try:
        with torch.no_grad():
            zero, plus, minus = (last(x).double() for x in (torch.zeros_like(unit), unit, -unit))
    except Exception as error:  # whatever somebody else's projection raises is a finding about it
        raise TargetError(f"linear_out, called on unit vectors, raised {one_line(error)}") from error
    # Each of the three is rounded once or twice in their dtype; an affine map has plus + minus = 2 zero.
    if not (
        (plus + minus - 2 * zero).abs() <= 8 * torch.finfo(dtype).eps * (plus.abs() + minus.abs() + zero.abs())
    ).all():
        raise TargetError("linear_out is not affine, so that the errors of its features cannot be followed through it")
    return (plus - zero).abs().T[:, :width]
