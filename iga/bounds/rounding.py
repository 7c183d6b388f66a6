"""Budgets of what floating point adds to the overlap, each a theorem of docs/theory.md, sections 6 and 8.

Derived from how often the terms of the closed form are rounded, not observed: `roundings` says by whom, REFERENCE, CPU
or FUSED (`iga.bounds.roundings`), and ANY holds for all. u is the unit roundoff (2⁻²⁴ in float32), κ the largest over
the smallest σ of a pair. Arguments are numbers or tensors (per pair).

Standing hypotheses (R): arithmetic rounds to nearest, no overflow or underflow; μ, σ as given; each given matrix is
within `drift`·u (Frobenius) of a rotation, √3 if a rotation was rounded entry by entry. Error is
against Σ of the given matrices, or of those rotations, whichever is further (section 6.1). Every statement
holds with its second-order terms, by e + 2e²; from e = 1/8 on nothing is claimed, and the budget is inf.
"""

import math

import torch

from iga._float_range import sigma_limits
from iga._typing import Tensor
from iga.bounds._scalar import Result, Scalar, log1p, maximum, sqrt
from iga.bounds.roundings import ANY, Roundings

__all__ = [
    "ROUNDED_DRIFT",
    "delta_floor",
    "digits_left",
    "dist_sq_bound_budget",
    "dist_sq_budget",
    "dist_sq_coefficients",
    "dist_sq_gradient_budget",
    "far_translation_budget",
    "gaussian_score_budget",
    "log_det_budget",
    "log_det_coefficients",
    "log_det_floor_budget",
    "log_det_gradient_budget",
    "log_scale_gradient_budget",
    "mean_budget",
    "moved_dist_sq_budget",
    "point_sum_budget",
    "sigma_range",
    "student_t_score_budget",
    "textbook_loss",
    "torque_budget",
    "unit_roundoff",
]

Precision = float | torch.dtype

# ‖R − rotation‖_F ≤ √3 u when each entry of a rotation is rounded: |ΔR_ab| ≤ u |R_ab|, ‖R‖_F = √3.
ROUNDED_DRIFT = math.sqrt(3.0)

# The largest |log_det| with σ in [0.03, 150] nm: 3 ln(2·150²).
_LOG_DET_LARGEST = 3.0 * math.log(2.0 * 150.0**2)


def unit_roundoff(dtype: Precision) -> float:
    """u: half the spacing of the numbers just above 1; 2⁻²⁴ for torch.float32. A number is taken to be u itself."""
    return torch.finfo(dtype).eps / 2 if isinstance(dtype, torch.dtype) else float(dtype)


def sigma_range(
    extent: float, dtype: torch.dtype, offset_max: float = 3.0, *, gradients: bool = True
) -> tuple[float, float]:
    """(least σ_min, largest σ_max), nm: within, nothing overflows or underflows in the closed form and its gradient.

    For anchors within `extent` nm and offsets within `offset_max` σ; a hypothesis of every budget here. Without
    `gradients` the values alone stay in range. docs/theory.md, section 5.
    """
    info = torch.finfo(dtype)
    return sigma_limits(extent, offset_max, (info.tiny, info.max), gradients=gradients)


def delta_floor(sigma_min: Scalar, kappa: Scalar, dtype: torch.dtype, *, flushed: bool = False) -> Result:
    """Least |δ|, nm, from which dist_sq keeps its relative budget, but for (5 + 3 κ) u, beside every underflow.

    Below, products underflow, and dist_sq errs absolutely, by 2 u at most where subnormal numbers are kept. `flushed`:
    where they become 0 (torch.set_flush_denormal, a GPU's approximate instructions); then inf where a term of det
    itself is lost.
    docs/theory.md, section 5.
    """
    u = unit_roundoff(dtype)
    tiny = torch.finfo(dtype).tiny / (u if flushed else 1.0)
    least = maximum(maximum(3.0 / sigma_min**2, sqrt(12.0 * kappa**3)), 2.0 * kappa * sigma_min)
    if not flushed:
        return math.sqrt(tiny) * least
    lost = sigma_min < (2.25 * tiny) ** (1 / 6)
    if isinstance(least, Tensor):
        return torch.where(torch.as_tensor(lost), math.inf, math.sqrt(tiny) * least)
    return math.inf if lost else math.sqrt(tiny) * least


def dist_sq_coefficients(drift: Scalar = ROUNDED_DRIFT, roundings: Roundings = ANY) -> tuple[Result, Result]:
    """(c₀, c₁) of e = (c₀ + c₁ κ) u, dist_sq's relative error to first order: (47, 59.6) of the reference.
    docs/theory.md, 6.4."""
    return _dist_sq_coefficients(drift, roundings, roundings.quotient)


