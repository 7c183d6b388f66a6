"""Bounds of the score in exact arithmetic: a function a theorem.

Each docstring gives hypotheses, statement and the section of docs/theory.md with the proof. Lengths in nm. What
floating point adds stands in `iga.bounds.rounding`. Arguments are numbers or tensors (per pair); a tensor in, a tensor
out.

Standing hypotheses (H), unless a docstring says otherwise: σ_min ≤ every σ ≤ σ_max, the rotations are rotations, and
the σ that scales the offset u is the σ of the covariance, |u_k| ≤ offset_max. σ_max means the largest σ that can
occur: under a smooth floor that is `smooth_ceiling(sigma_min, sigma_max)`.
"""

import math
from collections.abc import Callable

from iga._typing import Tensor
from iga.bounds._scalar import Result, Scalar, exp, log, log1p, maximum, sqrt, tanh

__all__ = [
    "FP16_MAX",
    "capped_logit_bound",
    "dist_sq_bound",
    "dist_sq_gradient_bound",
    "displacement_bound",
    "fits_in_fp16",
    "floor_gradient",
    "gaussian_score_bound",
    "gaussian_score_range",
    "geometry_logit_bound",
    "log_det_ceiling",
    "log_det_floor",
    "log_scale_gradient_bound",
    "max_weight_bound",
    "scaling_exponent",
    "smooth_ceiling",
    "span_for_weight",
    "sqrt_dist_sq_bound",
    "student_t_gradient_bound",
    "student_t_log_scale_gradient_bound",
    "student_t_score_bound",
    "student_t_score_range",
    "student_t_torque_bound",
    "torque_bound",
    "weight_change_bound",
    "weighted_logit_bound",
]

FP16_MAX = 65504.0


def log_det_floor(sigma_min: Scalar) -> Result:
    """log_det ≥ 3 ln(2 σ_min²), under every σ ≥ σ_min: Σ ⪰ 2 σ_min² I. Tight. docs/theory.md, 3.1."""
    return 3.0 * log(2.0 * sigma_min * sigma_min)


def log_det_ceiling(sigma_max: Scalar) -> Result:
    """log_det ≤ 3 ln(2 σ_max²), under every σ ≤ σ_max: Σ ⪯ 2 σ_max² I. Tight. docs/theory.md, 3.1."""
    return 3.0 * log(2.0 * sigma_max * sigma_max)


def smooth_ceiling(sigma_min: Scalar, sigma_max: Scalar) -> Result:
    """The largest σ under the smooth floor √(σ² + σ_min²) with σ ≤ σ_max: √(σ_max² + σ_min²). docs/theory.md, 3.1."""
    return sqrt(sigma_max * sigma_max + sigma_min * sigma_min)


def dist_sq_bound(delta_sq: Scalar, sigma_min: Scalar) -> Result:
    """0 ≤ dist_sq ≤ |δ|²/(2 σ_min²), under every σ ≥ σ_min; `delta_sq` = |δ|² in nm². Tight. docs/theory.md, 3.2."""
    return delta_sq / (2.0 * sigma_min * sigma_min)


def sqrt_dist_sq_bound(extent: Scalar, sigma_min: Scalar, offset_max: Scalar = 3.0) -> Result:
    """√dist_sq ≤ |x_i − x_j|/(√2 σ_min) + √6 offset_max, under (H); `extent` = |x_i − x_j|, the anchors' distance.

    Free of σ_max, because an offset is counted in its own σ: a floor in one place only breaks it. Tight.
    docs/theory.md, 3.2.
    """
    return extent / (math.sqrt(2.0) * sigma_min) + math.sqrt(6.0) * offset_max


def displacement_bound(distance: Scalar, sigma_min: Scalar) -> Result:
    """|Δ√dist_sq| ≤ |Δδ|/(√2 σ_min) when δ moves by `distance` nm, every σ ≥ σ_min. Tight. docs/theory.md, 3.2."""
    return distance / (math.sqrt(2.0) * sigma_min)


def gaussian_score_range(
    extent: Scalar, sigma_min: float, sigma_max: float, offset_max: float = 3.0, log_det_min: float | None = None
) -> tuple[Result, float]:
    """(low, high) with low ≤ −½ dist_sq − ½ max(log_det, log_det_min) ≤ high, under (H). docs/theory.md, 3.3.

    Along the shortest axis of Σ, of variance λ, log_det ≤ ln λ + 2 ln(2 σ_max²) while √dist_sq ≤ extent/√λ +
    √6 offset_max; what they give together is convex in ln λ, so the worst λ is 2 σ_min² or 2 σ_max².
    """
    return _score_range(lambda d: 0.5 * d, extent, sigma_min, sigma_max, offset_max, log_det_min)


