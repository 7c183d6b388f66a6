"""The bounds for given floors, extent, points and cap as rows of a table, with the answers that a user wants."""

import math
from dataclasses import dataclass

import torch

from iga.bounds.exact import (
    capped_logit_bound,
    dist_sq_gradient_bound,
    fits_in_fp16,
    gaussian_score_range,
    geometry_logit_bound,
    log_det_ceiling,
    log_det_floor,
    max_weight_bound,
    smooth_ceiling,
    span_for_weight,
    sqrt_dist_sq_bound,
    student_t_gradient_bound,
    student_t_log_scale_gradient_bound,
    student_t_score_range,
    weight_change_bound,
    weighted_logit_bound,
)
from iga.bounds.likely import likely_rounding, rounding_lambda, worst_rounding
from iga.bounds.rounding import (
    ROUNDED_DRIFT,
    digits_left,
    dist_sq_budget,
    dist_sq_coefficients,
    far_translation_budget,
    log_det_budget,
    log_det_coefficients,
    log_det_floor_budget,
    sigma_range,
    textbook_loss,
)
from iga.bounds.roundings import ANY
from iga.bounds.steps import student_t_curvature_bound, student_t_step_bound

__all__ = ["BoundRow", "bounds_rows", "bounds_summary", "check_range"]

SATURATED = 0.9
SCALINGS = ("sum", "rsqrt", "mean")
FAR_NM = 1000.0
# Of a step: how far the means of a pair move against each other, nm, and every log σ.
STEP = 0.01
# Of the likely rounding, that it is exceeded.
FAILURE = 1e-9


@dataclass(frozen=True)
class BoundRow:
    """One row: what is bounded, the number with its unit, and the two answers, "" where they make no sense.

    Made by `bounds_rows`, which raises. Source: docs/theory.md, by the section that `quantity` names.
    """

    quantity: str
    value: str
    fp16: str = ""
    saturates: str = ""
    statement: str = ""


def bounds_summary(
    sigma_min: float = 0.03,
    sigma_max: float = 150.0,
    extent: float = 20.0,
    points: int = 8,
    cap: float | None = None,
    *,
    keys: int = 256,
    dof: float = 4.0,
    offset_max: float = 3.0,
    weight: float = 1.0,
    log_det_min: float | None = None,
    floor: str = "smooth",
    drift: float = ROUNDED_DRIFT,
) -> list[dict[str, str]]:
    """The rows of `bounds_rows` as dicts under the headings of the table that `iga bounds` prints."""
    try:
        rows = bounds_rows(
            sigma_min,
            sigma_max,
            extent,
            points,
            cap,
            keys=keys,
            dof=dof,
            offset_max=offset_max,
            weight=weight,
            log_det_min=log_det_min,
            floor=floor,
            drift=drift,
        )
    except (OverflowError, ZeroDivisionError) as error:
        raise ValueError(
            f"a bound is beyond the range of float64 for sigma_min = {sigma_min:g}, sigma_max = {sigma_max:g}, "
            f"extent = {extent:g}, points = {points}, residues = {keys}; take numbers nearer to those of a protein"
        ) from error
    return [
        {
            "quantity": row.quantity,
            "bound": row.value,
            "fits in fp16": row.fp16,
            f"one of {keys} keys can take {SATURATED}": row.saturates,
            "statement": row.statement,
        }
        for row in rows
    ]