def log_det_coefficients(drift: Scalar = ROUNDED_DRIFT, roundings: Roundings = ANY) -> tuple[Result, Result]:
    """(c₀, c₁) of e = (c₀ + c₁ κ) u, det's relative error to first order: (23, 12.5) of the reference.
    docs/theory.md, 6.3."""
    return roundings.det + 2.0 * math.sqrt(3.0) * drift, _relative(drift, roundings)


def dist_sq_budget(
    kappa: Scalar, dtype: Precision, *, drift: Scalar = ROUNDED_DRIFT, roundings: Roundings = ANY
) -> Result:
    """Relative error of dist_sq under (R): e + 2e², e = (47 + 59.6 κ) u for the reference. docs/theory.md, 6.4."""
    return _dist_sq_error(kappa, dtype, drift, roundings, roundings.quotient)


def log_det_budget(
    kappa: Scalar,
    dtype: Precision,
    *,
    magnitude: Scalar = _LOG_DET_LARGEST,
    drift: Scalar = ROUNDED_DRIFT,
    roundings: Roundings = ANY,
) -> Result:
    """Absolute error of log_det under (R): e + 2e² + 2u |log_det|, e = (23 + 12.5 κ) u for the reference.
    docs/theory.md, 6.3.

    The last term is that of the logarithm; `magnitude` = |log_det|, or the largest with σ in [0.03, 150] nm.
    """
    constant, slope = log_det_coefficients(drift, roundings)
    u = unit_roundoff(dtype)
    logarithm = roundings.log * u * magnitude + roundings.log_at_one * u
    return _with_second_order((constant + slope * kappa) * u) + logarithm


def log_det_floor_budget(
    dtype: Precision,
    sigma_min: float,
    *,
    drift: Scalar = ROUNDED_DRIFT,
    roundings: Roundings = ANY,
    root: float = 0.0,
    as_given: bool = False,
) -> Result:
    """How far log_det may lie under 3 ln(2 σ_min²) under (R), free of κ: 35 u + one ulp of it for the reference.
    docs/theory.md, 6.5.

    27.8 u for det, 6 u for σ_min rounded to `dtype` (rounding is monotone: no computed σ lies below that), the rest
    is second order. `root`: the error in u of the smooth floor's square root where that is not correctly rounded, as
    in code generated for a GPU (PTX's sqrt.approx: 2); then 6 (root + ½) u more.
    `as_given`: of Σ = R diag(v) Rᵀ with the matrices as they are, which has ln det R of both frames in it.
    """
    u = unit_roundoff(dtype)
    first = (
        roundings.det + 0.5 * math.sqrt(3.0) * _relative(drift, roundings) + 6.0 + (6.0 * (root + 0.5) if root else 0.0)
    )
    if as_given:
        first = first + math.sqrt(3.0) * drift + 2.0 * drift * drift * u
    logarithm = roundings.log * abs(3.0 * math.log(2.0 * sigma_min**2)) + roundings.log_at_one
    return (first + 1.0 + logarithm) * u


def dist_sq_bound_budget(
    kappa: Scalar, dtype: Precision, *, drift: Scalar = ROUNDED_DRIFT, roundings: Roundings = ANY
) -> Result:
    """Relative excess of dist_sq over |δ|²/(2 σ_min²) under (R): dist_sq's own, 2u for σ_min. docs/theory.md, 6.5."""
    return dist_sq_budget(kappa, dtype, drift=drift, roundings=roundings) + 3.0 * unit_roundoff(dtype)


def textbook_loss(kappa: Scalar, dtype: Precision) -> Result:
    """κ² u: the relative error that building Σ alone may put on its smallest eigenvalue. docs/theory.md, 4."""
    return kappa * kappa * unit_roundoff(dtype)


def digits_left(
    kappa: float, dtype: Precision, *, form: str = "closed", drift: Scalar = ROUNDED_DRIFT, roundings: Roundings = ANY
) -> float:
    """Decimal digits that dist_sq is sure to have: −log₁₀ of its budget, or of κ² u for form="textbook"; at least 0."""
    if form not in ("closed", "textbook"):
        raise ValueError(f"form must be 'closed' or 'textbook', got {form!r}")
    of_closed = dist_sq_budget(kappa, dtype, drift=drift, roundings=roundings)
    loss = of_closed if form == "closed" else textbook_loss(kappa, dtype)
    return max(0.0, -math.log10(loss))


