"""Degenerate pairs of Gaussians as genomes: rows of numbers that a search can draw, mutate and decode.

Needles, pancakes and spheres with σ at and between the ends of the domain, frames turned against each other by angles
from 1e-7 to π (often about 1/κ), δ along and across the long axes over decades. Genomes are float64; `decode` rounds
rotations, means and σ once to the domain's dtype.
"""

import math
from dataclasses import dataclass

import torch

from iga._typing import Float, Tensor

__all__ = ["DOMAIN", "GENES", "Domain", "Pairs", "decode", "degenerate_pairs", "encode", "mutated"]

Pairs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]

# columns of a genome: rotation vector of frame i, axis of the turn from i to j, log10 of its angle, ln σ_i and ln σ_j,
# log10 |δ_k| in frame i (nm), signs of δ_k, μ_j (nm)
_FRAME, _AXIS, _ANGLE, _SIGMA, _DELTA, _SIGN, _MEAN = (
    slice(0, 3),
    slice(3, 6),
    slice(6, 7),
    slice(7, 13),
    slice(13, 16),
    slice(16, 19),
    slice(19, 22),
)
GENES = 22


@dataclass(frozen=True)
class Domain:
    """Where pairs are drawn: σ in [sigma_min, sigma_max] nm, computed in `dtype`."""

    sigma_min: float = 0.03
    sigma_max: float = 150.0
    dtype: torch.dtype = torch.float32


DOMAIN = Domain()


def degenerate_pairs(count: int, generator: torch.Generator, domain: Domain = DOMAIN) -> Float[Tensor, "count genes"]:
    """Genomes of `count` pairs, float64: every mixture of shape, frame angle and direction of δ that hurts."""

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=generator, dtype=torch.float64)

    def chance(p: float, *size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64) < p

    low, high = math.log(domain.sigma_min), math.log(domain.sigma_max)
    # σ: each axis short, long or anywhere; the long end anywhere too, so that every κ occurs; then exact ends
    top = torch.where(chance(0.4, count, 1), high, uniform(low, high, count, 1))
    bottom = torch.where(chance(0.7, count, 1), low, uniform(low, high, count, 1))
    anywhere = bottom + (top - bottom) * uniform(0.0, 1.0, count, 6)
    ends = torch.where(chance(0.5, count, 6), bottom, top)
    sigma = torch.where(chance(0.7, count, 1), ends, anywhere)
    sigma[:, 3:] = torch.where(chance(0.3, count, 1), sigma[:, :3], sigma[:, 3:])  # twins
    sigma = torch.where(chance(0.02, count, 1), bottom, sigma)  # spheres
    # angle: decades from 1e-7 to π, often about 1/κ; axis: often one of the frame's own
    angle = uniform(-7.0, math.log10(math.pi), count, 1)
    resonant = (sigma.amin(-1, keepdim=True) - sigma.amax(-1, keepdim=True)) / math.log(10.0)
    angle = torch.where(chance(0.5, count, 1), (resonant + uniform(-1.0, 1.0, count, 1)).clamp(-7.0, 0.49), angle)
    axis = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    axis = torch.where(chance(0.3, count, 1), axis * 10.0 ** uniform(-6.0, 0.0, count, 3), axis)
    frame = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    frame = frame / frame.norm(dim=-1, keepdim=True) * uniform(0.0, math.pi, count, 1)
    # δ: decades, each component with decades of its own, or along one axis only
    size = uniform(-3.0, 3.0, count, 1)
    tilt = torch.where(chance(0.5, count, 1), uniform(-7.0, 0.0, count, 3), torch.zeros(count, 3, dtype=torch.float64))
    along = torch.where(chance(0.2, count, 3), torch.full((count, 3), -7.0, dtype=torch.float64), tilt)
    sign = torch.where(chance(0.5, count, 3), 1.0, -1.0).double()
    mean = torch.where(chance(0.5, count, 1), 0.0, torch.randn(count, 3, generator=generator, dtype=torch.float64))
    return torch.cat([frame, axis, angle, sigma, size + along, sign, mean * 10.0**size], dim=-1)


def decode(genome: Float[Tensor, "n genes"], domain: Domain = DOMAIN) -> Pairs:
    """The Gaussians (q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma) of each genome, rounded once to domain.dtype."""
    r_i = _turn(genome[:, _FRAME], genome[:, _FRAME].norm(dim=-1))
    relative = _turn(genome[:, _AXIS], 10.0 ** genome[:, _ANGLE][:, 0])
    r_j = (r_i[:, :, :, None] * relative[:, None, :, :]).sum(-2)
    sigma = genome[:, _SIGMA].exp().clamp(domain.sigma_min, domain.sigma_max).to(domain.dtype)
    local = genome[:, _SIGN] * 10.0 ** genome[:, _DELTA]
    mean_j = genome[:, _MEAN]
    mean_i = (r_i * local[:, None, :]).sum(-1) + mean_j
    rounded = (x.to(domain.dtype) for x in (r_i, mean_i, sigma[:, :3], r_j, mean_j, sigma[:, 3:]))
    return tuple(rounded)  # pyright: ignore[reportReturnType] - six of them


