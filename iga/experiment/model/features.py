"""The features that the network gets of a noised chain: of residues and of pairs, invariant under rigid motions.

Times, positions in the chain and differences of them are shown as sines and cosines; distances of CA as the bin that
they fall in; the Gaussian of a residue as its six numbers in the residue's own frame. So every attention gets the same
information, also one that does not use Gaussians itself.

Source: FrameFlow (J. Yim et al. 2023) for the kinds of features and the bins.
"""

import math

import torch
from torch import nn

from iga._layers import linear
from iga._typing import Float, Tensor
from iga.gaussian import GaussianRigid

__all__ = [
    "EMBEDDING",
    "REFERENCE_SIGMA",
    "EdgeFeatures",
    "NodeFeatures",
    "distance_bins",
    "gaussian_numbers",
    "sinusoids",
]

EMBEDDING = 32
REFERENCE_SIGMA = 0.1  # nm, an ordinary residue: the unit of local means, and the zero of log scales
_TIMES = (0.02, 4.0)  # shortest and longest wave; flow time runs from 0 to 1
_POSITIONS = (4.0, 4096.0)  # in residues
_BINS = 22
_FIRST_EDGE, _LAST_EDGE = 0.1, 2.0  # nm


def sinusoids(x: Float[Tensor, "*b"], *, shortest: float, longest: float) -> Float[Tensor, "*b 32"]:
    """sin and cos of 2π x/λ for 16 wavelengths λ from `shortest` to `longest`, each the same multiple of the last."""
    half = EMBEDDING // 2
    ratio = (shortest / longest) ** (1 / (half - 1))
    frequencies = [2 * math.pi / shortest * ratio**k for k in range(half)]
    angle = x[..., None] * torch.tensor(frequencies, dtype=x.dtype, device=x.device)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def distance_bins(trans: Float[Tensor, "*b n 3"]) -> Tensor:
    """Which bin the distance of each pair falls in, long [*b, n, n]: 0 under 0.1 nm, then 22 bins with edges that are
    evenly spaced from 0.1 to 2.0 nm, the last one open."""
    total = torch.zeros((), dtype=trans.dtype, device=trans.device)
    for x in trans.unbind(-1):
        total = total + (x[..., :, None] - x[..., None, :]).square()
    step = (_LAST_EDGE - _FIRST_EDGE) / (_BINS - 1)
    edges = torch.tensor([(_FIRST_EDGE + step * k) ** 2 for k in range(_BINS)], dtype=trans.dtype, device=trans.device)
    return torch.bucketize(total.detach(), edges, right=True)


def gaussian_numbers(gaussian: GaussianRigid) -> Float[Tensor, "*b n 6"]:
    """(local mean / 0.1 nm, log_scale − ln 0.1): numbers of order one for an ordinary residue."""
    scale = gaussian.log_scale - math.log(REFERENCE_SIGMA)
    return torch.cat([gaussian.local_mean / REFERENCE_SIGMA, scale], dim=-1)


class NodeFeatures(nn.Module):
    """Flow time, position in the chain and Gaussian of each residue → [b, n, c_s], normalised."""

    def __init__(self, c_s: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            linear(2 * EMBEDDING + 6, c_s), nn.ReLU(), linear(c_s, c_s), nn.ReLU(), linear(c_s, c_s), nn.LayerNorm(c_s)
        )

    def forward(self, gaussian: GaussianRigid, t: Float[Tensor, " b"], index: Float[Tensor, "b n"]) -> Tensor:
        time = sinusoids(t, shortest=_TIMES[0], longest=_TIMES[1])[:, None, :].expand(*index.shape, -1)
        position = sinusoids(index, shortest=_POSITIONS[0], longest=_POSITIONS[1])
        return self.layers(torch.cat([time, position, gaussian_numbers(gaussian).to(index.dtype)], dim=-1))


class EdgeFeatures(nn.Module):
    """Both residues' features, their relative position and the bin of their distance → [b, n, n, c_z], normalised.

    The first layer acts on the parts, one by one, and the sum is its value on all of them side by side: nothing wider
    than c_z exists for every pair.
    """

    def __init__(self, c_s: int, c_z: int) -> None:
        super().__init__()
        self.from_row = linear(c_s, c_z)
        self.from_column = linear(c_s, c_z, bias=False)
        self.from_position = linear(EMBEDDING, c_z, bias=False)
        self.from_distance = nn.Embedding(_BINS + 1, c_z)
        self.layers = nn.Sequential(nn.ReLU(), linear(c_z, c_z), nn.ReLU(), linear(c_z, c_z), nn.LayerNorm(c_z))

    def forward(
        self, s: Float[Tensor, "b n c_s"], trans: Float[Tensor, "b n 3"], index: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b n n c_z"]:
        position = sinusoids(index[:, :, None] - index[:, None, :], shortest=_POSITIONS[0], longest=_POSITIONS[1])
        first = self.from_row(s)[:, :, None, :] + self.from_column(s)[:, None, :, :]
        first = first + self.from_position(position) + self.from_distance(distance_bins(trans))
        return self.layers(first)
