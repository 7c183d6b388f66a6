"""Pairs of Gaussians under the hypotheses of the theorems, for the tests of `iga.bounds`."""

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


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(count=4000, seed=0, domain=DOUBLE):
    return decode(degenerate_pairs(count, generator(seed), domain), domain)


def model_pairs(count=4000, seed=0):
    """Anchors, frames, σ and u under the hypotheses (H), and the pairs that they make: (extent, u [., 2, 3], pairs)."""
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs(count, seed)
    draw = torch.rand(count, 2, 3, generator=generator(seed + 1), dtype=torch.float64)
    u = OFFSET_MAX * torch.where(draw < 0.3, -1.0, torch.where(draw > 0.7, 1.0, 4 * draw - 2)).clamp(-1, 1)
    placed_q, placed_k = (
        rotate(q_rot, u[:, 0] * q_sigma) + q_mean,
        rotate(k_rot, u[:, 1] * k_sigma) + k_mean,
    )
    extent = (q_mean - k_mean).norm(dim=-1)
    return extent, u, (q_rot, placed_q, q_sigma, k_rot, placed_k, k_sigma)


def aligned(sigma, delta, other=None):
    """A pair in the same frame: (dist_sq, log_det) by the reference, from lists."""
    row = lambda x: torch.tensor(x, dtype=torch.float64)  # noqa: E731
    found = overlap_reference(EYE, row(delta), row(sigma), EYE, row([0.0] * 3), row(sigma if other is None else other))
    return float(found[0]), float(found[1])