def mean_budget(reach: Scalar, sigma_min: float, dtype: Precision, *, trans: Scalar = 0.0) -> Result:
    """|Δ√dist_sq| from rounding the two means μ = R(m + u ⊙ σ) + t. docs/theory.md, 8.1.

    (5√3 + 1) u · reach/(√2 σ_min) + u · trans/(√2 σ_min): `reach` = |m| + |u ⊙ σ| and `trans` = |t|, each the sum over
    the two Gaussians, nm. |t| may be put into `reach` instead. R, m, u, σ, t as given.
    """
    rounded = (5.0 * math.sqrt(3.0) + 1.0) * reach + trans
    return unit_roundoff(dtype) * rounded / (math.sqrt(2.0) * sigma_min)


def far_translation_budget(distance: Scalar, sigma_min: float, dtype: Precision, *, centred: bool = False) -> Result:
    """|Δ√dist_sq| from moving a pair to `distance` nm from the origin. docs/theory.md, 8.2.

    2√2 u distance/σ_min: one rounding each of t and of μ, per Gaussian; half of it with `centred` translations, where
    only t was rounded far away. Moderate coordinates cost `mean_budget` besides.
    """
    roundings = 1.0 if centred else 2.0
    return roundings * math.sqrt(2.0) * unit_roundoff(dtype) * distance / sigma_min


def moved_dist_sq_budget(
    dist_sq: Scalar,
    kappa: Scalar,
    dtype: Precision,
    *,
    moved: Scalar = 0.0,
    drift: Scalar = ROUNDED_DRIFT,
    roundings: Roundings = ANY,
) -> Result:
    """Absolute error of dist_sq when √dist_sq moved by ≤ `moved` before it was computed. docs/theory.md, 8.3."""
    return _moved(dist_sq, moved, dist_sq_budget(kappa, dtype, drift=drift, roundings=roundings))


def gaussian_score_budget(
    dist_sq: Scalar,
    log_det: Scalar,
    kappa: Scalar,
    dtype: Precision,
    *,
    moved: Scalar = 0.0,
    drift: Scalar = ROUNDED_DRIFT,
    roundings: Roundings = ANY,
) -> Result:
    """Absolute error of −½ dist_sq − ½ max(log_det, ·) under (R); `moved` as above. docs/theory.md, 8.3."""
    relative = _dist_sq_error(kappa, dtype, drift, roundings, roundings.dist_sq_term)
    by_log_det = _log_det_term(log_det, kappa, dtype, drift, roundings)
    return 0.5 * _moved(dist_sq, moved, relative) + by_log_det


def student_t_score_budget(
    dist_sq: Scalar,
    log_det: Scalar,
    kappa: Scalar,
    dtype: Precision,
    *,
    dof: float,
    moved: Scalar = 0.0,
    drift: Scalar = ROUNDED_DRIFT,
    roundings: Roundings = ANY,
) -> Result:
    """Absolute error of −½(ν+3) ln(1 + dist_sq/ν) − ½ max(log_det, ·) under (R). docs/theory.md, 8.3.

    An error b of dist_sq moves the logarithm by at most −ln(1 − b/(ν + dist_sq)); b ≥ ν + dist_sq: inf.
    """
    u = unit_roundoff(dtype)
    lost = _moved(dist_sq, moved, _dist_sq_error(kappa, dtype, drift, roundings, roundings.argument))
    by_growth = _minus_log1m(lost / (dof + dist_sq)) + _theta(roundings.growth_at_one, u)
    grown = log1p(dist_sq / dof)
    by_growth = by_growth + _theta(roundings.growth + roundings.growth_term, u) * (grown + by_growth)
    return 0.5 * (dof + 3.0) * by_growth + _log_det_term(log_det, kappa, dtype, drift, roundings)


def point_sum_budget(points: int, dtype: Precision) -> float:
    """Rounding of G = P^(α−1) Σ_p score_p, relative to P^(α−1) Σ_p |score_p|: (P + 1) u. docs/theory.md, 8.4.

    P − 1 additions in any order, the factor's rounding and its product.
    """
    u = unit_roundoff(dtype)
    return (points + 1) * u / (1.0 - (points + 1) * u)


def dist_sq_gradient_budget(
    dist_sq: Scalar, kappa: Scalar, sigma_min: Scalar, dtype: Precision, *, drift: Scalar = ROUNDED_DRIFT
) -> Result:
    """|Δ ∂dist_sq/∂δ| ≤ (140 + 65 κ) u · √2 √dist_sq/σ_min under (R), reverse mode, first order. docs/theory.md, 9.3.

    σ_min is the smallest σ of the pair. Against the gradient's own size this is κ² u: the condition of Σ⁻¹δ. Here and
    below, the constants are those of rotations that were rounded, and grow with `drift` beyond.
    """
    x = _beyond_rounding(drift)
    first = (140.0 + 7.0 * x + (65.0 + 10.2 * x) * kappa) * unit_roundoff(dtype)
    return first * math.sqrt(2.0) * sqrt(dist_sq) / sigma_min