def bounds_rows(
    sigma_min: float,
    sigma_max: float,
    extent: float,
    points: int,
    cap: float | None,
    *,
    keys: int,
    dof: float,
    offset_max: float,
    weight: float,
    log_det_min: float | None,
    floor: str,
    drift: float = ROUNDED_DRIFT,
) -> list[BoundRow]:
    """Every bound and budget for these hypotheses. Lengths in nm; `weight` bounds gate · softplus(geo_scale); `drift`
    in u, how far a frame's matrix is from a rotation (docs/theory.md, 6.7).

    Where a dtype leaves its range under them (docs/theory.md, section 5), its rows are one, which says so. Raises
    ValueError where the hypotheses contradict themselves.
    """
    _check(sigma_min, sigma_max, extent, points, cap, keys, dof, weight, floor)
    if not 0 <= drift < math.inf:
        raise ValueError(f"drift must be at least 0, in units of the roundoff u, got {drift!r}")
    largest = smooth_ceiling(sigma_min, sigma_max) if floor == "smooth" else sigma_max
    dist_sq = sqrt_dist_sq_bound(extent, sigma_min, offset_max) ** 2
    delta = math.sqrt(2.0 * dist_sq) * sigma_min
    steepest = dist_sq_gradient_bound(delta, sigma_min)
    rows = [
        BoundRow("log_det, lowest", f"{log_det_floor(sigma_min):.4f}", "yes", "", "3 ln(2 σ_min²)"),
        BoundRow("log_det, highest", f"{log_det_ceiling(largest):.4f}", "yes", "", "3 ln(2 σ_max²)"),
        BoundRow("dist_sq", f"{dist_sq:.4g}", _fp16(dist_sq), "", "(extent/(√2 σ_min) + √6 u_max)²"),
        BoundRow(
            "|∂dist_sq/∂δ|",
            f"{steepest:.4g} /nm",
            _fp16(steepest),
            "",
            f"|δ|/σ_min² at dist_sq's bound: |δ| = {delta:.4g} nm",
        ),
    ]
    scores = {
        "Gaussian": gaussian_score_range(extent, sigma_min, largest, offset_max, log_det_min),
        f"Student-t, ν = {dof:g}": student_t_score_range(extent, sigma_min, largest, offset_max, log_det_min, dof=dof),
    }
    steepest = student_t_gradient_bound(sigma_min, dof=dof)
    turned = student_t_log_scale_gradient_bound(offset_max, dof=dof, mean_moves=True)
    rows += [
        BoundRow(
            f"Student-t, ν = {dof:g}: |∂score/∂μ|", f"{steepest:.4g} /nm", "", "", "at any distance; theory.md, 9.4"
        ),
        BoundRow(
            f"Student-t, ν = {dof:g}: Σ |∂score/∂log σ|", f"{turned:.4g}", "", "", "means move with σ; theory.md, 9.4"
        ),
        _step_row(sigma_min, dof, weight),
    ]
    for name, (low, high) in scores.items():
        bound = max(abs(low), abs(high))
        rows.append(BoundRow(f"{name}: score", f"{low:.4g} … {high:.4g}", _fp16(bound), "", "theory.md, 3.3"))
        for scaling in SCALINGS:
            total = geometry_logit_bound(bound, points, scaling)
            factor = float(geometry_logit_bound(1.0, points, scaling)) * weight
            capped = "" if cap is None else f"; capped {weighted_logit_bound(total, weight, 1.0, cap):.4g}"
            rows.append(
                BoundRow(
                    f"{name}: |G|, {scaling} of P = {points}",
                    f"{total:.4g}",
                    _fp16(total),
                    _saturates(keys, _bounded(factor * high, cap) - _bounded(factor * low, cap)),
                    "P^α · |score|" + capped,
                )
            )
    if cap is not None:
        limit = capped_logit_bound(cap)
        rows.append(BoundRow("cap", f"{limit:g}", _fp16(limit), _saturates(keys, 2 * limit), "|c tanh(x/c)| ≤ c"))
    return [
        *rows,
        *_rounding_rows(sigma_min, sigma_max, largest, extent, offset_max, drift),
        *(_sum_row(keys, dtype) for dtype in (torch.float32, torch.float64)),
    ]