def student_t_score_range(
    extent: Scalar,
    sigma_min: float,
    sigma_max: float,
    offset_max: float = 3.0,
    log_det_min: float | None = None,
    *,
    dof: float,
) -> tuple[Result, float]:
    """(low, high) of −½(ν+3) ln(1 + dist_sq/ν) − ½ max(log_det, log_det_min), under (H). docs/theory.md, 3.3."""

    def falls(dist_sq: Scalar) -> Result:
        return 0.5 * (dof + 3.0) * log1p(dist_sq / dof)

    return _score_range(falls, extent, sigma_min, sigma_max, offset_max, log_det_min)


def gaussian_score_bound(
    extent: Scalar, sigma_min: float, sigma_max: float, offset_max: float = 3.0, log_det_min: float | None = None
) -> Result:
    """|score| of one Gaussian pair, under (H): the larger end of `gaussian_score_range`. docs/theory.md, 3.3."""
    low, high = gaussian_score_range(extent, sigma_min, sigma_max, offset_max, log_det_min)
    return maximum(-low, abs(high))  # low ≤ high: −low < |high| only where both are positive


def student_t_score_bound(
    extent: Scalar,
    sigma_min: float,
    sigma_max: float,
    offset_max: float = 3.0,
    log_det_min: float | None = None,
    *,
    dof: float,
) -> Result:
    """|score| of one Student-t pair, under (H): logarithmic in the extent. docs/theory.md, 3.3."""
    low, high = student_t_score_range(extent, sigma_min, sigma_max, offset_max, log_det_min, dof=dof)
    return maximum(-low, abs(high))


def scaling_exponent(scaling: str) -> float:
    """α such that |G| ≤ P^α max_p |score_p|: sum 1, rsqrt ½, mean 0; equality for equal points. docs/theory.md, 7."""
    exponents = {"sum": 1.0, "rsqrt": 0.5, "mean": 0.0}
    if scaling not in exponents:
        raise ValueError(f"scaling must be one of {', '.join(map(repr, exponents))}; got {scaling!r}")
    return exponents[scaling]


def geometry_logit_bound(score_bound: Scalar, points: int, scaling: str) -> Result:
    """|G| ≤ P^α · score_bound, α = `scaling_exponent(scaling)`: free of P for the mean. docs/theory.md, 3.4."""
    return score_bound * float(points) ** scaling_exponent(scaling)


def weighted_logit_bound(
    geometry_bound: float, weight: float, temperature: float = 1.0, cap: float | None = None
) -> float:
    """|geo_scaled| given |G| ≤ geometry_bound and 0 ≤ gate · softplus(geo_scale) ≤ weight. docs/theory.md, 3.4."""
    uncapped = weight * geometry_bound / temperature
    return uncapped if cap is None else cap * math.tanh(uncapped / cap)


def capped_logit_bound(cap: float) -> float:
    """|cap · tanh(x/cap)| ≤ cap for every x: free of P, the number of keys and the geometry. docs/theory.md, 3.4."""
    return cap


def max_weight_bound(keys: Scalar, span: Scalar) -> Result:
    """w_max ≤ 1/(1 + (N−1) e^(−r)) in a row of N keys whose logits span r = max − min. Tight. docs/theory.md, 3.5."""
    return 1.0 / (1.0 + (keys - 1.0) * exp(-span))


def span_for_weight(keys: Scalar, weight: Scalar) -> Result:
    """The least span r with which one of N keys can reach `weight`: ln((N−1) w/(1−w)); N ≥ 2. docs/theory.md, 3.5."""
    return log((keys - 1.0) * weight / (1.0 - weight))


def dist_sq_gradient_bound(delta_norm: Scalar, sigma_min: Scalar) -> Result:
    """|∂dist_sq/∂δ| ≤ |δ|/σ_min², under every σ ≥ σ_min; in 1/nm. Tight. docs/theory.md, 9.1."""
    return delta_norm / (sigma_min * sigma_min)


def log_scale_gradient_bound(dist_sq: Scalar, offset_max: Scalar = 3.0, *, mean_moves: bool) -> Result:
    """Σ |∂dist_sq/∂log σ_k| over the six axes of a pair. docs/theory.md, 9.1.

    Means held fixed: 2 dist_sq, an equality. Means moving with σ (μ = R(m + u ⊙ σ) + t, |u_k| ≤ offset_max): at most
    2 dist_sq + 2√6 offset_max √dist_sq. Tight.
    """
    if not mean_moves:
        return 2.0 * dist_sq
    return 2.0 * dist_sq + 2.0 * math.sqrt(6.0) * offset_max * sqrt(dist_sq)


