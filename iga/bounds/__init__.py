"""Bounds of the score, a function a theorem: `exact` in exact arithmetic, `rounding` for floating point on top.

docs/theory.md has the proofs; `summary` puts the numbers into the table of `iga bounds`. Arguments are compared at this
door, once: half precision, integer and complex tensors raise ValueError.
"""

import types

from iga.bounds._scalar import of_numbers
from iga.bounds.exact import (
    FP16_MAX,
    capped_logit_bound,
    displacement_bound,
    dist_sq_bound,
    dist_sq_gradient_bound,
    fits_in_fp16,
    floor_gradient,
    gaussian_score_bound,
    gaussian_score_range,
    geometry_logit_bound,
    log_det_ceiling,
    log_det_floor,
    log_scale_gradient_bound,
    max_weight_bound,
    scaling_exponent,
    smooth_ceiling,
    span_for_weight,
    sqrt_dist_sq_bound,
    student_t_score_bound,
    student_t_score_range,
    torque_bound,
    weighted_logit_bound,
)
from iga.bounds.rounding import (
    ROUNDED_DRIFT,
    digits_left,
    dist_sq_bound_budget,
    dist_sq_budget,
    dist_sq_coefficients,
    dist_sq_gradient_budget,
    far_translation_budget,
    gaussian_score_budget,
    log_det_budget,
    log_det_coefficients,
    log_det_floor_budget,
    log_det_gradient_budget,
    log_scale_gradient_budget,
    mean_budget,
    moved_dist_sq_budget,
    point_sum_budget,
    sigma_range,
    student_t_score_budget,
    textbook_loss,
    torque_budget,
    unit_roundoff,
)
from iga.bounds.summary import (
    BoundRow,
    bounds_rows,
    bounds_summary,
)

__all__ = [
    "FP16_MAX",
    "ROUNDED_DRIFT",
    "BoundRow",
    "bounds_rows",
    "bounds_summary",
    "capped_logit_bound",
    "digits_left",
    "displacement_bound",
    "dist_sq_bound",
    "dist_sq_bound_budget",
    "dist_sq_budget",
    "dist_sq_coefficients",
    "dist_sq_gradient_bound",
    "dist_sq_gradient_budget",
    "far_translation_budget",
    "fits_in_fp16",
    "floor_gradient",
    "gaussian_score_bound",
    "gaussian_score_budget",
    "gaussian_score_range",
    "geometry_logit_bound",
    "log_det_budget",
    "log_det_ceiling",
    "log_det_coefficients",
    "log_det_floor",
    "log_det_floor_budget",
    "log_det_gradient_budget",
    "log_scale_gradient_bound",
    "log_scale_gradient_budget",
    "max_weight_bound",
    "mean_budget",
    "moved_dist_sq_budget",
    "point_sum_budget",
    "scaling_exponent",
    "sigma_range",
    "smooth_ceiling",
    "span_for_weight",
    "sqrt_dist_sq_bound",
    "student_t_score_bound",
    "student_t_score_budget",
    "student_t_score_range",
    "textbook_loss",
    "torque_bound",
    "torque_budget",
    "unit_roundoff",
    "weighted_logit_bound",
]

for _name in __all__:
    if isinstance(globals()[_name], types.FunctionType):
        globals()[_name] = of_numbers(globals()[_name])
