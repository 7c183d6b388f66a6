"""The error that any correct overlap function may have: c κ u, whatever its algorithm (docs/theory.md, section 14).

Correct means as accurate as a backward stable factorisation of the 6×3 factor F = [diag(σ_i) R_iᵀ; diag(σ_j) R_jᵀ]:
the exact answer for inputs each moved by p u of its norm. κ(F) ≤ κ, and first order gives

    dist_sq        (2.6κ + 1.4) p u, relative                ∂dist_sq/∂log σ    (8κ + 1) p u · dist_sq
    ∂dist_sq/∂δ    (2.42κ + 0.6) p u · √2 √dist_sq/m_σ       log_det            6κ p u + 2u |log_det|
    torques        4.1κ² p u · dist_sq, 4κ² p u              ∂log_det/∂log σ    4κ p u

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
    u, part = unit_roundoff(dtype), _within(allowance(kappa, dtype))
    of_dist_sq = BACKWARD * (2.6 * part + 1.4 * u) * dist_sq
    relative = torch.where(dist_sq == 0, 0.0, of_dist_sq)  # equal means must give exactly 0
    return {"dist_sq": relative, "log_det": 6 * BACKWARD * part + 2 * u * log_det.abs()}


def _within(part: Tensor) -> Tensor:
    """κ u, infinite where first order no longer describes the errors: from 2p κ u = 1/8 on."""
    return torch.where(2 * BACKWARD * part <= 0.125, part, torch.inf)


def gradient_budgets(dist_sq: Tensor, kappa: Tensor, smallest: Tensor, dtype: torch.dtype) -> Budget:
    """Absolute errors of each derivative of `gradients.NAMES`; `smallest` is the smaller σ_min of the pair, nm."""
    u, part = unit_roundoff(dtype), _within(allowance(kappa, dtype) * (1 if dtype == torch.float32 else kappa))
    force = dist_sq.sqrt() * 2**0.5 / smallest
    budget = {
        "dist_sq by mean": BACKWARD * (2.42 * part + 0.6 * u) * force,
        "dist_sq by log sigma": BACKWARD * (8 * part + u) * dist_sq,
        "dist_sq by rotation": 4.1 * BACKWARD * part * kappa * dist_sq,
        "log_det by mean": torch.zeros_like(dist_sq),
        "log_det by log sigma": 4 * BACKWARD * part,
        "log_det by rotation": 4 * BACKWARD * part * kappa,
    }
    # the claim is void where the part is; 0 times infinity at coincident means is no claim either
    return {
        name: torch.where(part.isinf(), torch.inf, value.nan_to_num(nan=torch.inf)) for name, value in budget.items()
    }
