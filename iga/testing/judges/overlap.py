"""Judges of the overlap that share no code with `iga.overlap`: float64 by QR, and 50 digits.

The reference, for the *given* numbers: Σ = R_i diag(σ_i²) R_iᵀ + R_j diag(σ_j²) R_jᵀ is built from the matrices, means
and scales as they are given: a float32 matrix is taken as the exact numbers that it holds, rotation or not, and
δ = μ_i − μ_j of the given means. Off SO(3) other forms differ from this by a multiple of κ·‖RᵀR − I‖, which the budgets
of `iga.bounds.rounding` carry as `drift`. `nearest_rotation` first gives the other reference, that of the rotations
nearest to the given matrices; the budgets hold against both (docs/theory.md, section 6.1).
"""

import math

import torch

from iga._typing import Float, Tensor

__all__ = ["condition", "drift", "nearest_rotation", "overlap_digits", "overlap_reference"]


def overlap_reference(
    q_rot: Float[Tensor, "... 3 3"],
    q_mean: Float[Tensor, "... 3"],
    q_sigma: Float[Tensor, "... 3"],
    k_rot: Float[Tensor, "... 3 3"],
    k_mean: Float[Tensor, "... 3"],
    k_sigma: Float[Tensor, "... 3"],
) -> tuple[Tensor, Tensor]:
    """(dist_sq [...], log_det [...]) in float64, differentiable; the leading dimensions broadcast. nm, as given.

    The 6×3 matrix F = [diag(σ_i) R_iᵀ; diag(σ_j) R_jᵀ] has FᵀF = Σ, so its QR factor U gives both numbers without
    squaring the condition: dist_sq = |U⁻ᵀδ|² and log_det = 2 Σ ln|U_kk|. Errors are some tens of κ·2⁻⁵³: under
    10⁻¹⁰ at κ = 5000, which judges float32; float64 is judged by `overlap_digits`.
    """
    half_i = q_sigma.double()[..., :, None] * q_rot.double().mT
    half_j = k_sigma.double()[..., :, None] * k_rot.double().mT
    delta = q_mean.double() - k_mean.double()
    batch = torch.broadcast_shapes(half_i.shape[:-2], half_j.shape[:-2], delta.shape[:-1])
    factor = torch.cat([half_i.expand(*batch, 3, 3), half_j.expand(*batch, 3, 3)], dim=-2)
    upper = torch.linalg.qr(factor).R
    y = torch.linalg.solve_triangular(upper.mT, delta.expand(*batch, 3)[..., None], upper=False)
    return y.square().sum((-2, -1)), 2.0 * upper.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)


def overlap_digits(
    q_rot: Float[Tensor, "... 3 3"],
    q_mean: Float[Tensor, "... 3"],
    q_sigma: Float[Tensor, "... 3"],
    k_rot: Float[Tensor, "... 3 3"],
    k_mean: Float[Tensor, "... 3"],
    k_sigma: Float[Tensor, "... 3"],
    *,
    digits: int = 50,
) -> tuple[Tensor, Tensor]:
    """(dist_sq [...], log_det [...]) of the given numbers to `digits` decimal digits, returned rounded to float64.

    By mpmath, one pair after another (about 0.3 ms each). Σ is built and its cofactors are taken in `digits` plus what
    the cancellation of κ⁴ can cost. Raises ValueError for numbers that are not finite, or σ not above 0.
    """
    arguments = (q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma)
    cores = (2, 1, 1, 2, 1, 1)
    batch = torch.broadcast_shapes(*(a.shape[: a.ndim - c] for a, c in zip(arguments, cores, strict=True)))
    flat = [
        a.detach().double().expand(*batch, *(3,) * c).reshape(-1, 3**c) for a, c in zip(arguments, cores, strict=True)
    ]
    if not all(bool(a.isfinite().all()) for a in flat) or not all(bool((flat[k] > 0).all()) for k in (2, 5)):
        raise ValueError("overlap_digits needs finite rotations and means, and every sigma above 0 nm")
    kappa = condition(flat[2], flat[5])
    spread = float(kappa.max()) if kappa.numel() else 1.0
    extra = 10 + math.ceil(4 * math.log10(spread))
    rows = zip(*(a.tolist() for a in flat), strict=True)
    results = [_digits_of_pair(row, digits + extra) for row in rows]
    both = torch.tensor(results, dtype=torch.float64).reshape(*batch, 2)
    return both[..., 0], both[..., 1]


def nearest_rotation(rot: Float[Tensor, "... 3 3"]) -> Float[Tensor, "... 3 3"]:
    """The rotation nearest to each matrix, in float64: the orthogonal polar factor U Vᵀ of R = U S Vᵀ.

    For matrices near SO(3), determinant above 0; a reflection stays one.
    """
    u, _, vh = torch.linalg.svd(rot.double())
    return (u[..., :, :, None] * vh[..., None, :, :]).sum(-2)


def drift(rot: Float[Tensor, "... 3 3"]) -> Float[Tensor, "..."]:
    """How far each matrix is off SO(3): ½‖RᵀR − I‖_F, which is ‖R − nearest rotation‖_F to first order; float64."""
    r = rot.double()
    gram = (r[..., :, :, None] * r[..., :, None, :]).sum(-3)
    return 0.5 * (gram - torch.eye(3, dtype=torch.float64, device=r.device)).square().sum((-2, -1)).sqrt()


def condition(q_sigma: Float[Tensor, "... 3"], k_sigma: Float[Tensor, "... 3"]) -> Float[Tensor, "..."]:
    """κ of each pair: the largest over the smallest of its six σ; float64."""
    high = torch.maximum(q_sigma.amax(-1), k_sigma.amax(-1)).double()
    return high / torch.minimum(q_sigma.amin(-1), k_sigma.amin(-1)).double()


def _digits_of_pair(pair: tuple[list[float], ...], digits: int) -> tuple[float, float]:
    from mpmath import mp, mpf  # here, so that the float64 judge does not wait for it

    r_i, mu_i, s_i, r_j, mu_j, s_j = pair
    with mp.workdps(digits):
        halves = [
            [[mpf(r[3 * a + k]) * mpf(s[k]) for k in range(3)] for a in range(3)] for r, s in ((r_i, s_i), (r_j, s_j))
        ]
        sigma = [
            [sum((h[a][k] * h[b][k] for h in halves for k in range(3)), mpf(0)) for b in range(3)] for a in range(3)
        ]
        delta = [mpf(x) - mpf(y) for x, y in zip(mu_i, mu_j, strict=True)]
        # adj[a][b] = cofactor of Σ_ab; indices run cyclically, so the signs come out by themselves
        adj = [
            [
                sigma[(a + 1) % 3][(b + 1) % 3] * sigma[(a + 2) % 3][(b + 2) % 3]
                - sigma[(a + 1) % 3][(b + 2) % 3] * sigma[(a + 2) % 3][(b + 1) % 3]
                for b in range(3)
            ]
            for a in range(3)
        ]
        det = sum((sigma[0][b] * adj[0][b] for b in range(3)), mpf(0))
        num = sum((delta[a] * adj[a][b] * delta[b] for a in range(3) for b in range(3)), mpf(0))
        return float(num / det), float(mp.log(det))