def encode(pairs: Pairs) -> Float[Tensor, "n genes"]:
    """Genomes that decode to these pairs, to within rounding: of what was found elsewhere, to go on from."""
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = (x.detach().double() for x in pairs)
    relative = (q_rot[:, :, :, None] * k_rot[:, :, None, :]).sum(-3)
    local = (q_rot * (q_mean - k_mean)[:, :, None]).sum(-2)
    axis, angle = _turn_of(relative)
    frame, size = _turn_of(q_rot)
    sigma = torch.cat([q_sigma, k_sigma], dim=-1).log()
    delta = local.abs().clamp(min=1e-9).log10()
    sign = torch.where(local < 0, -1.0, 1.0).double()
    return torch.cat(
        [frame * size[:, None], axis, angle.clamp(min=1e-8).log10()[:, None], sigma, delta, sign, k_mean], -1
    )


def mutated(genome: Tensor, generator: torch.Generator, domain: Domain) -> Tensor:
    """A few genes moved by a step of random size; σ now and then to an end, a sign now and then flipped."""
    n = len(genome)

    def rand(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    step = 10.0 ** (-6.0 * rand(n, 1))
    touched = rand(n, GENES) < (0.05 + 0.3 * rand(n, 1))
    noise = torch.randn(n, GENES, generator=generator, dtype=torch.float64)
    scale = torch.ones(GENES, dtype=torch.float64)
    scale[_ANGLE], scale[_SIGMA], scale[_DELTA], scale[_SIGN] = 2.0, 3.0, 2.0, 0.0
    scaled = scale.expand(n, GENES).clone()
    scaled[:, _MEAN] = 10.0 ** genome[:, _DELTA].amax(-1, keepdim=True)
    scaled[:, _AXIS] = genome[:, _AXIS].abs().amax(-1, keepdim=True)
    out = torch.where(touched, genome + step * noise * scaled, genome)
    flip = rand(n, 3) < 0.02
    out[:, _SIGN] = torch.where(flip, -out[:, _SIGN], out[:, _SIGN])
    ends = torch.where(rand(n, 6) < 0.5, math.log(domain.sigma_min), math.log(domain.sigma_max))
    sigma = torch.where(rand(n, 6) < 0.02, ends, out[:, _SIGMA])
    out[:, _SIGMA] = sigma.clamp(math.log(domain.sigma_min), math.log(domain.sigma_max))
    out[:, _ANGLE] = out[:, _ANGLE].clamp(-8.0, math.log10(math.pi))
    out[:, _DELTA] = out[:, _DELTA].clamp(-9.0, 3.0)
    out[:, _MEAN] = out[:, _MEAN].clamp(-1e3, 1e3)
    return out


def _turn_of(rot: Tensor) -> tuple[Tensor, Tensor]:
    """(unit axis [n, 3], angle [n] in [0, π]) of each rotation, by the quaternion's largest part."""
    m = [[rot[:, i, j] for j in range(3)] for i in range(3)]
    trace = m[0][0] + m[1][1] + m[2][2]
    # 4 q qᵀ, row by row: any row that is not small is the quaternion
    rows = torch.stack(
        [
            torch.stack([1 + trace, m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]], dim=-1),
            torch.stack([m[2][1] - m[1][2], 1 + 2 * m[0][0] - trace, m[0][1] + m[1][0], m[0][2] + m[2][0]], dim=-1),
            torch.stack([m[0][2] - m[2][0], m[0][1] + m[1][0], 1 + 2 * m[1][1] - trace, m[1][2] + m[2][1]], dim=-1),
            torch.stack([m[1][0] - m[0][1], m[0][2] + m[2][0], m[1][2] + m[2][1], 1 + 2 * m[2][2] - trace], dim=-1),
        ],
        dim=-2,
    )
    best = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)
    quaternion = rows[torch.arange(len(rot)), best]
    quaternion = torch.where(quaternion[:, :1] < 0, -quaternion, quaternion)
    vector = quaternion[:, 1:]
    size = vector.norm(dim=-1)
    axis = torch.where(
        (size > 0)[:, None], vector / size.clamp(min=1e-300)[:, None], torch.tensor([0.0, 0.0, 1.0]).double()
    )
    return axis, 2.0 * torch.atan2(size, quaternion[:, 0])


def _turn(axis: Tensor, angle: Tensor) -> Tensor:
    """Rodrigues' formula in float64: the rotation by `angle` about `axis`, accurate at small angles too."""
    n = axis / axis.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    x, y, z = n.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(-1, 3, 3)
    square = (cross[:, :, :, None] * cross[:, None, :, :]).sum(-2)
    half = 2.0 * (0.5 * angle).sin().square()
    return torch.eye(3, dtype=axis.dtype) + angle.sin()[:, None, None] * cross + half[:, None, None] * square
