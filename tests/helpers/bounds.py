"""Shared parts of the tests of `iga.bounds`: pairs of Gaussians under the hypotheses, and theorems in forty digits."""

import mpmath
import torch

from iga.rotation import rotate
from iga.search.pairs import Domain, decode, degenerate_pairs
from iga.testing.judges.overlap import overlap_reference

SIGMA_MIN, SIGMA_MAX, OFFSET_MAX = 0.03, 150.0, 3.0
DOUBLE = Domain(dtype=torch.float64)
SINGLE = Domain(dtype=torch.float32)
EYE = torch.eye(3, dtype=torch.float64)
# the reference's own rounding, some tens of κ·2⁻⁵³ at κ = 5000
SLACK = 1e-10
# its derivatives go through the factor twice, and lose κ each time: three terms of κ² 2⁻⁵³
GRADIENT_SLACK = 3 * (SIGMA_MAX / SIGMA_MIN) ** 2 * 2.0**-53


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(count=4000, seed=0, domain=DOUBLE):
    return decode(degenerate_pairs(count, generator(seed), domain), domain)


def model_pairs(count=4000, seed=0):
    """Anchors, frames, σ and u under the hypotheses (H), and the pairs that they make: (extent, u [., 2, 3], pairs)."""
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs(count, seed)
    draw = torch.rand(count, 2, 3, generator=generator(seed + 1), dtype=torch.float64)
    u = OFFSET_MAX * torch.where(draw < 0.3, -1.0, torch.where(draw > 0.7, 1.0, 4 * draw - 2)).clamp(-1, 1)
    placed_q, placed_k = (rotate(q_rot, u[:, 0] * q_sigma) + q_mean, rotate(k_rot, u[:, 1] * k_sigma) + k_mean)
    extent = (q_mean - k_mean).norm(dim=-1)
    return extent, u, (q_rot, placed_q, q_sigma, k_rot, placed_k, k_sigma)


def aligned(sigma, delta, other=None):
    """A pair in the same frame: (dist_sq, log_det) by the reference, from lists."""
    row = lambda x: torch.tensor(x, dtype=torch.float64)  # noqa: E731
    found = overlap_reference(EYE, row(delta), row(sigma), EYE, row([0.0] * 3), row(sigma if other is None else other))
    return float(found[0]), float(found[1])


# The theorems of docs/theory.md that several tests evaluate again, with κ = k, u = unit roundoff, ρ = drift.
MP = mpmath.mp.clone()
MP.dps = 40


def score_range(extent, low, high, offset, clamp, dof=None):
    """(low, high) of one score, 3.3: the shortest axis of Σ has variance 2 σ_min² or 2 σ_max² where it is deepest."""
    depths = []
    for sigma in (low, high):
        dist_sq = (extent / (MP.sqrt(2) * sigma) + MP.sqrt(6) * offset) ** 2
        log_det = MP.ln(2 * sigma**2) + 2 * MP.ln(2 * high**2)
        falls = dist_sq / 2 if dof is None else (dof + 3) / 2 * MP.log1p(dist_sq / dof)
        depths.append(falls + max(log_det, clamp) / 2)
    return -max(depths), -max(3 * MP.ln(2 * low**2), clamp) / 2


def second_order(e):
    return e + 2 * e**2


# Units of rounding of whichever implementation runs (docs/theory.md, 6.2): Q, δ, g and h, T; det, num; the logarithm.
INNER, CROSS, DET, NUM, LOG, LOG_AT_ONE = 3, 3, 17, 17, 4, 3


def dist_sq_budget(k, u, rho, last=5):
    """6.4, with 6.2; `last` roundings of the quotient."""
    q, gamma = 3 * INNER + 2 * rho, (1 + INNER) * MP.sqrt(3) + 2 * rho
    slope = MP.sqrt(6) * gamma + MP.sqrt(2) * q + 2 * CROSS + q
    return second_order((DET + NUM + last + 4 * MP.sqrt(3) * rho + slope * k) * u)


def log_det_budget(k, u, rho, size):
    """6.3."""
    first = (DET + 2 * MP.sqrt(3) * rho + (3 * INNER + 2 * rho) * k) * u
    return second_order(first) + LOG * u * size + LOG_AT_ONE * u


def log_det_floor_budget(sigma_min, u, rho):
    """6.5."""
    first = DET + MP.sqrt(3) / 2 * (3 * INNER + 2 * rho) + 6 + 1
    return (first + LOG_AT_ONE) * u + LOG * u * abs(3 * MP.ln(2 * sigma_min**2))
