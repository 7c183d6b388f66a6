"""Clean targets: right functions of three algorithms, on which no check may raise an alarm."""

import torch

from iga._typing import Tensor
from iga.overlap import gaussian_overlap
from iga.testing.judges.overlap import overlap_reference
from iga.testing.overlap.subject import OverlapSubject

__all__ = ["CLEAN", "CLOSED"]

CLOSED = "closed form"


def _float64_reference(*pair: Tensor) -> tuple[Tensor, Tensor]:
    """QR in float64, rounded to the dtype that came."""
    dist_sq, log_det = overlap_reference(*pair)
    return dist_sq.to(pair[0].dtype), log_det.to(pair[0].dtype)


def _qr(
    q_rot: Tensor, q_mean: Tensor, q_sigma: Tensor, k_rot: Tensor, k_mean: Tensor, k_sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """QR of the 6×3 factor [diag(σ_i) R_iᵀ; diag(σ_j) R_jᵀ] in the dtype that came: dist_sq = |U⁻ᵀδ|²."""
    halves = (q_sigma[..., :, None] * q_rot.mT, k_sigma[..., :, None] * k_rot.mT)
    delta = q_mean - k_mean
    batch = torch.broadcast_shapes(halves[0].shape[:-2], halves[1].shape[:-2], delta.shape[:-1])
    factor = torch.cat([half.expand(*batch, 3, 3) for half in halves], dim=-2)
    upper = torch.linalg.qr(factor).R
    y = torch.linalg.solve_triangular(upper.mT, delta.expand(*batch, 3)[..., None], upper=False)
    return y.square().sum((-2, -1)), 2 * upper.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)


CLEAN: dict[str, OverlapSubject] = {
    CLOSED: OverlapSubject(CLOSED, gaussian_overlap),
    "float64 reference": OverlapSubject("float64 reference", _float64_reference),
    "QR of the 6×3 factor": OverlapSubject("QR of the 6×3 factor", _qr),
}