def torque_bound(dist_sq: Scalar, kappa: Scalar) -> Result:
    """|∂dist_sq/∂ω_a| ≤ (κ − 1/κ) dist_sq/√2 for a turn R e^[ω]× of one frame, means fixed. docs/theory.md, 9.1."""
    return (kappa - 1.0 / kappa) * dist_sq / math.sqrt(2.0)


def student_t_gradient_bound(sigma_min: Scalar, *, dof: Scalar) -> Result:
    """|∂score/∂μ| ≤ (ν+3)/(2√(2ν) σ_min) of the Student-t score, in 1/nm, under every σ ≥ σ_min, whatever δ, κ and
    extent. Tight. docs/theory.md, 9.4."""
    return (dof + 3.0) / (2.0 * sqrt(2.0 * dof) * sigma_min)


def student_t_log_scale_gradient_bound(offset_max: Scalar = 3.0, *, dof: Scalar, mean_moves: bool) -> Result:
    """Σ |∂score/∂log σ_k| over the six axes of a pair, of the Student-t score. docs/theory.md, 9.4.

    Means held fixed: ν + 4, which long needles approach. Means moving with σ (μ = R(m + u ⊙ σ) + t, |u_k| ≤
    offset_max): (ν+3)(1 + β²/(2(ν + √(ν² + β²ν)))) + 1 with β = √6 offset_max.
    """
    if not mean_moves:
        return dof + 4.0
    beta_sq = 6.0 * offset_max * offset_max
    return (dof + 3.0) * (1.0 + beta_sq / (2.0 * (dof + sqrt(dof * dof + beta_sq * dof)))) + 1.0


def student_t_torque_bound(kappa: Scalar, *, dof: Scalar) -> Result:
    """|∂score/∂ω_a| ≤ (ν+3)(κ − 1/κ)/(2√2) + (κ² − 1)/(2√(2(κ² + 1))) of the Student-t score, for a turn R e^[ω]× of
    one frame, means fixed. docs/theory.md, 9.4."""
    of_dist_sq = (dof + 3.0) * (kappa - 1.0 / kappa) / (2.0 * math.sqrt(2.0))
    return of_dist_sq + (kappa * kappa - 1.0) / (2.0 * sqrt(2.0 * (kappa * kappa + 1.0)))


def weight_change_bound(logit_change: Scalar) -> Result:
    """½ Σ_j |Δw_j| ≤ tanh(Δ/2) in a row of softmax weights whose logits each change by at most Δ. Tight.
    docs/theory.md, 9.4."""
    return tanh(0.5 * logit_change)


def floor_gradient(sigma: Scalar, sigma_min: Scalar, floor: str) -> Result:
    """∂ log(floored σ)/∂ log σ: hard 1 above σ_min and 0 below, smooth σ²/(σ² + σ_min²). docs/theory.md, 9.2."""
    if floor == "smooth":
        return sigma * sigma / (sigma * sigma + sigma_min * sigma_min)
    if floor != "hard":
        raise ValueError(f"floor must be 'hard' or 'smooth', got {floor!r}")
    return (sigma > sigma_min).to(sigma.dtype) if isinstance(sigma, Tensor) else float(sigma > sigma_min)


def fits_in_fp16(value: float) -> bool:
    """True where ±value is finite in fp16, whose largest number is 65504."""
    return abs(value) <= FP16_MAX


def _score_range(
    falls: Callable[[Scalar], Result],
    extent: Scalar,
    sigma_min: float,
    sigma_max: float,
    offset_max: float,
    log_det_min: float | None,
) -> tuple[Result, float]:
    """The range of −falls(dist_sq) − ½ max(log_det, log_det_min) for an increasing `falls`, section 3.3."""
    clamp = -math.inf if log_det_min is None else log_det_min
    deepest: Result = -math.inf
    for sigma in (sigma_min, sigma_max):
        dist_sq = sqrt_dist_sq_bound(extent, sigma, offset_max) ** 2
        log_det = math.log(2.0 * sigma * sigma) + 2.0 * math.log(2.0 * sigma_max * sigma_max)
        deepest = maximum(falls(dist_sq) + 0.5 * max(log_det, clamp), deepest)
    return -deepest, -0.5 * max(log_det_floor(sigma_min), clamp)
