"""Inputs of `iga.kernels.gaussian_attention`: random, degenerate and of real structures; masked, ragged, batched.

A problem holds the numbers as they are given to an implementation (float32, say); the judge converts the same numbers
to float64. Every output has a cotangent of its own, so that every gradient is exercised.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from iga import rotation
from iga._typing import Tensor
from iga.frame import Frame
from iga.presets import IGAConfig, preset
from iga.search.pairs import decode, degenerate_pairs
from iga.structure import Structure

__all__ = ["CONFIGS", "HALF", "Problem", "degenerate_problem", "random_problem", "structure_problem"]

OUTPUTS = ("values", "points", "pair", "lse")
# Inputs that may come in half precision.
HALF = ("q", "k", "v", "bias", "z")

_CLOSED = preset("sigma_floor", form="closed", jitter=0.0)
# Every form that the geometry can take: both scores, the three scalings, clamp on and off, cap on and off.
CONFIGS: dict[str, IGAConfig] = {
    "bounded": preset("bounded"),
    "gaussian, clamped": replace(_CLOSED, log_det_min=-8.0, geo_scale_init=-6.0),
    "gaussian, sum, capped": replace(_CLOSED, log_det_min=None, point_scaling="sum", logit_cap=5.0, temperature=3.0),
    "t, root, free": replace(preset("bounded"), dof=1.0, logit_cap=None, point_scaling="rsqrt", log_det_min=-8.0),
}


@dataclass(frozen=True, eq=False)
class Problem:
    """The tensors of one call by name, the mask, and the cotangents of its outputs."""

    label: str
    tensors: dict[str, Tensor]
    mask: Tensor
    config: IGAConfig

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> "Problem":
        moved = {name: t.detach().to(device=device, dtype=dtype) for name, t in self.tensors.items()}
        return replace(self, tensors=moved, mask=self.mask.to(device=device))

    def with_half(self, dtype: torch.dtype) -> "Problem":
        """q, k, v, bias and z in half precision; the geometry stays."""
        return replace(self, tensors={n: t.to(dtype) if n in HALF else t for n, t in self.tensors.items()})

    def without(self, *names: str) -> "Problem":
        return replace(self, tensors={n: t for n, t in self.tensors.items() if n not in names})

    def leaves(self) -> "Problem":
        return replace(self, tensors={n: t.detach().clone().requires_grad_() for n, t in self.tensors.items()})

    def call(self, attention: Callable[..., Any], **options: Any) -> Any:
        """What `attention` gives for this problem; its arguments are those of `iga.kernels.gaussian_attention`."""
        t = self.tensors
        return attention(
            t["q"],
            t["k"],
            t["v"],
            t["value_points"],
            (t["q_mean"], t["q_sigma"]),
            (t["k_mean"], t["k_sigma"]),
            Frame(t["rot"], t["trans"]),
            self.mask,
            geo_scale=t["geo_scale"],
            geo_bias=t["geo_bias"],
            gate=t.get("gate"),
            bias=t.get("bias"),
            z=t.get("z"),
            z_weight=t.get("z_weight"),
            config=self.config,
            **options,
        )

    def cotangent(self, name: str, like: Tensor) -> Tensor:
        """Fixed signs and sizes, the same for every implementation and dtype: eighths, exact in half precision."""
        generator = torch.Generator().manual_seed(OUTPUTS.index(name))
        return (torch.randint(-16, 17, like.shape, generator=generator) / 8).to(like)


def random_problem(
    config: str,
    seed: int,
    *,
    batch: int = 2,
    residues: int = 13,
    heads: int = 2,
    points: int = 3,
    channels: Sequence[int] = (4, 5, 2, 6),
    masked: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Problem:
    """Rotations uniform, means normal (1 nm), σ log-normal about 0.3 nm; `channels`: c, cv, pv, cz."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    of_points = (batch, heads, points, residues, 3)
    rot = rotation.random(batch, residues, generator=generator, dtype=torch.float64)
    trans = normal(batch, residues, 3)
    gaussians = [
        trans[:, None, None] + normal(*of_points),
        (0.4 * normal(*of_points) - 1.2).exp(),
        trans[:, None, None] + normal(*of_points),
        (0.4 * normal(*of_points) - 1.2).exp(),
    ]
    mask = torch.rand(batch, residues, generator=generator) > (0.25 if masked else -1.0)
    return _problem(f"random, {config}", config, generator, rot, trans, gaussians, mask, channels, dtype)


