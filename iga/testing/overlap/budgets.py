"""The error that any correct overlap function may have: c κ u, whatever its algorithm (docs/theory.md, section 14).

Correct means as accurate as a backward stable factorisation of the 6×3 factor F = [diag(σ_i) R_iᵀ; diag(σ_j) R_jᵀ]:
the exact answer for inputs each moved by p u of its norm. κ(F) ≤ κ, and first order gives

    dist_sq        2p κ u, relative                 log_det            6p κ u + 2u |log_det|
    ∂dist_sq/∂δ    2p κ u · √2 √dist_sq/m_σ         ∂dist_sq/∂log σ    4p κ u · dist_sq
    ∂log_det/∂log σ  4p κ u                         torques            4p κ² u · dist_sq, 4p κ² u

In float64 a form that squares the condition still has six digits at κ = 5000, as many as float32 has at κ = 1: there κ²
stands for κ, and a note says so where κ would not have done. The derivative of such a form loses one κ more.
"""

import torch

from iga._typing import Tensor
from iga.bounds.rounding import unit_roundoff

__all__ = ["BACKWARD", "Budget", "allowance", "gradient_budgets", "share", "value_budgets"]

# p: Householder QR of a 6×3 matrix moves it by a small multiple (3) of m n u = 18 u, the solve by n² u = 9 u.
BACKWARD = 64.0

Budget = dict[str, Tensor]


def share(error: Tensor, limit: Tensor) -> Tensor:
    """error/limit: 0 where both are 0, infinite where the limit alone is, and not a number for what is not finite."""
    return torch.where((error == 0) & (limit == 0), 0.0, error / limit)


def allowance(kappa: Tensor, dtype: torch.dtype) -> Tensor:
    """κ u in float32, κ² u in float64."""
    u = unit_roundoff(dtype)
    return kappa * u if dtype == torch.float32 else kappa.square() * u


def value_budgets(dist_sq: Tensor, log_det: Tensor, kappa: Tensor, dtype: torch.dtype) -> Budget:
    """Absolute errors that dist_sq and log_det [...] may have; infinite where first order no longer describes them."""
    part = 2 * BACKWARD * allowance(kappa, dtype)
    within = torch.where(part <= 0.5, part, torch.inf)
    ulp = 2 * unit_roundoff(dtype) * log_det.abs()
    relative = torch.where(dist_sq == 0, 0.0, within * dist_sq)  # equal means must give exactly 0
    return {"dist_sq": relative, "log_det": 3 * within + ulp}


def gradient_budgets(dist_sq: Tensor, kappa: Tensor, smallest: Tensor, dtype: torch.dtype) -> Budget:
    """Absolute errors of each derivative of `gradients.NAMES`; `smallest` is the smaller σ_min of the pair, nm."""
    part = allowance(kappa, dtype) * (1 if dtype == torch.float32 else kappa)
    part = torch.where(2 * BACKWARD * part <= 0.5, part, torch.inf)
    force = dist_sq.sqrt() * 2**0.5 / smallest
    budget = {
        "dist_sq by mean": 2 * BACKWARD * part * force,
        "dist_sq by log sigma": 4 * BACKWARD * part * dist_sq,
        "dist_sq by rotation": 4 * BACKWARD * part * kappa * dist_sq,
        "log_det by mean": torch.zeros_like(dist_sq),
        "log_det by log sigma": 4 * BACKWARD * part,
        "log_det by rotation": 4 * BACKWARD * part * kappa,
    }
    # the claim is void where the part is; 0 times infinity at coincident means is no claim either
    return {
        name: torch.where(part.isinf(), torch.inf, value.nan_to_num(nan=torch.inf)) for name, value in budget.items()
    }