def log_scale_gradient_budget(
    dist_sq: Scalar, kappa: Scalar, dtype: Precision, *, drift: Scalar = ROUNDED_DRIFT
) -> Result:
    """|Δ ∂dist_sq/∂log σ_k| ≤ (300 + 310 κ) u · dist_sq under (R), means fixed, first order. docs/theory.md, 9.3."""
    x = _beyond_rounding(drift)
    return (300.0 + 28.0 * x + (310.0 + 49.0 * x) * kappa) * unit_roundoff(dtype) * dist_sq


def log_det_gradient_budget(kappa: Scalar, dtype: Precision, *, drift: Scalar = ROUNDED_DRIFT) -> Result:
    """|Δ ∂log_det/∂log σ_k| ≤ (100 + 50 κ) u under (R), first order. docs/theory.md, 9.3."""
    x = _beyond_rounding(drift)
    return (100.0 + 14.0 * x + (50.0 + 8.0 * x) * kappa) * unit_roundoff(dtype)


def torque_budget(dist_sq: Scalar, kappa: Scalar, dtype: Precision, *, drift: Scalar = ROUNDED_DRIFT) -> Result:
    """|Δ ∂dist_sq/∂ω_a| ≤ 600 (κ + κ²) u · dist_sq under (R), along the tangent, first order. docs/theory.md, 9.3."""
    return (600.0 + 82.0 * _beyond_rounding(drift)) * (kappa + kappa * kappa) * unit_roundoff(dtype) * dist_sq


def _beyond_rounding(drift: Scalar) -> Result:
    """What a matrix is further off SO(3) than the rounding of its entries explains."""
    return maximum(drift - ROUNDED_DRIFT, 0.0)


def _relative(drift: Scalar, roundings: Roundings) -> Result:
    """q: ‖ΔQ‖_F / u. docs/theory.md, 6.2."""
    return 3.0 * roundings.relative + 2.0 * drift


def _dist_sq_coefficients(drift: Scalar, roundings: Roundings, last: int) -> tuple[Result, Result]:
    """(c₀, c₁) of num/det after `last` roundings of the quotient."""
    q: Scalar = _relative(drift, roundings)
    local = (roundings.delta + roundings.local) * math.sqrt(3.0) + 2.0 * drift  # ‖Δg‖ / (u ‖δ‖), and Δh
    num = math.sqrt(6.0) * local + math.sqrt(2.0) * q + 2.0 * roundings.cross
    return roundings.num + roundings.det + last + 4.0 * math.sqrt(3.0) * drift, num + q


def _dist_sq_error(kappa: Scalar, dtype: Precision, drift: Scalar, roundings: Roundings, last: int) -> Result:
    constant, slope = _dist_sq_coefficients(drift, roundings, last)
    return _with_second_order((constant + slope * kappa) * unit_roundoff(dtype))


def _moved(dist_sq: Scalar, moved: Scalar, relative: Scalar) -> Result:
    """What is off in dist_sq after √dist_sq moved by `moved` and was computed to `relative`."""
    change = 2.0 * sqrt(dist_sq) * moved + moved * moved
    return relative * (dist_sq + change) + change


def _log_det_term(log_det: Scalar, kappa: Scalar, dtype: Precision, drift: Scalar, roundings: Roundings) -> Result:
    """Absolute error of ½ max(log_det, ·) in a score."""
    error = log_det_budget(kappa, dtype, magnitude=abs(log_det), drift=drift, roundings=roundings)
    return 0.5 * (error + _theta(roundings.log_det_term, unit_roundoff(dtype)) * (abs(log_det) + error))


def _theta(roundings: int, u: float) -> float:
    """What so many factors 1 + ε, |ε| ≤ u, are off 1 at most: nu/(1 − nu)."""
    return roundings * u / (1.0 - roundings * u)


def _with_second_order(first: Scalar) -> Result:
    """e + 2e², or inf from e = 1/8 on."""
    whole = first + 2.0 * first * first
    if isinstance(first, Tensor):
        return torch.where(first <= 0.125, whole, math.inf)
    return whole if first <= 0.125 else math.inf


def _minus_log1m(x: Scalar) -> Result:
    """−ln(1 − x), inf from x = 1 on."""
    if isinstance(x, Tensor):
        inside = x < 1
        return torch.where(inside, -torch.log1p(-torch.where(inside, x, 0.0)), math.inf)
    return -math.log1p(-x) if x < 1 else math.inf