def _rounding_rows(
    sigma_min: float, sigma_max: float, largest: float, extent: float, offset_max: float, drift: float
) -> list[BoundRow]:
    kappa = largest / sigma_min
    of_dist_sq, of_log_det = (
        "({:.0f} + {:.1f} κ) u".format(*coefficients(drift))
        for coefficients in (dist_sq_coefficients, log_det_coefficients)
    )
    of_floor = ANY.det + 0.5 * math.sqrt(3.0) * log_det_coefficients(drift)[1] + 7.0
    logarithm = f"{ANY.log} u |log_det| + {ANY.log_at_one} u"
    rows = [
        BoundRow("κ", f"{kappa:.4g}", "", "", "σ_max/σ_min, the worst pair"),
        BoundRow("drift", f"{drift:.3g} u", "", "", "a frame's matrix off a rotation; theory.md, 6.7"),
    ]
    for dtype in (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        low, high = sigma_range(extent, dtype, offset_max, gradients=False)
        if not low <= sigma_min <= sigma_max <= high:
            rows.append(
                BoundRow(f"{name}: digits of dist_sq", "none", "", "", f"σ must lie in [{low:.2g}, {high:.2g}] nm")
            )
            continue
        digits, textbook = digits_left(kappa, dtype, drift=drift), digits_left(kappa, dtype, form="textbook")
        rows += [
            BoundRow(f"{name}: digits of dist_sq", f"{digits:.1f}", "", "", f"textbook form: {textbook:.1f}"),
            BoundRow(
                f"{name}: dist_sq, relative",
                f"{dist_sq_budget(kappa, dtype, drift=drift):.2g}",
                "",
                "",
                f"{of_dist_sq}; textbook form: κ² u = {textbook_loss(kappa, dtype):.2g}",
            ),
            BoundRow(
                f"{name}: log_det, absolute",
                f"{log_det_budget(kappa, dtype, drift=drift):.2g}",
                "",
                "",
                f"{of_log_det} + {logarithm}",
            ),
            BoundRow(
                f"{name}: log_det under its floor",
                f"{log_det_floor_budget(dtype, sigma_min, drift=drift):.2g}",
                "",
                "",
                f"{of_floor:.0f} u + {logarithm}",
            ),
            BoundRow(
                f"{name}: √dist_sq, {FAR_NM:g} nm away",
                f"{far_translation_budget(FAR_NM, sigma_min, dtype, centred=True):.2g}",
                "",
                "",
                "√2 u |t|/σ_min, translations centred",
            ),
        ]
    return rows


def _step_row(sigma_min: float, dof: float, weight: float) -> BoundRow:
    """Bounds of what a step does to a score, and to weights whose logits are `weight` times a mean over points."""
    change = student_t_step_bound(STEP, STEP, sigma_min, dof=dof)
    bend = 0.5 * student_t_curvature_bound(STEP, STEP, sigma_min, dof=dof)
    moved = weight_change_bound(weight * change)
    return BoundRow(
        f"Student-t, ν = {dof:g}: |Δscore| of a step, {STEP:g} nm and {STEP:g} in log σ",
        f"{change:.4g}",
        "",
        "",
        f"its slope within {bend:.3g}; mean over points: {100 * moved:.3g} % of a row's weight; theory.md, 9.5",
    )


def _sum_row(terms: int, dtype: torch.dtype) -> BoundRow:
    """The sum of a row's weighted values: a product and an addition for each of its keys."""
    likely = likely_rounding(terms, dtype, rounding_lambda(FAILURE, dtype, terms))
    name = str(dtype).removeprefix("torch.")
    return BoundRow(
        f"{name}: a sum over {terms} keys, of Σ|terms|",
        f"{worst_rounding(terms, dtype):.2g}",
        "",
        "",
        f"worst case; {likely:.2g} with probability 1 − {FAILURE:g} if roundings are random; theory.md, 6.8",
    )


def _bounded(value: float, cap: float | None) -> float:
    return value if cap is None else cap * math.tanh(value / cap)


def check_range(sigma_min: float, sigma_max: float, extent: float, offset_max: float = 3.0) -> None:
    """Raises ValueError, with the range, where float32 leaves it: no digit is to be had there. docs/theory.md, 5."""
    low, high = sigma_range(extent, torch.float32, offset_max, gradients=False)
    if low > high:
        raise ValueError(f"extent must leave room for a σ in float32 (docs/theory.md, section 5), got {extent:g} nm")
    if not low <= sigma_min <= sigma_max <= high:
        raise ValueError(
            f"sigma_min and sigma_max must lie in [{low:.2g}, {high:.2g}] nm at extent = {extent:g} nm: outside, "
            f"products leave the range of float32 (docs/theory.md, section 5); got {sigma_min!r} and {sigma_max!r}"
        )


def _saturates(keys: int, span: float) -> str:
    """Whether logits that span so much let one key take SATURATED, all other terms of the logit being equal."""
    if keys < 2:
        return "yes: it is alone"
    needed = span_for_weight(keys, SATURATED)
    if span >= needed:
        return f"yes: span {span:.3g} ≥ {needed:.3g}"
    return f"no: span {span:.3g}, w_max ≤ {max_weight_bound(keys, span):.2g}"


def _fp16(value: float) -> str:
    return "yes" if fits_in_fp16(value) else "no"


def _check(
    sigma_min: float,
    sigma_max: float,
    extent: float,
    points: int,
    cap: float | None,
    keys: int,
    dof: float,
    weight: float,
    floor: str,
) -> None:
    if not 0 < sigma_min <= sigma_max < math.inf:
        raise ValueError(
            f"sigma_min and sigma_max must be 0 < sigma_min ≤ sigma_max in nm (1 Å = 0.1 nm), "
            f"got {sigma_min!r} and {sigma_max!r}"
        )
    if not 0 <= extent < math.inf:
        raise ValueError(f"extent must be a distance of at least 0 nm, got {extent!r}")
    for name, count in (("points", points), ("keys", keys)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count!r}")
    for name, value in (("cap", cap), ("dof", dof), ("weight", weight)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive finite number, got {value!r}")
    if floor not in ("hard", "smooth"):
        raise ValueError(f"floor must be 'hard' or 'smooth', got {floor!r}")
