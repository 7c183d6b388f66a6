"""Bounds of one step: what moving means and log scales can do to a Student-t score, and so to attention.

A step is straight in (μ, log σ): the difference of a pair's means moves by `displacement` nm, whatever moves them, and
every log σ by at most `log_scale_step`; σ ≥ σ_min on the way, frames as they are. docs/theory.md, 9.5.
"""

import math

from iga.bounds._scalar import Result, Scalar, sqrt
from iga.bounds.exact import student_t_gradient_bound, student_t_log_scale_gradient_bound

__all__ = ["student_t_curvature_bound", "student_t_step_bound"]


def student_t_curvature_bound(
    displacement: Scalar, log_scale_step: Scalar, sigma_min: Scalar, *, dof: Scalar
) -> Result:
    """|d²score/dt²| ≤ (ν+3)((ρ/√ν + b)² + b²) + 6b² along a step, t from 0 to 1; ρ = displacement/(√2 σ_min),
    b = log_scale_step.

    So a step changes the score by its slope to within half of this. Without a clamp of log_det. Tight for b = 0.
    docs/theory.md, 9.5.
    """
    reach = displacement / (math.sqrt(2.0) * sigma_min * sqrt(dof)) + log_scale_step
    both = log_scale_step * log_scale_step
    return (dof + 3.0) * (reach * reach + both) + 6.0 * both


def student_t_step_bound(displacement: Scalar, log_scale_step: Scalar, sigma_min: Scalar, *, dof: Scalar) -> Result:
    """|Δscore| ≤ displacement (ν+3)/(2√(2ν) σ_min) + log_scale_step (ν+4) of a step, whatever the pair. A clamp of
    log_det is allowed. docs/theory.md, 9.5; `weight_change_bound` has what follows for the weights."""
    by_mean = student_t_gradient_bound(sigma_min, dof=dof)
    return displacement * by_mean + log_scale_step * student_t_log_scale_gradient_bound(dof=dof, mean_moves=False)
