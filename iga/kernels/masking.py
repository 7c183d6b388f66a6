"""Masked residues made neutral: what stands there may be anything, NaN included, and no gradient comes back from it."""

import torch

from iga._layers import sanitise
from iga._typing import Float, Tensor
from iga.kernels.engine import Geometry

__all__ = ["neutral"]

# q, k, v and value points, each [B, H, N, ·]
Features = tuple[Tensor, ...]


def neutral(
    features: Features, trans: Float[Tensor, "b n 3"], geometry: Geometry, *, look: bool = False
) -> tuple[Features, Tensor, Geometry]:
    """The three, contiguous, with zeros in masked residues, ones for their sigmas, the identity for their rotations.

    `look`: on a CPU, see whether any residue is masked, and leave everything as it is if none is. Not while tracing.
    """
    mask = geometry.mask
    if not (look and mask.device.type == "cpu" and bool(mask.all())):
        _, heads, points, _, _ = geometry.q_mean.shape
        by_head = mask[:, None].expand(-1, heads, -1)
        by_point = mask[:, None, None].expand(-1, heads, points, -1)
        features = tuple(sanitise(x, by_head) for x in features)
        means = (sanitise(x, by_point) for x in (geometry.q_mean, geometry.k_mean))
        sigmas = (torch.where(by_point[..., None], x, x.new_ones(())) for x in (geometry.q_sigma, geometry.k_sigma))
        (q_mean, k_mean), (q_sigma, k_sigma) = means, sigmas
        identity = torch.eye(3, dtype=geometry.rot.dtype, device=mask.device)
        rot = torch.where(mask[..., None, None], geometry.rot, identity)
        trans = sanitise(trans, mask)
        geometry = Geometry(rot, mask, q_mean, q_sigma, k_mean, k_sigma)
    return features, trans.contiguous(), Geometry(*(t.contiguous() for t in vars(geometry).values()))