def degenerate_problem(
    config: str, seed: int, *, pairs: int = 8, points: int = 2, dtype: torch.dtype = torch.float32
) -> Problem:
    """Residues in pairs that hurt: needles, pancakes and twins of σ in [0.03, 150] nm, frames turned by about 1/κ."""
    generator = torch.Generator().manual_seed(seed)
    r_i, mean_i, sigma_i, r_j, mean_j, sigma_j = (x.double() for x in decode(degenerate_pairs(pairs, generator)))
    rot = torch.cat([r_i, r_j])[None]
    trans = torch.cat([mean_i, mean_j])[None].clamp(-20.0, 20.0)
    sigma = torch.cat([sigma_i, sigma_j])[None, None, None].expand(1, 2, points, -1, -1)
    shift = 0.05 * torch.randn(2, 1, 2, points, 2 * pairs, 3, generator=generator, dtype=torch.float64)
    mean = trans[:, None, None] + shift
    gaussians = [mean[0], sigma, mean[1], sigma]
    mask = torch.ones(1, 2 * pairs, dtype=torch.bool)
    return _problem(f"degenerate, {config}", config, generator, rot, trans, gaussians, mask, (4, 5, 2, 6), dtype)


def structure_problem(
    config: str,
    structure: Structure,
    seed: int,
    *,
    residues: int = 33,
    points: int = 2,
    dtype: torch.dtype = torch.float32,
) -> Problem:
    """The first `residues` of a structure, with the Gaussians of its side chains and the mask of its gaps."""
    generator = torch.Generator().manual_seed(seed)
    rigid = structure.gaussian[: min(residues, structure.n_residues)]
    mask = structure.mask[: rigid.trans.shape[-2]][None]
    rot, trans, local, log_scale = (
        torch.where(mask.reshape(1, -1, *(1,) * (x.ndim - 1)), x.double()[None], torch.zeros(()))
        for x in (rigid.rot, rigid.trans, rigid.local_mean, rigid.log_scale)
    )
    rot = torch.where(mask[..., None, None], rot, torch.eye(3, dtype=torch.float64))
    trans = trans - trans.sum(-2, keepdim=True) / mask.sum()
    sigma = log_scale.exp().clamp(0.03, 150.0)

    def moved() -> tuple[Tensor, Tensor]:
        shape = (1, 2, points, mask.shape[-1], 3)
        offset = torch.randn(shape, generator=generator, dtype=torch.float64)
        scale = (0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)).exp()
        own = local[:, None, None] + offset * sigma[:, None, None]
        return rotation.rotate(rot[:, None, None], own) + trans[:, None, None], sigma[:, None, None] * scale

    gaussians = [*moved(), *moved()]
    gaussians[1], gaussians[3] = gaussians[1].clamp(0.03, 150.0), gaussians[3].clamp(0.03, 150.0)
    return _problem(
        f"{Path(structure.path).name}, {config}", config, generator, rot, trans, gaussians, mask, (4, 5, 2, 6), dtype
    )


def _problem(
    label: str,
    config: str,
    generator: torch.Generator,
    rot: Tensor,
    trans: Tensor,
    gaussians: Sequence[Tensor],
    mask: Tensor,
    channels: Sequence[int],
    dtype: torch.dtype,
) -> Problem:
    """The features around a geometry, all rounded once to `dtype`, which is what implementations are given."""
    batch, heads, _, n, _ = gaussians[0].shape
    c, cv, pv, cz = channels

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    chosen = CONFIGS[config]
    # Gaussian scores of degenerate pairs run to 10⁸: a weight of e⁻⁶ and the cap keep softmax from being one-hot only.
    tensors = {
        "q": normal(batch, heads, n, c),
        "k": normal(batch, heads, n, c),
        "v": normal(batch, heads, n, cv),
        "value_points": normal(batch, heads, n, pv, 3),
        "q_mean": gaussians[0],
        "q_sigma": gaussians[1],
        "k_mean": gaussians[2],
        "k_sigma": gaussians[3],
        "rot": rot,
        "trans": trans,
        "geo_scale": chosen.geo_scale_init + 0.3 * normal(heads),
        "geo_bias": normal(heads),
        "gate": 1.0 + 0.1 * normal(batch).abs(),
        "bias": normal(batch, heads, n, n),
        "z": normal(batch, n, n, cz),
        "z_weight": normal(heads, cz) / math.sqrt(cz),
    }
    return Problem(label, {name: t.to(dtype).contiguous() for name, t in tensors.items()}, mask, chosen)
