"""Bounds of one step: what moving means, log scales and frames can do to a Student-t score, and so to attention.

Along a step the difference of a pair's means moves by `displacement` nm, whatever moves it, every log σ straight by at
most `log_scale_step`, and either frame turns by at most `turn` radians; σ ≥ σ_min on the way, and `kappa` is at least
the ratio of the largest to the smallest σ of either Gaussian. docs/theory.md, 9.5.
"""

import math

from iga.bounds._scalar import Result, Scalar, sqrt
from iga.bounds.exact import student_t_gradient_bound, student_t_log_scale_gradient_bound

__all__ = ["student_t_curvature_bound", "student_t_step_bound"]


def student_t_curvature_bound(
    displacement: Scalar,
    log_scale_step: Scalar,
    sigma_min: Scalar,
    *,
    dof: Scalar,
    turn: Scalar = 0.0,
    kappa: Scalar = 1.0,
    bend: Scalar = 0.0,
) -> Result:
    """|d²score/dt²| along a step, t from 0 to 1: (ν+3)((ρ/√ν + s)² + s² + e/2) + 6s² + 3e/2, and bend · |∂score/∂μ|.

    ρ = displacement/(√2 σ_min), s = log_scale_step + turn (κ − 1/κ)/√3, e = (2/√3) turn² (κ² − 1/κ²)
    + (8/√3) log_scale_step · turn (κ + 1/κ); bend ≥ |d²δ/dt²| in nm, 0 for a straight way: a mean at x nm from the
    point about which its residue turns bends by turn² x. So a step changes the score by its slope to within half of
    this. Without a clamp of log_det. Tight for displacement alone. docs/theory.md, 9.5.
    """
    by_scale = log_scale_step + turn * (kappa - 1.0 / kappa) / math.sqrt(3.0)
    reach = displacement / (math.sqrt(2.0) * sigma_min * sqrt(dof)) + by_scale
    squares = turn * turn * (kappa * kappa - 1.0 / (kappa * kappa))
    excess = (2.0 * squares + 8.0 * log_scale_step * turn * (kappa + 1.0 / kappa)) / math.sqrt(3.0)
    both = by_scale * by_scale
    straight = (dof + 3.0) * (reach * reach + both + 0.5 * excess) + 6.0 * both + 1.5 * excess
    return straight + bend * student_t_gradient_bound(sigma_min, dof=dof)


def student_t_step_bound(
    displacement: Scalar,
    log_scale_step: Scalar,
    sigma_min: Scalar,
    *,
    dof: Scalar,
    turn: Scalar = 0.0,
    kappa: Scalar = 1.0,
) -> Result:
    """|Δscore| ≤ displacement (ν+3)/(2√(2ν) σ_min) + log_scale_step (ν+4) + turn (ν+5)(κ − 1/κ)/√3 of a step, whatever
    the pair; displacement is the length of the way. A clamp of log_det is allowed. docs/theory.md, 9.5;
    `weight_change_bound` has what follows for the weights."""
    by_mean = student_t_gradient_bound(sigma_min, dof=dof)
    by_scale = student_t_log_scale_gradient_bound(dof=dof, mean_moves=False)
    by_turn = (dof + 5.0) * (kappa - 1.0 / kappa) / math.sqrt(3.0)
    return displacement * by_mean + log_scale_step * by_scale + turn * by_turn
