"""Gaussians as the compiled kernels want them, structures of arrays in tiles of residues; and their sums as gradients.

Flat shapes as in `iga.kernels.engine`. What the CPU and the Triton kernels share is here, and nothing else is.
"""

import torch

from iga._typing import Float, Tensor

__all__ = ["SUMS", "finished", "key_fields", "tiled"]

# Sums per query or key and point that `finished` reads: e u (3), then M: 00, 11, 22, 01, 02, 12.
SUMS = 9


def key_fields(mean: Float[Tensor, "b h p n 3"], sigma: Float[Tensor, "b h p n 3"]) -> Float[Tensor, "b h p n 10"]:
    """Mean (3), v = σ² (3), w (3), the product of the two other v, and p, that of all three."""
    v = sigma.square()
    w = torch.stack([v[..., 1] * v[..., 2], v[..., 2] * v[..., 0], v[..., 0] * v[..., 1]], dim=-1)
    return torch.cat([mean, v, w, w[..., :1] * v[..., :1]], dim=-1)


def tiled(x: Float[Tensor, "*lead n f"], lanes: int) -> Float[Tensor, "*lead tiles fl"]:
    """[..., N, F] to [..., tiles, F·lanes], each field contiguous within its tile, padded with ones.

    Ones make a padded residue a Gaussian of σ = 1 at (1, 1, 1); what its "rotation" yields is positive and not read.
    """
    *lead, n, fields = x.shape
    tiles = -(-n // lanes)
    packed = x.new_ones(*lead, tiles * lanes, fields)
    packed[..., :n, :] = x
    return packed.unflatten(-2, (tiles, lanes)).mT.flatten(-2).contiguous()


def finished(
    rot: Float[Tensor, "b n 3 3"], sigma: Float[Tensor, "b h p n 3"], sums: Float[Tensor, "b h p n 9"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to rot, a query's mean and its sigma from Σ e u and Σ M.

        ∂μ = −2 R Σ e u        ∂σ_k = 2 σ_k M_kk        ∂R = R K,  K_ab = Σ_hp M_ab (σ_b² − σ_a²)

    R K is the tangent part of ∂R = 2 R Σ_hp M D: the rest has no meaning on SO(3), and its rounding would reach the
    tangent part, which is 0 for a sphere.
    """
    u, diagonal = sums[..., :3], sums[..., 3:6]
    r = rot[:, None, None]
    mean = -2.0 * (r[..., 0] * u[..., :1] + r[..., 1] * u[..., 1:2] + r[..., 2] * u[..., 2:])
    k01, k02, k12 = (
        (sums[..., m] * (sigma[..., b] - sigma[..., a]) * (sigma[..., b] + sigma[..., a])).sum((1, 2))[..., None]
        for m, a, b in ((6, 0, 1), (7, 0, 2), (8, 1, 2))
    )
    r0, r1, r2 = rot.unbind(-1)
    turned = torch.stack([-r1 * k01 - r2 * k02, r0 * k01 - r2 * k12, r0 * k02 + r1 * k12], dim=-1)
    return turned, mean, 2.0 * sigma * diagonal
